-- The calls of a driver: a command, its place in the queue, its reply, and who waits for it.
local clock = require "resty.redlatch.clock"
local echo = require "resty.redlatch.echo"
local healing = require "resty.redlatch.healing"
local resp = require "resty.redlatch.resp"
local semaphores = require "ngx.semaphore"

local _M = {}

-- Ends a call: its waiter goes on, or its callback is called.
function _M.finish(driver, call, reply, err, kind)
  call.reply, call.err, call.kind, call.stamp, call.over = reply, err, kind, driver.events, true
  if call.done then
    call.done(call)
  else
    call.sem:post()
  end
end

-- Puts a call at the end of the queue, and wakes or starts the driver.
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
    return driver:wake()
  end
  local ok, err = driver:start()
  if not ok then
    driver.first, driver.last = nil, nil
    _M.finish(driver, call, nil, err, "connection")
  end
end

local prefixes = {}

local function evalsha(call)
  local digest, count = call.script.digest, #call.args
  local of_script = prefixes[digest]
  if not of_script then
    of_script = {}
    prefixes[digest] = of_script
  end
  local prefix = of_script[count]
  if not prefix then
    prefix = resp.prefix(count + 4, "EVALSHA", digest, 1)
    of_script[count] = prefix
  end
  return resp.encode(prefix, call.key, call.args)
end

-- The bytes of a script call: one write, whatever goes ahead of it.
local function prepare(driver, call)
  call.bytes, call.ahead = evalsha(call), 0
  if call.loads or call.asking then
    local commands = healing.ahead(call)
    for i = #commands, 1, -1 do
      call.bytes = resp.command(unpack(commands[i])) .. call.bytes
    end
    call.ahead = #commands
    if call.loads then
      driver.loads[call.script.digest] = driver.number + 1
    end
  end
  call.asked_at = clock()
end

-- Queues what a script call has to send next.
function _M.send(driver, call)
  prepare(driver, call)
  enqueue(driver, call)
end

-- Queues a command that is no script.
function _M.send_command(driver, call, ...)
  call.key, call.args = nil, { select(2, ...) }
  call.bytes, call.ahead = resp.command(...), 0
  if call.asking then
    call.bytes, call.ahead = resp.command("ASKING") .. call.bytes, 1
  end
  enqueue(driver, call)
end

-- There is a new connection, by which the calls in the queue go. Those whose arguments say what a connection can do
-- are made for this one.
function _M.make_again(driver)
  local call = driver.first
  while call do
    if call.make and not call.abandoned then
      call.args = call.make(call.lock, call.subject) or call.args
      prepare(driver, call)
    end
    call = call.next
  end
end

-- The answer to a command that went ahead of a call has come.
function _M.heard(driver, call, reply, err)
  call.ahead = call.ahead - 1
  if call.script and healing.heard(call, reply, err) then
    driver.counts.scripts_loaded = driver.counts.scripts_loaded + 1
  end
end

-- A reply has come. A missing script is loaded by the first call that misses it; the others only ask again.
function _M.settle(driver, call, reply, err)
  if call.moves then
    call.moves, call.moved = nil, true
    if not call.abandoned then
      return (call.script and _M.send or enqueue)(driver, call)
    end
  end
  if call.script and not call.abandoned then
    local is_loaded = (driver.loads[call.script.digest] or 0) > call.number
    local goes_on, other = healing.goes_on(call, reply, err, is_loaded)
    if goes_on then
      return _M.send(driver, call)
    elseif other then
      reply, err = false, other
    end
  end
  if reply == false then
    err = echo.cut(err, call.key, call.args)
  end
  _M.finish(driver, call, reply, err)
end

-- @return a call with a semaphore, which `give_back` takes again
function _M.new(driver)
  local spares = driver.spares
  if spares > 0 then
    driver.spares = spares - 1
    local call = driver.spare[spares]
    call.over, call.script, call.kind, call.reply, call.err, call.harmless = false, nil, nil, nil, nil, nil
    call.channel, call.make, call.lock, call.subject, call.moved, call.asking = nil, nil, nil, nil, nil, nil
    return call
  end
  return { sem = semaphores.new(), over = false }
end

-- For a call that is over and whose semaphore nobody will post any more.
function _M.give_back(driver, call)
  local spares = driver.spares + 1
  driver.spares, driver.spare[spares] = spares, call
end

return _M
