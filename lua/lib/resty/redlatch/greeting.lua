-- What a connection hears first: who we are and which protocol we speak; and what it has to tell.
local bundle = require "resty.redlatch.bundle"
local echo = require "resty.redlatch.echo"
local errors = require "resty.redlatch.errors"
local lines = require "resty.redlatch.line"
local refusals = require "resty.redlatch.refusals"
local server_clock = require "resty.redlatch.server_clock"

local match, tonumber = string.match, tonumber

-- By this `redlatch status --callers` sees which version is connected.
local NAME = "redlatch/" .. bundle.bundle

local _M = {}

-- Who does not tell its version is believed to be fit.
-- @return that a server of this version is too old, as an error reply; or nil
local function too_old(version)
  local major, minor = match(version or "", "^(%d+)%.(%d+)")
  major, minor = tonumber(major), tonumber(minor)
  if major and (major < 6 or major == 6 and minor < 2) then
    return "TOOOLD this server is Redis " .. match(version, "^[%w.]+")
  end
end

-- @param fields of a reply to HELLO
local function of_hello(fields)
  for i = 1, type(fields) == "table" and #fields or 0, 2 do
    if fields[i] == "version" then
      return too_old(fields[i + 1])
    end
  end
end

local function check(kind, value, problem)
  if problem then
    return "error", problem
  end
  return kind, value
end

-- Where HELLO is unknown: a server that is older than that, or a proxy.
local function ask_version(line, deadline)
  local kind, value = lines.ask(line, deadline, "INFO", "server")
  if kind == "error" then
    return "reply", true
  end
  return check(kind, value, type(value) == "string" and too_old(match(value, "redis_version:(%S+)")) or nil)
end

-- AUTH, if there is a password.
-- @return as ask
function _M.authenticate(line, lock, deadline)
  if not lock.password then
    return "reply", true
  elseif lock.username then
    return lines.ask(line, deadline, "AUTH", lock.username, lock.password)
  end
  return lines.ask(line, deadline, "AUTH", lock.password)
end

-- RESP3 with the credentials, or RESP2 where HELLO is unknown: then no message can come by this connection.
local function greet(line, lock, deadline)
  local kind, value
  if lock.password then
    kind, value = lines.ask(line, deadline, "HELLO", "3", "AUTH", lock.username or "default", lock.password,
      "SETNAME", NAME)
  else
    kind, value = lines.ask(line, deadline, "HELLO", "3", "SETNAME", NAME)
  end
  line.pushes = kind == "reply"
  if kind ~= "error" then
    return check(kind, value, of_hello(value))
  elseif errors.code(value) == "NOAUTH" and not lock.password then
    -- Here the server explains what HELLO can do.
    return kind, "NOAUTH Authentication required."
  elseif errors.code(value) ~= "NOAUTH" and not refusals.is_without_resp3(value) then
    return kind, value
  end
  -- To somebody without a login Valkey 9 says NOAUTH about a command that it does not know.
  kind, value = _M.authenticate(line, lock, deadline)
  if kind == "reply" then
    kind, value = ask_version(line, deadline)
  end
  return kind, value
end

-- The time of the server, so that the first acquire too can say until when it may be granted.
local function ask_time(line, lock, deadline)
  local kind, value = lines.ask(line, deadline, "TIME")
  if kind == "error" and refusals.is_denied(value) then
    return "reply", true
  elseif kind == "reply" then
    if type(value) ~= "table" or not tonumber(value[1]) or not tonumber(value[2]) then
      return nil, lines.NOT_REDIS
    end
    server_clock.observe(lock, value[1] * 1e6 + value[2])
  end
  return kind, value
end

-- Introduces us on a new connection. The first reply also proves that a Redis is there.
-- @return as ask
function _M.introduce(line, lock, deadline)
  local kind, value = greet(line, lock, deadline)
  if kind == "error" then
    value = echo.cut(value, lock.username, lock.password)
  elseif kind == "reply" and lock.database > 0 then
    kind, value = lines.ask(line, deadline, "SELECT", lock.database)
  end
  if kind == "reply" then
    kind, value = ask_time(line, lock, deadline)
  end
  return kind, value
end

-- What a connection has to tell that somebody else has introduced: without arguments HELLO changes nothing.
-- @return as ask
function _M.question(line, lock, deadline)
  local kind, value = lines.ask(line, deadline, "HELLO")
  if kind == "error" and match(value, "wrong number of arguments") then
    return kind, "TOOOLD this server is older than Redis 6.2"
  elseif kind == "error" then
    kind, value = ask_version(line, deadline)
  else
    kind, value = check(kind, value, of_hello(value))
  end
  if kind == "reply" then
    kind, value = ask_time(line, lock, deadline)
  end
  return kind, value
end

-- @return why a connection that did not get a reply is of no use, and "refused" or "connection"
function _M.failure(lock, kind, value)
  if kind == "error" then
    return errors.explain(value), "refused"
  end
  return errors.silent(lock, type(value) == "string" and value or lines.NOT_REDIS), "connection"
end

return _M
