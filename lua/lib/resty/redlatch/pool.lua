-- A connection for each call: from nginx' own pool, or the one that the user has opened. Nothing runs between calls, so
-- waiters ask again and again, and leases are not renewed.
local clock = require "resty.redlatch.clock"
local echo = require "resty.redlatch.echo"
local errors = require "resty.redlatch.errors"
local greeting = require "resty.redlatch.greeting"
local healing = require "resty.redlatch.healing"
local lines = require "resty.redlatch.line"
local reach = require "resty.redlatch.reach"
local refusals = require "resty.redlatch.refusals"
local resp = require "resty.redlatch.resp"
local timers = require "resty.redlatch.timers"

local _M = {}

-- Closes a connection that is of no use any more.
local function close(lock, line)
  local red = lock.connection
  if type(red) == "table" then
    red:close()
  else
    line.sock:close()
  end
end

-- @param deadline when to give up, on the boot-time clock
-- @param fresh true for a connection that nobody used before, after a used one went wrong
-- @return a line; or nil, an error of the closed list, and "connection" or "refused"
local function borrow(lock, deadline, fresh)
  local line, err, kind
  repeat
    line, err, kind = reach.reach(lock, deadline, lock.pool_size, fresh)
    local used = line and fresh and line.sock:getreusedtimes() > 0
    if used then
      line.sock:close()
    end
  until not used
  return line, err, kind
end

-- The user's connection has introduced itself already.
local function borrow_own(lock, deadline)
  local sock = lock.connection._sock
  if not sock then
    return nil, errors.unreachable(lock, "the connection is closed"), "connection"
  end
  local line = lines.over(sock)
  if not lock.server.ahead_us then
    local kind, value = greeting.question(line, lock, deadline)
    if kind == nil then
      close(lock, line)
      return nil, errors.unreachable(lock, value), "connection"
    elseif kind == "error" then
      return nil, errors.explain(value), "refused"
    end
  end
  return line
end

local function use(lock, deadline, fresh)
  if type(lock.connection) == "table" then
    return borrow_own(lock, deadline)
  end
  return borrow(lock, deadline, fresh)
end

local function is_used(lock, line)
  return type(lock.connection) ~= "table" and line.sock:getreusedtimes() > 0
end

-- Only for a connection whose last command was answered: with a reply still on its way the next user would read it.
local function give_back(lock, line)
  if type(lock.connection) == "table" then
    return
  elseif line.parser:is_empty() then
    line.sock:setkeepalive(lock.keepalive_ms, lock.pool_size)
  else
    line.sock:close()
  end
end

-- After an error reply: gives the connection back, or closes it where it leads to the wrong server.
-- @return whether it was closed
local function is_left(lock, line, err)
  if type(lock.connection) == "table" or not refusals.is_wrong_server(err, lock) then
    give_back(lock, line)
    return false
  end
  line.sock:close()
  return true
end

-- The reply to what was sent.
-- @return reply; or false and the server's error; or nil and why no reply came: the connection is closed then
local function answer(lock, line, deadline)
  local kind, value = lines.next(line, deadline)
  if kind == "reply" then
    return value
  elseif kind == "error" then
    return false, value
  end
  close(lock, line)
  return nil, kind and lines.NOT_REDIS or value
end

local function send(lock, line, deadline, bytes)
  local ok, err = lines.send(line, deadline, bytes)
  if not ok then
    close(lock, line)
  end
  return ok, err
end

-- EVALSHA, and in the same write what goes ahead of it.
-- @return as answer
local function evalsha(lock, line, deadline, call, key, args)
  local ahead, bytes = healing.ahead(call), {}
  for i = 1, #ahead do
    bytes[i] = resp.command(unpack(ahead[i]))
  end
  bytes[#ahead + 1] = resp.command("EVALSHA", call.script.digest, 1, key, unpack(args))
  local ok, err = send(lock, line, deadline, bytes)
  if not ok then
    return nil, err
  end
  for _ = 1, #ahead do
    local reply, problem = answer(lock, line, deadline)
    if reply == nil then
      return nil, problem
    end
    healing.heard(call, reply, problem)
  end
  return answer(lock, line, deadline)
end

-- Runs a script on an open connection.
-- @return reply, error, kind (see call.outcome), and the moment before it was asked for
local function run_on(lock, line, name, key, args, deadline)
  local call = healing.begin({}, name, lock.strict, lock.asking)
  local reply, err, goes_on, other, asked_at
  repeat
    asked_at = clock()
    reply, err = evalsha(lock, line, deadline, call, key, args)
    if reply == nil then
      return nil, errors.no_reply(lock, err, true), "unknown"
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
  local line, err, kind = use(lock, deadline, fresh)
  if not line then
    return nil, err, kind
  end
  local words = args
  if type(args) == "function" then
    words = args(lock, subject)
    if not words then
      give_back(lock, line)
      return nil, "the time of the server is not known", "timeless"
    end
  end
  local used = is_used(lock, line)
  local reply, asked_at
  reply, err, kind, asked_at = run_on(lock, line, name, key, words, deadline)
  if reply == nil then
    return nil, err, kind
  elseif reply and type(reply) ~= "table" then
    close(lock, line)
  elseif reply == false and is_left(lock, line, err) and used and not fresh then
    -- A new connection may lead to another server.
    return _M.run(lock, name, key, args, deadline, true, subject)
  elseif reply then
    give_back(lock, line)
  end
  return reply, reply == false and echo.cut(err, key, words) or err, nil, asked_at, 0
end

-- One command that is no script.
-- @return the reply; or nil, an error of the closed list, and its kind
function _M.command(lock, deadline, ...)
  local line, err, kind = use(lock, deadline)
  if not line then
    return nil, err, kind
  end
  local reply
  reply, err = send(lock, line, deadline, (lock.asking and resp.command("ASKING") or "") .. resp.command(...))
  if reply and lock.asking then
    reply, err = answer(lock, line, deadline)
  end
  if reply then
    reply, err = answer(lock, line, deadline)
  end
  if reply == nil then
    return nil, errors.no_reply(lock, err, true), "unknown"
  elseif reply == false then
    is_left(lock, line, err)
    return nil, errors.explain(echo.cut(err, { select(2, ...) }), { command = (...) }), "refused"
  end
  give_back(lock, line)
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
