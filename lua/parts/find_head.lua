-- The head asks when the lease ends. Each waiter asks within a third of its window by itself, and finds then
-- that it has become the head; one that would come too late for the end of the lease is told.
if remaining_ms * 3 <= longest_ms then
  local first, place, waiting = first_open(head, tail)
  head = first
  if place and first ~= old_head and waiting ~= owner and remaining_ms > 0 then
    local closes_ms, length, _, inbox_length, window_ms = struct.unpack('<dBBHd', place)
    if inbox_length > 0 and closes_ms - window_ms / 3 * 2 > deadline_ms then
      redis.pcall('PUBLISH', string.sub(place, 45 + length, 44 + length + inbox_length), waiting .. ' 0 0')
    end
  end
end
