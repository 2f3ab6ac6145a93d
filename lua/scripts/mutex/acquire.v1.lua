--[[
@name mutex/acquire v1
@summary Grants the lease, renews it for its owner, or keeps the caller's place in the queue.
@since 0.1.0
@redis 6.2
@complexity O(1): at most 64 places of the queue are looked at in one call
@key lock: hash, all state of one lock
@arg owner: owner token of this attempt, 1 to 128 bytes, without spaces if it waits
@arg ttl_ms: length of the lease, 1 to 2678400000
@arg not_after_us: server time after which nothing is granted, in microseconds; 0 for no limit
@arg fence_floor: the highest fence the caller has seen for this lock; 0 for none
@arg retention_ms: how long the fence is kept at least, after lease and queue, 60000 to 2678400000
@arg label: who asks, for people, 0 to 128 bytes
@arg queue_ms: waiters only: how long the place in the queue stays alive from now, 1 to 60000; 0 to try without waiting
@arg claim_ms: waiters only: length of the lease that a hand-off gives to this waiter, 1 to 60000
@arg inbox: waiters only: channel that hears of a hand-off, 0 to 768 bytes without spaces; empty for none
@arg inbox_here: waiters only: 1 when the inbox is subscribed on this very server (no receiver proves it gone), else 0
@reply 1 granted: remaining_ms, now_us, fence
@reply 2 queued: remaining_ms, now_us, position
@reply 3 held: remaining_ms, now_us
@reply 4 too_late: remaining_ms, now_us
@reply 5 spent: remaining_ms, now_us
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@error QUEUEFULL 100000 waiters may be alive; nothing was written for the caller
@error FENCEEXHAUSTED no fence is left below 2^53; nothing was written
@effects HGET TIME HLEN HDEL HSET PEXPIREAT PUBLISH
@retry safe: the same owner gets the same fence or the same place; an owner that released gets 5 (spent)

A try leaves out the four arguments that are for waiters only.
remaining_ms is the lease of whoever holds it, 0 when that is unknown: ask again at once.
position counts from 1; waiters that left without being stepped over yet are counted in.
Reply 3 writes nothing for the caller, and replies 4 and 5 nothing at all. Reply 5 is for the last owner that released
and, while nobody holds the lock, for the one before. A copy of an acquire by an older one is granted unless
not_after_us is over, so callers always send that. Times count in whole milliseconds of the server's clock: a lease may
end 1 ms early.
A hand-off is told to the inbox as `<owner> <fence> <remaining_ms>`, and `<owner> 0 0` tells a waiter that it has become
the first in the queue while somebody holds the lease: it asks, and from then on again when the lease ends.
]]
local owner, ttl_ms, not_after_us, fence_floor = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local retention_ms, label, queue_ms, claim_ms = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local inbox, inbox_here = ARGV[9], ARGV[10]
if #KEYS ~= 1 or #ARGV ~= 6 and #ARGV ~= 10 then
  return redis.error_reply('BADARG mutex/acquire takes 1 key and 6 or 10 arguments')
end
if not ttl_ms or ttl_ms < 1 or ttl_ms > 2678400000 or ttl_ms % 1 ~= 0 then
  return redis.error_reply('BADARG ttl_ms must be 1 to 2678400000')
end
if not not_after_us or not_after_us < 0 or not_after_us > 9007199254740991 or not_after_us % 1 ~= 0 then
  return redis.error_reply('BADARG not_after_us must be 0 to 9007199254740991')
end
if not fence_floor or fence_floor < 0 or fence_floor > 9007199254740991 or fence_floor % 1 ~= 0 then
  return redis.error_reply('BADARG fence_floor must be 0 to 9007199254740991')
end
if not retention_ms or retention_ms < 60000 or retention_ms > 2678400000 or retention_ms % 1 ~= 0 then
  return redis.error_reply('BADARG retention_ms must be 60000 to 2678400000')
end
if #owner < 1 or #owner > 128 then
  return redis.error_reply('BADARG owner must be 1 to 128 bytes')
end
if #label > 128 then
  return redis.error_reply('BADARG label must be 0 to 128 bytes')
end
if #ARGV == 10 then
  if not queue_ms or queue_ms < 0 or queue_ms > 60000 or queue_ms % 1 ~= 0 then
    return redis.error_reply('BADARG queue_ms must be 0 to 60000')
  end
  if not claim_ms or claim_ms < 1 or claim_ms > 60000 or claim_ms % 1 ~= 0 then
    return redis.error_reply('BADARG claim_ms must be 1 to 60000')
  end
  if string.find(owner, ' ', 1, true) then
    return redis.error_reply('BADARG owner must be without spaces for a waiter')
  end
  if #inbox > 768 or string.find(inbox, ' ', 1, true) then
    return redis.error_reply('BADARG inbox must be 0 to 768 bytes without spaces')
  end
  if inbox_here ~= '0' and inbox_here ~= '1' then
    return redis.error_reply('BADARG inbox_here must be 0 or 1')
  end
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

if not_after_us > 0 and now_us > not_after_us then
  return {4, remaining_ms, now_us}
end
-- part: released
local released = ''
if released_length > 0 then
  released = string.sub(state, words_at + holder_length, words_at + holder_length + released_length - 1)
end
-- end of part
-- A late copy of an acquire whose owner has released must not take the lock for nobody.
if owner == released or owner == holder and deadline_ms == 0 then
  return {5, remaining_ms, now_us}
