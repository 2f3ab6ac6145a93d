-- The timers that drivers run in. nginx may refuse one, throw, or drop it without a word when too many run: a driver
-- that has not begun is started again, by those who wait for it and once a second.
local clock = require "resty.redlatch.clock"
local loop = require "resty.redlatch.loop"

local exiting = ngx.worker.exiting
local min = math.min

-- How long a timer of no delay may take to run, at first and at most.
local SHORTEST_PATIENCE, LONGEST_PATIENCE = 0.05, 1
local WATCH_PAUSE = 1

local _M = {}

-- Those that have run in this worker.
local drivers = setmetatable({}, { __mode = "k" })
local watched

-- ngx.timer.at, which throws when nginx is out of memory or of connections.
-- @return true; or nil and "connection: …"
function _M.at(delay, callback, ...)
  local called, ok, err = pcall(ngx.timer.at, delay, callback, ...)
  if called and ok then
    return true
  end
  err = tostring(called and err or ok)
  local advice = err:find("pending", 1, true) and ": raise lua_max_pending_timers"
    or err:find("memory", 1, true) and ": raise worker_connections" or ""
  return nil, "connection: nginx starts no timer (" .. err .. ")" .. advice
end

-- Makes a sleeping driver look for work.
function _M.wake(driver)
  if not driver.awake then
    driver.awake = true
    driver.work:post()
  end
end

local function wake_all()
  for driver in pairs(drivers) do
    _M.wake(driver)
  end
end

local function enter(_, driver)
  -- One that was given up and comes late after all.
  if driver.begun or not driver.running then
    return
  end
  driver.begun, driver.patience = true, nil
  local goes_on = loop.run(driver)
  driver.running, driver.begun, driver.awake = false, false, false
  if goes_on then
    driver:start()
  end
end

local function launch(driver)
  local ok, err = _M.at(0, enter, driver)
  if ok then
    driver.launched_at = clock()
  end
  return ok, err
end

-- How long to wait for a driver that has not begun, before it is started again; nil for one that has.
function _M.patience(driver)
  return not driver.begun and (driver.patience or SHORTEST_PATIENCE) or nil
end

-- Starts a driver again whose timer nginx has dropped or refused.
function _M.nudge(driver)
  local patience = _M.patience(driver)
  if not driver.running and loop.has_work(driver) then
    driver:start()
  elseif driver.running and patience and clock() - driver.launched_at >= patience then
    driver.patience = min(patience * 2, LONGEST_PATIENCE)
    launch(driver)
  end
end

-- Why a driver that has not begun has not.
_M.NOT_BEGUN = "connection: nginx does not run the timer of the driver: raise lua_max_running_timers"

-- When the worker begins to exit, pending timers fire: idle drivers end then, and do not hold it up. They are woken by
-- another timer, because nginx goes to sleep first, and would notice a semaphore at its next event only.
local function watch(premature)
  if premature and exiting() then
    if not _M.at(0, wake_all) then
      wake_all()
    end
    return
  end
  for driver in pairs(drivers) do
    _M.nudge(driver)
  end
end

-- Starts a driver that does not run.
-- @return true; or nil and why nginx has no timer for it
function _M.start(driver)
  drivers[driver] = true
  if not watched and not exiting() then
    local called, going = pcall(ngx.timer.every, WATCH_PAUSE, watch)
    watched = called and going
  end
  local ok, err = launch(driver)
  driver.running, driver.begun = ok or false, false
  return ok, err
end

return _M
