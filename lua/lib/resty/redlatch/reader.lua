-- What comes in by a driver's connection: replies, errors and messages.
local calls = require "resty.redlatch.calls"
local errors = require "resty.redlatch.errors"
local hand_off = require "resty.redlatch.hand_off"
local refusals = require "resty.redlatch.refusals"
local wires = require "resty.redlatch.wire"

local _M = {}

local function hear(driver, payload)
  driver.counts.messages = driver.counts.messages + 1
  local waiter, told = hand_off.read(payload, driver.waiters, driver.events)
  if waiter then
    if told == true then
      waiter.called = true
    else
      waiter.message = told
    end
    waiter.sem:post()
  end
end

-- That this user has no inbox is said once.
local function note_denial(driver, denial, channel)
  if denial and not driver.denied then
    local asked = { command = "subscribe", channel = channel }
    ngx.log(ngx.WARN, "redlatch: no inbox, waiters ask again and again: ", errors.explain(denial, asked))
  end
  driver.denied = denial
end

-- What an error says about the connection, beside what it says to its call.
local function judge(driver, wire, call, problem)
  if call.channel then
    if refusals.is_denied(problem) then
      wire.hears[call.channel] = false
      note_denial(driver, problem, call.channel)
    else
      wire.broken = "SUBSCRIBE was refused: " .. problem
    end
  elseif refusals.is_wrong_server(problem, driver.lock) then
    -- Nothing more is sent here. What another server may take has been refused, and goes to it; but to one only.
    wire.leaving = problem
    call.moves = wire.served and not call.moved
  end
end

_M.note_denial = note_denial

-- Reads until the connection breaks: to be run by a light thread of its own.
function _M.read(driver, wire)
  local ok, err = pcall(wires.read, wire, function(call, reply, problem)
    driver.events = driver.events + 1
    if problem then
      judge(driver, wire, call, problem)
    elseif call.script then
      wire.served = true
    end
    calls.settle(driver, call, reply, problem)
    if wire.leaving then
      driver:wake()
    end
  end, function(call, reply, problem)
    calls.heard(driver, call, reply, problem)
  end, function(push)
    driver.events = driver.events + 1
    if push[1] == "message" then
      hear(driver, push[3])
    elseif push[1] == "subscribe" then
      wire.hears[push[2]] = true
      local call = wires.take(wire)
      if call then
        calls.settle(driver, call, true)
      end
    end
  end)
  if not ok then
    ngx.log(ngx.ERR, "redlatch: the reader ended: ", err)
  end
  wire.broken = wire.broken or "the reader ended"
  driver:wake()
end

return _M
