-- Judge one request and charge all its buckets, or none: what gcra.decide says, inside Redis.
-- All numbers are whole microseconds below 2^53, which doubles hold exactly.
--
-- KEYS  the bucket of each demand; the same one again where two demands name it
-- ARGV  for each demand, as two doubles: what it costs (cost * interval), and its window
-- gives for each demand the time until its bucket is full; refused: minus that, minus 1.  Of one
--       demand the number itself.  outcome_of tells the rest.
local call = redis.call
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]

local function due_of(key)
  local due = tonumber(call('GET', key) or 0)
  return due and due > 0 and due or 0 -- also of what is no number
end

-- A bucket expires when it is due: from then on none says the same.
local function keep(key, due)
  call('SET', key, string.format('%.0f', due), 'PXAT', string.format('%.0f', math.ceil(due / 1000)))
end

if #KEYS == 1 then -- the same as below, in half the time
  local key = KEYS[1]
  local charge, window = struct.unpack('>dd', ARGV[1])
  local due, last = due_of(key), now_us + window
  local start = due
  if start < now_us then start = now_us elseif start > last then start = last end
  if charge > 0 and start + charge > last then
    if due > start then keep(key, start) end
    return now_us - start - 1
  end
  if charge > 0 or due > start then keep(key, start + charge) end
  return start + charge - now_us
end

local charges, windows, widest, due, start, charged = {}, {}, {}, {}, {}, {}
for i, key in ipairs(KEYS) do
  charges[i], windows[i] = struct.unpack('>dd', ARGV[i])
  if not due[key] then
    due[key], widest[key], charged[key] = due_of(key), windows[i], 0
  elseif windows[i] > widest[key] then
    widest[key] = windows[i]
  end
end
for key in pairs(due) do
  start[key] = math.min(math.max(due[key], now_us), now_us + widest[key])
end

local admitted = true
for i, key in ipairs(KEYS) do
  charged[key] = charged[key] + charges[i]
  if charges[i] > 0 and start[key] + charged[key] > now_us + windows[i] then admitted = false end
end

for key in pairs(due) do
  local after = admitted and start[key] + charged[key] or start[key]
  if after ~= math.max(due[key], now_us) then keep(key, after) end
  start[key] = after
end

local answer = {}
for i, key in ipairs(KEYS) do
  answer[i] = admitted and start[key] - now_us or now_us - start[key] - 1
end
return answer
