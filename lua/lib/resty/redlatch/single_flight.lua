-- Fills a cache once for everybody who asks at the same time: the requests of a worker, the workers of a node and the
-- nodes of a fleet. The first two rings only spare Redis; that one fills is the lock's doing.
local acquire = require "resty.redlatch.acquire"
local clock = require "resty.redlatch.clock"
local held = require "resty.redlatch.held"
local options = require "resty.redlatch.options"
local random = require "resty.redlatch.random"
local semaphores = require "ngx.semaphore"

local floor, format, max, min, sleep = math.floor, string.format, math.max, math.min, ngx.sleep

-- How often a worker looks whether another worker of its node has filled.
local SHORTEST_LOOK, LONGEST_LOOK = 0.002, 0.02

local _M = {}

-- What this worker is filling, by key.
local flights = {}

-- Names in the shared dictionary, and the key of the value on the server.
local function names(lock, key)
  return "v:" .. lock.namespace .. ":" .. key, "f:" .. lock.namespace .. ":" .. key, lock.namespace .. ":c1:" .. key
end

-- The flags of a dictionary's entry have 32 bits: milliseconds since the machine started go round in 49 days.
local ROUND = 2 ^ 32

-- The node's copy. Its flags say until when it is fresh.
-- @return value, and whether it is fresh; or nil
local function look(job)
  local value, fresh_until = job.shm:get(job.value_name)
  if value == nil then
    return nil
  end
  local left_ms = ((fresh_until or 0) - floor(clock() * 1000)) % ROUND
  return value, left_ms > 0 and left_ms < ROUND / 2
end

local function keep(job, value, fresh)
  local ttl = fresh + job.stale
  if ttl > 0 then
    job.shm:set(job.value_name, value, max(ttl, 0.001), floor((clock() + fresh) * 1000) % ROUND)
  end
end

local function server_ms(lock)
  return lock.server.ahead_us and (clock() * 1e6 + lock.server.ahead_us) / 1000
end

-- The fleet's copy: `fresh_until_ms value` in milliseconds of the server's clock.
-- @return value and for how many seconds it is fresh; nil when there is none; nil and an error
local function fetch(job)
  local lock = job.lock
  local stored, err = lock.transport.command(lock, clock() + lock.timeout, "GET", job.key_name)
  if type(stored) ~= "string" then
    return nil, stored == nil and err or nil
  end
  local space = stored:find(" ", 1, true)
  local fresh_until, now = space and tonumber(stored:sub(1, space - 1)), server_ms(lock)
  if not fresh_until or not now then
    return nil
  end
  return stored:sub(space + 1), (fresh_until - now) / 1000
end

local function store(job, value)
  local lock, now = job.lock, server_ms(job.lock)
  if not now then
    return
  end
  local stored = format("%.0f ", now + job.ttl * 1000) .. value
  local ok, err = lock.transport.command(lock, clock() + lock.timeout, "SET", job.key_name, stored, "PX",
    format("%.0f", (job.ttl + job.stale) * 1000))
  if not ok then
    ngx.log(ngx.WARN, "redlatch: the value of a single flight reaches this node only: ", err)
  end
end

local function run_fill(job)
  local ok, value, err = xpcall(job.fill, debug.traceback, unpack(job.args, 1, job.args.n))
  if not ok then
    return nil, "error: " .. tostring(value)
  elseif type(value) ~= "string" then
    return nil, err or "fill returned " .. type(value) .. ", not a string"
  end
  keep(job, value, job.ttl)
  return value
end

