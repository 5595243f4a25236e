-- Add to the whole number in a record; the others are told, for they may have it in memory.
--
-- KEYS  the record; the counter; the log of purges; the number below which everything was purged
-- ARGV  the amount; the record's bytes before the number, where it is new; ms to live (0: for ever);
--       the length of what stands before the number; its last byte, by which a number is known;
--       its name in the log; the channel; the message
-- gives {1, the sum}, {0} where something else is there
local found = redis.call('GET', KEYS[1])
if found then
  local floor = redis.call('GET', KEYS[4])
  if floor and struct.unpack('>I8', found, 3) < tonumber(floor) then found = false end
end
local before, number, fresh = ARGV[2], '0', true
local at = tonumber(ARGV[4])
if found then
  if string.sub(found, at, at) ~= ARGV[5] then return {0} end
  before, number, fresh = string.sub(found, 1, at), string.sub(found, at + 1), false
end
-- Redis adds whole numbers of 64 bits, Lua does not; it refuses what is none, or too large.
local sum_of = KEYS[1] .. '\ts'
redis.call('SET', sum_of, number)
local sum = redis.pcall('INCRBY', sum_of, ARGV[1])
local text = redis.call('GET', sum_of)
redis.call('DEL', sum_of)
if type(sum) == 'table' then return sum end
local count = redis.call('INCR', KEYS[2])
redis.call('ZADD', KEYS[3], count, struct.pack('>I8', count) .. ARGV[6])
local record = string.sub(before, 1, 2) .. struct.pack('>I8', count) .. string.sub(before, 11) .. text
if not fresh then
  redis.call('SET', KEYS[1], record, 'KEEPTTL')
elseif ARGV[3] ~= '0' then
  redis.call('SET', KEYS[1], record, 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], record)
end
redis.call('PUBLISH', ARGV[7], struct.pack('>I8', count) .. ARGV[8])
return {1, text}
