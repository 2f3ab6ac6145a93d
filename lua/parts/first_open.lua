-- Places are the tickets head to tail. Tickets from `parked` (0: none) to head - 1 were stepped over because nobody
-- was subscribed to their inbox; such a waiter has its place back when it asks before its window ends.
local budget = 64

-- The first ticket of from..to whose window is open, its place, waiter, and field; closed ones are removed on the
-- way. Without one: the ticket that the search ended at, to + 1 or where the budget was spent.
local function first_open(from, to)
  while from <= to and budget > 0 do
    budget = budget - 1
    local name = 'place:' .. from
    local place = redis.call('HGET', KEYS[1], name)
    if place then
      local closes_ms, length = struct.unpack('<dB', place)
      local waiter = string.sub(place, 45, 44 + length)
      if closes_ms > clock_ms or waiter == owner then
        return from, place, waiter, name
      end
      redis.call('HDEL', KEYS[1], name, 'waiter:' .. waiter)
    end
    from = from + 1
  end
  return from
end
