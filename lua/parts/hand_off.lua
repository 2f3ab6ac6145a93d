-- Finds the first waiter that can be there, and tells it: 'granted', with what it asked for. 'own' when that is
-- the caller; 'none'; 'more' when the budget ended first.
local outcome, waiter, lease_ms, retain_ms, who = 'none'
while outcome == 'none' and head <= tail and budget > 0 do
  local first, place, found, name = first_open(head, tail)
  head, waiter = first, found
  if place and waiter == owner then
    outcome = 'own'
  elseif place then
    local _, length, here, inbox_length, since
    _, length, here, inbox_length, _, lease_ms, retain_ms, since = struct.unpack('<dBBHdddd', place)
    -- Before the message, so that none leaves a server that then refuses the grant.
    redis.call('HDEL', KEYS[1], name, 'waiter:' .. waiter)
    head = first + 1
    local reached = 1
    if inbox_length > 0 then
      -- As text, because a number of its size loses digits on most ways.
      local fence = next_us == now_us and #time[2] == 6 and time[1] .. time[2] or string.format('%.0f', next_us)
      reached = redis.pcall('PUBLISH', string.sub(place, 45 + length, 44 + length + inbox_length),
        waiter .. ' ' .. fence .. ' ' .. lease_ms)
    end
    if here == 0 or reached ~= 0 then
      outcome, who = 'granted', string.sub(place, 45 + length + inbox_length)
    else
      redis.call('HSET', KEYS[1], name, place, 'waiter:' .. waiter, struct.pack('<dd', first, since))
      if parked == 0 then
        parked = first
      end
    end
  end
end
if outcome == 'none' and head <= tail then
  outcome = 'more'
end
