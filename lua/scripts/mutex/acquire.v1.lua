--[[
@name mutex/acquire v1
@summary Grants the lease, renews it for its owner, or keeps the caller's place in the queue.
@since 0.1.0
@redis 6.2
@complexity O(1): at most 64 places of the queue are looked at in one call
@key lock: hash, all state of one lock
@arg owner: owner token of this attempt, 1 to 128 bytes without spaces
@arg ttl_ms: length of the lease, 1 to 2678400000
@arg queue_ms: how long the place in the queue stays alive from now, 1 to 60000; 0 to try without waiting
@arg claim_ms: length of the lease that a hand-off gives to this waiter, 1 to 60000
@arg not_after_us: server time after which nothing is granted, in microseconds; 0 for no limit
@arg fence_floor: the highest fence the caller has seen for this lock; 0 for none
@arg retention_ms: how long the fence is kept at least, after lease and queue, 60000 to 2678400000
@arg label: who asks, for people, 0 to 128 bytes
@arg inbox: channel that hears of a hand-off, 0 to 768 bytes without spaces; empty for none
@arg inbox_here: 1 when the inbox is subscribed on this very server (no receiver proves the waiter gone), else 0
@reply 1 granted: remaining_ms, now_us, fence
@reply 2 queued: remaining_ms, now_us, position
@reply 3 held: remaining_ms, now_us
@reply 4 too_late: remaining_ms, now_us
@reply 5 spent: remaining_ms, now_us
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@error QUEUEFULL 100000 waiters may be alive; nothing was written for the caller
@error FENCEEXHAUSTED no fence is left below 2^53; nothing was written
@effects HMGET TIME HLEN HDEL HSET PEXPIREAT PUBLISH
@retry safe: the same owner gets the same fence or the same place; an owner that released gets 5 (spent)

remaining_ms is the lease of whoever holds it, 0 when that is unknown: ask again at once.
position counts from 1; waiters that left without being stepped over yet are counted in.
Reply 3 writes nothing for the caller, replies 4 and 5 nothing at all. Reply 5 is for the last two owners that released:
a copy of an acquire by an older one is granted unless not_after_us is over, so callers always send that.
A hand-off is told to the inbox as `<owner> <fence> <remaining_ms>`. `<owner> 0 0` tells a waiter that it is the first
in the queue now, while somebody holds the lease: it asks, and again when the lease ends.
]]
local owner, label, inbox, inbox_here = ARGV[1], ARGV[8], ARGV[9], ARGV[10]
if #KEYS ~= 1 or #ARGV ~= 10 then
  return redis.error_reply('BADARG mutex/acquire takes 1 key and 10 arguments')
end
local ttl_ms, queue_ms, claim_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local not_after_us, fence_floor, retention_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if string.find(ARGV[2] .. ARGV[3] .. ARGV[4] .. ARGV[5] .. ARGV[6] .. ARGV[7], '%D') then
  return redis.error_reply('BADARG numbers are decimal digits only')
end
if not ttl_ms or ttl_ms < 1 or ttl_ms > 2678400000 then
  return redis.error_reply('BADARG ttl_ms must be 1 to 2678400000')
end
if not queue_ms or queue_ms > 60000 then
  return redis.error_reply('BADARG queue_ms must be 0 to 60000')
end
if not claim_ms or claim_ms < 1 or claim_ms > 60000 then
  return redis.error_reply('BADARG claim_ms must be 1 to 60000')
end
if not not_after_us or not_after_us > 9007199254740991 then
  return redis.error_reply('BADARG not_after_us must be 0 to 9007199254740991')
end
if not fence_floor or fence_floor > 9007199254740991 then
  return redis.error_reply('BADARG fence_floor must be 0 to 9007199254740991')
end
if not retention_ms or retention_ms < 60000 or retention_ms > 2678400000 then
  return redis.error_reply('BADARG retention_ms must be 60000 to 2678400000')
end
if #owner < 1 or #owner > 128 or string.find(owner, ' ', 1, true) then
  return redis.error_reply('BADARG owner must be 1 to 128 bytes without spaces')
end
if #label > 128 then
  return redis.error_reply('BADARG label must be 0 to 128 bytes')
end
if #inbox > 768 or string.find(inbox, ' ', 1, true) then
  return redis.error_reply('BADARG inbox must be 0 to 768 bytes without spaces')
