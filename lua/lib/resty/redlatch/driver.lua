-- The driver of a worker: one connection for all its requests, owned by a timer. Requests put their commands into a
-- queue and wait on semaphores, so they may do so in every phase that has timers; what is queued is sent in one
-- write. The same connection carries the messages of hand-offs, and the renewals of the leases.
local agendas = require "resty.redlatch.agenda"
local calls = require "resty.redlatch.calls"
local clock = require "resty.redlatch.clock"
local dial = require "resty.redlatch.dial"
local errands = require "resty.redlatch.errand"
local errors = require "resty.redlatch.errors"
local healing = require "resty.redlatch.healing"
local owner_tokens = require "resty.redlatch.owner"
local same_process = require "resty.redlatch.same_process"
local semaphores = require "ngx.semaphore"
local timers = require "resty.redlatch.timers"

local find, get_phase, max, min = string.find, ngx.get_phase, math.max, math.min

local _M = {}

-- By server, user and database. Weak, as settings may come and go with the routes of a gateway: a driver lives as long
-- as it runs or an instance has it.
local drivers, keepers = setmetatable({}, { __mode = "v" }), setmetatable({}, { __mode = "v" })
-- Counts outlive their drivers, by the server's name; and the dictionaries where they go.
local counts_of, shared = {}, {}
local mt = { __index = { start = timers.start, wake = timers.wake, publish = function() end } }
local weak_values = { __mode = "v" }

local function counts(server)
  counts_of[server] = counts_of[server] or {
    commands = 0, writes = 0, connections = 0, failed_connections = 0, messages = 0, scripts_loaded = 0,
    granted = 0, handed_off = 0, held = 0, released = 0, renewed = 0, lost = 0, posted = 0,
  }
  return counts_of[server]
end

-- The driver of this worker for the server and the user of `lock`.
local function of(lock)
  local driver = lock.driver
  if driver then
    return driver
  end
  driver = drivers[lock.pool]
  if not driver then
    driver = setmetatable({
      lock = lock, timeout = lock.timeout, shm = lock.shm, server = { address = lock.address },
      work = semaphores.new(), awake = false, running = false, begun = false, failures = 0, left = 0, denied = nil,
      first = nil, last = nil, number = 0, loads = {}, spare = {}, spares = 0,
      wire = nil, events = 0, channels = {}, waiters = setmetatable({}, weak_values),
      agenda = agendas.new(), errands = {}, published_at = 0, published_writes = 0, collect_at = 0,
    }, mt)
    driver.counts = counts(_M.server_name(driver))
    driver.server.counts = driver.counts
    drivers[lock.pool] = driver
    same_process.note()
  end
  driver.timeout, driver.shm = max(driver.timeout, lock.timeout), driver.shm or lock.shm
  shared[_M.server_name(driver)] = driver.shm
  lock.server, lock.driver = driver.server, driver
  return driver
end
_M.of = of

-- All drivers of this worker by their address, for people who look.
function _M.all()
  return drivers
end

-- The counts of the servers whose instances have no dictionary, by the servers' names.
function _M.counts_in_private()
  local private = {}
  for server, counted in pairs(counts_of) do
    private[server] = not shared[server] and counted or nil
  end
  return private
end

-- The server of a driver, for people: without its credentials.
function _M.server_name(driver)
  return driver.lock.address .. "/" .. driver.lock.database
end

-- OpenResty's nginx runs what is posted by a timer or after a sleep of no delay at the next event of the worker only,
-- which may be a second away. The end of a short wait is an event.
local SHORT_WAIT = 0.001
local posts_late = find(ngx.config.nginx_configure(), "ngx_lua%-%d") ~= nil

-- Waits for the answer to a call that is queued, and looks after a driver that nginx does not start.
local function wait_for(driver, call, deadline)
  local ok
  if posts_late or get_phase() == "timer" then
    ok = call.sem:wait(SHORT_WAIT)
    if call.over then
      return ok
    end
  end
  repeat
    local left = max(deadline - clock(), 0.001)
    local patience = timers.patience(driver)
    ok = call.sem:wait(patience and min(patience, left) or left)
    if patience and not call.over then
      timers.nudge(driver)
    end
  until call.over or clock() >= deadline
  return ok
end

-- Why there is no answer to a call.
-- @return error and kind (see call.outcome)
local function silence(driver, call)
  if call.written_at and not call.harmless then
    return errors.no_reply(driver.lock, "timeout", true), "unknown"
  elseif not driver.begun then
    return timers.NOT_BEGUN, "connection"
  elseif not call.written_at and driver.trouble then
    return driver.trouble, driver.kind_of_trouble
  elseif not call.written_at and not driver.wire then
    return dial.unreachable(driver.lock, "timeout"), "connection"
  end
  return errors.no_reply(driver.lock, "timeout", false), "connection"
end

-- Waits for the answer to a call that is queued.
-- @return reply, error, kind (see call.outcome), the moment before it was asked for, and its event's number
local function wait(driver, call, deadline)
  local ok = wait_for(driver, call, deadline)
  if not call.over then
    -- Its semaphore may be posted later: it is not used again.
    call.abandoned = true
    return nil, silence(driver, call)
  end
  if not ok then
    call.sem:wait(0)
  end
  local reply, err, kind, asked_at, stamp = call.reply, call.err, call.kind, call.asked_at, call.stamp
  calls.give_back(driver, call)
  return reply, err, kind, asked_at, stamp