end
local waits = queue_ms and queue_ms > 0
local renews = remaining_ms > 0 and owner == holder
if remaining_ms > 0 and not renews and not waits then
  if stepped_back then
    -- Without this the clock of the lock would stand still until the server's has caught up. A server that takes no
    -- writes gives the right answer nevertheless.
    state = struct.pack('<ddd', deadline_ms, clock_ms, behind_ms) .. string.sub(state, 25)
    redis.pcall('HSET', KEYS[1], 'state', state)
  end
  return {3, remaining_ms, now_us}
end

if renews then
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
end

-- part: queue
local head, parked, floor_us, swept, longest_ms = 1, 0, 0, 0, 0
if tail > 0 then
  head, parked, floor_us, swept, longest_ms = struct.unpack('<ddddd', state, 59)
end
local old_head, old_parked = head, parked
-- end of part
if floor_us < fence_floor then
  floor_us = fence_floor
end
-- part: fence
-- The next fence is above all before, above what waiters have seen elsewhere, and not below the server's time.
local next_us = (floor_us > fence_us and floor_us or fence_us) + 1
if next_us < now_us then
  next_us = now_us
end
-- end of part
if next_us > 9007199254740991 then
  return redis.error_reply('FENCEEXHAUSTED no fence is left below 2^53 for this lock')
end

if remaining_ms == 0 and tail == 0 then
  if deadline_ms == 0 and holder ~= '' then
    released = holder
  end
  local lease_ms, last_us, retain_ms = ttl_ms, next_us, retention_ms
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
  redis.call('HSET', KEYS[1], 'state', struct.pack('<dddddddBB', deadline_ms, clock_ms, behind_ms, expires_ms, next_us,
    now_us, 0, #owner, #released) .. owner .. released .. label)
  if must_expire_later then
    redis.call('PEXPIREAT', KEYS[1], expires_ms)
  end
  return {1, lease_ms, now_us, next_us}
end

local words = string.sub(state, words_at)
local ticket, waits_since_us
if tail > 0 then
  local place = redis.call('HGET', KEYS[1], 'waiter:' .. owner)
  if place then
    ticket, waits_since_us = struct.unpack('<dd', place)
    if ticket < head then
      head = ticket
    end
  end
end
if waits and longest_ms < queue_ms then
  longest_ms = queue_ms
end
local code = waits and 2 or 3
local expires_later = false

if remaining_ms * 3 <= longest_ms or parked > 0 or tail - head >= 99999 then
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
  if remaining_ms == 0 then
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
    if outcome == 'own' or outcome == 'none' then
      if ticket then
        redis.call('HDEL', KEYS[1], 'place:' .. ticket, 'waiter:' .. owner)
        head = ticket + 1
      end
      code, waiter, lease_ms, retain_ms, who = 1, owner, ttl_ms, retention_ms, label
    end
    if outcome ~= 'more' then
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
  -- Tickets without a waiter do not count: each waiter has two fields. Who finds too many looks for closed places.
  if code == 2 and not ticket and tail - head >= 99999 and redis.call('HLEN', KEYS[1]) > 200000 then
    local first = parked > 0 and parked or head
    while budget > 0 and first <= tail do
      local open, place = first_open(swept > first and swept <= tail and swept or first, tail)
      swept = place and open + 1 or open
    end
    if redis.call('HLEN', KEYS[1]) > 200000 then
      code = 0
    end
  end
end

local joins = code == 2 and not ticket
if joins then
  tail = tail + 1
  ticket, waits_since_us = tail, now_us
elseif code ~= 2 and head > tail and parked == 0 then
  tail = 0
end
if code == 2 then
  local lease_ms, last_us, retain_ms = remaining_ms > queue_ms and remaining_ms or queue_ms, next_us, retention_ms
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
  expires_later = expires_later or must_expire_later
end
-- part: pack
state = struct.pack('<dddddddBB', deadline_ms, clock_ms, behind_ms, expires_ms, fence_us, since_us, tail, #holder,
  #released) .. (tail > 0 and struct.pack('<ddddd', head, parked, floor_us, swept, longest_ms) or '') .. words
-- end of part
if code == 2 then
  local place = struct.pack('<dBBHdddd', clock_ms + queue_ms, #owner, inbox_here, #inbox, queue_ms,
    claim_ms < ttl_ms and claim_ms or ttl_ms, retention_ms, waits_since_us) .. owner .. inbox .. label
  if joins then
    -- A full server takes no newcomer: this may be the first write.
    redis.call('HSET', KEYS[1], 'state', state, 'place:' .. ticket, place, 'waiter:' .. owner,
      struct.pack('<dd', ticket, waits_since_us))
  else
    -- part: save
    if redis.pcall('HSET', KEYS[1], 'state', state) ~= 0 then
      -- A full server refuses HSET as the first write of a script, and takes it after an HDEL.
      redis.call('HDEL', KEYS[1], 'none')
      redis.call('HSET', KEYS[1], 'state', state)
    end
    -- end of part
    redis.call('HSET', KEYS[1], 'place:' .. ticket, place)
  end
elseif code == 1 then
  -- Nor does it grant to one.
  redis.call('HSET', KEYS[1], 'state', state)
else
  redis.pcall('HSET', KEYS[1], 'state', state)
end
if expires_later then
  redis.call('PEXPIREAT', KEYS[1], expires_ms)
end
if code == 0 then
  return redis.error_reply('QUEUEFULL 100000 waiters may be alive')
elseif code == 1 then
  return {1, ttl_ms, now_us, fence_us}
elseif code == 2 then
  return {2, remaining_ms, now_us, ticket - head + 1}
end
return {3, remaining_ms, now_us}
