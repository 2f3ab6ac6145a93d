-- The driver of a worker: one connection for all its requests, owned by a timer. Requests put their commands into a
-- queue and wait on semaphores, so they may do so in every phase that has timers; what is queued is sent in one
-- write. The same connection carries the messages of hand-offs, and the renewals of the leases.
local agendas = require "resty.redlatch.agenda"
local clock = require "resty.redlatch.clock"
local errands = require "resty.redlatch.errand"
local errors = require "resty.redlatch.errors"
local healing = require "resty.redlatch.healing"
local owner_tokens = require "resty.redlatch.owner"
local random = require "resty.redlatch.random"
local resp = require "resty.redlatch.resp"
local semaphores = require "ngx.semaphore"
local wires = require "resty.redlatch.wire"

local exiting, timer_at = ngx.worker.exiting, ngx.timer.at
local max, min = math.max, math.min

-- Commands in one write: their replies keep what comes after them waiting.
local MOST = 500
local SHORTEST_BACKOFF, LONGEST_BACKOFF = 0.01, 0.5
-- How often an exiting worker looks whether its last request is over.
local EXIT_PAUSE = 0.05
-- How often it looks for what its requests have dropped.
local COLLECT_PAUSE = 1
-- How often the counts go to the shared dictionary.
local PUBLISH_PAUSE = 1
local DAY = 86400

local _M = {}

local drivers = {}
local weak_values = { __mode = "v" }
local run, sentinel

-- The driver of this worker for the server and the user of `lock`.
local function of(lock)
  local driver = lock.driver
  if driver then
    return driver
  end
  driver = drivers[lock.pool]
  if not driver then
    driver = {
      lock = lock, timeout = lock.timeout, shm = lock.shm, server = { address = lock.address },
      work = semaphores.new(), awake = false, running = false, failures = 0,
      first = nil, last = nil, number = 0, loads = {}, spare = {}, spares = 0,
      wire = nil, events = 0, channels = {}, waiters = setmetatable({}, weak_values),
      agenda = agendas.new(), errands = {}, published_at = 0, published_writes = 0, collect_at = 0,
      counts = {
        commands = 0, writes = 0, connections = 0, failed_connections = 0, messages = 0, scripts_loaded = 0,
        granted = 0, handed_off = 0, held = 0, released = 0, renewed = 0, lost = 0, posted = 0,
      },
    }
    driver.server.counts = driver.counts
    drivers[lock.pool] = driver
  end
  driver.timeout, driver.shm = max(driver.timeout, lock.timeout), driver.shm or lock.shm
  lock.server, lock.driver = driver.server, driver
  return driver
end
_M.of = of

-- All drivers of this worker by their address, for people who look.
function _M.all()
  return drivers
end

local function wake(driver)
  if not driver.awake then
    driver.awake = true
    driver.work:post()
  end
end

-- The server of a driver, for people: without its credentials.
function _M.server_name(driver)
  return driver.lock.address .. "/" .. driver.lock.database
end

local function wake_all()
  for _, driver in pairs(drivers) do
    wake(driver)
  end
end

-- When the worker begins to exit, pending timers fire: idle drivers end then, and do not hold it up. They are woken by
-- another timer, because nginx goes to sleep first, and would notice a semaphore at its next event only.
function sentinel(premature)
  if premature and exiting() then
    timer_at(0, wake_all)
  else
    timer_at(premature and 1 or DAY, sentinel)
  end
end

local function start(driver)
  local ok, err = timer_at(0, run, driver)
  if not ok then
    return nil, "connection: nginx starts no timer for the driver (" .. err .. "): raise lua_max_pending_timers"
  end
  driver.running = true
  if not _M.watched and not exiting() then
    _M.watched = timer_at(DAY, sentinel)
  end
  return true
end

-- Ends a call: its waiter goes on, or its callback is called.
local function finish(driver, call, reply, err, kind)
  call.reply, call.err, call.kind, call.stamp, call.over = reply, err, kind, driver.events, true
  if call.done then
    call.done(call)
  else
    call.sem:post()
  end
end

