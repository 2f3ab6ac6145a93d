-- Where a server is, and how a connection to it is told from others.
local dial = require "resty.redlatch.dial"
local hex = require "resty.redlatch.hex"
local urls = require "resty.redlatch.url"

local format, gsub = string.format, string.gsub

local _M = {}

-- @return an address as people write it
function _M.shown(host, port)
  return format("%s:%d", (dial.target(host)), port)
end

-- A pooled connection has introduced itself: it must never serve somebody with another user, password or database, or
-- who asks for more of the server's certificate.
local function pool_of(lock)
  return format("redlatch %s/%d %s", lock.address, lock.database, hex(ngx.sha1_bin((lock.username or "") .. "\0"
    .. (lock.password or "") .. "\0" .. (lock.tls and lock.tls.id .. (lock.server_name or lock.host or "") or ""))))
end

-- Gives a lock its address.
-- @param address a table with socket, or host and port
local function put(lock, address)
  if address.socket then
    lock.socket = "unix:" .. gsub(address.socket, "^unix:", "")
    lock.address = lock.socket
  else
    lock.host, lock.port = address.host, address.port
    lock.target, lock.is_named = dial.target(address.host)
    lock.address = _M.shown(address.host, address.port)
  end
  lock.pool = pool_of(lock)
  return lock
end

-- The lock at one of several servers: its settings, with that address.
local function at(lock, address, login)
  local node = setmetatable(login or {}, { __index = lock })
  return put(node, address)
end

-- The lock at a server that may be its primary: there is one at a time, and one clock.
function _M.candidate(lock, address)
  return at(lock, address)
end

local function shown_all(addresses)
  local texts = {}
  for i, address in ipairs(addresses) do
    texts[i] = _M.shown(address.host, address.port)
  end
  return table.concat(texts, ",")
end

-- Gives a lock its sentinels, who have a login of their own.
local function put_sentinels(lock, endpoint)
  lock.address = endpoint.primary .. " of " .. shown_all(endpoint.addresses)
  lock.pool = pool_of(lock)
  local nodes = {}
  for i, address in ipairs(endpoint.addresses) do
    nodes[i] = at(lock, address, {
      username = endpoint.sentinel_user or false, password = endpoint.sentinel_password or false,
    })
  end
  lock.sentinels = { name = endpoint.primary, nodes = nodes }
end

-- The lock at a node of its cluster, which has a clock of its own.
function _M.node(lock, address)
  local node = at(lock, address)
  node.server = {}
  return node
end

local function put_cluster(lock, endpoint)
  lock.address = "the cluster of " .. shown_all(endpoint.addresses)
  lock.pool = pool_of(lock)
  lock.cluster = { lock = lock, seeds = endpoint.addresses, nodes = {} }
end

-- Where the lock's server is, by the options of new.
-- @param url that option, which is right
function _M.take(lock, url)
  lock.server = {}
  if not url then
    return put(lock, { socket = lock.socket, host = lock.host, port = lock.port })
  end
  local endpoint = urls.read(url)
  lock.username, lock.password = endpoint.username, lock.password or endpoint.password
  lock.database = endpoint.database
  if endpoint.kind == "sentinel" then
    return put_sentinels(lock, endpoint)
  elseif endpoint.kind == "cluster" then
    return put_cluster(lock, endpoint)
  end
  put(lock, endpoint.addresses[1])
end

return _M
