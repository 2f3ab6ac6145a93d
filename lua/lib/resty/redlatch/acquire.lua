-- The way of one acquisition attempt: ask, wait, ask again, and leave nothing behind.
local clock = require "resty.redlatch.clock"
local hand_off = require "resty.redlatch.hand_off"
local held = require "resty.redlatch.held"
local leases = require "resty.redlatch.lease"
local owner_tokens = require "resty.redlatch.owner"
local random = require "resty.redlatch.random"
local refusals = require "resty.redlatch.refusals"

local max, min, sleep = math.max, math.min, ngx.sleep

-- Calls in one attempt that may follow each other at once: 100000 places of dead waiters, 64 looked at per call.
local AT_ONCE = 1600

-- One question.
-- @return the reply's word, remaining seconds, the moment before it was asked for, and fence or position; or nil, error
--   and its kind
local function ask_once(lock, attempt)
  attempt.asked = attempt.asked + 1
  local seconds = min(lock.timeout, max(attempt.give_up - clock(), 0.001))
  -- What arrives after that is not granted: nobody waits for the answer any more.
  attempt.not_after = clock() + seconds
  local word, detail, third, fourth, stamp = lock.family.acquire(lock, attempt, seconds, attempt.unknown ~= nil)
  if word then
    attempt.unknown, attempt.stamp = nil, stamp
  end
  return word, detail, third, fourth
end

-- Asks until there is a reply. A reply that got lost is asked for again: the same owner gets the same answer.
-- | what went wrong                  | what follows                                        |
-- | the reply is lost                | ask again on a fresh connection until `give_up`     |
-- | no connection, nothing lost yet  | give up; if already in the queue, ask until the end |
-- | an error that passes (BUSY, …)   | ask until the end                                   |
-- | another error reply              | give up                                             |
local function ask_on(lock, attempt, err, kind)
  local pause = 0.005
  while true do
    if kind == "unknown" then
      attempt.unknown = err
    elseif kind == "refused" then
      if not refusals.may_pass(err, attempt.queued) then
        return nil, err
      end
    elseif not (attempt.unknown or attempt.queued) then
      return nil, err
    end
    pause = min(pause * 2, 0.2)
    if clock() + pause >= (attempt.unknown and attempt.give_up or attempt.wait_until) then
      return nil, err
    end
    sleep(pause)
    local word, detail, third, fourth = ask_once(lock, attempt)
    if word then
      return word, detail, third, fourth
    end
    err, kind = detail, third
  end
end

local function ask(lock, attempt)
  local word, detail, third, fourth = ask_once(lock, attempt)
  if word then
    return word, detail, third, fourth
  end
  return ask_on(lock, attempt, detail, third)
end

-- Frees what the attempt may have left on the server. What this cannot reach ends with its TTL or window.
local function clean_up(lock, attempt)
  if attempt.queued or attempt.unknown then
    lock.family.release(lock, attempt.key, attempt.owner, lock.timeout, attempt.unknown ~= nil)
  end
end

local function granted(lock, attempt, remaining, sent, fence)
  local lease = leases.granted(lock, attempt, sent, remaining, fence)
  if lease:remaining() > 0 then
    return lease
  end
  -- Without waiting: the time for that is over too.
  lease:post_release()
  return nil, "lost"
end

-- Waits for a message until it is time to ask again.
-- @return a message, or nil
local function hear(lock, attempt, until_)
  while not attempt.message do
    if attempt.reconnected then
      attempt.reconnected = nil
      until_ = min(until_, clock() + lock.family.soon(attempt) * random.fraction())
    end
    local left = until_ - clock()
    if left <= 0 or attempt.called then
      attempt.called = nil
      return nil
    end
    attempt.sem:wait(left)
  end
  local message = attempt.message
  attempt.message = nil
  return message
end

local function held_by_another(lock, remaining)
  local counts = lock.server.counts
  if counts then
    counts.held = counts.held + 1
  end
  return nil, "held", remaining
end

