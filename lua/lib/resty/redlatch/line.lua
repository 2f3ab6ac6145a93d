-- One connection by which one question after the other is asked, each bounded by a deadline however slowly the answer
-- comes in: a pooled one, or a driver's until it has introduced itself.
local clock = require "resty.redlatch.clock"
local dial = require "resty.redlatch.dial"
local resp = require "resty.redlatch.resp"
local tls = require "resty.redlatch.tls"

local max, min = math.max, math.min

local CHUNK = 65536
-- What nginx counts with has 31 bits.
local FOR_EVER_MS = 2147483647

local _M = { CHUNK = CHUNK, FOR_EVER_MS = FOR_EVER_MS, NOT_REDIS = "the reply is not Redis'" }

function _M.milliseconds(seconds)
  return min(max(math.floor(seconds * 1000), 1), FOR_EVER_MS)
end

-- A line over a socket that is connected.
function _M.over(sock)
  return { sock = sock, parser = resp.parser() }
end

-- @param lock whose address to connect to
-- @param deadline when to give up, on the boot-time clock
-- @param pool options of nginx' connection pool, if it may be a connection of that
-- @return a line; or nil and "connection: …"
function _M.open(lock, deadline, pool)
  local sock = ngx.socket.tcp()
  local timeout = _M.milliseconds(deadline - clock())
  sock:settimeouts(timeout, timeout, timeout)
  local ok, err
  if lock.socket then
    ok, err = sock:connect(lock.socket, pool)
  else
    ok, err = dial.connect(lock, deadline, sock.connect, sock, lock.target, lock.port, pool)
  end
  if not ok then
    return nil, dial.unreachable(lock, err)
  end
  if lock.tls and sock:getreusedtimes() == 0 then
    ok, err = tls.handshake(lock, sock, deadline)
    if not ok then
      return nil, err
    end
  end
  return _M.over(sock)
end

-- For what is left until `deadline`; nil when nothing is.
local function limit(line, deadline)
  local left = deadline - clock()
  if left > 0 then
    local timeout = _M.milliseconds(left)
    line.sock:settimeouts(timeout, timeout, timeout)
    return true
  end
end

-- @return "reply", "error" or "push", and the value, see resp; or nil and why none came
function _M.next(line, deadline)
  while true do
    local kind, value = line.parser:next()
    if kind == false then
      return nil, _M.NOT_REDIS
    elseif kind then
      return kind, value
    end
    if not limit(line, deadline) then
      return nil, "timeout"
    end
    local chunk, err = line.sock:receiveany(CHUNK)
    if not chunk then
      return nil, err
    end
    line.parser:feed(chunk)
  end
end

-- @param bytes of commands
-- @return true; or nil and why they could not be sent
function _M.send(line, deadline, bytes)
  if not limit(line, deadline) then
    return nil, "timeout"
  end
  return line.sock:send(bytes)
end

-- One command.
-- @return as next
function _M.ask(line, deadline, ...)
  local ok, err = _M.send(line, deadline, resp.command(...))
  if not ok then
    return nil, err
  end
  return _M.next(line, deadline)
end

return _M
