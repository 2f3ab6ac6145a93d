-- One request of the torture test: acquire, read the counter, write it, release. Answers with the line that a Rust
-- worker would log, with `held` or `lost`, or with `error` and the reason.
local redlatch = require "resty.redlatch"
local found, redis = pcall(require, "nginx.redis")
if not found then
  redis = require "resty.redis"
end

local params, who = ngx.req.get_uri_args(), "nginx/" .. ngx.worker.pid()

-- This file runs anew for every request; what the worker keeps is here.
local kept = package.loaded.torture
if not kept then
  local file = assert(io.open(ngx.var.script))
  kept = {
    lock = redlatch.new { socket = ngx.var.locks, label = who, claim = tonumber(ngx.var.claim), timeout = 20 },
    script = file:read("*a"),
  }
  file:close()
  package.loaded.torture = kept
end

local function use(lease)
  local resource = redis:new()
  resource:set_timeout(60000)
  local connected, problem = resource:connect("unix:" .. ngx.var.resource)
  if not connected then
    return nil, problem
  end
  local function ask(value)
    return resource:eval(kept.script, 3, "counter:" .. lease.name, "writes:" .. lease.name, "over", lease.fence, who,
      value)
  end
  local read, write
  read, problem = ask()
  if not read then
    return nil, problem
  end
  local accepted, exit_us = read[1] == 1, read[2]
  if accepted then
    ngx.sleep(tonumber(params.hold))
    write, problem = ask(string.format("%d", read[3] + 1))
    if not write then
      return nil, problem
    end
    accepted, exit_us = write[1] == 1, write[2]
  end
  local held = lease:remaining() > 0
  resource:set_keepalive(60000, 64)
  local verdict = accepted and (held and "kept" or "late") or (held and "stale_while_held" or "stale")
  return read[2] .. " " .. exit_us .. " " .. verdict
end

local lease, problem = kept.lock:acquire(params.name, { ttl = tonumber(params.ttl), wait = tonumber(params.wait) })
if not lease then
  -- `lost`: the answer took longer than the lease that it granted.
  local expected = problem == "held" or problem == "lost"
  return ngx.print(expected and problem or "error acquire: " .. problem)
end
local section, trouble = use(lease)
local before = ngx.now()
local remaining = lease:remaining()
local released, word = lease:release()
if not section then
  return ngx.print("error resource: ", trouble)
end
ngx.update_time()
local outcome = "released"
if not released then
  outcome = word ~= "lost" and "unknown" or ngx.now() - before < remaining and "lost_while_held" or "lost"
end
ngx.print(lease.name, " ", lease.fence, " ", section, " ", outcome)
