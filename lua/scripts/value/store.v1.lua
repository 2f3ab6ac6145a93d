--[[
@name value/store v1
@summary Keeps what the holder of a lease has made, unless the holder of a later lease has stored already.
@since 0.1.0
@redis 6.2
@complexity O(1)
@key value: hash, what was made and the fence of the lease that it was made under
@arg value: what was made, any bytes
@arg fence: fence of the lease that it was made under, 1 to 9007199254740991
@arg not_after_us: server time after which nothing is stored, in microseconds: the end of that lease; 0 for no limit
@arg fresh_ms: for how long the value is fresh, 1 to 2678400000
@arg keep_ms: for how long the value is kept, 1 to 5356800000
@reply 1 stored: now_us
@reply 2 outdated: now_us, fence
@reply 4 too_late: now_us
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@effects HMGET TIME HSET PEXPIRE
@retry safe: the same fence stores the same value again, fresh from then

Who reads takes the fields `value` and `fresh_until_ms` (in milliseconds of the server's clock) by HMGET.
A lower fence never replaces a higher one: who was stopped and lost its lease leaves its successor's value alone.
]]
local value, fence, not_after_us = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local fresh_ms, keep_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
if #KEYS ~= 1 or #ARGV ~= 5 then
  return redis.error_reply('BADARG value/store takes 1 key and 5 arguments')
end
if string.find(ARGV[2] .. ARGV[3] .. ARGV[4] .. ARGV[5], '%D') then
  return redis.error_reply('BADARG numbers are decimal digits only')
end
if not fence or fence < 1 or fence > 9007199254740991 then
  return redis.error_reply('BADARG fence must be 1 to 9007199254740991')
end
if not not_after_us or not_after_us > 9007199254740991 then
  return redis.error_reply('BADARG not_after_us must be 0 to 9007199254740991')
end
if not fresh_ms or fresh_ms < 1 or fresh_ms > 2678400000 then
  return redis.error_reply('BADARG fresh_ms must be 1 to 2678400000')
end
if not keep_ms or keep_ms < 1 or keep_ms > 5356800000 then
  return redis.error_reply('BADARG keep_ms must be 1 to 5356800000')
end

local stored = redis.pcall('HMGET', KEYS[1], 'fence')
if stored.err then
  return stored
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = (now_us - now_us % 1000) / 1000

if not_after_us > 0 and now_us > not_after_us then
  return {4, now_us}
end
if stored[1] and tonumber(stored[1]) > fence then
  return {2, now_us, tonumber(stored[1])}
end
redis.call('HSET', KEYS[1], 'value', value, 'fence', string.format('%.0f', fence),
  'fresh_until_ms', string.format('%.0f', now_ms + fresh_ms))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {1, now_us}