-- Sleeps until it is time to ask again, or for a waiter with an inbox until it hears something.
-- @return a lease, if that is proven
local function sleep_or_hear(lock, attempt, pause)
  if not (attempt.inbox and attempt.queued) then
    return sleep(pause)
  end
  local message = hear(lock, attempt, clock() + pause)
  -- In a cluster it comes by way of another node: nothing says since when the lease is ours, so it is asked for.
  if message and not lock.cluster and hand_off.proven(attempt, message) then
    lock.server.counts.handed_off = lock.server.counts.handed_off + 1
    return granted(lock, attempt, message.lease, attempt.answered, message.fence)
  end
end

-- What to do after "no": ask again at once, or later, or give up.
-- @return a lease, or nil; and if there is nothing more to do an error, and for "held" the holder's remaining seconds
local function wait(lock, attempt, remaining)
  if remaining == 0 and lock.family.fenced and attempt.at_once < AT_ONCE and clock() < attempt.give_up then
    -- Nobody holds it: dead waiters were in front, or it came too late by an estimate that the reply has set right.
    attempt.at_once = attempt.at_once + 1
    return nil
  end
  local left = attempt.wait_until - clock()
  if left > 0 then
    local lease = sleep_or_hear(lock, attempt, max(min(lock.family.pause(lock, attempt, remaining), left), 0.001))
    if lease then
      return lease
    end
  end
  if clock() >= attempt.wait_until then
    return held_by_another(lock, remaining)
  end
end

-- What an answer comes to.
-- @return as wait
local function follow(lock, attempt, word, remaining, sent, last)
  if word == "granted" then
    return granted(lock, attempt, remaining, sent, last)
  elseif not word then
    local err = remaining
    if attempt.unknown and err ~= attempt.unknown then
      err = attempt.unknown .. ", and then: " .. err
    end
    return nil, err
  elseif word == "spent" then
    return nil, "lost"
  end
  attempt.queued = word == "queued"
  attempt.position = attempt.queued and last or attempt.position
  attempt.answered = sent
  return wait(lock, attempt, remaining)
end

local function go(lock, attempt)
  local lease, err, remaining = follow(lock, attempt, ask(lock, attempt))
  while not lease and not err do
    attempt.message, attempt.called = nil, nil
    lease, err, remaining = follow(lock, attempt, ask(lock, attempt))
  end
  return lease, err, remaining
end

-- For the log phase of a request that was killed or failed. Weak, so that a lease which the request has dropped is
-- renewed no longer even where no log phase calls.
local record_mt = { __mode = "v", __index = {
  give_back = function(record)
    if record.lease then
      record.lease:post_release()
    elseif record.lock then
      record.lock.transport.post_release(record.lock, record.key, record.owner)
    end
  end,
} }

-- @param attempt a table with name, key, ttl, wait, fence_floor, renew, max_hold and detached
-- @return a lease; or nil, error, and for "held" the holder's remaining seconds
return function(lock, attempt)
  local transport = lock.transport
  attempt.owner = owner_tokens.token()
  attempt.waits = attempt.wait > 0
  attempt.wait_until = clock() + attempt.wait
  attempt.give_up = attempt.wait_until + 2 * lock.timeout
  attempt.asked, attempt.at_once, attempt.position = 0, 0, 1
  attempt.record = setmetatable({
    lock = lock, key = attempt.key, owner = attempt.owner, request = nil, lease = nil,
  }, record_mt)
  held.add(attempt.record)
  if attempt.waits and lock.family.fenced then
    attempt.inbox = transport.inbox(lock, clock() + lock.timeout)
    if attempt.inbox then
      -- Before the first question, so that no grant can come too early.
      transport.listen(lock, attempt)
    end
  end
  local lease, err, remaining = go(lock, attempt)
  if attempt.inbox then
    transport.leave(lock, attempt)
  end
  if not lease then
    clean_up(lock, attempt)
  end
  if not lease or attempt.detached then
    held.remove(attempt.record)
  else
    attempt.record.lease = lease
  end
  return lease, err, remaining
end
