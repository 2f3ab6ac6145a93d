-- A lease: the right to use a name for a time, as far as this worker can prove it.
local clock = require "resty.redlatch.clock"
local options = require "resty.redlatch.options"
local phases = require "resty.redlatch.phases"

local max, min, sleep = math.max, math.min, ngx.sleep

local _M = {}
local methods = {}
local mt = { __index = methods }

-- Two clocks may run apart by 1 in 1000 (each slewed by 500 ppm), and the server counts whole milliseconds.
local function margin(ttl)
  return 0.001 + ttl / 1000
end

function _M.granted(lock, attempt, sent, ttl, fence)
  return setmetatable({
    lock = lock, name = attempt.name, key = attempt.key, owner = attempt.owner, fence = fence,
    ttl = attempt.ttl, deadline = sent + ttl - margin(ttl),
  }, mt)
end

-- A lease known only by its owner token: nothing is proved about it until it is extended.
function _M.carried(lock, name, key, owner)
  return setmetatable({ lock = lock, name = name, key = key, owner = owner, ttl = lock.ttl }, mt)
end

-- @syntax seconds = lease:remaining()
-- @context any phase
-- @return seconds for which the lease is surely ours, measured on this machine's boot-time clock from before the
--   request that granted or extended it, less 1 ms and 1/1000 of the TTL; 0 when it is over, released or lost
function methods:remaining()
  if self.ended or not self.deadline then
    return 0
  end
  return max(self.deadline - clock(), 0)
end

local function extend(self, ttl)
  local lock = self.lock
  local give_up = clock() + 2 * lock.timeout
  local unknown
  repeat
    local left = (self.deadline or give_up) - clock()
    local word, detail, third, fence = lock.family.extend(lock, self, ttl, min(lock.timeout, left), unknown ~= nil)
    if word == "extended" and self.fence and fence ~= self.fence then
      -- A later grant to a late copy of our acquire, after the loss of all data: others may have held the lock since.
      word = "lost"
    end
    if word == "extended" then
      self.ttl, self.fence = ttl, fence or self.fence
      self.deadline = third + detail - margin(detail)
      return true
    elseif word == "lost" then
      self.ended = "lost"
      return nil, "lost"
    elseif third == "unknown" then
      unknown = detail
      sleep(0.005)
    elseif not unknown then
      return nil, detail
    elseif third == "connection" then
      sleep(0.02)
    else
      return nil, unknown .. ", and then: " .. detail
    end
  until clock() >= (self.deadline or give_up)
  if self.deadline then
    self.ended = "lost"
    return nil, "lost"
  end
  return nil, unknown
end

-- @syntax ok, err = lease:extend(ttl?)
-- @context rewrite, access, content, timer, ssl_certificate, ssl_session_fetch, ssl_client_hello
-- @param ttl least length of the lease from now, in seconds, as it never gets shorter; defaults to the last TTL
-- @return true; or nil and "lost", "unknown: …", "connection: …", "script missing" or "redis: …". After "lost" the
--   name must not be used any more. After another error the lease lasts for `remaining` seconds.
-- @throws when ttl is not 0.001 to 2678400 or the phase cannot wait
function methods:extend(ttl)
  local problem = phases.problem("extend") or options.ttl_problem(ttl)
  if problem then
    error(problem, 2)
  end
  if self.ended or (self.deadline and clock() >= self.deadline) then
    self.ended = self.ended or "lost"
    return nil, "lost"
  end
  return extend(self, options.whole_milliseconds(ttl or self.ttl))
end

-- @syntax ok, err = lease:release()
-- @context rewrite, access, content, timer, ssl_certificate, ssl_session_fetch, ssl_client_hello
-- @return true when the lease was ours until now, or was released by us before; or nil and "lost", "unknown: …",
--   "connection: …", "script missing" or "redis: …". After any answer the name must not be used any more; after
--   the last four, release may be called again, and otherwise the lease ends with its TTL.
-- @throws when the phase cannot wait
function methods:release()
  local problem = phases.problem("release")
  if problem then
    error(problem, 2)
  end
  if self.ended == "released" then
    return true
  end
  local lock = self.lock
  local sure_until = self.ended and 0 or self.deadline or 0
  self.ended = self.ended or "releasing"
  local give_up, unknown = clock() + 2 * lock.timeout, nil
  while true do
    local started = clock()
    local word, err, kind = lock.family.release(lock, self.key, self.owner, lock.timeout, unknown ~= nil)
    if word == "released" or word == "handed_off" or word == "released_before" then
      self.ended = "released"
      return true
    elseif word == "not_held" and unknown and not lock.family.fenced and started < sure_until then
      -- Nobody else could end it before, so the request whose reply got lost did.
      self.ended = "released"
      return true
    elseif word then
      self.ended = "lost"
      return nil, "lost"
    end
    if kind == "unknown" then
      unknown = err
    end
    if kind == "refused" or clock() + 0.02 >= give_up then
      if unknown and err ~= unknown then
        err = unknown .. ", and then: " .. err
      end
      return nil, err
    end
    sleep(0.02)
  end
end

return _M
