-- Owner tokens and the label, both per worker: made after the fork, or two workers would share them.
local ffi = require "ffi"
local hex = require "resty.redlatch.hex"
local random = require "resty.redlatch.random"

ffi.cdef [[
int redlatch_gethostname(char *name, size_t size) __asm__("gethostname");
]]

local worker_pid = ngx.worker.pid
local LABEL_BYTES = 128

local client_id, label, count, made_in

local function make_once()
  local pid = worker_pid()
  if made_in == pid then
    return
  end
  made_in, count = pid, 0
  client_id = hex(random.bytes(16))
  local name = ffi.new("char[?]", 256)
  local host = ffi.C.redlatch_gethostname(name, 255) == 0 and ffi.string(name) or "unknown"
  local ending = "/" .. pid
  label = host:sub(1, LABEL_BYTES - #ending) .. ending
end

local _M = {}

-- @return an owner token that no other attempt has: `<client id>:<n>`
function _M.token()
  make_once()
  count = count + 1
  return client_id .. ":" .. count
end

-- @return the first part of this worker's owner tokens, which its inbox is named after
function _M.client_id()
  make_once()
  return client_id
end

-- @return who asks, for people: `<host name>/<pid of the worker>`
function _M.label()
  make_once()
  return label
end

return _M
