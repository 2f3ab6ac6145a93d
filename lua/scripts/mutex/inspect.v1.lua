--[[
@name mutex/inspect v1
@summary Tells who holds the lease and who waits; reads only, works on replicas.
@since 0.1.0
@redis 6.2
@complexity O(W) with W = max_waiters
@key lock: hash, all state of one lock
@arg max_waiters: how many places of the queue to look at, 0 to 1000
@reply 1 held: remaining_ms, now_us, fence, label, since_us, places, waiters
@reply 2 free: remaining_ms, now_us, fence, label, since_us, places, waiters
@error BADARG an argument is missing or out of range
@error WRONGTYPE the key holds something else
@effects HGET TIME
@retry safe: reads only

label and since_us speak of the last holder when the lock is free; since_us is 0 when there was none.
places counts the tickets that are out, also those of waiters that left and are not stepped over yet.
waiters: one array for each place looked at, in order: ticket, waited_ms, window_ms, label. window_ms is 0 when the
waiter has not asked again in time; such a place is dropped at the next hand-off.
No owner token is ever in the reply.
]]
local max_waiters = tonumber(ARGV[1])
if #KEYS ~= 1 or #ARGV ~= 1 then
  return redis.error_reply('BADARG mutex/inspect takes 1 key and 1 argument')
end
if not max_waiters or max_waiters < 0 or max_waiters > 1000 or max_waiters % 1 ~= 0 then
  return redis.error_reply('BADARG max_waiters must be 0 to 1000')
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
-- part: queue
local head, parked, floor_us, swept, longest_ms = 1, 0, 0, 0, 0
if tail > 0 then
  head, parked, floor_us, swept, longest_ms = struct.unpack('<ddddd', state, 59)
end
local old_head, old_parked = head, parked
-- end of part

local waiters = {}
local first = parked > 0 and parked or head
for number = 0, max_waiters - 1 do
  local ticket = first + number
  local place = ticket <= tail and redis.call('HGET', KEYS[1], 'place:' .. ticket)
  if place then
    local closes_ms, length, _, inbox_length, _, _, _, waits_since_us = struct.unpack('<dBBHdddd', place)
    waiters[#waiters + 1] = {
      ticket, math.max(math.floor((now_us - waits_since_us) / 1000), 0), math.max(closes_ms - clock_ms, 0),
      string.sub(place, 45 + length + inbox_length),
    }
  end
end
return {
  remaining_ms > 0 and 1 or 2, remaining_ms, now_us, fence_us,
  state and string.sub(state, words_at + holder_length + released_length) or '', since_us,
  math.max(tail - first + 1, 0), waiters,
}
