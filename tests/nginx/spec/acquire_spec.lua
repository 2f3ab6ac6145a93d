local acquire = require "resty.redlatch.acquire"
local clock = require "resty.redlatch.clock"
local mutex = require "resty.redlatch.mutex"
local semaphores = require "ngx.semaphore"

-- A lock whose server answers what the test says. `answers` are { word, remaining, detail } or functions that return
-- one; what is pushed is { after_question, fence, lease, stamp }.
local SERVER_US = 1795221256848921

-- What a release script publishes just after the first answer.
local function message(with)
  local made = { fence = "1795221256848999", number = 1795221256848999, lease = 3, lease_ms = 3000, stamp = 11 }
  for field, value in pairs(with or {}) do
    made[field] = value
  end
  return made
end

local function scripted(answers, pushes)
  local seen = { questions = 0, released = 0, deadline = nil }
  local lock = { timeout = 2, claim = 3, retention = 3600, server = { counts = { handed_off = 0, granted = 0, held = 0,
    released = 0, lost = 0 } } }
  lock.transport = {
    inbox = function() return "inbox" end,
    listen = function(_, attempt)
      attempt.sem = semaphores.new()
      seen.attempt = attempt
    end,
    leave = function() seen.left = true end,
    plan = function() end,
    of = function() return lock.driver end,
  }
  lock.driver = { agenda = { remove = function() end } }
  lock.family = {
    fenced = true, pause = mutex.pause, soon = mutex.soon,
    acquire = function(_, attempt)
      seen.questions = seen.questions + 1
      local sent = clock()
      local answer = answers[seen.questions] or answers[#answers]
      attempt.server_us, attempt.promised_ms, attempt.hears = SERVER_US, 3000, true
      local push = pushes and pushes[seen.questions]
      if push then
        ngx.timer.at(push.after or 0, function()
          attempt.message = push.message
          attempt.reconnected, attempt.called = push.reconnected, push.called
          attempt.sem:post()
        end)
      end
      return answer[1], answer[2], sent, answer[3], seen.questions * 10
    end,
    release = function()
      seen.released = seen.released + 1
      return "left"
    end,
  }
  return lock, seen
end

local function attempt(with)
  local made = { name = "n", key = "k", ttl = 10, wait = 5, fence_floor = "0", renew = true, max_hold = 60 }
  for field, value in pairs(with or {}) do
    made[field] = value
  end
  return made
end

local queued, granted = { "queued", 8, 1 }, { "granted", 10, "77" }

describe("a waiter", function()
  it("goes on at once with a pushed lease, which counts from its last answered question", function()
    local push = { message = message() }
    local lock, seen = scripted({ queued }, { push })
    local before = clock()
    local lease = assert(acquire(lock, attempt()))
    assert.equal("1795221256848999", lease.fence)
    assert.equal(1, seen.questions)
    assert.is_true(lease.deadline >= before + 3 - 0.004 and lease.deadline <= clock() + 3 - 0.004)
    assert.is_true(seen.left)
    assert.equal(1, lock.server.counts.handed_off)
  end)

  it("does not believe a message from before the answer", function()
    local lock, seen = scripted({ queued, granted }, { { message = message { stamp = 9 } } })
    assert.equal("77", assert(acquire(lock, attempt())).fence)
    assert.equal(2, seen.questions)
  end)

  it("asks when too little is left of what was pushed", function()
    local push = { after = 0.09, message = message { lease = 0.1 } }
    local lock, seen = scripted({ queued, granted }, { push })
    assert.equal("77", assert(acquire(lock, attempt())).fence)
    assert.equal(2, seen.questions)
  end)

  it("asks for the whole TTL when the lease will not be renewed", function()
    local lock, seen = scripted({ queued, granted }, { { message = message() } })
    local lease = assert(acquire(lock, attempt { renew = false }))
    assert.equal("77", lease.fence)
    assert.equal(2, seen.questions)
    assert.is_true(lease:remaining() > 9)
  end)

  it("asks soon after a new connection", function()
    local lock, seen = scripted({ { "queued", 8, 2 }, granted }, { { reconnected = true } })
    local before = clock()
    assert(acquire(lock, attempt()))
    assert.equal(2, seen.questions)
    assert.is_true(clock() - before < 4)
  end)

  it("asks when the holder's lease is over, if it is the first", function()
    local lock, seen = scripted { { "queued", 0.03, 1 }, granted }
    assert(acquire(lock, attempt()))
    assert.equal(2, seen.questions)
  end)

  it("leaves the queue at its limit", function()
    local lock, seen = scripted { queued }
    local lease, err, remaining = acquire(lock, attempt { wait = 0.05 })
    assert.is_nil(lease)
    assert.equal("held", err)
    assert.equal(8, remaining)
    assert.equal(1, seen.questions)
    assert.equal(1, seen.released)
    assert.is_true(seen.left)
  end)

  it("leaves nothing behind that may have been granted", function()
    local lock, seen = scripted { { nil, "unknown: no reply", nil } }
    lock.family.acquire = function()
      seen.questions = seen.questions + 1
      return nil, "unknown: no reply", "unknown"
    end
    lock.timeout = 0.02
    local _, err = acquire(lock, attempt { wait = 0 })
    assert.equal("unknown: no reply", err)
    assert.equal(1, seen.released)
  end)
end)
