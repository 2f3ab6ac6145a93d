-- One connection of a driver: full duplex, its replies in the order of the questions, and pushes in between.
local bundle = require "resty.redlatch.bundle"
local clock = require "resty.redlatch.clock"
local dial = require "resty.redlatch.dial"
local echo = require "resty.redlatch.echo"
local errors = require "resty.redlatch.errors"
local refusals = require "resty.redlatch.refusals"
local resp = require "resty.redlatch.resp"
local server_clock = require "resty.redlatch.server_clock"
local tls = require "resty.redlatch.tls"

local max, min = math.max, math.min

local CHUNK = 65536
-- Seconds of reading without a pause.
local LONGEST_TURN = 0.01
-- By this `redlatch status --callers` sees which version is connected.
local NAME = "redlatch/" .. bundle.bundle
-- Nothing may be said for days on an idle connection; that a question is not answered is noticed elsewhere.
local FOR_EVER_MS = 2147483647

local _M = {}

local function milliseconds(seconds)
  return min(max(math.floor(seconds * 1000), 1), FOR_EVER_MS)
end

-- For what is left until `deadline`; nil when nothing is.
local function limit(wire, deadline)
  local left = deadline - clock()
  if left > 0 then
    local timeout = milliseconds(left)
    wire.sock:settimeouts(timeout, timeout, timeout)
    return true
  end
end

-- The next reply or push, while nobody else reads.
-- @return kind and value, see resp; or nil and why none came
local function next_answer(wire, deadline)
  while true do
    local kind, value = wire.parser:next()
    if kind == false then
      return nil, "the reply is not Redis'"
    elseif kind then
      return kind, value
    end
    if not limit(wire, deadline) then
      return nil, "timeout"
    end
    local chunk, err = wire.sock:receiveany(CHUNK)
    if not chunk then
      return nil, err
    end
    wire.parser:feed(chunk)
  end
end

local function exchange(wire, deadline, ...)
  if not limit(wire, deadline) then
    return nil, "timeout"
  end
  local ok, err = wire.sock:send(resp.command(...))
  if not ok then
    return nil, err
  end
  return next_answer(wire, deadline)
end

-- RESP3 with the credentials, or RESP2 where HELLO is unknown: then no message can come by this connection.
local function greet(wire, lock, deadline)
  local kind, value
  if lock.password then
    kind, value = exchange(wire, deadline, "HELLO", "3", "AUTH", lock.username or "default", lock.password,
      "SETNAME", NAME)
  else
    kind, value = exchange(wire, deadline, "HELLO", "3", "SETNAME", NAME)
  end
  wire.pushes = kind == "reply"
  if kind ~= "error" then
    return kind, value
  elseif errors.code(value) == "NOAUTH" then
    -- Here the server explains what HELLO can do.
    return kind, "NOAUTH Authentication required."
  elseif not refusals.is_without_resp3(value) then
    return kind, value
  elseif not lock.password then
    return "reply", true
  elseif lock.username then
    return exchange(wire, deadline, "AUTH", lock.username, lock.password)
  end
  return exchange(wire, deadline, "AUTH", lock.password)
end

-- The time of the server, so that the first acquire too can say until when it may be granted.
local function ask_time(wire, lock, deadline)
  local kind, value = exchange(wire, deadline, "TIME")
  if kind == "error" and refusals.is_denied(value) then
    return "reply", true
  elseif kind == "reply" then
    if type(value) ~= "table" or not tonumber(value[1]) or not tonumber(value[2]) then
      return nil, "the reply is not Redis'"
    end
    server_clock.observe(lock, value[1] * 1e6 + value[2])
  end
  return kind, value
end

-- Whether the inbox is subscribed belongs to the connection. Where the server does not allow it, waiters of this
-- connection do without; any other refusal is one of the whole connection.
local function subscribe(wire, deadline, channel)
  local kind, value = exchange(wire, deadline, "SUBSCRIBE", channel)
  while kind == "push" and value[1] ~= "subscribe" do
    -- A message by another channel: its waiter asks after a new connection anyway.
    kind, value = next_answer(wire, deadline)
  end
  if kind == "push" then
    wire.hears[channel] = true
    return "reply"
  elseif kind == "error" and refusals.is_denied(value) then
    wire.hears[channel], wire.denial = false, value
    return "reply"
  elseif kind == "reply" then
    return nil, "the reply is not Redis'"
  end
  return kind, value
end

