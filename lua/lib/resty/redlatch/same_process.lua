-- Whether another Lua of this very process has a driver too: with lua_code_cache off each request has a Lua of its own,
-- which nothing in it can tell. What a process remembers beyond its Luas is its environment.
local ffi = require "ffi"

-- Own names, so that no other module's declaration of the same function can clash.
ffi.cdef [[
char *redlatch_getenv(const char *name) __asm__("getenv");
int redlatch_setenv(const char *name, const char *value, int overwrite) __asm__("setenv");
]]

local C = ffi.C
-- The Luas of http and stream are two by design.
local NAME = "REDLATCH_DRIVERS_OF_" .. ngx.config.subsystem

local _M = {}
local noted = false

-- Called when a driver begins; complains once in each process, when it is not the first Lua that has one.
function _M.note()
  if noted then
    return
  end
  noted = true
  local pid = tostring(ngx.worker.pid())
  local before = C.redlatch_getenv(NAME)
  before = before ~= nil and ffi.string(before)
  if before == pid then
    ngx.log(ngx.WARN, "redlatch: lua_code_cache is off, so each request makes a connection of its own that stays for",
      " the time of keepalive: use the option connection = \"pool\" of new")
    pid = pid .. " warned"
  elseif before == pid .. " warned" then
    return
  end
  C.redlatch_setenv(NAME, pid, 1)
end

return _M
