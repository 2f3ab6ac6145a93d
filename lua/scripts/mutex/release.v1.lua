--[[
@name mutex/release v1
@summary Ends the caller's lease and hands it to the next waiter, or gives up the caller's place in the queue.
@since 0.1.0
@redis 6.2
@complexity O(1): at most 64 places of the queue are looked at in one call
@key lock: hash, all state of one lock
@arg owner: owner token of the attempt that ends, 1 to 128 bytes
@reply 1 released: pending, now_us
@reply 2 handed_off: pending, now_us
@reply 3 left: pending, now_us
@reply 4 released_before: pending, now_us
@reply 5 not_held: pending, now_us
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@effects HGET TIME HDEL HSET PEXPIREAT PUBLISH
@retry safe: a second call answers 4 (released_before) and changes nothing for the next holder

pending is 1 when the lock is free and dead waiters are still in front of the queue: call again to go on, else 0.
Reply 4 is for the last owner that released and, while nobody holds the lock, for the one before; older ones are told 5.
]]
local owner = ARGV[1]
if #KEYS ~= 1 or #ARGV ~= 1 then
  return redis.error_reply('BADARG mutex/release takes 1 key and 1 argument')
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

local code = 5
if remaining_ms > 0 and owner == holder then
  code = 1
  -- The holder stays as a memo for a retry of this call; without a deadline it holds nothing.
  deadline_ms, remaining_ms = 0, 0
  if tail == 0 then
    state = struct.pack('<ddd', 0, clock_ms, behind_ms) .. string.sub(state, 25)
    -- part: save
    if redis.pcall('HSET', KEYS[1], 'state', state) ~= 0 then
      -- A full server refuses HSET as the first write of a script, and takes it after an HDEL.
      redis.call('HDEL', KEYS[1], 'none')
      redis.call('HSET', KEYS[1], 'state', state)
    end
    -- end of part
    return {1, 0, now_us}
  end
end
-- part: released
local released = ''
if released_length > 0 then
  released = string.sub(state, words_at + holder_length, words_at + holder_length + released_length - 1)
end
-- end of part
if code == 5 and (owner == released or owner == holder and deadline_ms == 0) then
  code = 4
end
if tail == 0 then
  return {code, 0, now_us}
end

-- part: queue
local head, parked, floor_us, swept, longest_ms = 1, 0, 0, 0, 0
if tail > 0 then
  head, parked, floor_us, swept, longest_ms = struct.unpack('<ddddd', state, 59)
end
local old_head, old_parked = head, parked
-- end of part
if code ~= 1 then
  local waiter = redis.call('HGET', KEYS[1], 'waiter:' .. owner)
  if waiter then
    local ticket = struct.unpack('<d', waiter)
    redis.call('HDEL', KEYS[1], 'place:' .. ticket, 'waiter:' .. owner)
    code = 3
    if ticket == head then
      head = ticket + 1
    end
  end
end
local words, expires_later, pending = string.sub(state, words_at), false, 0
-- part: fence
-- The next fence is above all before, above what waiters have seen elsewhere, and not below the server's time.
local next_us = (floor_us > fence_us and floor_us or fence_us) + 1
if next_us < now_us then
  next_us = now_us
end
-- end of part
-- part: first_open
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
-- end of part
if remaining_ms == 0 and next_us <= 9007199254740991 then
  -- part: hand_off
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
  -- end of part
  if outcome == 'granted' then
    if code == 1 then
      code = 2
    end
    local last_us = next_us
    -- part: grant
    if deadline_ms == 0 and holder ~= '' then
      released = holder
    end
    holder, words = waiter, waiter .. released .. who
    fence_us, since_us, deadline_ms, remaining_ms = next_us, now_us, clock_ms + lease_ms, lease_ms
    -- end of part
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
    expires_later = must_expire_later
  elseif outcome == 'more' then
    pending = 1
  end
end
-- part: find_head
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
-- end of part
-- part: parked
if parked > 0 then
  parked = first_open(parked, head - 1)
  if parked >= head then
    parked = 0
  end
end
-- end of part
if head > tail and parked == 0 then
  tail = 0
end
if code < 4 or head ~= old_head or parked ~= old_parked then
  -- part: pack
  state = struct.pack('<dddddddBB', deadline_ms, clock_ms, behind_ms, expires_ms, fence_us, since_us, tail, #holder,
    #released) .. (tail > 0 and struct.pack('<ddddd', head, parked, floor_us, swept, longest_ms) or '') .. words
  -- end of part
  -- part: save
  if redis.pcall('HSET', KEYS[1], 'state', state) ~= 0 then
    -- A full server refuses HSET as the first write of a script, and takes it after an HDEL.
    redis.call('HDEL', KEYS[1], 'none')
    redis.call('HSET', KEYS[1], 'state', state)
  end
  -- end of part
  if expires_later then
    redis.call('PEXPIREAT', KEYS[1], expires_ms)
  end
end
return {code, pending, now_us}
