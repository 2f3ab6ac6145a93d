-- Fills a cache once for everybody who asks at the same time: the requests of a worker, the workers of a node and the
-- nodes of a fleet. The first two rings only spare Redis; that one fills is the lock's doing.
local acquire = require "resty.redlatch.acquire"
local clock = require "resty.redlatch.clock"
local copies = require "resty.redlatch.copies"
local held = require "resty.redlatch.held"
local options = require "resty.redlatch.options"
local owner_tokens = require "resty.redlatch.owner"
local random = require "resty.redlatch.random"
local semaphores = require "ngx.semaphore"
local timers = require "resty.redlatch.timers"

local max, min, sleep = math.max, math.min, ngx.sleep

-- How often a worker looks whether another worker of its node has filled.
local SHORTEST_LOOK, LONGEST_LOOK = 0.002, 0.02

local _M = {}

-- What this worker is filling, by key.
local flights = {}

local function run_fill(job)
  local ok, value, err = xpcall(job.fill, debug.traceback, unpack(job.args, 1, job.args.n))
  if not ok then
    return nil, "error: " .. tostring(value)
  elseif type(value) ~= "string" then
    return nil, err or "fill returned " .. type(value) .. ", not a string"
  end
  return value
end

-- What another node has filled, kept for this one too.
local function take_from_fleet(job)
  local value, fence, fresh = copies.fetch(job)
  if value and fresh > 0 then
    copies.keep(job, value, fence, fresh)
    return value, "fleet"
  end
end

-- Fills under the lease, and stores what it made while the lease is still ours. Whoever was stopped for longer takes
-- what its successor has stored.
local function fill_under(job, lease)
  local value, err = run_fill(job)
  if not value then
    return nil, err
  elseif copies.store(job, value, lease) then
    copies.keep(job, value, lease.fence, job.ttl, lease)
    return value, "fill"
  end
  local later, from = take_from_fleet(job)
  return later or value, from or "fill"
end

-- Without the fleet's ring each node fills for itself.
local function fill_alone(job, why)
  ngx.log(ngx.WARN, "redlatch: a node fills for itself: ", why)
  local value, err = run_fill(job)
  if value then
    copies.keep(job, value, nil, job.ttl)
  end
  return value, value and "fill" or err
end

-- For the fleet: takes what another node has filled, or fills under the lease.
-- @return value, or nil; error, or where the value comes from
local function fly(job)
  local lock = job.lock
  local value, from = take_from_fleet(job)
  if value then
    return value, from
  end
  local lease, err = acquire(lock, {
    name = job.key, key = lock.family.key(lock, job.key), ttl = job.lease, wait = max(job.limit - clock(), 0),
    fence_floor = "0", renew = lock.renew, max_hold = lock.max_hold,
  })
  if not lease then
    if err == "held" then
      return nil, "timeout"
    elseif err:find("^connection") or err:find("^unknown") then
      return fill_alone(job, err)
    end
    return nil, err
  end
  value, from = take_from_fleet(job)
  if not value then
    value, from = fill_under(job, lease)
  end
  lease:post_release()
  return value, from
end

-- Takes down the flag of the node, unless it is that of a successor: of one who found ours expired.
local function strike_flag(job)
  local flag = job.flag
  job.flag = nil
  if flag and job.shm:get(job.flag_name) == flag then
    job.shm:delete(job.flag_name)
  end
end

-- For the node: fills if no other worker does, or waits for that one.
local function lead(job)
  local look_again = SHORTEST_LOOK
  while true do
    local flag = owner_tokens.token()
    local ok, err = job.shm:add(job.flag_name, flag, job.lease)
    if ok or err ~= "exists" then
      job.flag = ok and flag or nil
      local value, from = fly(job)
      strike_flag(job)
      return value, from
    end
    if clock() >= job.limit then
      return nil, "timeout"
    end
    sleep(look_again * (0.5 + random.fraction()))
    look_again = min(look_again * 1.5, LONGEST_LOOK)
    local value, fresh = copies.look(job)
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
  strike_flag(flight.job)
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
  job.value_name, job.flag_name, job.key_name = copies.names(job.lock, job.key)
  local value, fresh = copies.look(job)
  if value and fresh then
    return value, "node"
  elseif value and job.stale > 0 then
    -- Whoever raises the flag fills in the background; everybody is served at once.
    if not flights[job.value_name] and not job.shm:get(job.flag_name) then
      flights[job.value_name] = nil
      local ok, err = timers.at(0, refill, job)
      if not ok then
        ngx.log(ngx.WARN, "redlatch: a stale value is not filled again: ", err)
      end
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
