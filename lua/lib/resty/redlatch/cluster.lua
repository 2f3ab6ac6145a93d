-- The nodes of a Redis Cluster, as far as is known, and calls that find the one that owns their key. Each node has a
-- driver (or connections of the pool) and a clock of its own, so one that hangs delays nobody else's locks.
local canvass = require "resty.redlatch.canvass"
local clock = require "resty.redlatch.clock"
local errors = require "resty.redlatch.errors"
local greeting = require "resty.redlatch.greeting"
local lines = require "resty.redlatch.line"
local places = require "resty.redlatch.place"
local semaphores = require "ngx.semaphore"
local slots = require "resty.redlatch.slots"
local timers = require "resty.redlatch.timers"

local random = require "resty.redlatch.random"

local match = string.match
local floor, max, min = math.floor, math.max, math.min

-- How often a call follows a redirection: a slot that moves while it is asked for takes two.
local HOPS = 5
-- How soon the map is asked for again.
local LOOK_PAUSE = 0.05
-- How long a timer may take to run before another is started.
local PATIENCE = 0.25

local _M = {}

-- What is known of each cluster, by the pool of its locks. Weak, as settings may come and go.
local known = setmetatable({}, { __mode = "v" })

-- @return what this worker knows of the cluster that `lock` means
local function of(lock)
  local cluster = lock.cluster.known
  if not cluster then
    local pool = lock.cluster.lock.pool
    cluster = known[pool]
    if not cluster then
      cluster = {
        ranges = nil, replicas = {}, moved = {}, doubted = true, trouble = nil, ear = nil,
        looking = false, begun = false, launched_at = 0, looked_at = 0, looks = 0, waiting = 0,
        sem = semaphores.new(),
      }
      known[pool] = cluster
    end
    lock.cluster.known = cluster
  end
  return cluster
end

-- @param address with host and port
-- @return the lock at that node: the settings are those of the instance
local function node_at(lock, address)
  local nodes = lock.cluster.nodes
  local name = places.shown(address.host, address.port)
  nodes[name] = nodes[name] or places.node(lock.cluster.lock, address)
  return nodes[name]
end

local function ask(node, deadline)
  local line, err = lines.open(node, deadline)
  if not line then
    return nil, err
  end
  local kind, value = greeting.introduce(line, node, deadline)
  if kind == "reply" then
    kind, value = lines.ask(line, deadline, "CLUSTER", "SLOTS")
  end
  line.sock:close()
  if kind ~= "reply" then
    return nil, (greeting.failure(node, kind, value))
  end
  local ranges, replicas = slots.read(value, node.host)
  if not ranges then
    return nil, "connection: " .. node.address .. " knows no owner of the cluster's slots: is the cluster made?"
  end
  return { ranges = ranges, replicas = replicas }
end

