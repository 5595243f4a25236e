-- Keep announcements for a while from now on.
--
-- KEYS  the announcements by the server's ms until which they are kept
-- ARGV  ms to keep them; the server's ms until which at most (0: that is all the same); then each
-- gives the server's ms
-- First, as in purge.lua: a full server must take it too.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', 0)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept, most = now + tonumber(ARGV[1]), tonumber(ARGV[2])
if most > 0 and most < kept then kept = most end
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], kept, ARGV[i]) end
return now
