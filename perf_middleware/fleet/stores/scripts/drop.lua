-- Let go of one record if it is still the one that is meant.
--
-- KEYS  the record; the counter
-- ARGV  the first bytes behind the head by which it is known; the channel; the message
local head = redis.call('GETRANGE', KEYS[1], 10, 9 + #ARGV[1])
if head ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
local count = redis.call('INCR', KEYS[2])
redis.call('PUBLISH', ARGV[2], struct.pack('>I8', count) .. ARGV[3])
return 1