end

-- Waits until the worker has had its first connection, so that the time of the server is known.
local function know_the_time(driver, deadline)
  if driver.server.ahead_us or driver.wire then
    return true
  end
  local call = calls.new(driver)
  call.harmless = true
  calls.send_command(driver, call, "PING")
  local reply, err, kind = wait(driver, call, deadline)
  -- Refused or not, it was answered.
  return reply ~= nil or nil, err, kind
end

-- Runs a script, see call.run.
-- @param deadline when to give up, on the boot-time clock
-- @return reply, error, kind (see call.outcome), the moment before it was asked for, and its event's number
function _M.run(lock, name, key, args, deadline, _, subject)
  local driver = of(lock)
  local make = type(args) == "function" and args
  if make then
    local known, err, kind = know_the_time(driver, deadline)
    if not known then
      return nil, err, kind
    end
    args = make(lock, subject)
    if not args then
      return nil, "the time of the server is not known", "timeless"
    end
  end
  local call = healing.begin(calls.new(driver), name, lock.strict, lock.asking)
  call.key, call.args = key, args
  if make then
    call.make, call.lock, call.subject = make, lock, subject
  end
  calls.send(driver, call)
  return wait(driver, call, deadline)
end

-- Runs a script without waiting for it, in any phase that has timers.
-- @param done called with the call when it is over, with the fields subject, reply, err and kind of call.outcome, and
--   asked_at; it must not wait
function _M.post(driver, lock, name, key, args, done, subject)
  local call = healing.begin({ done = done, subject = subject }, name, lock.strict, lock.asking)
  call.key, call.args = key, args
  calls.send(driver, call)
end

-- One command that is no script.
-- @return the reply; or nil, an error of the closed list, and its kind
function _M.command(lock, deadline, ...)
  local driver = of(lock)
  local call = calls.new(driver)
  call.asking = lock.asking
  calls.send_command(driver, call, ...)
  local reply, err, kind = wait(driver, call, deadline)
  if reply == false then
    return nil, errors.explain(err, { command = (...) }), "refused"
  end
  return reply, err, kind
end

-- The channel on which this worker hears of hand-offs. It is subscribed where the server allows it, see `hears`.
function _M.inbox(lock, deadline)
  local driver = of(lock)
  local channel = lock.namespace .. ":inbox:" .. owner_tokens.client_id()
  -- From now on each new connection subscribes it.
  driver.channels[channel] = clock()
  local wire = know_the_time(driver, deadline) and driver.wire
  if wire and wire.pushes and wire.hears[channel] == nil then
    local call = calls.new(driver)
    call.harmless, call.channel = true, channel
    calls.send_command(driver, call, "SUBSCRIBE", channel)
    wait(driver, call, deadline)
  end
  return channel
end

-- Whether the connection that is there has subscribed the channel: a later one may not have.
function _M.hears(lock, channel)
  local driver = of(lock)
  local wire = driver.wire
  driver.channels[channel] = clock()
  return wire ~= nil and wire.hears[channel] == true
end

local function nothing() end

-- Subscribes the channel without waiting for it.
-- @return false: it is not heard yet
function _M.subscribe(lock, channel)
  local driver = of(lock)
  local wire = driver.wire
  if wire and wire.pushes and wire.hears[channel] == nil and not wire.asked_for[channel] then
    wire.asked_for[channel] = true
    calls.send_command(driver, { done = nothing, harmless = true, channel = channel }, "SUBSCRIBE", channel)
  elseif not driver.running then
    driver:start()
  end
  return false
end

-- Makes `waiter` hear of its hand-off, and of new connections, by its semaphore `sem`.
function _M.listen(lock, waiter)
  waiter.sem = semaphores.new()
  of(lock).waiters[waiter.owner] = waiter
end

function _M.leave(lock, waiter)
  of(lock).waiters[waiter.owner] = nil
end

-- Releases without waiting, in any phase that has timers; asks again until it is answered or the lease is surely over.
-- @return true
function _M.post_release(lock, key, owner)
  local driver = of(lock)
  driver.counts.posted = driver.counts.posted + 1
  return _M.post_release_by(driver, _M, lock, key, owner)
end

-- The same for the driver that looks after it, by the transport that sends it.
function _M.post_release_by(driver, transport, lock, key, owner)
  errands.begin(driver, { lock = lock, key = key, owner = owner }, transport)
  return true
end

-- What has an agenda and no connection, for leases whose server may be another one tomorrow.
function _M.keeper(lock)
  local pool = lock.cluster.lock.pool
  local keeper = lock.cluster.keeper or keepers[pool]
  if not keeper then
    keeper = setmetatable({
      lock = lock.cluster.lock, is_keeper = true, publish = nothing, work = semaphores.new(), awake = false,
      running = false, begun = false, failures = 0, agenda = agendas.new(), errands = {}, waiters = {}, collect_at = 0,
    }, mt)
    keepers[pool] = keeper
  end
  lock.cluster.keeper = keeper
  return keeper
end

-- Puts something on the driver's agenda: its method `attend` is called with the driver at that moment.
function _M.plan(driver, entry, at)
  if driver.agenda:put(entry, at) then
    if driver.running then
      driver:wake()
    else
      driver:start()
    end
  end
end

-- What the drivers of this worker do when their counts may go to the other workers, see stats.
function _M.on_publish(publish)
  mt.__index.publish = publish
end

return _M
