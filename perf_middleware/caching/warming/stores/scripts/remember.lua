-- Add to the scores of what is asked for most.
--
-- KEYS  a sorted set
-- ARGV  how many to keep; ms to keep them for; 1 to halve what was there; scores and members
if ARGV[3] == '1' then redis.call('ZUNIONSTORE', KEYS[1], 1, KEYS[1], 'WEIGHTS', '0.5') end
for at = 4, #ARGV, 2 do redis.call('ZINCRBY', KEYS[1], ARGV[at], ARGV[at + 1]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[1]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
