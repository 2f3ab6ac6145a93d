-- Distributed locks on Redis for nginx: see README.md beside this folder for the methods by example.
local bundle = require "resty.redlatch.bundle"
local clusters = require "resty.redlatch.cluster"
local acquire = require "resty.redlatch.acquire"
local driver = require "resty.redlatch.driver"
local held = require "resty.redlatch.held"
local leases = require "resty.redlatch.lease"
local options = require "resty.redlatch.options"
local phases = require "resty.redlatch.phases"
local places = require "resty.redlatch.place"
local single_flight = require "resty.redlatch.single_flight"
local stats = require "resty.redlatch.stats"
local tls = require "resty.redlatch.tls"

local format = string.format

local _M = { _VERSION = bundle.bundle }
local methods = {}
local mt = { __index = methods }

local families = {
  mutex = require "resty.redlatch.mutex",
  plain = require "resty.redlatch.plain",
}

local defaults = {
  host = "127.0.0.1", port = 6379, database = 0, namespace = "redlatch", timeout = 2, pool_size = 64, keepalive = 60,
  ttl = 10, claim = 3, retention = 3600, family = "mutex", strict = false, connection = "worker", max_hold = 60,
}

-- @syntax lock = redlatch.new(opts?)
-- @context any phase, init_by_lua too: nothing is sent
-- @param opts a table of options, see the table in README.md
-- @return an instance, to be shared by all requests of a worker
-- @throws when an option is unknown, of the wrong type or out of range
function _M.new(opts)
  local problem, is_secure = options.new_problem(opts)
  local tls_settings
  if is_secure then
    tls_settings, problem = tls.settings(opts)
  end
  if problem then
    error(problem, 2)
  end
  local self = { tls = tls_settings }
  for option, value in pairs(defaults) do
    self[option] = value
  end
  for option, value in pairs(opts or {}) do
    self[option] = value
  end
  places.take(self, opts and opts.url)
  self.family = families[self.family]
  self.transport = self.connection == "worker" and driver or require "resty.redlatch.pool"
  if self.cluster then
    self.transport = clusters.over(self.transport)
  end
  if self.renew == nil then
    self.renew = self.connection == "worker"
  end
  self.keepalive_ms = math.max(math.floor(self.keepalive * 1000), 1)
  if self.shm then
    stats.look_into(self.shm)
  end
  return setmetatable(self, mt)
end

local function start(self, name, opts, wait)
  opts = opts or {}
  local fence_floor = opts.fence_floor or "0"
  local renew = self.renew
  if opts.renew ~= nil then
    renew = opts.renew
  end
  return acquire(self, {
    name = name,
    key = self.family.key(self, name),
    ttl = options.whole_milliseconds(opts.ttl or self.ttl),
    wait = wait or 0,
    fence_floor = type(fence_floor) == "number" and format("%.0f", fence_floor) or fence_floor,
    renew = renew and not opts.detached,
    detached = opts.detached,
    max_hold = opts.max_hold or self.max_hold,
  })
end

local function misfit(self, opts)
  if opts and opts.fence_floor and not self.family.fenced then
    return "redlatch: option fence_floor goes with the mutex family: the plain family has no fence"
  elseif opts and opts.renew and opts.detached then
    return "redlatch: option detached goes without renew: nobody here looks after that lease"
  elseif opts and opts.renew and self.connection ~= "worker" then
    return "redlatch: option renew needs the driver: leave out the option connection of new"
  end
end

-- @syntax lease, err, remaining = lock:try_acquire(name, opts?)
-- @context rewrite, access, content, preread, timer, ssl_certificate, ssl_session_fetch, ssl_client_hello
-- @param name what is protected: 1 to 512 bytes without NUL, CR and LF
-- @param opts ttl: length of the lease in seconds; fence_floor: the highest fence seen elsewhere
-- @return a lease; or nil and "held" (and for how many seconds at most, if the holder has set a TTL), "lost",
--   "unknown: …", "connection: …", "script missing" or "redis: …"
-- @throws when an argument is of the wrong type or out of range, or the phase cannot wait
function methods:try_acquire(name, opts)
  local problem = phases.problem("try_acquire") or options.name_problem(name) or options.try_problem(opts)
    or misfit(self, opts)
  if problem then
    error(problem, 2)
  end
  return start(self, name, opts)
end

