--[[
@name plain/extend v1
@summary Compare, then PEXPIRE: sets the lease again from now if the caller still holds it.
@since 0.1.0
@redis 6.2
@complexity O(1)
@key lock: string, the user's own key with the owner token as its value
@arg owner: owner token of the attempt that holds the lease, 1 to 128 bytes
@arg ttl_ms: least length of the lease from now, 1 to 2678400000
@reply 1 extended: remaining_ms
@reply 2 lost: remaining_ms
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@effects GET PTTL PEXPIRE
@retry safe: a second call counts from its own time

A lease never gets shorter. remaining_ms is 0 in reply 2: who holds the key now, and for how long, is not looked up.
]]
local owner, ttl_ms = ARGV[1], tonumber(ARGV[2])
if #KEYS ~= 1 or #ARGV ~= 2 then
  return redis.error_reply('BADARG plain/extend takes 1 key and 2 arguments')
end
if not ttl_ms or string.find(ARGV[2], '%D') or ttl_ms < 1 or ttl_ms > 2678400000 then
  return redis.error_reply('BADARG ttl_ms must be 1 to 2678400000')
end
if #owner < 1 or #owner > 128 then
  return redis.error_reply('BADARG owner must be 1 to 128 bytes')
end

local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' then
  return holder
end
if holder ~= owner then
  return {2, 0}
end
-- Never shorter than it was: a late copy of a request must not end what the holder was told since.
local remaining_ms = redis.call('PTTL', KEYS[1])
if remaining_ms > ttl_ms then
  return {1, remaining_ms}
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {1, ttl_ms}
