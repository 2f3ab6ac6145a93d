-- The mutex family: a queue in order of arrival and a fence, under `<namespace>:m1:<name>`.
local call = require "resty.redlatch.call"
local owner_tokens = require "resty.redlatch.owner"
local server_clock = require "resty.redlatch.server_clock"
local words = require "resty.redlatch.words"

local format, max, min = string.format, math.max, math.min

-- Releases of one lock that skip dead waiters: 100000 places, 64 looked at in each.
local RELEASE_ROUNDS = 1600

local _M = { fenced = true }

function _M.key(lock, name)
  return lock.namespace .. ":m1:" .. name
end

-- One request to grant the lease; with `attempt.waits` also to join or keep the queue.
-- @return the reply's word, remaining seconds, the moment before it was asked for, fence or position;
--   or nil, error, and the kind of it (see call.run)
function _M.acquire(lock, attempt, seconds, fresh)
  -- A function: the time of the server may become known with the connection.
  local function args()
    return {
      attempt.owner,
      format("%.0f", attempt.ttl * 1000),
      attempt.waits and format("%.0f", lock.claim * 1000) or "0",
      format("%.0f", lock.claim * 1000),
      server_clock.at(lock, attempt.give_up),
      attempt.fence_floor,
      format("%.0f", lock.retention * 1000),
      lock.label or owner_tokens.label(),
      "",
      "0",
    }
  end
  local reply, sent, kind = call.run(lock, "mutex/acquire", attempt.key, args, seconds, fresh)
  if not reply then
    return nil, sent, kind
  end
  server_clock.observe(lock, reply[3])
  return words["mutex/acquire"][reply[1]], reply[2] / 1000, sent, reply[4]
end

-- @return the reply's word, remaining seconds, the moment before it was asked for, fence; or nil, error, kind
function _M.extend(lock, lease, ttl, seconds, fresh)
  local reply, sent, kind = call.run(lock, "mutex/extend", lease.key, {
    lease.owner,
    format("%.0f", ttl * 1000),
    format("%.0f", lock.retention * 1000),
  }, seconds, fresh)
  if not reply then
    return nil, sent, kind
  end
  server_clock.observe(lock, reply[3])
  return words["mutex/extend"][reply[1]], reply[2] / 1000, sent, reply[4]
end

-- Ends a lease or leaves the queue, and takes its share of the work on dead waiters in front of the queue.
-- @return the reply's word; or nil, error, kind
function _M.release(lock, key, owner, seconds, fresh)
  local first
  for _ = 1, RELEASE_ROUNDS do
    local reply, err, kind = call.run(lock, "mutex/release", key, { owner }, seconds, fresh)
    if not reply then
      if first then
        break
      end
      return nil, err, kind
    end
    server_clock.observe(lock, reply[3])
    first = first or words["mutex/release"][reply[1]]
    if reply[2] == 0 then
      break
    end
  end
  return first
end

-- How long to wait before asking again. The first in the queue asks often and when the holder's lease is over; the
-- others ask the less often the further back they are, and often enough to keep their place (which lasts `claim`).
function _M.pause(lock, attempt, remaining, position)
  position = position or 1
  local pause = min(max(0.02, 0.01 * position), 1, lock.claim / 3, attempt.ttl / 3)
  if position == 1 or remaining == 0 then
    pause = min(pause, remaining + 0.001)
  end
  return pause
end

return _M
