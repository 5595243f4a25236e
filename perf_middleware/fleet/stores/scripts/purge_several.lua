-- Purge what several indexes point to in one step, told to everybody once: what one commit has
-- written.  Of each index a slice; those that have more are purged one by one (purge.lua).
--
-- KEYS  the counter; the log of purges; then each index
-- ARGV  the channel; the message; then the name of each index in the log
-- gives {how many were purged, the places of the indexes that have more}
-- First, as in purge.lua: a full server must take it too.
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -501)
local count = redis.call('INCR', KEYS[1])
for i = 3, #ARGV do redis.call('ZADD', KEYS[2], count, ARGV[i]) end
redis.call('PEXPIRE', KEYS[2], 3600000)
redis.call('PUBLISH', ARGV[1], struct.pack('>I8', count) .. ARGV[2])
local purged, more = 0, {}
for i = 3, #KEYS do
  local members = redis.call('ZREVRANGE', KEYS[i], 0, 499)
  if #members == 500 then
    more[#more + 1] = i - 3
  elseif #members > 0 then
    for _, member in ipairs(members) do
      local key = string.sub(member, string.find(member, '\n', 1, true) + 1)
      purged = purged + redis.call('UNLINK', key)
    end
    redis.call('ZREM', KEYS[i], unpack(members))
  end
end
return {purged, more}
