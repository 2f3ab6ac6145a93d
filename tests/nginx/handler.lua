-- The module behind HTTP, for tests: see README.md in this folder for the requests and the answers.
local cjson = require "cjson.safe"
local call = require "resty.redlatch.call"
local clock = require "resty.redlatch.clock"
local owner_tokens = require "resty.redlatch.owner"
local redlatch = require "resty.redlatch"

local _M = { defaults = {} }

-- JSON in which integers keep all their digits, as cjson's do not.
local function encode(value)
  if type(value) == "number" then
    return string.format(value % 1 == 0 and "%.0f" or "%.6f", value)
  elseif type(value) ~= "table" then
    return cjson.encode(value)
  end
  local parts = {}
  if #value > 0 or next(value) == nil then
    for i, element in ipairs(value) do
      parts[i] = encode(element)
    end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for field, element in pairs(value) do
    parts[#parts + 1] = cjson.encode(field) .. ":" .. encode(element)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- `10` is a number, `s:10` a string, `true` and `false` are booleans, the rest are strings.
local function typed(value)
  if value == "true" or value == "false" then
    return value == "true"
  elseif value and value:sub(1, 2) == "s:" then
    return value:sub(3)
  end
  return tonumber(value) or value
end

local instances = {}

-- The parameters `o.<option>` are the options of the instance; the same ones get the same instance again.
local function instance(params)
  local given, names = {}, {}
  for param, value in pairs(params) do
    local option = param:match("^o%.(.+)$")
    if option then
      given[option] = typed(value)
      names[#names + 1] = option .. "=" .. value
    end
  end
  table.sort(names)
  local id = table.concat(names, "&")
  if not instances[id] then
    local opts = {}
    for option, value in pairs(_M.defaults) do
      opts[option] = value
    end
    for option, value in pairs(given) do
      opts[option] = value
    end
    instances[id] = redlatch.new(opts)
  end
  return instances[id]
end

local function describe(lease, err, remaining)
  if not lease then
    return { error = err, remaining = remaining }
  end
  return { name = lease.name, owner = lease.owner, fence = lease.fence, remaining = lease:remaining() }
end

local function hold(params, seconds)
  seconds = typed(params.hold) or seconds or 0
  if seconds > 0 then
    ngx.sleep(seconds)
  end
end

-- @param detached whether other requests go on with the lease
local function acquire_options(params, wait, detached)
  return {
    ttl = typed(params.ttl), fence_floor = params.fence_floor, wait = wait and typed(params.wait) or nil,
    renew = typed(params.renew), max_hold = typed(params.max_hold), detached = detached,
  }
end

local ops = {}

function ops.raw(lock, params)
  local args = params.a or {}
  if type(args) ~= "table" then
    args = { args }
  end
  local reply, err, kind = call.run(lock, params.script, params.key, args, lock.timeout)
  if not reply then
    return { error = err, kind = kind }
  end
  return { reply = reply }
end

function ops.try_acquire(lock, params)
  return describe(lock:try_acquire(typed(params.name), acquire_options(params, false, true)))
end

function ops.acquire(lock, params)
  return describe(lock:acquire(typed(params.name), acquire_options(params, true, true)))
end

function ops.extend(lock, params)
  local lease = lock:lease(params.name, params.owner)
  local ok, err = lease:extend(typed(params.ttl))
  return ok and describe(lease) or { error = err }
end

function ops.release(lock, params)
  local ok, err = lock:lease(params.name, params.owner):release()
  return ok and { released = true } or { error = err }
end

-- Acquires, works for `hold` seconds, releases.
function ops.hold(lock, params)
  local lease, err, remaining = lock:acquire(params.name, acquire_options(params, true))
  local answer = describe(lease, err, remaining)
  if lease then
    hold(params)
    answer.remaining = lease:remaining()
    answer.released, answer.error = lease:release()
  end
  return answer
end

-- Adds 1 to a counter that all workers share, in two steps that only a lock makes one.
function ops.count(lock, params)
  local lease, err, remaining = lock:acquire(params.name, acquire_options(params, true))
  local answer = describe(lease, err, remaining)
  if lease then
    local counters = ngx.shared.counters
    local before = counters:get(params.name) or 0
    hold(params, 0.001)
    counters:set(params.name, before + 1)
    answer.count = before + 1
    answer.released, answer.error = lease:release()
  end
  return answer
end

-- Acquires, sleeps for `hold` seconds, then extends by `extend` seconds with the same lease.
function ops.hold_and_extend(lock, params)
  local lease, err, remaining = lock:acquire(params.name, acquire_options(params, true))
  local answer = describe(lease, err, remaining)
  if lease then
    hold(params)
    answer.before = lease:remaining()
    answer.extended, answer.error = lease:extend(typed(params.extend))
    answer.remaining = lease:remaining()
  end
  return answer
end

-- Enters a room that remembers who was in it last, and tells when that one may still have been there.
function ops.guarded(lock, params)
  local lease, err = lock:acquire(params.name, acquire_options(params, true))
  if not lease then
    return { error = err }
  end
  local answer, room = describe(lease), "room:" .. params.name
  local function command(...)
    return assert(lock.transport.command(lock, clock() + 5, ...))
  end
  local before = command("GETSET", room, ("%s %.6f inside"):format(lease.fence, lease.deadline))
  local entered = clock()
  if type(before) == "string" then
    local last_fence, deadline, state = before:match("^(%d+) ([%d.]+) (%a+)$")
    if state == "inside" then
      answer.late = entered - deadline
      if entered < tonumber(deadline) then
        answer.violation = "entered before the lease of " .. last_fence .. " was over"
      end
    end
    if tonumber(last_fence) >= tonumber(lease.fence) then
      answer.violation = "the fence of the one before was " .. last_fence
    end
  end
  hold(params, 0.002)
  if lease:remaining() > 0.1 then
    command("SET", room, ("%s %.6f gone"):format(lease.fence, lease.deadline))
  end
  answer.released, answer.error = lease:release()
  return answer
end

-- `count` owner tokens.
function ops.owners(_, params)
  local owners = {}
  for i = 1, typed(params.count) do
    owners[i] = owner_tokens.token()
  end
  return { owners = owners }
end

function ops.stats()
  return { stats = redlatch.stats(), prometheus = redlatch.prometheus() }
end

function _M.call()
  ngx.req.read_body()
  local params = ngx.req.get_uri_args(0)
  for param, value in pairs(ngx.req.get_post_args(0) or {}) do
    params[param] = value
  end
  local ok, answer = pcall(function()
    local op = ops[params.op] or error("there is no op " .. tostring(params.op), 0)
    return op(instance(params), params)
  end)
  if not ok then
    answer = { thrown = tostring(answer) }
  end
  answer.worker = ngx.worker.pid()
  ngx.header.content_type = "application/json"
  ngx.say(encode(answer))
end

return _M
