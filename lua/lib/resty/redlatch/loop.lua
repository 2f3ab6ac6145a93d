-- What a driver does in its timer: it connects, sends what is queued, reads replies and messages, and attends to its
-- agenda, until there is nothing more to do.
local calls = require "resty.redlatch.calls"
local clock = require "resty.redlatch.clock"
local errors = require "resty.redlatch.errors"
local random = require "resty.redlatch.random"
local reader = require "resty.redlatch.reader"
local sentinels = require "resty.redlatch.sentinel"
local wires = require "resty.redlatch.wire"

local exiting = ngx.worker.exiting
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
-- How often a keeper looks whether it is still needed.
local LONGEST_KEEP = 1
-- A waiter asks more often than that.
local KEEP_CHANNEL = 600

local _M = {}

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
      driver:publish()
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
    if wire.leaving and not wire.first then
      wire.broken = wire.leaving
    elseif driver.first and not wire.leaving then
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
    calls.finish(driver, call, nil, err, kind)
    call = following
  end
end

-- A call that was sent gets no reply any more.
local function fall_silent(driver, call, err)
  calls.finish(driver, call, nil, errors.no_reply(driver.lock, err, not call.harmless),
    call.harmless and "connection" or "unknown")
end

-- What a connection that is over leaves behind.
local function bury(driver, wire)
  driver.wire = nil
  -- A server that serves nobody is not asked without a pause.
  driver.left = wire.leaving and not wire.served and driver.left + 1 or 0
  wire.sock:close()
  local call = wires.take(wire)
  while call do
    fall_silent(driver, call, tostring(wire.broken))
    call = wires.take(wire)
  end
end

-- Channels that nobody has asked by for long are not subscribed again: namespaces may come and go.
local function forget_channels(driver)
  local now = clock()
  for channel, used_at in pairs(driver.channels) do
    if now - used_at > KEEP_CHANNEL then
      driver.channels[channel] = nil
    end
  end
end

-- One connection from its beginning to its end.
local function live(driver)
  local failures = max(driver.failures, driver.left)
  if failures > 0 then
    local backoff = min(SHORTEST_BACKOFF * 2 ^ failures, LONGEST_BACKOFF)
    ngx.sleep(backoff * (0.5 + random.fraction() / 2))
  end
  forget_channels(driver)
  local wire, err, kind = wires.connect(driver.lock, driver.channels)
  if not wire then
    driver.failures, driver.trouble, driver.kind_of_trouble = driver.failures + 1, err, kind
    driver.counts.failed_connections = driver.counts.failed_connections + 1
    return refuse(driver, err, kind)
  end
  driver.failures, driver.trouble, driver.wire, driver.idle_since = 0, nil, wire, nil
  driver.counts.connections = driver.counts.connections + 1
  reader.note_denial(driver, wire.denial)
  calls.make_again(driver)
  if driver.counts.connections > 1 then
    tell_waiters(driver)
  end
  local followers = sentinels.follow(driver.lock, wire, function() driver:wake() end)
  local spawned, thread = pcall(ngx.thread.spawn, reader.read, driver, wire)
  local ok, problem = spawned, thread
  if spawned then
    ok, problem = pcall(serve, driver, wire)
    ngx.thread.kill(thread)
  end
  for _, follower in ipairs(followers) do
    ngx.thread.kill(follower)
  end
  if not ok then
    wire.broken = wire.broken or problem
    ngx.log(ngx.ERR, "redlatch: the driver ended: ", problem)
  end
  bury(driver, wire)
end

-- The life of a driver without a connection: what is due goes by the drivers of others.
local function keep(driver)
  while _M.has_work(driver) and not (exiting() and driver.agenda:is_empty() and not next(driver.errands)) do
    driver.awake = true
    local now = clock()
    attend(driver, now)
    driver.awake = false
    driver.work:wait(max(min(driver.agenda:seconds(now) or DAY, exiting() and EXIT_PAUSE or LONGEST_KEEP), 0.001))
  end
end

-- Whether anybody needs a connection.
function _M.has_work(driver)
  return driver.first or driver.agenda.used > 0 or next(driver.errands) or next(driver.waiters)
end

-- One connection. Each has a timer of its own, whose memory goes with it.
-- @return whether somebody needs another one
function _M.run(driver)
  driver.awake = true
  local ok, err = pcall(driver.is_keeper and keep or live, driver)
  if not ok then
    driver.wire = nil
    driver.failures = driver.failures + 1
    ngx.log(ngx.ERR, "redlatch: the driver ended: ", err)
    refuse(driver, "connection: the driver ended (" .. tostring(err) .. ")", "connection")
  end
  driver:publish()
  return _M.has_work(driver)
end

return _M
