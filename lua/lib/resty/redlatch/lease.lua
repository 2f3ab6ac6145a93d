-- A lease: the right to use a name for a time, as far as this worker can prove it.
local call = require "resty.redlatch.call"
local clock = require "resty.redlatch.clock"
local held = require "resty.redlatch.held"
local options = require "resty.redlatch.options"
local phases = require "resty.redlatch.phases"
local semaphores = require "ngx.semaphore"

local max, min, sleep = math.max, math.min, ngx.sleep

-- How soon a renewal without answer is asked for again.
local RETRY_PAUSE = 0.05

local _M = {}
local methods = {}
local mt = {}

-- `lost` is looked up at each reading: a worker that was stopped must not find an old answer.
function mt.__index(self, field)
  if field == "lost" then
    local ended = rawget(self, "ended")
    local deadline = rawget(self, "deadline")
    return ended == "lost" or (not ended and deadline ~= nil and clock() >= deadline)
  end
  return methods[field]
end

-- Two clocks may run apart by 1 in 1000 (each slewed by 500 ppm), and the server counts whole milliseconds.
local function margin(ttl)
  return 0.001 + ttl / 1000
end
_M.margin = margin

local function put_on_agenda(self)
  local lock = self.lock
  lock.transport.plan(lock.transport.of(lock), self, min(self.renew_at or self.deadline, self.deadline))
end

local function count(self, what)
  local counts = self.lock.server.counts
  if counts then
    counts[what] = counts[what] + 1
  end
end

-- The end: `how` is "released", "releasing" or "lost".
local function finish(self, how)
  self.ended, self.renew_at = how, nil
  if self.slot then
    self.lock.transport.of(self.lock).agenda:remove(self)
  end
  if self.record and how ~= "releasing" then
    held.remove(self.record)
  end
  if self.watched then
    self.watched:post(max(-self.watched:count(), 1))
  end
  if how == "lost" then
    count(self, "lost")
  end
end

-- @param lease_seconds what the server granted at `sent`
-- @param ttl what a renewal asks for
function _M.granted(lock, attempt, sent, lease_seconds, fence)
  local self = setmetatable({
    lock = lock, name = attempt.name, key = attempt.key, owner = attempt.owner, fence = fence,
    ttl = attempt.ttl, deadline = sent + lease_seconds - margin(lease_seconds), record = attempt.record,
  }, mt)
  count(self, "granted")
  if attempt.renew then
    self.renew_at, self.hold_until = sent + lease_seconds / 3, sent + attempt.max_hold
    put_on_agenda(self)
  end
  return self
end

-- A lease known only by its owner token: nothing is proved about it until it is extended.
function _M.carried(lock, name, key, owner)
  return setmetatable({ lock = lock, name = name, key = key, owner = owner, ttl = lock.ttl }, mt)
end

-- An extend was answered.
-- @return true, or nil and "lost"
local function extended(self, word, remaining, fence, sent, ttl)
  if word ~= "extended" or (self.fence and fence ~= self.fence) then
    -- Another fence is a later grant to a late copy of our acquire, after the loss of all data: others may have held
    -- the lock since.
    finish(self, "lost")
    return nil, "lost"
  end
  self.ttl, self.fence = ttl, fence or self.fence
  self.deadline = sent + remaining - margin(remaining)
  return true
end

local function renewed(posted)
  local self = posted.subject
  self.renewing = nil
  if self.ended then
    return
  end
  local lock, now = self.lock, clock()
  if now >= self.deadline then
    return finish(self, "lost")
  end
  local reply = call.outcome(lock, posted.reply, posted.err, posted.kind)
  if not reply then
    -- The lease stands until its deadline.
    self.renew_at = now + min(RETRY_PAUSE, self.ttl / 10)
  else
    local word, remaining, fence = lock.family.read_extend(lock, reply)
    if not extended(self, word, remaining, fence, posted.asked_at, self.ttl) then
      return
    end
    count(self, "renewed")
    self.renew_at = posted.asked_at + self.ttl / 3
  end
  put_on_agenda(self)
end

