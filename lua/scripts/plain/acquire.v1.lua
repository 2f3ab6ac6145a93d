--[[
@name plain/acquire v1
@summary The classic SET key owner NX PX ttl: takes the key if it is absent, sets the lease again for its owner.
@since 0.1.0
@redis 6.2
@complexity O(1)
@key lock: string, the user's own key with the owner token as its value
@arg owner: owner token of this attempt, 1 to 128 bytes
@arg ttl_ms: length of the lease, 1 to 2678400000
@reply 1 granted: remaining_ms
@reply 3 held: remaining_ms
@reply 6 held_without_ttl: remaining_ms
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@effects SET GET PEXPIRE PTTL
@retry safe: the same owner has the lease set again

No queue and no fence. Respects and is respected by every client that uses SET NX PX and compares before DEL.
Reply 6: the holder set no TTL, so the key stays until it is deleted; remaining_ms is 0.
]]
local owner, ttl_ms = ARGV[1], tonumber(ARGV[2])
if #KEYS ~= 1 or #ARGV ~= 2 then
  return redis.error_reply('BADARG plain/acquire takes 1 key and 2 arguments')
end
if not ttl_ms or string.find(ARGV[2], '%D') or ttl_ms < 1 or ttl_ms > 2678400000 then
  return redis.error_reply('BADARG ttl_ms must be 1 to 2678400000')
end
if #owner < 1 or #owner > 128 then
  return redis.error_reply('BADARG owner must be 1 to 128 bytes')
end

if redis.call('SET', KEYS[1], owner, 'NX', 'PX', ARGV[2]) then
  return {1, ttl_ms}
end
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' then
  return holder
end
local remaining_ms = redis.call('PTTL', KEYS[1])
if holder == owner then
  -- Never shorter than it was: a late copy of a request must not end what the holder was told since.
  if remaining_ms > ttl_ms then
    return {1, remaining_ms}
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, ttl_ms}
end
if remaining_ms < 0 then
  return {6, 0}
end
return {3, remaining_ms}