-- For the fleet: takes what another node has filled, or fills under the lease.
-- @return value, or nil; error, or where the value comes from
local function fly(job)
  local lock = job.lock
  local value, fresh = fetch(job)
  if value and fresh > 0 then
    keep(job, value, fresh)
    return value, "fleet"
  end
  local lease, err = acquire(lock, {
    name = job.key, key = lock.family.key(lock, job.key), ttl = job.lease, wait = max(job.limit - clock(), 0),
    fence_floor = "0", renew = lock.renew, max_hold = lock.max_hold,
  })
  if not lease then
    if err == "held" then
      return nil, "timeout"
    elseif err:find("^connection") or err:find("^unknown") then
      -- Without the fleet's ring each node fills for itself.
      ngx.log(ngx.WARN, "redlatch: a node fills for itself: ", err)
      value, err = run_fill(job)
      return value, value and "fill" or err
    end
    return nil, err
  end
  local from = "fleet"
  value, fresh = fetch(job)
  if value and fresh > 0 then
    keep(job, value, fresh)
  else
    from = "fill"
    value, err = run_fill(job)
    if value then
      store(job, value)
    end
  end
  lease:post_release()
  return value, value and from or err
end

-- For the node: fills if no other worker does, or waits for that one.
local function lead(job)
  local look_again = SHORTEST_LOOK
  while true do
    local ok, err = job.shm:add(job.flag_name, true, job.lease)
    if ok or err ~= "exists" then
      job.leads = ok
      local value, from = fly(job)
      job.leads = false
      job.shm:delete(job.flag_name)
      return value, from
    end
    if clock() >= job.limit then
      return nil, "timeout"
    end
    sleep(look_again * (0.5 + random.fraction()))
    look_again = min(look_again * 1.5, LONGEST_LOOK)
    local value, fresh = look(job)
    if value and fresh then
      return value, "node"
    end
  end
end

local function land(flight, value, from)
  if flights[flight.name] == flight then
    flights[flight.name] = nil
  end
  flight.over, flight.value, flight.from = true, value, from
  flight.sem:post(max(-flight.sem:count(), 1))
end

-- The log phase of a leader that was killed: its passengers try for themselves.
local function crash(flight)
  if flight.job.leads then
    flight.job.shm:delete(flight.job.flag_name)
  end
  land(flight, nil, nil)
end

-- For the worker: the first request leads, the others wait for it; should it vanish, the next one takes over.
local function board(job)
  while true do
    local flight = flights[job.value_name]
    if not flight then
      flight = { name = job.value_name, sem = semaphores.new(), over = false, job = job, give_back = crash }
      flights[job.value_name] = flight
      held.add(flight)
      local value, from = lead(job)
      held.remove(flight)
      land(flight, value, from)
      return value, from
    end
    local left = job.limit - clock()
    if left <= 0 then
      return nil, "timeout"
    end
    flight.sem:wait(min(left, job.lease))
    if flight.over and (flight.value or flight.from) then
      return flight.value, flight.value and "worker" or flight.from
    elseif not flight.over and flights[job.value_name] == flight and clock() < job.limit then
      flights[job.value_name] = nil
    end
  end
end

local function refill(_, job)
  -- The limit is counted from the moment that this timer runs.
  job.limit = clock() + job.wait
  local value, err = board(job)
  if not value then
    ngx.log(ngx.WARN, "redlatch: a stale value could not be filled again: ", err)
  end
end

-- @param job table with lock, key, ttl, stale, lease, wait, shm, fill and args
-- @return value and where it comes from; or nil and an error
function _M.run(job)
  job.limit = clock() + job.wait
  job.value_name, job.flag_name, job.key_name = names(job.lock, job.key)
  local value, fresh = look(job)
  if value and fresh then
    return value, "node"
  elseif value and job.stale > 0 then
    -- Whoever raises the flag fills in the background; everybody is served at once.
    if not flights[job.value_name] and not job.shm:get(job.flag_name) then
      flights[job.value_name] = nil
      ngx.timer.at(0, refill, job)
    end
    return value, "stale"
  end
  return board(job)
end

-- @return nil, or what is wrong with the arguments
function _M.problem(lock, key, opts, fill)
  local problem = options.name_problem(key) or options.flight_problem(opts)
  if problem then
    return problem
  elseif type(fill) ~= "function" then
    return "redlatch: fill must be a function, not " .. type(fill)
  elseif not lock.shm then
    return "redlatch: single_flight needs the option shm of new: the name of a lua_shared_dict"
  elseif not lock.family.fenced then
    return "redlatch: single_flight goes with the mutex family"
  end
end

return _M
