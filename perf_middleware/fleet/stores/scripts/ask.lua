-- Ask all who listen whether they have heard what was told until now.
--
-- KEYS  the listeners; then for each shard its counter and the name of its life (in a cluster they
--       are elsewhere: none)
-- ARGV  who asks and is not to be waited for; the channel of all; the question; what was told, where
--       it is known already
-- gives {now in ms, since when it is known who listens, then each listener and until when}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], 1, now)
redis.call('ZADD', KEYS[1], 'NX', -now, '-')
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local found = {now, now}
for i = 1, #members, 2 do
  if members[i] == '-' then
    found[2] = -tonumber(members[i + 1])
  elseif members[i] ~= ARGV[1] then
    found[#found + 1] = members[i]
    found[#found + 1] = tonumber(members[i + 1])
  end
end
if #found > 2 then
  local told = ARGV[4]
  for i = 2, #KEYS, 2 do
    told = told .. '\n' .. KEYS[i] .. ' ' .. (redis.call('GET', KEYS[i + 1]) or '') .. ' '
      .. (redis.call('GET', KEYS[i]) or '0')
  end
  redis.call('PUBLISH', ARGV[2], '?' .. ARGV[3] .. told)
end
return found
