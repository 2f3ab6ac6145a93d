-- A connection for each call: from nginx' own pool, or the one that the user has opened. Nothing runs between calls, so
-- waiters ask again and again, and leases are not renewed.
local clock = require "resty.redlatch.clock"
local dial = require "resty.redlatch.dial"
local echo = require "resty.redlatch.echo"
local errors = require "resty.redlatch.errors"
local healing = require "resty.redlatch.healing"
local refusals = require "resty.redlatch.refusals"
local server_clock = require "resty.redlatch.server_clock"
local timers = require "resty.redlatch.timers"
local tls = require "resty.redlatch.tls"

local installed, client = pcall(require, "resty.redis")
if not installed then
  installed, client = pcall(require, "nginx.redis")
end
if not installed then
  error("redlatch: neither resty.redis nor nginx.redis is installed: install lua-resty-redis (Debian:"
    .. " lua-nginx-redis) or set lua_package_path", 0)
end

local _M = {}

-- What is left until `deadline`, as the client library wants it.
local function milliseconds_until(deadline)
  return math.max(math.floor((deadline - clock()) * 1000), 1)
end

-- One command on an open connection.
-- @param deadline when to stop waiting for the reply, on the boot-time clock
-- @return reply; or false and the server's error; or nil and why no reply came: the connection is closed then
local function command(red, deadline, name, ...)
  red:set_timeout(milliseconds_until(deadline))
  -- The client library throws on some replies that are not Redis'.
  local ok, reply, err = pcall(red[name], red, ...)
  if not ok then
    reply, err = nil, "the reply is not Redis'"
  end
  if reply == nil then
    red:close()
    return nil, err or "the connection is closed"
  end
  return reply, err
end

-- TIME, so that the first acquire too can say until when it may be granted.
local function ask_time(lock, red, deadline)
  local reply, err = command(red, deadline, "time")
  if type(reply) == "table" and tonumber(reply[1]) and tonumber(reply[2]) then
    server_clock.observe(lock, reply[1] * 1e6 + reply[2])
  elseif reply then
    red:close()
    return nil, "the reply is not Redis'"
  elseif reply == false and refusals.is_denied(err) then
    return true
  end
  return reply, err
end

-- What a connection has to hear once. The first reply also proves that a Redis is there.
local function introduce(lock, red, deadline)
  local reply, err
  if lock.password then
    if lock.username then
      reply, err = command(red, deadline, "auth", lock.username, lock.password)
    else
      reply, err = command(red, deadline, "auth", lock.password)
    end
  else
    reply = true
  end
  if reply then
    reply, err = ask_time(lock, red, deadline)
  end
  if reply and lock.database > 0 then
    reply, err = command(red, deadline, "select", lock.database)
  end
  if reply == nil then
    return nil, errors.silent(lock, err)
  elseif reply == false then
    red:close()
    return nil, errors.explain(echo.cut(err, lock.username, lock.password)), "refused"
  end
  return true
end

local function connect(lock, red, deadline)
  local pool = { pool = lock.pool, pool_size = lock.pool_size }
  if lock.socket then
    return red:connect(lock.socket, pool)
  end
  return dial.connect(lock, deadline, red.connect, red, lock.target, lock.port, pool)
end

-- @param deadline when to give up, on the boot-time clock
-- @param fresh true for a connection that nobody used before, after a used one went wrong
-- @return a connection; or nil, "connection: …" or "redis: …", and "connection" or "refused"
local function borrow(lock, deadline, fresh)
  local red, ok, err, kind
  repeat
    red, err = client:new()
    if not red then
      return nil, "connection: " .. err, "connection"
    end
    red:set_timeout(milliseconds_until(deadline))
    ok, err = connect(lock, red, deadline)
    if not ok then
      return nil, dial.unreachable(lock, err), "connection"
    end
    local used = red:get_reused_times() > 0
    if used and fresh then
      red:close()
    end
  until not (used and fresh)
  if red:get_reused_times() == 0 then
    if lock.tls then
      -- Not all client libraries speak TLS; all of them have their socket here.
      ok, err = tls.handshake(lock, red._sock, deadline)
      if not ok then
        return nil, err, "connection"
      end
    end
    ok, err, kind = introduce(lock, red, deadline)
    if not ok then
      return nil, err, kind or "connection"
    end
  end
  return red
