-- The way of one acquisition attempt: ask, wait, ask again, and leave nothing behind.
local clock = require "resty.redlatch.clock"
local leases = require "resty.redlatch.lease"
local owner_tokens = require "resty.redlatch.owner"

local max, min, sleep = math.max, math.min, ngx.sleep

-- Calls in one attempt that may follow each other at once: 100000 places of dead waiters, 64 looked at per call.
local AT_ONCE = 1600

-- Asks until there is a reply. A reply that got lost is asked for again: the same owner gets the same answer.
-- | what went wrong                  | what follows                                        |
-- | the reply is lost                | ask again on a fresh connection until `give_up`     |
-- | no connection, nothing lost yet  | give up; if already in the queue, ask until the end |
-- | an error reply                   | give up                                             |
local function ask(lock, attempt)
  local pause = 0.005
  while true do
    attempt.asked = attempt.asked + 1
    local seconds = min(lock.timeout, max(attempt.give_up - clock(), 0.001))
    local word, detail, third, fourth = lock.family.acquire(lock, attempt, seconds, attempt.unknown ~= nil)
    if word then
      attempt.unknown = nil
      return word, detail, third, fourth
    end
    if third == "unknown" then
      attempt.unknown = detail
    elseif third == "refused" or not (attempt.unknown or attempt.queued) then
      return nil, detail
    end
    pause = min(pause * 2, 0.2)
    if clock() + pause >= (attempt.unknown and attempt.give_up or attempt.wait_until) then
      return nil, detail
    end
    sleep(pause)
  end
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
  lock.family.release(lock, attempt.key, attempt.owner, lock.timeout)
  return nil, "lost"
end

-- @param attempt a table with name, key, ttl, wait and fence_floor
-- @return a lease; or nil, error, and for "held" the holder's remaining seconds
return function(lock, attempt)
  attempt.owner = owner_tokens.token()
  attempt.waits = attempt.wait > 0
  attempt.wait_until = clock() + attempt.wait
  attempt.give_up = attempt.wait_until + 2 * lock.timeout
  attempt.asked = 0
  local at_once = 0
  while true do
    local word, remaining, sent, last = ask(lock, attempt)
    if not word then
      clean_up(lock, attempt)
      local err = remaining
      if attempt.unknown and err ~= attempt.unknown then
        err = attempt.unknown .. ", and then: " .. err
      end
      return nil, err
    elseif word == "granted" then
      return granted(lock, attempt, remaining, sent, last)
    elseif word == "spent" then
      return nil, "lost"
    end
    attempt.queued = word == "queued"

    local left = attempt.wait_until - clock()
    local pause
    if remaining == 0 and lock.family.fenced and at_once < AT_ONCE and clock() < attempt.give_up then
      -- Nobody holds it: dead waiters were in front, or it came too late by an estimate that the reply has set right.
      at_once, pause = at_once + 1, 0
    elseif left <= 0 then
      clean_up(lock, attempt)
      return nil, "held", remaining
    else
      pause = min(lock.family.pause(lock, attempt, remaining, last), left)
    end
    if pause > 0 then
      sleep(max(pause, 0.001))
    end
  end
end
