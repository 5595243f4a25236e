-- Look one record up, choose among its variants, or take the lease of what is missing.
--
-- KEYS  the record; the number below which everything was purged
-- ARGV  the lease in ms (0: none is wanted), its token; fields of the request: for each its name and
--       its part of the secondary key ('': it is too long for one), each behind its length in one
--       byte; '1' where it has no other fields
-- gives {1, key, record}                it is there
--       {2, names}                      variants are told apart by a field that was not told, or that
--                                       is too long
--       {0, key, 1}                     not there, and the lease is ours (or none was wanted)
--       {0, key, 0, ms left}            not there, and another has the lease
local key = KEYS[1]
local found = redis.call('GET', key)
if found and string.byte(found) == 86 then -- V: a record of variants
  local names = string.sub(found, 2)
  found = false
  if #names <= 4096 then -- else it is none of ours
    local fields, at, part_of = ARGV[3], 1, {}
    while at <= #fields do
      local name, part
      name, part, at = struct.unpack('Bc0Bc0', fields, at)
      part_of[name] = part
    end
    local parts = {}
    for name in string.gmatch(names, '[^,]+') do
      local part = part_of[name]
      if not part and ARGV[4] == '1' then part = '-' end -- it has no such field
      if not part or part == '' then return {2, names} end
      parts[#parts + 1] = part
    end
    key = key .. '\r' .. names .. '\r' .. table.concat(parts, ',')
    found = redis.call('GET', key)
  end
end
if found and #found >= 10 then -- else it is none of ours
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
