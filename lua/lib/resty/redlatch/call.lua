-- One script on one key, and what its answer means.
local clock = require "resty.redlatch.clock"
local errors = require "resty.redlatch.errors"

local _M = {}

-- @param reply what a transport brought: the reply; or false and the server's error; or nil, why there is none, and
--   "connection" (the script did not run), "unknown" (it may have) or "refused" (the server does not want us)
-- @param err of those
-- @param kind of those
-- @param name of the script, and
-- @param key where somebody is told of an error
-- @return the reply (an array); or nil, an error of the closed list, and its kind: "refused" for an error reply
function _M.outcome(lock, reply, err, kind, name, key)
  if type(reply) == "table" and type(reply[1]) == "number" then
    return reply
  elseif reply then
    return nil, "unknown: " .. lock.address .. " does not answer like a Redis that runs this script", "unknown"
  elseif reply == false then
    if errors.code(err) == "NOSCRIPT" then
      return nil, "script missing", "refused"
    end
    local user = type(lock.connection) ~= "table" and (lock.username or "default") or nil
    local asked = { user = user, command = "evalsha", script = name, key = key, strict = lock.strict }
    return nil, errors.explain(err, asked), "refused"
  end
  return nil, err, kind
end

-- @param lock an instance of resty.redlatch
-- @param name of the script, for instance "mutex/acquire"
-- @param key the one key
-- @param args array of strings, or a function of `lock` and `subject` that makes it once there is a connection
-- @param seconds how long all of it may take, the connection too
-- @param fresh true to use no connection of the pool
-- @return the reply (an array), the moment before it was asked for, and the number of the event that brought it; or
--   nil, an error of the closed list, and "refused" (the server answered with an error), "connection" (the script did
--   not run) or "unknown" (it may have)
function _M.run(lock, name, key, args, seconds, fresh, subject)
  local reply, err, kind, asked_at, stamp = lock.transport.run(lock, name, key, args, clock() + seconds, fresh, subject)
  reply, err, kind = _M.outcome(lock, reply, err, kind, name, key)
  if reply then
    return reply, asked_at, stamp
  end
  return nil, err, kind
end

return _M
