-- Asks several servers the same at once: who does not answer keeps nobody waiting.
local clock = require "resty.redlatch.clock"
local semaphores = require "ngx.semaphore"

local max = math.max

local _M = {}
local methods = {}
local mt = { __index = methods }

local function run(self, ask, node, ...)
  local answer, err = ask(node, self.deadline, ...)
  self.answers[#self.answers + 1] = { node = node, answer = answer, err = err }
  self.sem:post()
end

-- @param nodes whom to ask
-- @param deadline until when their answers count, on the boot-time clock
-- @param ask called with a node, the deadline and what follows; returns an answer, or nil and an error
function _M.begin(nodes, deadline, ask, ...)
  local self = setmetatable({
    deadline = deadline, answers = {}, read = 0, count = #nodes, sem = semaphores.new(), threads = {},
  }, mt)
  for i, node in ipairs(nodes) do
    self.threads[i] = ngx.thread.spawn(run, self, ask, node, ...)
  end
  return self
end

-- @return a table with node, answer and err; nil when nobody is left who may answer in time
function methods:next()
  while self.read == #self.answers do
    local left = self.deadline - clock()
    if self.read == self.count or left <= 0 then
      return nil
    end
    self.sem:wait(max(left, 0.001))
  end
  self.read = self.read + 1
  return self.answers[self.read]
end

-- Whether all have answered.
function methods:is_complete()
  return #self.answers == self.count
end

-- Nobody waits for the rest.
function methods:finish()
  if not self:is_complete() then
    for _, thread in ipairs(self.threads) do
      ngx.thread.kill(thread)
    end
  end
end

return _M
