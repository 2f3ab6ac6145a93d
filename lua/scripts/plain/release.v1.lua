--[[
@name plain/release v1
@summary Compare, then DEL: gives the key back if the caller still holds it.
@since 0.1.0
@redis 6.2
@complexity O(1)
@key lock: string, the user's own key with the owner token as its value
@arg owner: owner token of the attempt that ends, 1 to 128 bytes
@reply 1 released
@reply 5 not_held
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@effects GET DEL
@retry safe: a second call answers 5 (not_held); without a memo it cannot tell released before from lost
]]
local owner = ARGV[1]
if #KEYS ~= 1 or #ARGV ~= 1 then
  return redis.error_reply('BADARG plain/release takes 1 key and 1 argument')
end
if #owner < 1 or #owner > 128 then
  return redis.error_reply('BADARG owner must be 1 to 128 bytes')
end

local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' then
  return holder
end
if holder ~= owner then
  return {5}
end
redis.call('DEL', KEYS[1])
return {1}
