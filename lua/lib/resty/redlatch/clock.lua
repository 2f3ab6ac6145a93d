-- Seconds since the machine started, suspended time included, read from the kernel at each call.
-- Not ngx.now: that is the wall clock, cached since the last event, and it may be set back.
local ffi = require "ffi"

-- Own names, so that no other module's declaration of the same function can clash.
ffi.cdef [[
int redlatch_clock_gettime(int clock, long *seconds_and_nanoseconds) __asm__("clock_gettime");
]]

local CLOCK_BOOTTIME = 7
if ffi.os ~= "Linux" then
  error("redlatch: the boot-time clock is known for Linux only, this is " .. ffi.os, 0)
end

local C = ffi.C
local time = ffi.new("long[2]")

return function()
  C.redlatch_clock_gettime(CLOCK_BOOTTIME, time)
  return tonumber(time[0]) + tonumber(time[1]) / 1e9
end
