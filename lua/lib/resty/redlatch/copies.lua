-- The copies of what a single flight has filled: the node's in the shared dictionary, and the fleet's on the server.
-- Each carries the fence of the lease under which it was made, and a lower fence never replaces a higher one.
local call = require "resty.redlatch.call"
local clock = require "resty.redlatch.clock"
local server_clock = require "resty.redlatch.server_clock"
local words = require "resty.redlatch.words"

local find, floor, format, max, sub = string.find, math.floor, string.format, math.max, string.sub

-- The flags of a dictionary's entry have 32 bits: milliseconds since the machine started go round in 49 days.
local ROUND = 2 ^ 32
-- Between two complaints about a dictionary that is too small.
local COMPLAINT_PAUSE = 60

local complained_at = {}

local _M = {}

-- Names in the shared dictionary, and the key of the value on the server.
function _M.names(lock, key)
  return "v:" .. lock.namespace .. ":" .. key, "f:" .. lock.namespace .. ":" .. key, lock.namespace .. ":v1:" .. key
end

-- The node's copy: `fence value`. Its flags say until when it is fresh.
-- @return value, whether it is fresh, and its fence; or nil
function _M.look(job)
  local stored, fresh_until = job.shm:get(job.value_name)
  if stored == nil then
    return nil
  end
  local space = find(stored, " ", 1, true)
  local left_ms = ((fresh_until or 0) - floor(clock() * 1000)) % ROUND
  return sub(stored, space + 1), left_ms > 0 and left_ms < ROUND / 2, sub(stored, 1, space - 1)
end

-- @return the fence to keep the value under; nil where the node's copy is to stay
local function fence_to_keep(job, fence)
  local kept, fresh, kept_fence = _M.look(job)
  if not kept then
    return fence or "0"
  elseif not fence then
    return not fresh and kept_fence or nil
  end
  return tonumber(fence) >= tonumber(kept_fence) and fence or nil
end

local function complain(job, value, err)
  local now = clock()
  if now >= (complained_at[job.lock.shm] or 0) + COMPLAINT_PAUSE then
    complained_at[job.lock.shm] = now
    ngx.log(ngx.WARN, "redlatch: a value of ", #value, " bytes does not fit into lua_shared_dict ", job.lock.shm, " (",
      err, "), so each request fetches it from Redis: make it larger")
  end
end

-- Keeps a value for the node.
-- @param fence of the lease under which it was made; nil for one that was made without
-- @param fresh for how many seconds it is fresh
-- @param lease that one, if it is our own
function _M.keep(job, value, fence, fresh, lease)
  local ttl = fresh + job.stale
  fence = ttl > 0 and fence_to_keep(job, fence)
  if not fence or lease and lease:remaining() <= 0 then
    return
  end
  local ok, err = job.shm:set(job.value_name, fence .. " " .. value, max(ttl, 0.001),
    floor((clock() + fresh) * 1000) % ROUND)
  if not ok then
    complain(job, value, err)
  elseif lease and lease:remaining() <= 0 then
    -- This worker was stopped since it looked: what its successor has stored meanwhile may be overwritten.
    job.shm:delete(job.value_name)
  end
end

-- The fleet's copy, see the script value/store.
-- @return value, its fence, and for how many seconds it is fresh; nil when there is none; nil and an error
function _M.fetch(job)
  local lock = job.lock
  local fields, err = lock.transport.command(lock, clock() + lock.timeout, "HMGET", job.key_name, "value", "fence",
    "fresh_until_ms")
  if type(fields) ~= "table" then
    return nil, fields == nil and err or nil
  end
  local value, fence, fresh_until_ms = fields[1], fields[2], tonumber(fields[3])
  local ahead_us = lock.server.ahead_us
  if type(value) ~= "string" or not tonumber(fence) or not fresh_until_ms or not ahead_us then
    return nil
  end
  return value, fence, fresh_until_ms / 1000 - (clock() + ahead_us / 1e6)
end

local function milliseconds(seconds)
  return format("%.0f", max(seconds * 1000, 1))
end

-- Stores a value for the fleet, unless the lease under which it was made is over.
-- @return whether the value may be kept: it is stored, or the lease goes on and Redis has refused or not answered
function _M.store(job, value, lease)
  local lock = job.lock
  if lease:remaining() > 0 then
    local reply, err = call.run(lock, "value/store", job.key_name, {
      value, lease.fence, server_clock.at(lock, lease.deadline), milliseconds(job.ttl),
      milliseconds(job.ttl + job.stale),
    }, lock.timeout)
    if reply then
      server_clock.observe(lock, reply[2])
      if words["value/store"][reply[1]] == "stored" then
        return true
      end
    elseif lease:remaining() > 0 then
      ngx.log(ngx.WARN, "redlatch: the value of a single flight reaches this node only: ", err)
      return true
    end
  end
  ngx.log(ngx.WARN, "redlatch: a single flight lost its lease while it filled, its value is not stored: is the option",
    " lease longer than a fill takes, or max_hold where leases are renewed?")
  return false
end

return _M
