--[[
What the lock protects: a counter on a server of its own that checks fences, and remembers every write it accepts.
KEYS: the counter's hash, the list of accepted writes, the flag that ends the test.
ARGV: fence, who, and the new value; without a value it only reads.
Reply: 1 or 0 (refused as stale), now_us, the counter, 1 when the test is over.
]]
local time = redis.call('TIME')
local now_us = string.format('%.0f', time[1] * 1000000 + time[2])
local highest, value = unpack(redis.call('HMGET', KEYS[1], 'highest', 'value'))
local over = redis.call('EXISTS', KEYS[3])
if highest and tonumber(ARGV[1]) < tonumber(highest) then
  redis.call('HINCRBY', KEYS[1], ARGV[3] and 'stale_writes' or 'stale_reads', 1)
  return {0, now_us, value or '0', over}
end
redis.call('HSET', KEYS[1], 'highest', ARGV[1])
if ARGV[3] then
  redis.call('HSET', KEYS[1], 'value', ARGV[3])
  redis.call('HINCRBY', KEYS[1], 'accepted:' .. string.match(ARGV[2], '^%a+'), 1)
  redis.call('RPUSH', KEYS[2], ARGV[1] .. ' ' .. now_us .. ' ' .. ARGV[3])
end
return {1, now_us, value or '0', over}
