-- Makes connections within a deadline, the time of nginx' resolver too: that has a limit of its own, of half a minute
-- as a rule, which no timeout of a socket bounds.
local clock = require "resty.redlatch.clock"
local errors = require "resty.redlatch.errors"
local semaphores = require "ngx.semaphore"

local find = string.find

local _M = {}

-- @param host as the option
-- @return what to connect to, and whether nginx has to look it up
function _M.target(host)
  if find(host, "^[%x:.]+$") and find(host, ":", 1, true) then
    return "[" .. host .. "]", false
  end
  return host, not find(host, "^%d+%.%d+%.%d+%.%d+$") and not find(host, "^%[")
end

-- @return that no connection came about, and for a host name that the resolver may be the reason
function _M.unreachable(lock, err)
  if not lock.is_named then
    return errors.unreachable(lock, err)
  elseif find(err, "no resolver defined", 1, true) then
    err = err .. ": set nginx' resolver or write an IP address, for localhost too"
  elseif err == "timeout" then
    err = "timeout, of the server or of nginx' resolver"
  end
  return errors.unreachable(lock, err)
end

local function run(state, connect, ...)
  state.ok, state.err = connect(...)
  state.over = true
  state.sem:post()
end

-- Calls `connect`, a function that connects to the host and port of `lock`.
-- @param deadline on the boot-time clock
-- @return what it returns: ok, or nil and an error
function _M.connect(lock, deadline, connect, ...)
  if not lock.is_named then
    return connect(...)
  end
  local state = { sem = semaphores.new(), over = false }
  local thread = ngx.thread.spawn(run, state, connect, ...)
  if not state.over then
    state.sem:wait(math.max(deadline - clock(), 0.001))
  end
  if state.over then
    return state.ok, state.err
  end
  ngx.thread.kill(thread)
  return nil, "timeout"
end

return _M
