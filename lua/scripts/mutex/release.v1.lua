--[[
@name mutex/release v1
@summary Ends the caller's lease and hands it to the next waiter, or gives up the caller's place in the queue.
@since 0.1.0
@redis 6.2
@complexity O(1): at most 64 places of the queue are looked at in one call
@key lock: hash, all state of one lock
@arg owner: owner token of the attempt that ends, 1 to 128 bytes without spaces
@reply 1 released: pending, now_us
@reply 2 handed_off: pending, now_us
@reply 3 left: pending, now_us
@reply 4 released_before: pending, now_us
@reply 5 not_held: pending, now_us
@error BADARG an argument is missing or out of range; nothing was written
@error WRONGTYPE the key holds something else; nothing was written
@effects HMGET TIME HDEL HSET PEXPIREAT PUBLISH
@retry safe: a second call answers 4 (released_before) and changes nothing for the next holder

pending is 1 when the lock is free and dead waiters are still in front of the queue: call again to go on, else 0.
Reply 4 is for the last two owners that released; an older one gets 5.
]]
local owner = ARGV[1]
if #KEYS ~= 1 or #ARGV ~= 1 then
  return redis.error_reply('BADARG mutex/release takes 1 key and 1 argument')
end
if #owner < 1 or #owner > 128 or string.find(owner, ' ', 1, true) then
  return redis.error_reply('BADARG owner must be 1 to 128 bytes without spaces')
end

local lock = redis.pcall('HMGET', KEYS[1], 'owner', 'deadline_ms', 'tail', 'fence', 'released', 'floor')
if lock.err then
  return lock
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = (now_us - now_us % 1000) / 1000

local held = lock[2] and lock[2] - now_ms > 0
local outcome = 5
if held and owner == lock[1] then
  outcome = 1
elseif owner == lock[5] or (owner == lock[1] and not lock[2]) then
  outcome = 4
end
if not lock[3] then
  if outcome == 1 then
    -- The owner stays as a memo for a retry of this call; without a deadline it holds nothing.
    redis.call('HDEL', KEYS[1], 'deadline_ms')
  end
  return {outcome, 0, now_us}
end

local now = time[1] .. string.sub('000000', #time[2] + 1) .. time[2]
local fence = now
local last_fence = math.max(tonumber(lock[4] or 0), tonumber(lock[6] or 0))
if last_fence >= now_us then
  fence = string.format('%.0f', last_fence + 1)
end
local released = lock[5] or ''
if lock[1] and (outcome == 1 or not lock[2]) then
  released = lock[1]
end

local queue = redis.call('HMGET', KEYS[1], 'head', 'parked', 'waiter:' .. owner, 'seen_ms', 'behind_ms', 'keep_ms',
  'expires_ms')
local head, tail, parked = tonumber(queue[1] or 1), tonumber(lock[3]), tonumber(queue[2] or 0)

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

if queue[3] then
  redis.call('HDEL', KEYS[1], 'place:' .. string.match(queue[3], '^%d+'), 'waiter:' .. owner)
  outcome = 3
end
local pending = 0
if outcome == 1 or not held then
  if outcome == 1 or not lock[2] then
    redis.call('HDEL', KEYS[1], 'deadline_ms')
  else
    redis.call('HDEL', KEYS[1], 'deadline_ms', 'owner')
  end
end
if (outcome == 1 or not held) and last_fence < 9007199254740991 then
  local result, lease_ms = hand_off()
  if result == 'granted' then
    find_head(lease_ms)
    if outcome == 1 then
      outcome = 2
    end
  elseif result == 'more' then
    pending = 1
  end
elseif held then
  find_head()
end
save_queue()
return {outcome, pending, now_us}