-- @syntax lease, err, remaining = lock:acquire(name, opts?)
-- @context as try_acquire
-- @param name as try_acquire
-- @param opts as try_acquire, and wait: for how many seconds to wait for others, 0 by default
-- @return as try_acquire; "held" means that the wait is over and the place in the queue is given up
-- @throws as try_acquire
function methods:acquire(name, opts)
  local problem = phases.problem("acquire") or options.name_problem(name) or options.acquire_problem(opts)
    or misfit(self, opts)
  if problem then
    error(problem, 2)
  end
  return start(self, name, opts, opts and opts.wait)
end

-- After the work: releases, and says what became of it.
local function end_of_work(lease, ok, ...)
  local released, err = lease:release()
  if not ok then
    return nil, "error: " .. tostring((...))
  elseif not released and err == "lost" then
    return nil, "lost"
  elseif not released then
    ngx.log(ngx.WARN, "redlatch: a lease is left to its TTL: ", err)
  end
  return true, ...
end

-- Runs a function under the lease and releases it, whatever happens.
-- @syntax ran, result... = lock:with(name, opts, fn, ...)
-- @context as try_acquire
-- @param name as try_acquire
-- @param opts as acquire, or nil
-- @param fn called with the lease and the arguments after fn
-- @return true and what fn returned; or false and "held" when somebody else has the lease; or nil and "error: …" with
--   a traceback when fn failed, "lost" when the lease was lost during the work, or an error of acquire
-- @throws as acquire, and when fn is not a function
function methods:with(name, opts, fn, ...)
  local problem = phases.problem("with") or options.name_problem(name) or options.acquire_problem(opts)
    or misfit(self, opts) or type(fn) ~= "function" and "redlatch: fn must be a function, not " .. type(fn)
  if problem then
    error(problem, 2)
  end
  local lease, err = start(self, name, opts, opts and opts.wait)
  if lease then
    return end_of_work(lease, xpcall(fn, debug.traceback, lease, ...))
  elseif err == "held" then
    return false, "held"
  end
  return nil, err
end

-- The value of `key` in the cache, filled by one request of the whole fleet when it is not there.
-- @syntax value, from = lock:single_flight(key, opts, fill, ...)
-- @context as try_acquire
-- @param key as a name
-- @param opts ttl: for how long a value is fresh (60); stale: for how long after that it may be served while one
--   request fills again in the background (0); lease: TTL of the lease of the one who fills, renewed meanwhile (10);
--   wait: for how long to wait for somebody else's fill (10); all in seconds
-- @param fill called with the arguments after it; returns a string, or nil and an error. With `stale` it runs in a
--   timer: give it what it needs as arguments
-- @return the value and where it comes from: "node", "stale", "worker", "fleet" or "fill"; or nil and "timeout", what
--   fill returned as its error, "error: …" with a traceback when it failed, or an error of acquire
-- @throws as acquire, and when the instance has no shm
function methods:single_flight(key, opts, fill, ...)
  local problem = phases.problem("single_flight") or single_flight.problem(self, key, opts, fill)
  if problem then
    error(problem, 2)
  end
  opts = opts or {}
  return single_flight.run {
    lock = self, key = key, shm = ngx.shared[self.shm], ttl = opts.ttl or 60, stale = opts.stale or 0,
    lease = options.whole_milliseconds(opts.lease or 10), wait = opts.wait or 10,
    fill = fill, args = { n = select("#", ...), ... },
  }
end

-- For programs that carry the owner token from one request to another. Keep it secret: it is the right to release.
-- @syntax lease = lock:lease(name, owner)
-- @context any phase: nothing is sent
-- @param name as given to acquire
-- @param owner `lease.owner` of the lease that acquire returned
-- @return a lease whose `remaining` is 0 and whose `fence` is nil until `extend` has succeeded
-- @throws when an argument is of the wrong type or out of range
function methods:lease(name, owner)
  local problem = options.name_problem(name) or options.owner_problem(owner)
  if problem then
    error(problem, 2)
  end
  return leases.carried(self, name, self.family.key(self, name), owner)
end

-- Gives back, without waiting, what the request still holds or waits for: for a request that was killed or failed.
-- @syntax count = redlatch.log()
-- @context log
-- @return how many leases and places were given back
function _M.log()
  return held.give_back()
end

-- What the drivers of this worker do and have done.
-- @syntax stats = redlatch.stats()
-- @context any
-- @return an array with a table for each server: server, connected, queued, waiting, leases and counts
function _M.stats()
  return stats.read()
end

-- The counts for Prometheus, of all workers when the instances have a shm, else of this worker.
-- @syntax text = redlatch.prometheus()
-- @context any
function _M.prometheus()
  return stats.prometheus()
end

return _M
