--[[
@name mutex/extend v1
@summary Makes the lease last the TTL from now if the caller still holds it; also the claim of a handed-off lease.
@since 0.1.0
@redis 6.2
@complexity O(1)
@key lock: hash, all state of one lock
@arg owner: owner token of the attempt that holds the lease, 1 to 128 bytes
@arg ttl_ms: least length of the lease from now, 1 to 2678400000
@arg retention_ms: how long the fence is kept at least, after the lease, 60000 to 2678400000
@reply 1 extended: remaining_ms, now_us, fence
@reply 2 lost: remaining_ms, now_us
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@effects HGET TIME HDEL HSET PEXPIREAT
@retry safe: a second call counts from its own time

A lease never gets shorter. One that ran out is lost even if nobody else took it: extend never grants.
Reply 2 writes nothing.
]]
local owner, ttl_ms, retention_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if #KEYS ~= 1 or #ARGV ~= 3 then
  return redis.error_reply('BADARG mutex/extend takes 1 key and 3 arguments')
end
if not ttl_ms or ttl_ms < 1 or ttl_ms > 2678400000 or ttl_ms % 1 ~= 0 then
  return redis.error_reply('BADARG ttl_ms must be 1 to 2678400000')
end
if not retention_ms or retention_ms < 60000 or retention_ms > 2678400000 or retention_ms % 1 ~= 0 then
  return redis.error_reply('BADARG retention_ms must be 60000 to 2678400000')
end
if #owner < 1 or #owner > 128 then
  return redis.error_reply('BADARG owner must be 1 to 128 bytes')
end

-- part: state
-- All that is known of the lock is in one field, so that most calls read one and write one: numbers, those of the queue
-- if there is one, then the words: holder, released, and the label of the holder. Times are by the lock's own clock,
-- which never goes back: the server's, and `behind_ms` more since that stepped back. So a step back prolongs no lease
-- and no place by more than the time since the last write. deadline_ms is 0 after a release: then `holder` is a memo of
-- who released, as `released` is of who did so before. `tail` is 0 while nobody waits. expires_ms is the key's expiry.
local state = redis.pcall('HGET', KEYS[1], 'state')
local deadline_ms, clock_ms, behind_ms, expires_ms, fence_us, since_us, tail = 0, 0, 0, 0, 0, 0, 0
local words_at, holder_length, released_length, holder = 59, 0, 0, ''
if state then
  if state.err then
    return state
  end
  deadline_ms, clock_ms, behind_ms, expires_ms, fence_us, since_us, tail, holder_length, released_length =
    struct.unpack('<dddddddBB', state)
  if tail > 0 then
    words_at = 99
  end
  holder = string.sub(state, words_at, words_at + holder_length - 1)
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = (now_us - now_us % 1000) / 1000
local stepped_back = now_ms + behind_ms < clock_ms
if stepped_back then
  behind_ms = clock_ms - now_ms
end
clock_ms = now_ms + behind_ms
local remaining_ms = deadline_ms > clock_ms and deadline_ms - clock_ms or 0
-- end of part

if remaining_ms == 0 or owner ~= holder then
  return {2, remaining_ms, now_us}
end
-- Never shorter than it was: a late copy of a request must not end what the holder was told since.
local lease_ms, last_us, retain_ms = remaining_ms > ttl_ms and remaining_ms or ttl_ms, fence_us, retention_ms
deadline_ms = clock_ms + lease_ms
-- part: keep
-- The key outlives lease, place and fence by the retention. It never goes earlier than an earlier call asked
-- for, and later does no harm, which spares most calls a command.
local keep_ms = now_ms + lease_ms + retain_ms
if last_us > now_us then
  keep_ms = math.max(keep_ms, math.ceil(last_us / 1000) + 1 + retain_ms)
end
local must_expire_later = keep_ms > expires_ms
if must_expire_later then
  expires_ms = keep_ms + math.floor(retain_ms / 8)
end
-- end of part
state = struct.pack('<dddd', deadline_ms, clock_ms, behind_ms, expires_ms) .. string.sub(state, 33)
-- part: save
if redis.pcall('HSET', KEYS[1], 'state', state) ~= 0 then
  -- A full server refuses HSET as the first write of a script, and takes it after an HDEL.
  redis.call('HDEL', KEYS[1], 'none')
  redis.call('HSET', KEYS[1], 'state', state)
end
-- end of part
if must_expire_later then
  redis.call('PEXPIREAT', KEYS[1], expires_ms)
end
return {1, lease_ms, now_us, fence_us}
