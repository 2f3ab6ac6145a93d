if redis.pcall('HSET', KEYS[1], 'state', state) ~= 0 then
  -- A full server refuses HSET as the first write of a script, and takes it after an HDEL.
  redis.call('HDEL', KEYS[1], 'none')
  redis.call('HSET', KEYS[1], 'state', state)
end
