-- One connection of a driver: full duplex, its replies in the order of the questions, and pushes in between.
local bundle = require "resty.redlatch.bundle"
local clock = require "resty.redlatch.clock"
local errors = require "resty.redlatch.errors"
local resp = require "resty.redlatch.resp"
local server_clock = require "resty.redlatch.server_clock"

local max, min = math.max, math.min

local CHUNK = 65536
-- By this `redlatch status --callers` sees which version is connected.
local NAME = "redlatch/" .. bundle.bundle
-- Nothing may be said for days on an idle connection; that a question is not answered is noticed elsewhere.
local FOR_EVER_MS = 2147483647

local _M = {}

local function milliseconds(seconds)
  return min(max(math.floor(seconds * 1000), 1), FOR_EVER_MS)
end

-- The next reply or push, while nobody else reads.
-- @return kind and value, see resp; or nil and why none came
local function next_answer(wire)
  while true do
    local kind, value = wire.parser:next()
    if kind == false then
      return nil, "the reply is not Redis'"
    elseif kind then
      return kind, value
    end
    local chunk, err = wire.sock:receiveany(CHUNK)
    if not chunk then
      return nil, err
    end
    wire.parser:feed(chunk)
  end
end

local function exchange(wire, ...)
  local ok, err = wire.sock:send(resp.command(...))
  if not ok then
    return nil, err
  end
  return next_answer(wire)
end

-- Not an answer to the question but to whether it may be asked here: a proxy, or a user who may do little.
local function is_unknown_here(err)
  return errors.code(err) == "NOPERM" or err:find("unknown command", 1, true) ~= nil
end

-- RESP3 with the credentials, or RESP2 where HELLO is unknown: then no message can come by this connection.
local function greet(wire, lock)
  local kind, value
  if lock.password then
    kind, value = exchange(wire, "HELLO", "3", "AUTH", lock.username or "default", lock.password, "SETNAME", NAME)
  else
    kind, value = exchange(wire, "HELLO", "3", "SETNAME", NAME)
  end
  wire.pushes = kind == "reply"
  if kind ~= "error" then
    return kind, value
  elseif errors.code(value) == "NOAUTH" then
    -- Here the server explains what HELLO can do.
    return kind, "NOAUTH Authentication required."
  elseif not is_unknown_here(value) then
    return kind, value
  elseif not lock.password then
    return "reply", true
  elseif lock.username then
    return exchange(wire, "AUTH", lock.username, lock.password)
  end
  return exchange(wire, "AUTH", lock.password)
end

-- The time of the server, so that the first acquire too can say until when it may be granted.
local function ask_time(wire, lock)
  local kind, value = exchange(wire, "TIME")
  if kind == "error" and is_unknown_here(value) then
    return "reply", true
  elseif kind == "reply" then
    if type(value) ~= "table" or not tonumber(value[1]) or not tonumber(value[2]) then
      return nil, "the reply is not Redis'"
    end
    server_clock.observe(lock, value[1] * 1e6 + value[2])
  end
  return kind, value
end

local function introduce(wire, lock, channels)
  local kind, value = greet(wire, lock)
  if kind == "reply" and lock.database > 0 then
    kind, value = exchange(wire, "SELECT", lock.database)
  end
  if kind == "reply" then
    kind, value = ask_time(wire, lock)
  end
  if kind ~= "reply" then
    return kind, value
  end
  for channel in pairs(wire.pushes and channels or {}) do
    kind, value = exchange(wire, "SUBSCRIBE", channel)
    if not kind then
      return nil, value
    end
    channels[channel] = kind == "push"
  end
  return "reply"
end

-- @param lock whose address and credentials to use
-- @param channels table of the channels to subscribe to: true, or false where the server refuses
-- @return a wire; or nil, an error of the closed list, and "connection" or "refused"
function _M.connect(lock, channels)
  local sock = ngx.socket.tcp()
  local timeout = milliseconds(lock.timeout)
  sock:settimeouts(timeout, timeout, timeout)
  local ok, err
  if lock.socket then
    ok, err = sock:connect(lock.socket)
  else
    ok, err = sock:connect(lock.host, lock.port)
  end
  if not ok then
    return nil, errors.unreachable(lock, err), "connection"
  end
  local wire = { sock = sock, parser = resp.parser(), first = nil, last = nil, pushes = false, broken = nil }
  local kind, value = introduce(wire, lock, channels)
  if kind == "reply" then
    sock:settimeouts(timeout, timeout, FOR_EVER_MS)
    return wire
  end
  sock:close()
  if kind == "error" then
    return nil, errors.explain(value), "refused"
  end
  return nil, errors.silent(lock, value), "connection"
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

-- Reads until the connection breaks: to be run by a light thread of its own.
-- @param on_reply called with a call, its reply or false, and an error
-- @param on_push called with the array of a push
function _M.read(wire, on_reply, on_push)
  local parser = wire.parser
  repeat
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
