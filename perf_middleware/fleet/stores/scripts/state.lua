-- Which life of this keyspace it is, and how many messages it has had.
--
-- KEYS  the name of this life; the counter; the number below which everything was purged; whether
--       some record varies
-- ARGV  a name for a new one
local life = redis.call('GET', KEYS[1])
if not life then -- only then: a server that takes no writes can still be read
  life = ARGV[1]
  redis.call('SET', KEYS[1], life)
end
local count = tonumber(redis.call('GET', KEYS[2]) or '0')
local floor = tonumber(redis.call('GET', KEYS[3]) or '0')
if count < floor then -- it was evicted: what is stored from here on must be found
  count = floor
  redis.call('SET', KEYS[2], count)
end
return {life, count, floor, redis.call('EXISTS', KEYS[4])}
