-- Where a server is, and how a connection to it is told from others.
local dial = require "resty.redlatch.dial"
local hex = require "resty.redlatch.hex"
local urls = require "resty.redlatch.url"

local format, gsub = string.format, string.gsub

local _M = {}

-- Gives a lock its address.
-- @param address a table with socket, or host and port
local function put(lock, address)
  if address.socket then
    lock.socket = "unix:" .. gsub(address.socket, "^unix:", "")
    lock.address = lock.socket
  else
    lock.host, lock.port = address.host, address.port
    lock.target, lock.is_named = dial.target(address.host)
    lock.address = format("%s:%d", lock.target, address.port)
  end
  lock.server = {}
  -- A pooled connection has introduced itself: it must never serve somebody with another user, password or database,
  -- or who asks for more of the server's certificate.
  lock.pool = format("redlatch %s/%d %s", lock.address, lock.database, hex(ngx.sha1_bin((lock.username or "") .. "\0"
    .. (lock.password or "") .. "\0" .. (lock.tls and lock.tls.id .. (lock.server_name or lock.host) or ""))))
end

-- Where the lock's server is, by the options of new.
-- @param url that option, which is right
function _M.take(lock, url)
  if not url then
    return put(lock, { socket = lock.socket, host = lock.host, port = lock.port })
  end
  local endpoint = urls.read(url)
  lock.username, lock.password = endpoint.username, lock.password or endpoint.password
  lock.database = endpoint.database
  put(lock, endpoint.addresses[1])
end

return _M