-- Everybody who may know the map: those who own slots, their replicas, and whom the user has named.
local function everybody(lock, cluster)
  local nodes, seen = {}, {}
  local function add(address)
    local node = node_at(lock, address)
    if not seen[node] then
      seen[node], nodes[#nodes + 1] = true, node
    end
  end
  for _, range in ipairs(cluster.ranges or {}) do
    add(range.owner)
  end
  for _, address in ipairs(cluster.replicas) do
    add(address)
  end
  for _, address in ipairs(lock.cluster.seeds) do
    add(address)
  end
  return nodes
end

local function learn(lock, cluster, map)
  cluster.ranges, cluster.replicas, cluster.moved = map.ranges, map.replicas, {}
  cluster.doubted, cluster.trouble = false, nil
  -- Nodes that have left are forgotten.
  local nodes = {}
  for _, node in ipairs(everybody(lock, cluster)) do
    nodes[node.address] = node
  end
  lock.cluster.nodes = nodes
end

-- Asks everybody at once, the first answer counts.
local function look(lock)
  local cluster = of(lock)
  local asked = canvass.begin(everybody(lock, cluster), clock() + lock.timeout, ask)
  local answer = asked:next()
  while answer and not answer.answer do
    cluster.trouble = answer.err
    answer = asked:next()
  end
  asked:finish()
  if answer then
    learn(lock, cluster, answer.answer)
  end
  cluster.looking, cluster.looked_at, cluster.looks = false, clock(), cluster.looks + 1
  if cluster.waiting > 0 then
    cluster.sem:post(cluster.waiting)
    cluster.waiting = 0
  end
end

local function enter(_, lock)
  local cluster = of(lock)
  -- One that was given up and comes late after all.
  if cluster.begun or not cluster.looking then
    return
  end
  cluster.begun = true
  local done, problem = pcall(look, lock)
  if not done then
    cluster.looking = false
    ngx.log(ngx.ERR, "redlatch: the cluster's map was not asked for: ", problem)
  end
end

-- Begins to ask for the map, in a timer: a request that is killed must not leave the others waiting. Begins again where
-- nginx has dropped the timer, as it does without a word when too many run.
-- @return true; or nil and why nginx has no timer for it
local function begin_to_look(lock, cluster)
  local now = clock()
  if cluster.looking and (cluster.begun or now < cluster.launched_at + PATIENCE) then
    return true
  end
  local pause = max(cluster.looked_at + LOOK_PAUSE - now, 0)
  cluster.looking, cluster.begun, cluster.launched_at = true, false, now + pause
  local ok, err = timers.at(pause, enter, lock)
  cluster.looking = ok or false
  return ok, err
end

local function owner_of(cluster, slot)
  if cluster.moved[slot] then
    return cluster.moved[slot]
  end
  for _, range in ipairs(cluster.ranges or {}) do
    if slot >= range.first and slot <= range.last then
      return range.owner
    end
  end
end

-- Something did not go as the map says: it is asked for before the next call.
local function doubt(lock)
  of(lock).doubted = true
end

-- Waits until the map is known, and for a doubted one until it was asked for.
local function know(lock, deadline)
  local cluster = of(lock)
  if not cluster.doubted then
    return true
  end
  local looks = cluster.looks
  repeat
    local ok, err = begin_to_look(lock, cluster)
    if not ok then
      return nil, err
    end
    cluster.waiting = cluster.waiting + 1
    local left = max(deadline - clock(), 0.001)
    if not cluster.sem:wait(cluster.begun and left or min(left, PATIENCE)) then
      cluster.waiting = max(cluster.waiting - 1, 0)
    end
    -- Others may have been woken in place of a request that was killed.
  until cluster.looks ~= looks or clock() >= deadline
  return cluster.ranges ~= nil, cluster.looking and not cluster.begun and timers.NOT_BEGUN or cluster.trouble
end

-- @return the lock at the node that owns `key`; or nil and an error of the closed list
local function node_of(lock, key, deadline)
  local cluster = of(lock)
  local _, err = know(lock, deadline)
  local owner = owner_of(cluster, slots.of(key))
  if owner then
    return node_at(lock, owner)
  elseif cluster.ranges then
    return nil, "redis: CLUSTERDOWN nobody owns the slot of this name (give it to a node: redis-cli --cluster fix)"
  end
  return nil, err or errors.unreachable(lock, "no node answers")
end

-- The same without waiting.
local function node_now(lock, key)
  local cluster = of(lock)
  if cluster.doubted then
    begin_to_look(lock, cluster)
  end
  local owner = owner_of(cluster, slots.of(key))
  return owner and node_at(lock, owner)
end

-- Where an error reply of `node` sends the call.
-- @return the lock at that node; nil when the answer stands
local function redirected(lock, node, line)
  local kind, slot, host, port = match(line, "(%u+) (%d+) ([^%s]*):(%d+)")
  if kind ~= "MOVED" and kind ~= "ASK" then
    return nil
  end
  local address = { host = host == "" and node.host or host, port = tonumber(port) }
  if kind == "MOVED" then
    of(lock).moved[tonumber(slot)] = address
    doubt(lock)
    return node_at(lock, address)
  end
  -- The slot is on its way to that node, which serves it to those who say so.
  return setmetatable({ asking = true }, { __index = node_at(lock, address) })
end

-- What the outcome of a call says of the map.
-- @return the lock at the node where it has to be sent; nil when the outcome stands
local function judge(lock, node, reply, err, kind)
  if reply == nil and kind ~= "refused" and kind ~= "timeless" then
    doubt(lock)
  elseif reply == false then
    local code = errors.code(err)
    if code == "MOVED" or code == "ASK" then
      return redirected(lock, node, err)
    elseif code == "READONLY" or code == "CLUSTERDOWN" then
      doubt(lock)
    end
  end
end

-- A transport whose calls go to the node that owns their key. `lock.server` is that of the node that answered last.
-- @param base the transport to one server
function _M.over(base)
  local transport = {}

  function transport.run(lock, name, key, args, deadline, fresh, subject)
    local node, problem = node_of(lock, key, deadline)
    if not node then
      return nil, problem, "connection"
    end
    local reply, err, kind, asked_at, stamp
    for _ = 1, HOPS do
      reply, err, kind, asked_at, stamp = base.run(node, name, key, args, deadline, fresh, subject)
      lock.server = node.server
      node = judge(lock, node, reply, err, kind)
      if not node then
        break
      end
    end
    return reply, err, kind, asked_at, stamp
  end

  function transport.command(lock, deadline, ...)
    local node, problem = node_of(lock, (select(2, ...)), deadline)
    if not node then
      return nil, problem, "connection"
    end
    local reply, err, kind
    for _ = 1, HOPS do
      reply, err, kind = base.command(node, deadline, ...)
      lock.server = node.server
      node = reply == nil and (kind == "refused" and redirected(lock, node, err) or judge(lock, node, reply, err, kind))
      if not node then
        break
      end
    end
    return reply, err, kind
  end

  if not base.post then
    transport.inbox, transport.post_release = base.inbox, base.post_release
    return transport
  end

  -- Runs a script without waiting for it, as the driver's.
  function transport.post(driver, lock, name, key, args, done, subject)
    local hops = 0
    local function send(node)
      hops = hops + 1
      base.post(base.of(node), node, name, key, args, function(call)
        local following = hops < HOPS and judge(lock, node, call.reply, call.err, call.kind)
        if following then
          return send(following)
        end
        lock.server = node.server
        done(call)
      end, subject)
    end
    local node = node_now(lock, key)
    if node then
      return send(node)
    end
    -- Nothing is known yet: as if the server were not there.
    done { subject = subject, reply = nil, err = errors.unreachable(lock, "no node answers"), kind = "connection",
      asked_at = clock(), over = true, driver = driver }
  end

  -- What has to be done at a certain moment does not depend on any node: a keeper without a connection sees to it.
  function transport.of(lock)
    return base.keeper(lock)
  end

  transport.plan = base.plan

  function transport.post_release(lock, key, owner)
    return base.post_release_by(base.keeper(lock), transport, lock, key, owner)
  end

  -- The node by which hand-offs are heard of: any that answers.
  local function ear(lock)
    local cluster = of(lock)
    local others = {}
    for _, range in ipairs(cluster.ranges) do
      local node = node_at(lock, range.owner)
      if node.address ~= cluster.ear then
        others[#others + 1] = node
      elseif base.of(node).failures == 0 then
        return node
      end
    end
    local node = others[floor(random.fraction() * #others) + 1] or node_at(lock, cluster.ranges[1].owner)
    cluster.ear = node.address
    return node
  end

  function transport.inbox(lock, deadline)
    if not know(lock, deadline) then
      return nil
    end
    -- The lock does not wait for long for a node that need not be its own.
    return base.inbox(ear(lock), min(deadline, clock() + lock.timeout / 4))
  end

  function transport.listen(lock, attempt)
    attempt.ear = ear(lock)
    base.listen(attempt.ear, attempt)
  end

  function transport.leave(_, attempt)
    base.leave(attempt.ear, attempt)
  end

  function transport.hears(lock, channel, attempt)
    local node = ear(lock)
    if attempt.ear ~= node then
      transport.leave(lock, attempt)
      transport.listen(lock, attempt)
    end
    return base.hears(node, channel) or base.subscribe(node, channel)
  end

  return transport
end

return _M
