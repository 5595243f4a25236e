-- Which life of this keyspace it is, and how many messages it has had.
--
-- KEYS  the name of this life; the counter; the number below which everything was purged
-- ARGV  a name for a new one
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return {redis.call('GET', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or '0'),
  tonumber(redis.call('GET', KEYS[3]) or '0')}
