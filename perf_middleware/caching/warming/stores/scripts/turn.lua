-- Take or keep the turn, or give it back; 1 where it is, or was, the caller's.
--
-- KEYS  the turn
-- ARGV  the caller's token; ms to have it for (0: give it back)
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
