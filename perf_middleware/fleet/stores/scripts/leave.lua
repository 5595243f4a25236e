-- Nobody has to wait for this listener any more.
--
-- KEYS  the listeners
-- ARGV  who; the channel of all
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  redis.call('PUBLISH', ARGV[2], '!' .. ARGV[1])
end
return 1
