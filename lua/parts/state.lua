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
