-- Which server is the primary, as its sentinels see it.
local canvass = require "resty.redlatch.canvass"
local clock = require "resty.redlatch.clock"
local errors = require "resty.redlatch.errors"
local greeting = require "resty.redlatch.greeting"
local lines = require "resty.redlatch.line"
local places = require "resty.redlatch.place"

local floor, format, match = math.floor, string.format, string.match

local SWITCHES = "+switch-master"
-- How soon a sentinel that cannot be listened to is tried again.
local LISTEN_PAUSE = 1
local DAY = 86400
-- How long calls without a driver believe what the sentinels said.
local BELIEVED = 1

local _M = {}

-- What was said last, by the pool of the lock.
local said = {}

-- Until when sentinels are asked: time must be left to connect to the primary.
local function half(deadline)
  local now = clock()
  return now + (deadline - now) / 2
end

local function open(sentinel, deadline)
  local line, err = lines.open(sentinel, deadline)
  if not line then
    return nil, err
  end
  local kind, value = greeting.authenticate(line, sentinel, deadline)
  if kind ~= "reply" then
    line.sock:close()
    return nil, (greeting.failure(sentinel, kind, value))
  end
  return line
end

local function ask(sentinel, deadline, name)
  local line, err = open(sentinel, deadline)
  if not line then
    return nil, err
  end
  local kind, value = lines.ask(line, deadline, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
  line.sock:close()
  if kind ~= "reply" then
    return nil, (greeting.failure(sentinel, kind, value))
  elseif type(value) == "table" and tonumber(value[2]) then
    return { host = value[1], port = tonumber(value[2]) }
  end
  return nil, format("connection: the sentinels watch no primary called %s: write the NAME of `sentinel monitor NAME`",
    name)
end

-- The address that most of those name who have answered, and that was not tried; nil while none has enough votes.
local function favourite(votes, tried, least)
  local best
  for address, count in pairs(votes) do
    if not tried[address] and count >= least and (not best or count > votes[best]) then
      best = address
    end
  end
  return best
end

-- Who may be the primary: first what most sentinels say, after that what others do, who learn of a switch later or
-- sooner.
-- @return a function that returns the lock at the next candidate, or nil and why there is none; and one to be called
--   when no more are wanted
function _M.candidates(lock, deadline)
  local sentinels = lock.sentinels
  local asked = canvass.begin(sentinels.nodes, half(deadline), ask, sentinels.name)
  local votes, tried, trouble = {}, {}, nil
  local majority = floor(#sentinels.nodes / 2) + 1
  local function following()
    while true do
      local answer = not favourite(votes, tried, majority) and asked:next()
      if not answer then
        local address = favourite(votes, tried, 1)
        if not address then
          return nil, trouble or errors.unreachable(lock, "no sentinel answers")
        end
        tried[address] = true
        local host, port = match(address, "^(.*):(%d+)$")
        return places.candidate(lock, { host = host, port = tonumber(port) })
      elseif answer.answer then
        local address = answer.answer.host .. ":" .. answer.answer.port
        votes[address] = (votes[address] or 0) + 1
      else
        trouble = answer.err
      end
    end
  end
  return following, function() asked:finish() end
end

-- Refuses a server that is not a primary any more, or not yet. A user without the right to ROLE is believed: its first
-- write would be refused.
-- @return true; or nil and why not
function _M.check_role(line, lock, deadline)
  local kind, value = lines.ask(line, deadline, "ROLE")
  if kind == nil then
    return nil, (greeting.failure(lock, kind, value))
  elseif kind == "reply" and type(value) == "table" and value[1] ~= "master" then
    return nil, "connection: " .. lock.address .. " is named by the sentinels and is not the primary"
  end
  return true
end

-- @return the lock at the primary, if that was found a moment ago
function _M.remembered(lock)
  local last = said[lock.pool]
  return last and clock() < last.until_ and places.candidate(lock, last.address) or nil
end

-- @param candidate the lock at its primary; nil when that is none any more
function _M.remember(lock, candidate)
  said[lock.pool] = candidate and {
    address = { host = candidate.host, port = candidate.port }, until_ = clock() + BELIEVED,
  }
end

-- The new primary in `NAME OLD-HOST OLD-PORT HOST PORT`.
local function switch_of(payload, name)
  local switched, host, port = match(payload, "^(%S+) %S+ %S+ (%S+) (%d+)")
  return switched == name and places.shown(host, tonumber(port)) or nil
end

-- Listens to one sentinel until it tells of another primary than `wire` leads to.
local function hear(lock, sentinel, wire, on_switch)
  local deadline = clock() + lock.timeout
  local line = open(sentinel, deadline)
  local kind, value = nil, nil
  if line then
    kind, value = lines.ask(line, deadline, "SUBSCRIBE", SWITCHES)
  end
  while kind == "reply" or kind == "push" do
    local primary = value[1] == "message" and switch_of(value[3], lock.sentinels.name)
    if primary and primary ~= wire.address then
      wire.broken = wire.broken or "the sentinels have switched to " .. primary
      on_switch()
      break
    end
    kind, value = lines.next(line, clock() + DAY)
  end
  if line then
    line.sock:close()
  end
end

local function listen(lock, sentinel, wire, on_switch)
  while not wire.broken do
    hear(lock, sentinel, wire, on_switch)
    ngx.sleep(LISTEN_PAUSE)
  end
end

-- Breaks a wire when a sentinel says that the primary is another now. All of them are listened to: they learn of a
-- switch one after the other, and each may be cut off.
-- @return the light threads that do so
function _M.follow(lock, wire, on_switch)
  local threads = {}
  for i, sentinel in ipairs(lock.sentinels and lock.sentinels.nodes or {}) do
    threads[i] = ngx.thread.spawn(listen, lock, sentinel, wire, on_switch)
  end
  return threads
end

return _M