local function enqueue(driver, call)
  driver.number = driver.number + 1
  call.number, call.next, call.written_at = driver.number, nil, nil
  if driver.last then
    driver.last.next = call
  else
    driver.first = call
  end
  driver.last = call
  if driver.running then
    return wake(driver)
  end
  local ok, err = start(driver)
  if not ok then
    driver.first, driver.last = nil, nil
    finish(driver, call, nil, err, "connection")
  end
end

local prefixes = { evalsha = {}, eval = {} }

-- The bytes of a script call's next stage.
local function prepare(driver, call)
  local stage, script = call.stage, call.script
  call.harmless = stage == "load"
  if stage == "load" then
    call.bytes = resp.command("SCRIPT", "LOAD", script.source)
    driver.loads[script.digest] = driver.number + 1
    driver.counts.scripts_loaded = driver.counts.scripts_loaded + 1
    return
  end
  local of_script = prefixes[stage][script.digest]
  if not of_script then
    of_script = {}
    prefixes[stage][script.digest] = of_script
  end
  local count = #call.args
  local prefix = of_script[count]
  if not prefix then
    prefix = resp.prefix(count + 4, stage:upper(), stage == "eval" and script.source or script.digest, 1)
    of_script[count] = prefix
  end
  call.bytes = resp.encode(prefix, call.key, call.args)
  call.asked_at = clock()
end

-- A reply has come. A missing script is loaded by the first call that misses it; the others only ask again.
local function settle(driver, call, reply, err)
  if call.script and not call.abandoned then
    local goes_on, other = healing.goes_on(call, reply, err)
    if goes_on then
      if call.stage == "load" and (driver.loads[call.script.digest] or 0) > call.number then
        call.stage = "evalsha"
      end
      prepare(driver, call)
      return enqueue(driver, call)
    elseif other then
      reply, err = false, other
    end
  end
  finish(driver, call, reply, err)
end

-- A message of a hand-off: `owner fence lease_ms`, as the release script writes it.
local function hear(driver, payload)
  local first = payload:find(" ", 1, true)
  local second = first and payload:find(" ", first + 1, true)
  local lease_ms = second and tonumber(payload:sub(second + 1))
  if not lease_ms then
    return
  end
  driver.counts.messages = driver.counts.messages + 1
  -- Without a waiter there is nothing to do: whoever gave up has sent a release after its acquire.
  local waiter = driver.waiters[payload:sub(1, first - 1)]
  if waiter then
    waiter.message = { fence = payload:sub(first + 1, second - 1), lease = lease_ms / 1000, stamp = driver.events }
    waiter.sem:post()
  end
end

local function read(driver, wire)
  local ok, err = pcall(wires.read, wire, function(call, reply, problem)
    driver.events = driver.events + 1
    settle(driver, call, reply, problem)
  end, function(push)
    driver.events = driver.events + 1
    if push[1] == "message" then
      hear(driver, push[3])
    elseif push[1] == "subscribe" then
      local call = wires.take(wire)
      if call then
        settle(driver, call, true)
      end
    end
  end)
  if not ok then
    ngx.log(ngx.ERR, "redlatch: the reader ended: ", err)
  end
  wire.broken = wire.broken or "the reader ended"
  wake(driver)
end

-- After a new connection a message may have been lost with the old one: every waiter asks once, not all at once.
local function tell_waiters(driver)
  for _, waiter in pairs(driver.waiters) do
    waiter.reconnected = true
    waiter.sem:post()
  end
end

-- In an exiting worker leases of requests that were cut must not be renewed until the collector happens to find them.
local function collect(driver, now)
  if exiting() and now >= driver.collect_at then
    driver.collect_at = now + COLLECT_PAUSE
    collectgarbage()
  end
end

local function attend(driver, now)
  collect(driver, now)
  local due = driver.agenda:take(now)
  for i = 1, #due do
    due[i]:attend(driver, now)
  end
end

local function is_idle(driver, wire)
  if wire.first or next(driver.errands) ~= nil or next(driver.waiters) ~= nil then
    return false
  end
  -- To look through the agenda pays when somebody waits for the end of the worker; else its slots pass by themselves.
  return driver.agenda.used == 0 or exiting() and driver.agenda:is_empty()
end

