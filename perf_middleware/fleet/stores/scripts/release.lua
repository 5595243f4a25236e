-- Give a lease back, or hold it longer.
--
-- KEYS  the lease
-- ARGV  its token; ms to hold it on (0: give it back); the channel; the message for those who wait
local holder = redis.call('GET', KEYS[1])
if not holder or string.sub(holder, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
redis.call('DEL', KEYS[1])
if string.sub(holder, -1) == 'w' then
  redis.call('PUBLISH', ARGV[3], struct.pack('>I8', 0) .. ARGV[4])
end
return 1