-- The agenda says that the lease has to be renewed, or is over.
function methods:attend(driver, now)
  if self.ended then
    return
  elseif now >= self.deadline then
    finish(self, "lost")
  elseif self.renewing or not self.renew_at or now + self.ttl / 3 >= self.hold_until then
    self.renew_at = nil
    put_on_agenda(self)
  else
    local lock = self.lock
    self.renewing = true
    -- Should the answer not come in time, the deadline has to be noticed.
    self.renew_at = nil
    put_on_agenda(self)
    lock.transport.post(driver, lock, lock.family.extend_script, self.key,
      lock.family.extend_args(lock, self.owner, self.ttl), renewed, self)
  end
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
    local reply, detail, kind = call.run(lock, lock.family.extend_script, self.key,
      lock.family.extend_args(lock, self.owner, ttl), min(lock.timeout, left), unknown ~= nil)
    if reply then
      if self.ended then
        return nil, "lost"
      end
      local word, remaining, fence = lock.family.read_extend(lock, reply)
      local ok, err = extended(self, word, remaining, fence, detail, ttl)
      if ok and self.hold_until and not self.renewing then
        self.renew_at = detail + ttl / 3
        put_on_agenda(self)
      end
      return ok, err
    elseif kind == "unknown" then
      unknown = detail
      sleep(0.005)
    elseif not unknown then
      return nil, detail
    elseif kind == "connection" then
      sleep(0.02)
    else
      return nil, unknown .. ", and then: " .. detail
    end
  until clock() >= (self.deadline or give_up)
  if self.deadline then
    finish(self, "lost")
    return nil, "lost"
  end
  return nil, unknown
end

-- @syntax ok, err = lease:extend(ttl?)
-- @context rewrite, access, content, preread, timer, ssl_certificate, ssl_session_fetch, ssl_client_hello
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
    if not self.ended then
      finish(self, "lost")
    end
    return nil, "lost"
  end
  return extend(self, options.whole_milliseconds(ttl or self.ttl))
end

-- What the answer of a release comes to.
local function released(self, word)
  if self.record then
    held.remove(self.record)
  end
  if word == "released" or word == "handed_off" or word == "released_before" then
    self.ended = "released"
    count(self, "released")
    return true
  end
  self.ended = "lost"
  return nil, "lost"
end

-- Releases again until there is an answer.
local function release_on(self, err, kind, give_up, sure_until)
  local lock = self.lock
  local unknown
  while true do
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
    local started = clock()
    local word
    word, err, kind = lock.family.release(lock, self.key, self.owner, lock.timeout, unknown ~= nil)
    if word == "not_held" and unknown and started < sure_until then
      -- The request whose reply got lost may have ended it, and another holder since; the memo knows the last one only.
      -- In the plain family nobody else could have ended it.
      if lock.family.fenced then
        return nil, unknown
      end
      word = "released"
    end
    if word then
      return released(self, word)
    end
  end
end

-- @syntax ok, err = lease:release()
-- @context rewrite, access, content, preread, timer, ssl_certificate, ssl_session_fetch, ssl_client_hello
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
  if not self.ended then
    finish(self, "releasing")
  end
  local started = clock()
  local word, err, kind = lock.family.release(lock, self.key, self.owner, lock.timeout)
  if word then
    return released(self, word)
  end
  return release_on(self, err, kind, started + 2 * lock.timeout, sure_until)
end

-- Ends the lease without waiting for the answer: for header_filter, log and the other phases that cannot wait. The
-- release is repeated until it is answered, by the driver.
-- @syntax ok, err = lease:post_release()
-- @context any but init and exit_worker
-- @return true; or nil and "connection: …" when nginx has no timer left
-- @throws in init and exit_worker
function methods:post_release()
  local problem = phases.post_problem("post_release")
  if problem then
    error(problem, 2)
  end
  if self.ended == "released" then
    return true
  end
  local ok, err = self.lock.transport.post_release(self.lock, self.key, self.owner)
  if ok then
    finish(self, "released")
  end
  return ok, err
end

-- Waits until the lease is lost, in a light thread beside the work.
-- @syntax lost = lease:wait_lost(seconds)
-- @context rewrite, access, content, preread, timer, ssl_certificate, ssl_session_fetch, ssl_client_hello
-- @param seconds how long to wait
-- @return true when the lease is lost; false when it was released, or is still ours after that time
-- @throws when seconds is no number or the phase cannot wait
function methods:wait_lost(seconds)
  local problem = phases.problem("wait_lost") or options.seconds_problem(seconds)
  if problem then
    error(problem, 2)
  end
  local limit = clock() + seconds
  self.watched = self.watched or semaphores.new()
  while not self.lost do
    local left = min(limit, self.deadline or 0) - clock()
    if self.ended or left <= 0 then
      return self.lost
    end
    self.watched:wait(left)
  end
  return true
end

return _M
