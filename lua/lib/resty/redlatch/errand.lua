-- A release that nobody waits for: what a killed request held, or a lease that was given back in the log phase.
local call = require "resty.redlatch.call"
local clock = require "resty.redlatch.clock"

local PAUSE = 0.05

local _M = {}
local methods = {}
local mt = { __index = methods }

local function answered(posted)
  local errand = posted.subject
  local lock, driver = errand.lock, errand.driver
  local reply = call.outcome(lock, posted.reply, posted.err, posted.kind)
  if reply then
    local _, pending = lock.family.read_release(lock, reply)
    errand.rounds = errand.rounds + 1
    if pending and errand.rounds < lock.family.RELEASE_ROUNDS then
      return errand:attend(driver)
    end
  elseif clock() < errand.give_up then
    return errand.transport.plan(driver, errand, clock() + PAUSE)
  end
  driver.errands[errand] = nil
end

-- Sends the release: at once, and when the agenda says that it is time to try again.
function methods:attend(driver)
  self.transport.post(driver, self.lock, self.lock.family.release_script, self.key, { self.owner }, answered, self)
end

-- @param errand table with lock, key and owner
-- @param transport the module of the driver
function _M.begin(driver, errand, transport)
  errand.driver, errand.transport, errand.rounds = driver, transport, 0
  errand.give_up = clock() + errand.lock.ttl
  driver.errands[errand] = true
  setmetatable(errand, mt):attend(driver)
end

return _M
