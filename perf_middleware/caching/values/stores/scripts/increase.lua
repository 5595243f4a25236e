-- Add to the whole number in a record (redis.py says how one looks).
--
-- KEYS  the record; the counter; the log of purges; the number below which everything was purged
-- ARGV  the amount; the record of 0, where there is none; ms to live (0: for ever); its name in the
--       log; the channel; the message
-- gives {1, the sum}, {0} where something else is there, {2} where the sum has more than 64 bits
local found = redis.call('GET', KEYS[1])
if found then
  local floor = redis.call('GET', KEYS[4])
  if floor and struct.unpack('>I8', found, 3) < tonumber(floor) then found = false end
end
local record = found or ARGV[2]
if string.sub(record, 11, 11) ~= 'I' then return {0} end
local at = 41 + struct.unpack('>I2', record, 40)

-- Redis adds whole numbers of 64 bits, Lua does not; it refuses a sum that is too large.
local sum_of = KEYS[2] .. 's'
redis.call('SET', sum_of, string.sub(record, at + 1))
local added = redis.pcall('INCRBY', sum_of, ARGV[1])
local sum = redis.call('GET', sum_of)
redis.call('DEL', sum_of)
if type(added) == 'table' then return {2} end

local count = redis.call('INCR', KEYS[2])
redis.call('ZADD', KEYS[3], count, ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -501)
redis.call('PEXPIRE', KEYS[3], 3600000)
record = string.sub(record, 1, 2) .. struct.pack('>I8', count) .. string.sub(record, 11, at) .. sum
if found then
  redis.call('SET', KEYS[1], record, 'KEEPTTL')
elseif ARGV[3] ~= '0' then
  redis.call('SET', KEYS[1], record, 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], record)
end
redis.call('PUBLISH', ARGV[5], struct.pack('>I8', count) .. ARGV[6])
return {1, sum}