end
if inbox_here ~= '0' and inbox_here ~= '1' then
  return redis.error_reply('BADARG inbox_here must be 0 or 1')
end

local lock = redis.pcall('HMGET', KEYS[1], 'owner', 'deadline_ms', 'granted_ms', 'fence', 'released', 'tail', 'floor',
  'expires_ms')
if lock.err then
  return lock
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = (now_us - now_us % 1000) / 1000

-- More than was granted is left when the server's clock stepped back: then the lease begins again.
local remaining_ms, granted_ms, stepped_back = 0, tonumber(lock[3] or 0), false
if lock[2] and lock[2] - now_ms > 0 then
  remaining_ms = lock[2] - now_ms
  if remaining_ms > granted_ms then
    remaining_ms, stepped_back = granted_ms, true
  end
end
if not_after_us > 0 and now_us > not_after_us then
  return {4, remaining_ms, now_us}
end
-- A released owner stays as a memo (owner without deadline, then `released`), so that a late copy of its
-- acquire cannot take the lock for nobody.
if owner == lock[5] or (owner == lock[1] and not lock[2]) then
  return {5, remaining_ms, now_us}
end

if remaining_ms > 0 then
  if owner == lock[1] then
    -- Never shorter than it was: a late copy of a request must not end what the holder was told since.
    local lease_ms = math.max(ttl_ms, remaining_ms)
    -- The key outlives the lease and its fence by the retention, and never goes earlier than it was to. PEXPIREAT
    -- first: a full server accepts it, and then the HSET that follows.
    local expires_ms = math.max(now_ms + lease_ms, math.ceil(lock[4] / 1000) + 1) + retention_ms
    expires_ms = math.max(expires_ms, tonumber(lock[8] or 0))
    redis.call('PEXPIREAT', KEYS[1], expires_ms)
    redis.call('HSET', KEYS[1], 'deadline_ms', now_ms + lease_ms, 'granted_ms', lease_ms, 'expires_ms', expires_ms)
    return {1, lease_ms, now_us, lock[4]}
  end
  if stepped_back then
    -- Without this the lease would begin again with every call, until the clock has caught up.
    redis.pcall('HSET', KEYS[1], 'deadline_ms', now_ms + remaining_ms)
  end
  if queue_ms == 0 then
    return {3, remaining_ms, now_us}
  end
end

if lock[7] then
  fence_floor = math.max(fence_floor, tonumber(lock[7]))
end
local now = time[1] .. time[2]
if #time[2] < 6 then
  now = string.format('%.0f', now_us)
