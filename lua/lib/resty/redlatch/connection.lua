-- Connections to the server, kept in nginx' own pool between requests.
local clock = require "resty.redlatch.clock"
local errors = require "resty.redlatch.errors"
local server_clock = require "resty.redlatch.server_clock"

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
function _M.command(red, deadline, name, ...)
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
  local reply, err = _M.command(red, deadline, "time")
  if type(reply) == "table" and tonumber(reply[1]) and tonumber(reply[2]) then
    server_clock.observe(lock, reply[1] * 1e6 + reply[2])
  elseif reply then
    red:close()
    return nil, "the reply is not Redis'"
  elseif reply == false and (errors.code(err) == "NOPERM" or err:find("unknown command", 1, true)) then
    return true
  end
  return reply, err
end

-- What a connection has to hear once. The first reply also proves that a Redis is there.
local function introduce(lock, red, deadline)
  local reply, err
  if lock.password then
    if lock.username then
      reply, err = _M.command(red, deadline, "auth", lock.username, lock.password)
    else
      reply, err = _M.command(red, deadline, "auth", lock.password)
    end
  else
    reply = true
  end
  if reply then
    reply, err = ask_time(lock, red, deadline)
  end
  if reply and lock.database > 0 then
    reply, err = _M.command(red, deadline, "select", lock.database)
  end
  if reply == nil then
    return nil, "connection: " .. lock.address .. " gives no Redis answer (" .. err .. "): is a Redis there, and awake?"
  elseif reply == false then
    red:close()
    return nil, errors.explain(err), "refused"
  end
  return true
end

local function connect(lock, red)
  local pool = { pool = lock.pool, pool_size = lock.pool_size }
  if lock.socket then
    return red:connect(lock.socket, pool)
  end
  return red:connect(lock.host, lock.port, pool)
end

-- @param deadline when to give up, on the boot-time clock
-- @param fresh true for a connection that nobody used before, after a used one went wrong
-- @return a connection; or nil, "connection: …" or "redis: …", and "connection" or "refused"
function _M.borrow(lock, deadline, fresh)
  local red, ok, err, kind
  repeat
    red, err = client:new()
    if not red then
      return nil, "connection: " .. err, "connection"
    end
    red:set_timeout(milliseconds_until(deadline))
    ok, err = connect(lock, red)
    if not ok then
      return nil, "connection: " .. lock.address .. " cannot be reached (" .. (err or "no reason given")
        .. "): is the server running, are host and port right?", "connection"
    end
    local used = red:get_reused_times() > 0
    if used and fresh then
      red:close()
    end
  until not (used and fresh)
  if red:get_reused_times() == 0 then
    ok, err, kind = introduce(lock, red, deadline)
    if not ok then
      return nil, err, kind or "connection"
    end
  end
  return red
end

-- Only for a connection whose last command was answered: with a reply still on its way the next user would read it.
function _M.give_back(lock, red)
  red:set_keepalive(lock.keepalive_ms, lock.pool_size)
end

return _M
