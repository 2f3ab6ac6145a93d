-- What is known of the server's clock, so that a request that is delayed on its way can be refused by the script.
local clock = require "resty.redlatch.clock"
local format = string.format

local _M = {}

-- @param lock whose `server` keeps the estimate
-- @param now_us the server's time in a reply that has just arrived
function _M.observe(lock, now_us)
  -- The server read its clock before the reply arrived, so this is the earliest that its clock can show.
  lock.server.ahead_us = now_us - clock() * 1e6
end

-- @param moment local seconds
-- @return the server time in microseconds, as digits, that is surely reached by then; "0" while nothing is known
function _M.at(lock, moment)
  if not lock.server.ahead_us then
    return "0"
  end
  return format("%.0f", math.max(moment * 1e6 + lock.server.ahead_us, 1))
end

return _M
