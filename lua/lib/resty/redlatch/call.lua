-- One script on one key: by digest, loading the script where it is missing.
local bundle = require "resty.redlatch.bundle"
local clock = require "resty.redlatch.clock"
local connection = require "resty.redlatch.connection"
local errors = require "resty.redlatch.errors"

local command, give_back = connection.command, connection.give_back
local unpack = unpack

-- A SCRIPT FLUSH can come between loading and running, again and again; after this many rounds EVAL ends it.
local ROUNDS = 3

local _M = {}

-- SCRIPT LOAD on the very connection that answered NOSCRIPT.
-- @return true; or false and the server's error; or nil and why no reply came
local function load_script(red, deadline, script)
  local digest, err = command(red, deadline, "script", "LOAD", script.source)
  if not digest then
    return digest, err
  end
  if digest ~= script.digest then
    return false, "DIGEST " .. tostring(digest) .. " came back from SCRIPT LOAD instead of " .. script.digest
  end
  return true
end

-- @return reply and the moment before it was asked for; or false and the server's error; or nil, why no reply came,
-- and true if the script may have run
local function evaluate(lock, red, deadline, script, key, args)
  for _ = 1, ROUNDS do
    local sent = clock()
    local reply, err = command(red, deadline, "evalsha", script.digest, 1, key, unpack(args))
    if reply then
      return reply, sent
    elseif reply == nil then
      return nil, err, true
    elseif errors.code(err) ~= "NOSCRIPT" or lock.strict then
      return false, err
    end
    local loaded
    loaded, err = load_script(red, deadline, script)
    if loaded == nil then
      return nil, err, false
    elseif not loaded then
      if errors.code(err) == "DIGEST" then
        return false, err
      end
      break
    end
  end
  local sent = clock()
  local reply, err = command(red, deadline, "eval", script.source, 1, key, unpack(args))
  if reply == nil then
    return nil, err, true
  end
  return reply, reply and sent or err
end

-- @param lock an instance of resty.redlatch
-- @param name of the script, for instance "mutex/acquire"
-- @param key the one key
-- @param args array of strings, or a function that makes it once there is a connection
-- @param seconds how long all of it may take, the connection too
-- @param fresh true to use no connection of the pool
-- @return the reply (an array) and the moment before it was asked for; or nil, an error of the closed list, and
--   "refused" (the server answered with an error), "connection" (the script did not run) or "unknown" (it may have)
function _M.run(lock, name, key, args, seconds, fresh)
  local deadline = clock() + seconds
  local red, err, kind = connection.borrow(lock, deadline, fresh)
  if not red then
    return nil, err, kind
  end
  if type(args) == "function" then
    args = args()
  end
  local reply, detail, may_have_run = evaluate(lock, red, deadline, bundle[name], key, args)
  if reply == nil then
    if may_have_run then
      return nil, "unknown: " .. lock.address .. " gave no reply (" .. detail .. "): the script may have run", "unknown"
    end
    return nil, "connection: " .. lock.address .. " gave no reply (" .. detail .. "): the script did not run",
      "connection"
  end
  if reply and (type(reply) ~= "table" or type(reply[1]) ~= "number") then
    red:close()
    return nil, "unknown: " .. lock.address .. " does not answer like a Redis that runs this script", "unknown"
  end
  give_back(lock, red)
  if not reply then
    if errors.code(detail) == "NOSCRIPT" then
      return nil, "script missing", "refused"
    end
    return nil, errors.explain(detail), "refused"
  end
  return reply, detail
end

return _M
