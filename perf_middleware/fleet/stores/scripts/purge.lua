-- Purge what one index points to, a slice at each call; the first call tells everybody, and one
-- behind the last does again: what was not reached yet could be found, and kept, until then.
--
-- KEYS  the counter; the log of purges; the number below which everything was purged; the index
-- ARGV  1 at the first call, 2 to tell once more; the name of the index in the log ('*': whatever
--       it may be); the channel; the message; 'hard', 'soft' or 'all'; the origin ('': any); where
--       to go on; where a record tells its tags, and the tag ('': every record of the index has it)
-- gives {the counter, how many were purged, where to go on (-1: nowhere)}
local count = 0
-- A full server takes no first write that may need room, and whatever comes behind one that does
-- not: a purge must go through.
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -501)
if ARGV[1] ~= '0' then
  count = redis.call('INCR', KEYS[1])
  if ARGV[1] == '1' then
    redis.call('ZADD', KEYS[2], count, ARGV[2])
    redis.call('PEXPIRE', KEYS[2], 3600000)
  end
  redis.call('PUBLISH', ARGV[3], struct.pack('>I8', count) .. ARGV[4])
  if ARGV[5] == 'all' then redis.call('SET', KEYS[3], count) end
end
if not KEYS[4] then return {count, 0, -1} end

local function has_tag(key)
  if ARGV[9] == '' then return true end
  local at = tonumber(ARGV[8])
  local size = redis.call('GETRANGE', key, at, at + 1)
  if #size < 2 then return false end
  local tags = redis.call('GETRANGE', key, at + 2, at + 1 + struct.unpack('>I2', size))
  return string.find(tags, ARGV[9], 1, true)
end

local start = tonumber(ARGV[7])
-- From the back: what expires leaves at the front, and what is stored anew comes in behind.
local members = redis.call('ZREVRANGE', KEYS[4], start, start + 499)
local purged, left_alone, gone = 0, 0, {}
for _, member in ipairs(members) do
  local at = string.find(member, '\n', 1, true)
  local key = string.sub(member, at + 1)
  if ARGV[6] ~= '' and string.sub(member, 1, at - 1) ~= ARGV[6] then
    left_alone = left_alone + 1
  elseif ARGV[5] == 'soft' then
    left_alone = left_alone + 1
    local version = redis.call('GETRANGE', key, 0, 0)
    if version ~= '' and version ~= 'V' then -- of variants: each of them is in here itself
      redis.call('SETRANGE', key, 1, 's')
      purged = purged + 1
    end
  else
    -- What took its place under the key may have other tags.
    if has_tag(key) then purged = purged + redis.call('UNLINK', key) end
    gone[#gone + 1] = member
  end
end
if #gone > 0 then redis.call('ZREM', KEYS[4], unpack(gone)) end
if #members < 500 then return {count, purged, -1} end
return {count, purged, start + left_alone}
