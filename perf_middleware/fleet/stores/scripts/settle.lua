-- What these announcements name is purged.  What was announced anew meanwhile stays.
--
-- KEYS  the announcements by the server's ms until which they are kept
-- ARGV  ms until they are purged once more; then each, and until when it was kept as it was read
-- gives how many there were
-- First, as in purge.lua: a full server must take it too.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', 0)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local settled = 0
for i = 2, #ARGV, 2 do
  local kept = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if kept and tonumber(kept) == tonumber(ARGV[i + 1]) then
    redis.call('ZREM', KEYS[1], ARGV[i])
    settled = settled + 1
    if string.sub(ARGV[i], 1, 1) == '0' then
      redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), '1' .. string.sub(ARGV[i], 2))
    end
  end
end
return settled
