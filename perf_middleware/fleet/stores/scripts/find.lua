-- Look one record up, choose among its variants, or take the lease of what is missing.
--
-- KEYS  the record; the number below which everything was purged
-- ARGV  the lease in ms (0: none is wanted), its token, then for each field that this process knows
--       to tell variants apart: its name, and this request's part of the secondary key
-- gives {1, key, record}                it is there
--       {2, names}                      variants are told apart by fields that were not named
--       {0, key, 1}                     not there, and the lease is ours (or none was wanted)
--       {0, key, 0, ms left}            not there, and another has the lease
local key = KEYS[1]
local found = redis.call('GET', key)
if found and string.byte(found) == 86 then -- V: a record of variants
  local parts_of = {}
  for i = 3, #ARGV, 2 do parts_of[ARGV[i]] = ARGV[i + 1] end
  local names = string.sub(found, 2)
  local parts = {}
  for name in string.gmatch(names, '[^,]+') do
    local part = parts_of[name]
    if not part then return {2, names} end
    parts[#parts + 1] = part
  end
  key = key .. '\r' .. names .. '\r' .. table.concat(parts, ',')
  found = redis.call('GET', key)
end
if found then
  local floor = redis.call('GET', KEYS[2])
  if not floor or struct.unpack('>I8', found, 3) >= tonumber(floor) then
    return {1, key, found}
  end
end
if ARGV[1] == '0' then return {0, key, 1} end
local lease = key .. '\tl'
if redis.call('SET', lease, ARGV[2], 'NX', 'PX', ARGV[1]) then return {0, key, 1} end
if string.sub(redis.call('GET', lease), -1) ~= 'w' then redis.call('APPEND', lease, 'w') end
return {0, key, 0, redis.call('PTTL', lease)}
