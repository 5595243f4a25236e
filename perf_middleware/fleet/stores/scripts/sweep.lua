-- Free those records that a purge of everything has left unreachable.
--
-- KEYS  the number below which everything was purged; then records
local floor = tonumber(redis.call('GET', KEYS[1]) or '0')
local freed = 0
for i = 2, #KEYS do
  local head = redis.call('GETRANGE', KEYS[i], 0, 9)
  if #head == 10 and string.byte(head) ~= 86 and struct.unpack('>I8', head, 3) < floor then
    freed = freed + redis.call('UNLINK', KEYS[i])
  end
end
return freed
