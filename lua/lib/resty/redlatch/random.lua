-- Random numbers from OpenSSL. math.random gives every worker the same numbers when it is seeded before the fork.
local ffi = require "ffi"

ffi.cdef [[
int redlatch_random(unsigned char *bytes, int count) __asm__("RAND_bytes");
]]

local C = ffi.C
if not pcall(function() return C.redlatch_random end) then
  error("redlatch: this nginx is built without OpenSSL (RAND_bytes is missing): use a build with SSL", 0)
end

local MOST = 32
local buffer = ffi.new("unsigned char[?]", MOST)
local _M = {}

-- @param count how many bytes, 1 to 32
-- @return a string; throws when the operating system has no random numbers, which never happens in practice
function _M.bytes(count)
  if C.redlatch_random(buffer, count) ~= 1 then
    error("redlatch: OpenSSL has no random numbers: is /dev/urandom readable?", 0)
  end
  return ffi.string(buffer, count)
end

-- @return a number from 0 up to but not including 1
function _M.fraction()
  local first, second = _M.bytes(2):byte(1, 2)
  return (first * 256 + second) / 65536
end

return _M