end

-- The user's connection has introduced itself already.
local function borrow_own(lock, deadline)
  local red = lock.connection
  if not lock.server.ahead_us then
    local ok, err = ask_time(lock, red, deadline)
    if ok == nil then
      return nil, errors.unreachable(lock, err), "connection"
    elseif ok == false then
      return nil, errors.explain(err), "refused"
    end
  end
  return red
end

-- Only for a connection whose last command was answered: with a reply still on its way the next user would read it.
local function give_back(lock, red)
  if red ~= lock.connection then
    red:set_keepalive(lock.keepalive_ms, lock.pool_size)
  end
end

-- After an error reply: gives the connection back, or closes it where it leads to the wrong server.
-- @return whether it was closed
local function is_left(lock, red, err)
  if red == lock.connection or not refusals.is_wrong_server(err) then
    give_back(lock, red)
    return false
  end
  red:close()
  return true
end

local function send(red, deadline, call, key, args)
  if call.stage == "load" then
    return command(red, deadline, "script", "LOAD", call.script.source)
  end
  local script = call.stage == "eval" and call.script.source or call.script.digest
  return command(red, deadline, call.stage, script, 1, key, unpack(args))
end

local function use(lock, deadline, fresh)
  if type(lock.connection) == "table" then
    return borrow_own(lock, deadline)
  end
  return borrow(lock, deadline, fresh)
end

-- Runs a script on an open connection.
-- @return reply, error, kind (see call.outcome), and the moment before it was asked for
local function run_on(lock, red, name, key, args, deadline)
  local call = healing.begin({}, name, lock.strict)
  local reply, err, goes_on, other, asked_at
  repeat
    asked_at = clock()
    reply, err = send(red, deadline, call, key, args)
    if reply == nil then
      return nil, errors.no_reply(lock, err, call.stage ~= "load"), call.stage ~= "load" and "unknown" or "connection"
    end
    goes_on, other = healing.goes_on(call, reply, err)
  until not goes_on
  if other then
    reply, err = false, other
  end
  return reply, err, nil, asked_at
end

-- Runs a script, see call.run.
-- @param deadline when to give up, on the boot-time clock
-- @return reply, error, kind (see call.outcome), and the moment before it was asked for
function _M.run(lock, name, key, args, deadline, fresh, subject)
  local red, err, kind = use(lock, deadline, fresh)
  if not red then
    return nil, err, kind
  end
  local words = args
  if type(args) == "function" then
    words = args(lock, subject)
    if not words then
      give_back(lock, red)
      return nil, "the time of the server is not known", "timeless"
    end
  end
  local used = red ~= lock.connection and red:get_reused_times() > 0
  local reply, asked_at
  reply, err, kind, asked_at = run_on(lock, red, name, key, words, deadline)
  if reply == nil then
    return nil, err, kind
  elseif reply and type(reply) ~= "table" then
    red:close()
  elseif reply == false and is_left(lock, red, err) and used and not fresh then
    -- A new connection may lead to another server.
    return _M.run(lock, name, key, args, deadline, true, subject)
  elseif reply then
    give_back(lock, red)
  end
  return reply, reply == false and echo.cut(err, key, words) or err, nil, asked_at, 0
end

-- One command that is no script.
-- @return the reply; or nil, an error of the closed list, and its kind
function _M.command(lock, deadline, name, ...)
  local red, err, kind = use(lock, deadline)
  if not red then
    return nil, err, kind
  end
  local reply
  reply, err = command(red, deadline, string.lower(name), ...)
  if reply == nil then
    return nil, errors.no_reply(lock, err, true), "unknown"
  elseif reply == false then
    is_left(lock, red, err)
    return nil, errors.explain(echo.cut(err, { ... })), "refused"
  end
  give_back(lock, red)
  return reply
end

-- No message reaches this worker.
function _M.inbox()
  return nil
end

local function release_later(_, lock, key, owner)
  lock.family.release(lock, key, owner, lock.timeout)
end

-- Releases without waiting, in any phase that has timers.
-- @return true; or nil and why nginx has no timer for it
function _M.post_release(lock, key, owner)
  return timers.at(0, release_later, lock, key, owner)
end

return _M