-- How long to wait for more work; nil when the driver may end.
local function pause(driver, wire, now)
  local most = exiting() and EXIT_PAUSE or DAY
  if is_idle(driver, wire) then
    driver.idle_since = driver.idle_since or now
    most = min(most, driver.idle_since + driver.lock.keepalive - now)
    if exiting() or most <= 0 then
      return nil
    end
  else
    driver.idle_since = nil
  end
  if wire.first then
    most = min(most, wire.first.written_at + driver.timeout - now)
  end
  if driver.shm and driver.counts.writes ~= driver.published_writes then
    most = min(most, driver.published_at + PUBLISH_PAUSE - now)
    if most <= 0 then
      driver.published_at, driver.published_writes = now, driver.counts.writes
      require("resty.redlatch.stats").publish(driver)
      return 0.001
    end
  end
  return max(min(most, driver.agenda:seconds(now) or DAY), 0.001)
end

local function serve(driver, wire)
  while not wire.broken do
    driver.awake = true
    local now = clock()
    attend(driver, now)
    if driver.first then
      local rest, sent
      local head = driver.first
      driver.first = nil
      local tail = driver.last
      driver.last = nil
      rest, sent = wires.send(wire, head, MOST)
      driver.counts.commands, driver.counts.writes = driver.counts.commands + sent, driver.counts.writes + 1
      if rest then
        -- What was queued meanwhile comes after what is left.
        tail.next = driver.first
        driver.first, driver.last = rest, driver.last or tail
      end
    elseif wire.first and now - wire.first.written_at >= driver.timeout then
      wire.broken = "no reply for " .. driver.timeout .. " s"
    else
      local seconds = pause(driver, wire, now)
      if not seconds then
        return
      end
      driver.awake = false
      driver.work:wait(seconds)
    end
  end
end

-- Calls that wait for a connection which does not come about.
local function refuse(driver, err, kind)
  local call = driver.first
  driver.first, driver.last = nil, nil
  while call do
    local following = call.next
    call.next = nil
    finish(driver, call, nil, err, kind)
    call = following
  end
end

-- A call that was sent gets no reply any more.
local function fall_silent(driver, call, err)
  finish(driver, call, nil, errors.no_reply(driver.lock, err, not call.harmless),
    call.harmless and "connection" or "unknown")
end

-- One connection from its beginning to its end. Each has a timer of its own, whose memory goes with it.
local function live(driver)
  if driver.failures > 0 then
    local backoff = min(SHORTEST_BACKOFF * 2 ^ driver.failures, LONGEST_BACKOFF)
    ngx.sleep(backoff * (0.5 + random.fraction() / 2))
  end
  local wire, err, kind = wires.connect(driver.lock, driver.channels)
  if not wire then
    driver.failures, driver.trouble, driver.kind_of_trouble = driver.failures + 1, err, kind
    driver.counts.failed_connections = driver.counts.failed_connections + 1
    return refuse(driver, err, kind)
  end
  driver.failures, driver.trouble, driver.wire, driver.idle_since = 0, nil, wire, nil
  driver.counts.connections = driver.counts.connections + 1
  if driver.counts.connections > 1 then
    tell_waiters(driver)
  end
  local reader = ngx.thread.spawn(read, driver, wire)
  local ok, problem = pcall(serve, driver, wire)
  if not ok then
    ngx.log(ngx.ERR, "redlatch: the driver ended: ", problem)
  end
  driver.wire = nil
  ngx.thread.kill(reader)
  wire.sock:close()
  local call = wires.take(wire)
  while call do
    fall_silent(driver, call, tostring(wire.broken))
    call = wires.take(wire)
  end
end

function run(_, driver)
  driver.awake = true
  local ok, err = pcall(live, driver)
  if not ok then
    driver.wire = nil
    driver.failures = driver.failures + 1
    ngx.log(ngx.ERR, "redlatch: the driver ended: ", err)
    refuse(driver, "connection: the driver ended (" .. tostring(err) .. ")", "connection")
  end
  driver.running, driver.awake = false, false
  if driver.first or driver.agenda.used > 0 or next(driver.errands) or next(driver.waiters) then
    start(driver)
  end
end

local function new_call(driver)
  local spares = driver.spares
  if spares > 0 then
    driver.spares = spares - 1
    local call = driver.spare[spares]
    call.over, call.script, call.kind, call.reply, call.err, call.harmless = false, nil, nil, nil, nil, nil
    return call
  end
  return { sem = semaphores.new(), over = false }
