-- Messages of hand-offs: `owner fence lease_ms`, as the scripts publish them. Whoever may publish on an inbox can write
-- anything there, so a message counts only as far as it fits what the waiter knows.
local clock = require "resty.redlatch.clock"
local leases = require "resty.redlatch.lease"

local find, format, sub = string.find, string.format, string.sub

-- A fence is the server's time as a rule. One that is further ahead than this may be real, but is asked for.
local FAR_AHEAD_US = 60e6

local _M = {}

-- A decimal number; nil for what only looks like one to tonumber.
local function decimal(text)
  local number = tonumber(text)
  return number and format("%.0f", number) == text and number or nil
end

-- @param payload of a message
-- @param waiters by their owner tokens
-- @param stamp number of the event that brought it
-- @return the waiter whom it concerns and what it is told: a table with fence, lease and stamp; or true when it is to
--   ask at once: it is the head of the queue now (`owner 0 0`), or the message is none that a script writes
function _M.read(payload, waiters, stamp)
  local first = find(payload, " ", 1, true)
  local waiter = first and waiters[sub(payload, 1, first - 1)]
  if not waiter then
    -- Nothing to do: whoever gave up has sent a release after its acquire.
    return nil
  end
  local second = find(payload, " ", first + 1, true)
  local fence = second and sub(payload, first + 1, second - 1)
  local number, lease_ms = decimal(fence), second and decimal(sub(payload, second + 1))
  if not number or not lease_ms or number < 1 or lease_ms < 1 then
    return waiter, true
  end
  return waiter, { fence = fence, number = number, lease_ms = lease_ms, lease = lease_ms / 1000, stamp = stamp }
end

-- What the script must have written if it granted: the lease that was asked for, under a fence of after the last
-- answer.
local function fits(attempt, message, now)
  local server_us = attempt.server_us + (now - attempt.answered) * 1e6
  return message.lease_ms == attempt.promised_ms and message.number >= attempt.server_us
    and message.number <= server_us + FAR_AHEAD_US
end

-- A message counts at once when that is proven to be still valid: the server cannot have granted before it answered our
-- last question, and that was not before we asked. The message must have come after that answer, a third of the lease
-- must be left, and it will be renewed. Else, and whenever anything about it is odd, the lease is asked for: a waiter
-- that was told a lie goes on waiting in its place.
function _M.proven(attempt, message)
  local heard = attempt.heard or 0
  attempt.heard = math.max(heard, message.number)
  if not attempt.renew or message.stamp < attempt.stamp or message.number <= heard then
    return false
  end
  local now = clock()
  return fits(attempt, message, now)
    and attempt.answered + message.lease - now >= message.lease / 3 + leases.margin(message.lease)
end

return _M
