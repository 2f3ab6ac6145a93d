-- What each request holds or waits for, so that the log phase can give back what a killed or failed request left.
-- Requests are told apart by their address and the moment of their start: ngx.ctx does not survive a redirect.
local ffi = require "ffi"
local get_request = require("resty.core.base").get_request

local cast, get_phase, start_time = ffi.cast, ngx.get_phase, ngx.req.start_time
local uintptr = ffi.typeof("uintptr_t")

-- The phases of requests that have a log phase.
local has_log_phase = { rewrite = true, access = true, content = true, preread = true }

local requests = {}

local _M = {}

local function address()
  return tonumber(cast(uintptr, get_request()))
end

-- Puts a record (a table with the method give_back, which must not wait) on the list of the running request, if that
-- has a log phase.
function _M.add(record)
  if not has_log_phase[get_phase()] then
    return
  end
  local at = address()
  local request = requests[at]
  -- Another start is a request that is over and whose log phase did not call us.
  if not request or request.started ~= start_time() then
    request = { started = start_time(), records = {}, count = 0, at = at }
    requests[at] = request
  end
  request.records[record] = true
  request.count = request.count + 1
  record.request = request
end

function _M.remove(record)
  local request = record.request
  if request then
    record.request = nil
    request.records[record] = nil
    request.count = request.count - 1
    if request.count == 0 and requests[request.at] == request then
      requests[request.at] = nil
    end
  end
end

-- Gives back everything that the running request has on its list.
-- @return how many leases and places that were
function _M.give_back()
  local at = address()
  local request = requests[at]
  requests[at] = nil
  local count = 0
  for record in pairs(request and request.records or {}) do
    record.request = nil
    record:give_back()
    count = count + 1
  end
  return count
end

return _M
