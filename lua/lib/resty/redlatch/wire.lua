-- One connection of a driver: full duplex, its replies in the order of the questions, and pushes in between.
local clock = require "resty.redlatch.clock"
local greeting = require "resty.redlatch.greeting"
local lines = require "resty.redlatch.line"
local reach = require "resty.redlatch.reach"
local refusals = require "resty.redlatch.refusals"

-- Seconds of reading without a pause.
local LONGEST_TURN = 0.01

local _M = {}

-- Whether the inbox is subscribed belongs to the connection. Where the server does not allow it, waiters of this
-- connection do without; any other refusal is one of the whole connection.
local function subscribe(wire, deadline, channel)
  local kind, value = lines.ask(wire, deadline, "SUBSCRIBE", channel)
  while kind == "push" and value[1] ~= "subscribe" do
    -- A message by another channel: its waiter asks after a new connection anyway.
    kind, value = lines.next(wire, deadline)
  end
  if kind == "push" then
    wire.hears[channel] = true
    return "reply"
  elseif kind == "error" and refusals.is_denied(value) then
    wire.hears[channel], wire.denial = false, value
    return "reply"
  elseif kind == "reply" then
    return nil, lines.NOT_REDIS
  end
  return kind, value
end

-- @param lock whose address and credentials to use
-- @param channels the channels to subscribe to, as the fields of a table
-- @return a wire, whose field `hears` says for each channel whether it is subscribed; or nil, an error of the closed
--   list, and "connection" or "refused"
function _M.connect(lock, channels)
  local deadline = clock() + lock.timeout
  local wire, err, why = reach.reach(lock, deadline)
  if not wire then
    return nil, err, why
  end
  wire.first, wire.last, wire.hears, wire.asked_for, wire.denial = nil, nil, {}, {}, nil
  wire.served, wire.leaving, wire.broken = false, nil, nil
  local kind, value = "reply", nil
  for channel in pairs(wire.pushes and channels or {}) do
    kind, value = subscribe(wire, deadline, channel)
    if kind ~= "reply" then
      break
    end
  end
  if kind == "reply" then
    local timeout = lines.milliseconds(lock.timeout)
    -- Nothing may be said for days on an idle connection; that a question is not answered is noticed elsewhere.
    wire.sock:settimeouts(timeout, timeout, lines.FOR_EVER_MS)
    return wire
  end
  wire.sock:close()
  return nil, greeting.failure(lock, kind, value)
end

-- Sends calls, a list linked by their field `next`, in one write.
-- @param count how many at most
-- @return the first call that was not sent, and how many commands were sent
function _M.send(wire, call, count)
  local parts, now = wire.parts or {}, clock()
  local n, commands = 0, 0
  while call and n < count do
    local following = call.next
    call.next = nil
    -- Who gave up before its command was sent is not served any more.
    if not call.abandoned then
      n = n + 1
      parts[n], call.written_at = call.bytes, now
      commands = commands + 1 + call.ahead
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
  return call, commands
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
-- @param on_ahead the same for what went ahead of a call
-- @param on_push called with the array of a push
function _M.read(wire, on_reply, on_ahead, on_push)
  local parser = wire.parser
  local turn = { cached = nil, began = nil }
  repeat
    take_turns(turn)
    local chunk, err = wire.sock:receiveany(lines.CHUNK)
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
        local call = wire.first
        local reply, problem = value, nil
        if kind == "error" then
          reply, problem = false, value
        end
        if not call then
          kind, value = false, "a reply to no question"
        elseif call.ahead > 0 then
          on_ahead(call, reply, problem)
        else
          on_reply(_M.take(wire), reply, problem)
        end
      end
    until not kind
    if kind == false then
      wire.broken = wire.broken or value
    end
  until wire.broken
end

return _M
