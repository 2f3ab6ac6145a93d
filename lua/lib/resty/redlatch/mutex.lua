-- The mutex family: a queue in order of arrival and a fence, under `<namespace>:m1:<name>`.
local call = require "resty.redlatch.call"
local clock = require "resty.redlatch.clock"
local owner_tokens = require "resty.redlatch.owner"
local random = require "resty.redlatch.random"
local server_clock = require "resty.redlatch.server_clock"
local words = require "resty.redlatch.words"

local ceil, format, max, min = math.ceil, string.format, math.max, math.min

-- How many waiters that died together cost one claim lease, even if the server still counts them as subscribed.
local NEAR = 1024

local _M = { fenced = true, extend_script = "mutex/extend", release_script = "mutex/release" }

-- Releases of one lock that skip dead waiters: 100000 places, 64 looked at in each.
_M.RELEASE_ROUNDS = 1600

function _M.key(lock, name)
  return lock.namespace .. ":m1:" .. name
end

-- The shortest time between two heartbeats of a waiter that hears of its hand-off.
local OFTEN = 0.025

-- How many times `places` the position is, at least one.
local function times(attempt, places)
  return max(ceil(attempt.position / places), 1)
end

-- Time between two heartbeats. It grows with the position, so that a long queue does not keep the server busy.
local function interval(lock, attempt)
  local heartbeat = min(lock.claim / 3, max(attempt.ttl / 3, OFTEN))
  return min(heartbeat * times(attempt, 64), lock.claim / 3 * min(times(attempt, NEAR), 6))
end

-- How long the place is to stay alive after the next question: with a pushed hand-off three intervals, so that two may
-- be lost, and not beyond the claim lease for the first places, so that waiters which died together cost one of it.
local function window(lock, attempt)
  if not attempt.hears then
    return lock.claim
  end
  return min(max(3 * interval(lock, attempt), lock.claim), 60)
end

-- Within which time to ask when a message may be lost. A long queue does not ask all at once.
function _M.soon(attempt)
  return min(0.05 * times(attempt, 64), 1)
end

-- Made for the connection that is there, as it may have no inbox where another had one.
-- @return nil while the time of the server is not known: a late copy of a question without a limit could be granted
local function acquire_args(lock, attempt)
  if not lock.server.ahead_us then
    return nil
  end
  attempt.hears = attempt.inbox and lock.transport.hears(lock, attempt.inbox, attempt) or false
  local ttl_ms, claim_ms = format("%.0f", attempt.ttl * 1000), format("%.0f", lock.claim * 1000)
  attempt.promised_ms = min(tonumber(ttl_ms), tonumber(claim_ms))
  local args = {
    attempt.owner,
    ttl_ms,
    server_clock.at(lock, attempt.not_after),
    attempt.fence_floor,
    format("%.0f", lock.retention * 1000),
    lock.label or owner_tokens.label(),
  }
  if attempt.waits then
    args[7] = format("%.0f", window(lock, attempt) * 1000)
    args[8] = claim_ms
    args[9] = attempt.hears and attempt.inbox or ""
    -- In a cluster it is subscribed on some node.
    args[10] = attempt.hears and not lock.cluster and "1" or "0"
  end
  return args
end

-- Where TIME is refused, by a proxy for instance, another script tells the time: extending what is not held.
local function ask_time(lock, attempt, seconds, fresh)
  local reply, err, kind = call.run(lock, "mutex/extend", attempt.key,
    _M.extend_args(lock, attempt.owner, attempt.ttl), seconds, fresh)
  if not reply then
    return nil, err, kind
  end
  server_clock.observe(lock, reply[3])
  return true
end

-- One request to grant the lease; with `attempt.waits` also to join or keep the queue.
-- @return the reply's word, remaining seconds, the moment before it was asked for, fence or position, and the number of
--   the event that brought it; or nil, error, and the kind of it (see call.run)
function _M.acquire(lock, attempt, seconds, fresh)
  -- A function: the time of the server may become known with the connection.
  local give_up = clock() + seconds
  local reply, sent, stamp = call.run(lock, "mutex/acquire", attempt.key, acquire_args, seconds, fresh, attempt)
  if not reply and stamp == "timeless" then
    reply, sent, stamp = ask_time(lock, attempt, give_up - clock(), fresh)
    if reply then
      reply, sent, stamp = call.run(lock, "mutex/acquire", attempt.key, acquire_args, give_up - clock(), fresh, attempt)
    end
  end
  if not reply then
    return nil, sent, stamp
  end
  server_clock.observe(lock, reply[3])
  attempt.server_us = reply[3]
  local word, detail = words["mutex/acquire"][reply[1]], reply[4]
  if word == "granted" then
    detail = format("%.0f", detail)
  end
  return word, reply[2] / 1000, sent, detail, stamp
end

function _M.extend_args(lock, owner, ttl)
  return { owner, format("%.0f", ttl * 1000), format("%.0f", lock.retention * 1000) }
end

-- @return the reply's word, remaining seconds and fence
function _M.read_extend(lock, reply)
  server_clock.observe(lock, reply[3])
  return words["mutex/extend"][reply[1]], reply[2] / 1000, reply[4] and format("%.0f", reply[4])
end

-- @return the reply's word, and whether dead waiters are left in front of the queue: then it has to be called again
function _M.read_release(lock, reply)
  server_clock.observe(lock, reply[3])
  return words["mutex/release"][reply[1]], reply[2] ~= 0
end

local function release_once(lock, key, owner, seconds, fresh)
  local reply, err, kind = call.run(lock, "mutex/release", key, { owner }, seconds, fresh)
  if not reply then
    return nil, err, kind
  end
  return _M.read_release(lock, reply)
end

-- Ends a lease or leaves the queue, and takes its share of the work on dead waiters in front of the queue.
-- @return the reply's word; or nil, error, kind
function _M.release(lock, key, owner, seconds, fresh)
  local give_up = clock() + seconds
  local first, pending, kind = release_once(lock, key, owner, seconds, fresh)
  if not first then
    return nil, pending, kind
  elseif not pending then
    return first
  end
  local rounds, word = 1, first
  while word and pending and rounds < _M.RELEASE_ROUNDS and clock() < give_up do
    word, pending = release_once(lock, key, owner, give_up - clock(), fresh)
    rounds = rounds + 1
  end
  return first
end

-- How long to wait before asking again. The first in the queue asks when the holder's lease is over. A waiter that
-- hears of its hand-off asks to keep its place; another one often, and the less often the further back it is.
function _M.pause(lock, attempt, remaining)
  local pause
  if attempt.hears then
    pause = interval(lock, attempt) * (0.75 + random.fraction() / 4)
  else
    pause = min(max(0.02, 0.01 * attempt.position), 1, lock.claim / 3, attempt.ttl / 3)
  end
  if attempt.position == 1 or remaining == 0 then
    pause = min(pause, remaining + 0.001)
  end
  return pause
end

return _M