end
local fence = now
-- Fences of equal length compare as strings, which spares two conversions in nearly every call.
if fence_floor >= now_us or (lock[4] and (lock[4] >= now or #lock[4] ~= #now)) then
  local last_fence = math.max(tonumber(lock[4] or 0), fence_floor)
  if last_fence >= 9007199254740991 then
    return redis.error_reply('FENCEEXHAUSTED no fence is left below 2^53 for this lock')
  end
  fence = string.format('%.0f', math.max(last_fence + 1, now_us))
end
local released = lock[5] or ''
if lock[1] and not lock[2] then
  released = lock[1]
end

if not lock[6] and remaining_ms == 0 then
  local expires_ms = math.max(now_ms + ttl_ms, math.ceil(fence / 1000) + 1) + retention_ms
  local must_expire_later = expires_ms > tonumber(lock[8] or 0)
  -- Later than asked for does no harm, and spares most calls the PEXPIREAT.
  expires_ms = must_expire_later and expires_ms + math.floor(retention_ms / 8) or lock[8]
  redis.call('HSET', KEYS[1], 'owner', owner, 'deadline_ms', string.format('%.0f', now_ms + ttl_ms),
    'granted_ms', ARGV[2], 'fence', fence, 'holder', now .. ' ' .. label, 'released', released,
    'expires_ms', expires_ms)
  if must_expire_later then
    redis.call('PEXPIREAT', KEYS[1], expires_ms)
  end
  return {1, ttl_ms, now_us, fence}
end

local queue = redis.call('HMGET', KEYS[1], 'head', 'parked', 'waiter:' .. owner, 'seen_ms', 'behind_ms', 'keep_ms',
  'expires_ms', 'swept')
local head, tail, parked = tonumber(queue[1] or 1), tonumber(lock[6] or 0), tonumber(queue[2] or 0)

-- hand-off passage: the same lines in acquire, release and force_release
-- Places are the tickets head to tail. Tickets from `parked` (0: none) to head - 1 were stepped over because nobody
-- was subscribed to their inbox; such a waiter has its place back when it asks before its window ends.
-- Windows are by the queue's own clock, which never goes back: the server's, and `behind_ms` more since that did. So
-- waiters that died do not stay for longer than they asked for.
local seen_ms, behind_ms = tonumber(queue[4] or 0), tonumber(queue[5] or 0)
local keep_ms, expires_ms = tonumber(queue[6] or 0), tonumber(queue[7] or 0)
behind_ms = math.max(behind_ms, seen_ms - now_ms)
local clock_ms, old_head, expires_later, budget = now_ms + behind_ms, head, false, 64

-- The first place of from..to whose window is open; closed ones are removed on the way. Without one: the ticket
-- that the search ended at, to + 1 or where the budget was spent.
local function first_open(from, to)
  local start = from
  while from <= to and budget > 0 do
    local fields = {}
    -- The first one is nearly always open; behind a dead one there may be many.
    for ticket = from, math.min(from > start and from + 6 or from, to) do
      fields[#fields + 1] = 'place:' .. ticket
    end
    for _, place in ipairs(redis.call('HMGET', KEYS[1], unpack(fields))) do
      budget = budget - 1
      if place then
        local window, lease, here, waiter, channel, who =
          string.match(place, '^(%d+) (%d+) (%d) ([^ ]+) ([^ ]*) (.*)$')
        if waiter == owner or window - clock_ms > 0 then
          return from, waiter, lease, here, channel, who
        end
        redis.call('HDEL', KEYS[1], 'place:' .. from, 'waiter:' .. waiter)
      end
      from = from + 1
    end
  end
  return from
end

-- The key outlives a lease or place of that length, and every fence up to `last`, by the retention. It never goes
-- earlier than a call before asked for; later does no harm, which spares most calls a command.
local function keep(length_ms, last, retention)
  local least_ms = math.max(now_ms + length_ms, math.ceil(last / 1000) + 1) + retention
  if least_ms > expires_ms then
    expires_ms, expires_later = least_ms + math.floor(retention / 8), true
  end
end

-- Grants to the first waiter that can be there: 'granted' and the lease; 'own' when that is the caller; 'none';
-- 'more' when the budget ended first. A write must have been made before, so that no message leaves a server that
-- then refuses the grant.
local function hand_off()
  while true do
    local ticket, waiter, lease, here, channel, who = first_open(head, tail)
    head = ticket
    if not waiter then
      return ticket > tail and 'none' or 'more', 0
    end
    if waiter == owner then
      return 'own', 0
    end
    local reached = 1
    if channel ~= '' then
      reached = redis.pcall('PUBLISH', channel, waiter .. ' ' .. fence .. ' ' .. lease)
    end
    head = ticket + 1
    if here == '1' and reached == 0 then
      if parked == 0 then
        parked = ticket
      end
    else
      redis.call('HDEL', KEYS[1], 'place:' .. ticket, 'waiter:' .. waiter)
      redis.call('HSET', KEYS[1], 'owner', waiter, 'deadline_ms', string.format('%.0f', now_ms + lease),
        'granted_ms', lease, 'fence', fence, 'holder', now .. ' ' .. who, 'released', released)
      keep(lease, fence, keep_ms)
      return 'granted', tonumber(lease)
    end
  end
end

-- Finds the head of the queue, which has to ask when the lease ends. Whoever has become it without being told by a
-- reply is told by a message; after a grant of `length_ms` only who would not ask in time by itself, in a third of its
-- own lease.
local function find_head(length_ms)
  local ticket, waiter, lease, _, channel = first_open(head, tail)
  head = ticket
  if waiter and waiter ~= owner and channel ~= '' then
    local told = head ~= old_head
    if length_ms then
      told = lease / 3 > length_ms
    end
    if told then
      redis.pcall('PUBLISH', channel, waiter .. ' 0 0')
    end
  end
end

local function save_queue()
  if parked > 0 then
    parked = first_open(parked, head - 1)
    if parked >= head then
      parked = 0
    end
  end
  if expires_later then
    redis.call('PEXPIREAT', KEYS[1], expires_ms)
    redis.call('HSET', KEYS[1], 'expires_ms', expires_ms)
  end
  if head > tail and parked == 0 then
    redis.call('HDEL', KEYS[1], 'head', 'tail', 'parked', 'floor', 'seen_ms', 'behind_ms', 'keep_ms', 'swept')
  elseif head ~= tonumber(queue[1] or 1) or parked ~= tonumber(queue[2] or 0) then
    -- A full server may refuse this where it is the first write: the next call finds the same again.
    redis.pcall('HSET', KEYS[1], 'head', head, 'parked', parked, 'behind_ms', behind_ms)
  elseif behind_ms ~= tonumber(queue[5] or 0) then
    redis.pcall('HSET', KEYS[1], 'behind_ms', behind_ms)
  end
end
-- end of the hand-off passage

local ticket, waiting_since = string.match(queue[3] or '', '^(%d+) (%d+)$')
ticket = tonumber(ticket)
if ticket and ticket < head then
  head, old_head = ticket, ticket
end

if remaining_ms == 0 then
  if lock[2] then
    redis.call('HDEL', KEYS[1], 'deadline_ms', 'owner')
  else
    redis.call('HDEL', KEYS[1], 'deadline_ms')
  end
  local outcome, lease_ms = hand_off()
  if outcome == 'own' or outcome == 'none' then
    if ticket then
      redis.call('HDEL', KEYS[1], 'place:' .. ticket, 'waiter:' .. owner)
      head = ticket + 1
    end
    redis.call('HSET', KEYS[1], 'owner', owner, 'deadline_ms', string.format('%.0f', now_ms + ttl_ms),
      'granted_ms', ARGV[2], 'fence', fence, 'holder', now .. ' ' .. label, 'released', released)
    keep(ttl_ms, fence, retention_ms)
    find_head(ttl_ms)
    save_queue()
    return {1, ttl_ms, now_us, fence}
  end
  remaining_ms = lease_ms
  if outcome == 'granted' then
    find_head(lease_ms)
  end
  if queue_ms == 0 then
    save_queue()
    return {3, remaining_ms, now_us}
  end
  old_head = head
end

if not ticket then
  -- Each waiter has two fields, and the lock less than 20 of its own. Tickets of those who left do not count; who finds
  -- too many looks for closed places.
  if tail - head >= 99999 and redis.call('HLEN', KEYS[1]) >= 200000 then
    local swept = tonumber(queue[8] or 0)
    while budget > 0 do
      local open, waiter = first_open(math.max(swept, parked > 0 and parked or head), tail)
      swept = waiter and open + 1 or open
      if swept > tail then
        swept = 0
      end
    end
    redis.pcall('HSET', KEYS[1], 'swept', swept)
    if redis.call('HLEN', KEYS[1]) >= 200000 then
      save_queue()
      return redis.error_reply('QUEUEFULL 100000 waiters may be alive')
    end
  end
  tail = tail + 1
  ticket, waiting_since = tail, now
end
local least_fence = math.max(tonumber(lock[4] or 0), fence_floor)
keep(math.max(remaining_ms, queue_ms), least_fence + 1, retention_ms)
if queue[3] and expires_later then
  -- A full server accepts this, and then the HSET that follows.
  redis.call('PEXPIREAT', KEYS[1], expires_ms)
elseif queue[3] then
  redis.call('HDEL', KEYS[1], 'none')
end
redis.call('HSET', KEYS[1], 'tail', tail, 'waiter:' .. owner, ticket .. ' ' .. waiting_since, 'place:' .. ticket,
  (clock_ms + queue_ms) .. ' ' .. math.min(claim_ms, ttl_ms) .. ' ' .. inbox_here .. ' ' .. owner ..
  ' ' .. inbox .. ' ' .. label, 'seen_ms', clock_ms)
if retention_ms > keep_ms then
  redis.call('HSET', KEYS[1], 'keep_ms', retention_ms)
end
if fence_floor > tonumber(lock[4] or 0) then
  -- Whoever hands the lock on does not know this waiter's floor.
  redis.call('HSET', KEYS[1], 'floor', string.format('%.0f', fence_floor))
end
find_head()
save_queue()
return {2, remaining_ms, now_us, ticket - head + 1}
