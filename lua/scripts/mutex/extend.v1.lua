--[[
@name mutex/extend v1
@summary Makes the lease last the TTL from now if the caller still holds it; also the claim of a handed-off lease.
@since 0.1.0
@redis 6.2
@complexity O(1)
@key lock: hash, all state of one lock
@arg owner: owner token of the attempt that holds the lease, 1 to 128 bytes without spaces
@arg ttl_ms: least length of the lease from now, 1 to 2678400000
@arg retention_ms: how long the fence is kept at least, after the lease, 60000 to 2678400000
@reply 1 extended: remaining_ms, now_us, fence
@reply 2 lost: remaining_ms, now_us
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@effects HMGET TIME PEXPIREAT HSET
@retry safe: a second call counts from its own time

A lease never gets shorter. One that ran out is lost even if nobody else took it: extend never grants.
]]
local owner = ARGV[1]
if #KEYS ~= 1 or #ARGV ~= 3 then
  return redis.error_reply('BADARG mutex/extend takes 1 key and 3 arguments')
end
local ttl_ms, retention_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
if string.find(ARGV[2] .. ARGV[3], '%D') then
  return redis.error_reply('BADARG numbers are decimal digits only')
end
if not ttl_ms or ttl_ms < 1 or ttl_ms > 2678400000 then
  return redis.error_reply('BADARG ttl_ms must be 1 to 2678400000')
end
if not retention_ms or retention_ms < 60000 or retention_ms > 2678400000 then
  return redis.error_reply('BADARG retention_ms must be 60000 to 2678400000')
end
if #owner < 1 or #owner > 128 or string.find(owner, ' ', 1, true) then
  return redis.error_reply('BADARG owner must be 1 to 128 bytes without spaces')
end

local lock = redis.pcall('HMGET', KEYS[1], 'owner', 'deadline_ms', 'fence', 'granted_ms', 'expires_ms')
if lock.err then
  return lock
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = (now_us - now_us % 1000) / 1000

local remaining_ms = 0
if lock[2] and lock[2] - now_ms > 0 then
  -- More than was granted is left when the server's clock stepped back: then the lease begins again.
  remaining_ms = math.min(lock[2] - now_ms, tonumber(lock[4]))
end
if owner ~= lock[1] or remaining_ms == 0 then
  return {2, remaining_ms, now_us}
end
-- Never shorter than it was: a late copy of a request must not end what the holder was told since.
local lease_ms = math.max(ttl_ms, remaining_ms)
-- The key outlives the lease and its fence by the retention, and never goes earlier than it was to. PEXPIREAT first: a
-- full server accepts it, and then the HSET that follows.
local expires_ms = math.max(now_ms + lease_ms, math.ceil(lock[3] / 1000) + 1) + retention_ms
expires_ms = math.max(expires_ms, tonumber(lock[5] or 0))
redis.call('PEXPIREAT', KEYS[1], expires_ms)
redis.call('HSET', KEYS[1], 'deadline_ms', now_ms + lease_ms, 'granted_ms', lease_ms, 'expires_ms', expires_ms)
return {1, lease_ms, now_us, lock[3]}