local function introduce(wire, lock, channels, deadline)
  local kind, value = greet(wire, lock, deadline)
  if kind == "error" then
    value = echo.cut(value, lock.username, lock.password)
  elseif kind == "reply" and lock.database > 0 then
    kind, value = exchange(wire, deadline, "SELECT", lock.database)
  end
  if kind == "reply" then
    kind, value = ask_time(wire, lock, deadline)
  end
  for channel in pairs(kind == "reply" and wire.pushes and channels or {}) do
    kind, value = subscribe(wire, deadline, channel)
    if kind ~= "reply" then
      break
    end
  end
  return kind, value
end

-- @param lock whose address and credentials to use
-- @param channels the channels to subscribe to, as the fields of a table
-- @return a wire, whose field `hears` says for each channel whether it is subscribed; or nil, an error of the closed
--   list, and "connection" or "refused"
function _M.connect(lock, channels)
  local deadline = clock() + lock.timeout
  local sock = ngx.socket.tcp()
  local timeout = milliseconds(lock.timeout)
  sock:settimeouts(timeout, timeout, timeout)
  local ok, err
  if lock.socket then
    ok, err = sock:connect(lock.socket)
  else
    ok, err = dial.connect(lock, deadline, sock.connect, sock, lock.target, lock.port)
  end
  if not ok then
    return nil, dial.unreachable(lock, err), "connection"
  end
  if lock.tls then
    ok, err = tls.handshake(lock, sock, deadline)
    if not ok then
      return nil, err, "connection"
    end
  end
  local wire = {
    sock = sock, parser = resp.parser(), first = nil, last = nil, pushes = false, hears = {}, denial = nil,
    served = false, leaving = nil, broken = nil,
  }
  local kind, value = introduce(wire, lock, channels, deadline)
  if kind == "reply" then
    sock:settimeouts(timeout, timeout, FOR_EVER_MS)
    return wire
  end
  sock:close()
  if kind == "error" then
    return nil, errors.explain(value), "refused"
  end
  return nil, errors.silent(lock, type(value) == "string" and value or "the reply is not Redis'"), "connection"
end

-- Sends calls, a list linked by their field `next`, in one write.
-- @param count how many at most
-- @return the first call that was not sent
function _M.send(wire, call, count)
  local parts, now = wire.parts or {}, clock()
  local n = 0
  while call and n < count do
    local following = call.next
    call.next = nil
    -- Who gave up before its command was sent is not served any more.
    if not call.abandoned then
      n = n + 1
      parts[n], call.written_at = call.bytes, now
      if wire.last then
        wire.last.next = call
      else
        wire.first = call
      end
      wire.last = call
    end
    call = following
  end
  for i = n + 1, wire.n_parts or 0 do
    parts[i] = nil
  end
  wire.parts, wire.n_parts = parts, n
  if n > 0 then
    local ok, err = wire.sock:send(parts)
    if not ok then
      wire.broken = wire.broken or err
    end
  end
  return call, n
end

-- The call that the next reply belongs to, off the list.
function _M.take(wire)
  local call = wire.first
  if call then
    wire.first = call.next
    call.next = nil
    if not wire.first then
      wire.last = nil
    end
  end
  return call
end

-- Lets others have their turn when the reader had a long one: while there is always more to read nothing else of the
-- worker runs. nginx' own time stands still meanwhile.
local function take_turns(turn)
  local cached, now = ngx.now(), clock()
  if cached ~= turn.cached then
    turn.cached, turn.began = cached, now
  elseif now - turn.began > LONGEST_TURN then
    ngx.sleep(0.001)
  end
end

-- Reads until the connection breaks: to be run by a light thread of its own.
-- @param on_reply called with a call, its reply or false, and an error
-- @param on_push called with the array of a push
function _M.read(wire, on_reply, on_push)
  local parser = wire.parser
  local turn = { cached = nil, began = nil }
  repeat
    take_turns(turn)
    local chunk, err = wire.sock:receiveany(CHUNK)
    if not chunk then
      wire.broken = wire.broken or err
      return
    end
    parser:feed(chunk)
    local kind, value
    repeat
      kind, value = parser:next()
      if kind == "push" then
        on_push(value)
      elseif kind then
        local call = _M.take(wire)
        if not call then
          kind, value = false, "a reply to no question"
        elseif kind == "error" then
          on_reply(call, false, value)
        else
          on_reply(call, value)
        end
      end
    until not kind
    if kind == false then
      wire.broken = wire.broken or value
    end
  until wire.broken
end

return _M
