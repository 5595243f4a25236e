-- Store one record with its places in the indexes, unless it was purged since it was begun.
--
-- KEYS  the record (of all variants); the counter; the log of purges; whether some record varies;
--       then each index
-- ARGV  the counter as it was known when the answer was begun; ms to live (0: until it is purged);
--       the record; the names of the fields that tell its variants apart and its secondary key (both
--       empty: it has none); the channel; the message for an overwrite; the origin; '1' to tell it
--       also where nothing is overwritten; the message that some record varies; then the name of
--       each index, and further names by which it may have been purged
-- gives {1}         it is there
--       {0}         a purge concerns it
--       {2, names}  its variants are told apart by more fields than it names
--       {3}         the counter was lost: nobody knows what was purged
local primary, names, ttl = KEYS[1], ARGV[4], tonumber(ARGV[2])
local count = tonumber(redis.call('GET', KEYS[2]) or '0')
local began = tonumber(ARGV[1])

if count < began then return {3} end
if count > began then
  local oldest = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  if redis.call('ZCARD', KEYS[3]) >= 500 and tonumber(oldest[2]) > began then return {0} end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. began, '+inf')) do
    if name == '*' then return {0} end
    for i = 11, #ARGV do
      if name == ARGV[i] then return {0} end
    end
  end
end

local key, replaced = primary, false
local is_record = redis.call('GETRANGE', primary, 0, 0)
local known = is_record == 'V' and string.sub(redis.call('GET', primary), 2)
if known and #known <= 4096 then -- else it is none of ours
  if known ~= names then
    for name in string.gmatch(known, '[^,]+') do
      if not string.find(',' .. names .. ',', ',' .. name .. ',', 1, true) then
        return {2, known}
      end
    end
    replaced = true -- whoever looks for it by fewer names would not find it
  end
elseif is_record ~= '' then
  replaced = true
end
if names ~= '' then
  local left = ttl
  if is_record == 'V' then left = math.max(left, redis.call('PTTL', primary)) end
  redis.call('SET', primary, 'V' .. names, 'PX', left)
  key = primary .. '\r' .. names .. '\r' .. ARGV[5]
  replaced = replaced or redis.call('EXISTS', key) == 1
  if redis.call('SETNX', KEYS[4], '1') == 1 then
    redis.call('PUBLISH', ARGV[6], struct.pack('>I8', 0) .. ARGV[10])
  end
end
if replaced or ARGV[9] == '1' then
  count = redis.call('INCR', KEYS[2])
  redis.call('PUBLISH', ARGV[6], struct.pack('>I8', count) .. ARGV[7])
end
local record = string.sub(ARGV[3], 1, 2) .. struct.pack('>I8', count) .. string.sub(ARGV[3], 11)
if ttl > 0 then
  redis.call('SET', key, record, 'PX', ttl)
else
  redis.call('SET', key, record)
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 5, #KEYS do
  local index = KEYS[i]
  -- What has expired leaves as new ones come: an index never outgrows what it points to for long.
  local gone = redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 32)
  if #gone > 0 then redis.call('ZREM', index, unpack(gone)) end
  local left = redis.call('PTTL', index) -- -1: it stays, -2: there is none
  redis.call('ZADD', index, ttl > 0 and now + ttl or '+inf', ARGV[8] .. '\n' .. key)
  if ttl == 0 then
    redis.call('PERSIST', index)
    -- What never expires, its record was deleted or evicted: a few are looked at as new ones come,
    -- so that those whose record is gone stay the fewer.
    local undying = redis.call('ZCOUNT', index, '+inf', '+inf')
    local at = redis.call('ZCARD', index) - undying + now % undying
    for _, member in ipairs(redis.call('ZRANGE', index, at, at + 3)) do
      local record = string.sub(member, string.find(member, '\n', 1, true) + 1)
      if redis.call('EXISTS', record) == 0 then redis.call('ZREM', index, member) end
    end
  elseif left ~= -1 and left < ttl then
    redis.call('PEXPIRE', index, ttl)
  end
end

return {1}
