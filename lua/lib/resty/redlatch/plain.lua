-- The plain family: SET NX PX and compare-and-delete on the user's own key, for fleets that also have other clients.
-- No queue and no fence.
local call = require "resty.redlatch.call"
local random = require "resty.redlatch.random"
local words = require "resty.redlatch.words"

local format, min = string.format, math.min

local _M = { fenced = false, extend_script = "plain/extend", release_script = "plain/release", RELEASE_ROUNDS = 1 }

function _M.key(_, name)
  return name
end

-- See mutex.lua. Remaining is nil when the holder has set no TTL.
function _M.acquire(lock, attempt, seconds, fresh)
  local args = { attempt.owner, format("%.0f", attempt.ttl * 1000) }
  local reply, sent, kind = call.run(lock, "plain/acquire", attempt.key, args, seconds, fresh)
  if not reply then
    return nil, sent, kind
  end
  local word = words["plain/acquire"][reply[1]]
  if word == "held_without_ttl" then
    return "held", nil, sent
  end
  return word, reply[2] / 1000, sent
end

function _M.extend_args(_, owner, ttl)
  return { owner, format("%.0f", ttl * 1000) }
end

function _M.read_extend(_, reply)
  return words["plain/extend"][reply[1]], reply[2] / 1000
end

function _M.read_release(_, reply)
  return words["plain/release"][reply[1]], false
end

function _M.release(lock, key, owner, seconds, fresh)
  local reply, err, kind = call.run(lock, "plain/release", key, { owner }, seconds, fresh)
  if not reply then
    return nil, err, kind
  end
  return words["plain/release"][reply[1]]
end

-- Without a queue waiters only try again: later each time, and not all at the same moment.
function _M.pause(_, attempt, remaining)
  local pause = min(0.25, 0.005 * 1.5 ^ min(attempt.asked, 20)) * (0.5 + random.fraction())
  if remaining then
    pause = min(pause, remaining + 0.001 + 0.005 * random.fraction())
  end
  return pause
end

return _M