end

local function give_back(driver, call)
  local spares = driver.spares + 1
  driver.spares, driver.spare[spares] = spares, call
end

-- Queues a call and waits for its answer.
-- @return reply, error, kind (see call.outcome), the moment before it was asked for, and its event's number
local function wait(driver, call, deadline)
  enqueue(driver, call)
  local ok = call.sem:wait(max(deadline - clock(), 0.001))
  if not call.over then
    -- Its semaphore may be posted later: it is not used again.
    call.abandoned = true
    if not call.written_at and driver.trouble then
      return nil, driver.trouble, driver.kind_of_trouble
    end
    local may_have_run = call.written_at and not call.harmless
    return nil, errors.no_reply(driver.lock, "timeout", may_have_run), may_have_run and "unknown" or "connection"
  end
  if not ok then
    call.sem:wait(0)
  end
  local reply, err, kind, asked_at, stamp = call.reply, call.err, call.kind, call.asked_at, call.stamp
  give_back(driver, call)
  return reply, err, kind, asked_at, stamp
end

-- Waits until the worker has had its first connection, so that the time of the server is known.
local function know_the_time(driver, deadline)
  if driver.server.ahead_us or driver.wire then
    return true
  end
  local call = new_call(driver)
  call.bytes, call.harmless = resp.command("PING"), true
  local reply, err, kind = wait(driver, call, deadline)
  -- Refused or not, it was answered.
  return reply ~= nil or nil, err, kind
end

-- Runs a script, see call.run.
-- @param deadline when to give up, on the boot-time clock
-- @return reply, error, kind (see call.outcome), the moment before it was asked for, and its event's number
function _M.run(lock, name, key, args, deadline, _, subject)
  local driver = of(lock)
  if type(args) == "function" then
    local known, err, kind = know_the_time(driver, deadline)
    if not known then
      return nil, err, kind
    end
    args = args(lock, subject)
  end
  local call = healing.begin(new_call(driver), name, lock.strict)
  call.key, call.args = key, args
  prepare(driver, call)
  return wait(driver, call, deadline)
end

-- Runs a script without waiting for it, in any phase that has timers.
-- @param done called with the call when it is over, with the fields subject, reply, err and kind of call.outcome, and
--   asked_at; it must not wait
function _M.post(driver, lock, name, key, args, done, subject)
  local call = healing.begin({ done = done, subject = subject }, name, lock.strict)
  call.key, call.args = key, args
  prepare(driver, call)
  enqueue(driver, call)
end

-- One command that is no script.
-- @return the reply; or nil, an error of the closed list, and its kind
function _M.command(lock, deadline, ...)
  local driver = of(lock)
  local call = new_call(driver)
  call.bytes = resp.command(...)
  local reply, err, kind = wait(driver, call, deadline)
  if reply == false then
    return nil, errors.explain(err), "refused"
  end
  return reply, err, kind
end

-- The channel on which this worker hears of hand-offs, subscribed; nil where the server or a proxy does not allow it.
function _M.inbox(lock, deadline)
  local driver = of(lock)
  local channel = lock.namespace .. ":inbox:" .. owner_tokens.client_id()
  if driver.channels[channel] == nil then
    if not know_the_time(driver, deadline) or not driver.wire or not driver.wire.pushes then
      return nil
    end
    local call = new_call(driver)
    call.bytes, call.harmless = resp.command("SUBSCRIBE", channel), true
    local reply, err = wait(driver, call, deadline)
    if reply == nil then
      return nil
    end
    driver.channels[channel] = reply
    if not reply then
      ngx.log(ngx.WARN, "redlatch: no inbox, waiters ask again and again: ", errors.explain(err))
    end
  end
  return driver.wire and driver.wire.pushes and driver.channels[channel] and channel or nil
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
  errands.begin(driver, { lock = lock, key = key, owner = owner }, _M)
  return true
end

-- Puts something on the driver's agenda: its method `attend` is called with the driver at that moment.
function _M.plan(driver, entry, at)
  if driver.agenda:put(entry, at) then
    if driver.running then
      wake(driver)
    else
      start(driver)
    end
  end
end

return _M
