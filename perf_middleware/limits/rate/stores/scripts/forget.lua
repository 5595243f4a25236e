-- One bucket is full again: the same as one that was never seen.
return redis.call('DEL', KEYS[1])
