-- Judge one request and charge all its buckets, or none: what gcra.decide says, inside Redis.
-- All numbers are whole microseconds below 2^53, which doubles hold exactly.
--
-- KEYS  the bucket of each demand; the same one again where two demands name it
-- ARGV  one text of doubles: for each demand what it costs (cost * interval), and its window
-- gives for each demand the time until its bucket is full; refused: minus that, minus 1.  Of one
--       demand the number itself, else a text of doubles.  outcome_of tells the rest.
local call = redis.call
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]

-- A bucket expires when it is due: from then on none says the same.  Redis writes a number with all
-- its digits; as a text Lua makes it of 14, enough for milliseconds and never with an exponent.
local function keep(key, due)
  call('SET', key, due, 'PXAT', math.ceil(due / 1000) .. '')
end

if not KEYS[2] then -- the same as below, in half the time
  local key = KEYS[1]
  local charge, window = struct.unpack('>dd', ARGV[1])
  local due, start, last = tonumber(call('GET', key) or 0), now_us, now_us + window
  local is_lowered = false
  if due and due > now_us then
    is_lowered = due > last
    start = is_lowered and last or due
  end
  if charge > 0 then
    local after = start + charge
    if after <= last then
      keep(key, after)
      return after - now_us
    end
  end
  if is_lowered then keep(key, start) end
  return charge > 0 and now_us - start - 1 or start - now_us
end

local function due_of(key)
  local due = tonumber(call('GET', key) or 0)
  return due and due > 0 and due or 0 -- also of what is no number
end

local count = #KEYS
local doubles = '>' .. string.rep('d', count)
local asked = { struct.unpack(doubles .. string.rep('d', count), ARGV[1]) }
local due, last, start, charged = {}, {}, {}, {} -- by key
for i = 1, count do
  local key, until_us = KEYS[i], now_us + asked[2 * i]
  if not due[key] then
    due[key], charged[key] = due_of(key), 0
    last[key] = until_us
  elseif until_us > last[key] then
    last[key] = until_us
  end
end
for key, at in pairs(due) do
  if at < now_us then at = now_us elseif at > last[key] then at = last[key] end
  start[key] = at
end

local admitted = true
for i = 1, count do
  local key, charge = KEYS[i], asked[2 * i - 1]
  if charge > 0 then
    local sum = charged[key] + charge
    charged[key] = sum
    if start[key] + sum > now_us + asked[2 * i] then admitted = false end
  end
end

for key, before in pairs(due) do
  local after = start[key]
  if admitted then after = after + charged[key] end
  if after > before and after > now_us or after < before then keep(key, after) end
  start[key] = after
end

local answer = {}
for i = 1, count do
  local full = start[KEYS[i]] - now_us
  answer[i] = admitted and full or -full - 1
end
return struct.pack(doubles, unpack(answer))
