-- Be one of those whom a purge waits for, for one lease from now on; not while a writer's
-- announcement is overdue: who wants a lease purges in its place first.
--
-- KEYS  the listeners by the server's ms until which their leases last; the announcements by those
--       until which they are kept; then, for each shard that is kept here, its counter and the name
--       of its life
-- ARGV  who; the lease in ms; who it was before, and is not any more ('': nobody); the channel of
--       all; how many that are overdue are told at once (0: there is nothing to purge here)
-- gives {how many they are, then for each shard its life and its counter}
--       {-1, then each that is overdue and until when it was kept}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- First, as in purge.lua: a full server must take it too.
redis.call('ZREMRANGEBYSCORE', KEYS[1], 1, now)
local overdue =
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[5])
if #overdue > 0 then
  for i = 2, #overdue, 2 do overdue[i] = tonumber(overdue[i]) end
  return {-1, unpack(overdue)}
end
-- When the set was begun, below zero: whoever listened before that is not in it.
redis.call('ZADD', KEYS[1], 'NX', -now, '-')
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
if ARGV[3] ~= '' and redis.call('ZREM', KEYS[1], ARGV[3]) == 1 then
  redis.call('PUBLISH', ARGV[4], '!' .. ARGV[3])
end
local told = {redis.call('ZCARD', KEYS[1]) - 1}
for i = 3, #KEYS, 2 do
  told[#told + 1] = redis.call('GET', KEYS[i + 1]) or ''
  told[#told + 1] = redis.call('GET', KEYS[i]) or '0'
end
return told
