-- Let go of records by their keys, whatever they are.
--
-- KEYS  the counter; the log of purges; then the records
-- ARGV  the channel; then for each record its name in the log, and the message for all
local gone = 0
-- First, as in purge.lua: a full server must take it too.
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -501)
for i = 3, #KEYS do
  local count = redis.call('INCR', KEYS[1])
  redis.call('ZADD', KEYS[2], count, ARGV[2 * i - 4])
  redis.call('PUBLISH', ARGV[1], struct.pack('>I8', count) .. ARGV[2 * i - 3])
  gone = gone + redis.call('UNLINK', KEYS[i])
end
redis.call('PEXPIRE', KEYS[2], 3600000)
return gone
