-- What the drivers count, for people and for Prometheus.
local driver = require "resty.redlatch.driver"

local concat, find, format, gmatch, sort = table.concat, string.find, string.format, string.gmatch, table.sort

local _M = {}

local meanings = {
  commands = "Commands sent to Redis.",
  writes = "Writes to the socket, each of one command or many.",
  connections = "Connections made.",
  failed_connections = "Connections that could not be made.",
  messages = "Messages of hand-offs received.",
  scripts_loaded = "Scripts loaded because the server missed them.",
  granted = "Leases granted.",
  handed_off = "Leases granted by a message, without asking again.",
  held = "Attempts that ended because somebody else had the lease.",
  released = "Leases released.",
  posted = "Releases that nobody waited for.",
  renewed = "Renewals answered.",
  lost = "Leases lost before their release.",
}

local order = {}
for name in pairs(meanings) do
  order[#order + 1] = name
end
sort(order)

-- @return an array of { server, counts, connected, queued, waiting, leases }, one for each driver of this worker
function _M.read()
  local all = {}
  for _, one in pairs(driver.all()) do
    local waiting, leases, queued = 0, 0, 0
    for _ in pairs(one.waiters) do
      waiting = waiting + 1
    end
    for _, slot in pairs(one.agenda.slots) do
      for _ in pairs(slot) do
        leases = leases + 1
      end
    end
    local call = one.first
    while call do
      queued, call = queued + 1, call.next
    end
    local counts = {}
    for name in pairs(meanings) do
      counts[name] = one.counts[name]
    end
    all[#all + 1] = {
      server = driver.server_name(one), counts = counts, connected = one.wire ~= nil,
      queued = queued, waiting = waiting, leases = leases,
    }
  end
  sort(all, function(left, right) return left.server < right.server end)
  return all
end

-- What of the counts of this worker is in which dictionary already, by dictionary and server.
local published = {}

-- The servers whose counts are in a dictionary, each followed by a line's end.
local SERVERS = "s:servers"

local function list(shm, server)
  local servers = shm:get(SERVERS) or ""
  if not find(servers, server .. "\n", 1, true) then
    -- Two workers at once may lose a line: it comes back with the next counts.
    shm:set(SERVERS, servers .. server .. "\n")
  end
end

-- Adds what this worker has counted since the last time. Added and never set, so that no count falls when the worker
-- is replaced.
local function publish(one)
  local shm, server = ngx.shared[one.shm or ""], driver.server_name(one)
  if not shm then
    return
  end
  local id = one.shm .. "\n" .. server
  local sent = published[id] or {}
  published[id] = sent
  list(shm, server)
  for _, name in ipairs(order) do
    local count = one.counts[name]
    if count > (sent[name] or 0) and shm:incr("s:" .. server .. ":" .. name, count - (sent[name] or 0), 0) then
      sent[name] = count
    end
  end
end
driver.on_publish(publish)

-- The dictionaries that instances of this worker have, by their names.
local dictionaries = {}

-- An instance with a dictionary was made: the counts of other workers may be there.
function _M.look_into(shm)
  dictionaries[shm] = true
end

local function add(series, label, name, count)
  series[label] = series[label] or {}
  series[label][name] = (series[label][name] or 0) + count
end

-- @return counts by the labels of their series
local function collect()
  local series = {}
  for _, one in pairs(driver.all()) do
    publish(one)
  end
  for dictionary in pairs(dictionaries) do
    local shm = ngx.shared[dictionary]
    for server in gmatch(shm:get(SERVERS) or "", "[^\n]+") do
      for _, name in ipairs(order) do
        add(series, 'server="' .. server .. '"', name, shm:get("s:" .. server .. ":" .. name) or 0)
      end
    end
  end
  for server, counts in pairs(driver.counts_in_private()) do
    for _, name in ipairs(order) do
      add(series, 'server="' .. server .. '",worker="' .. ngx.worker.id() .. '"', name, counts[name])
    end
  end
  return series
end

-- @return the counts in Prometheus' text format: those of all workers where the instances have a dictionary, else of
--   this worker
function _M.prometheus()
  local series, labels, lines = collect(), {}, {}
  for label in pairs(series) do
    labels[#labels + 1] = label
  end
  sort(labels)
  for _, name in ipairs(order) do
    local metric = "redlatch_nginx_" .. name .. "_total"
    lines[#lines + 1] = "# HELP " .. metric .. " " .. meanings[name]
    lines[#lines + 1] = "# TYPE " .. metric .. " counter"
    for _, label in ipairs(labels) do
      lines[#lines + 1] = metric .. "{" .. label .. "} " .. format("%.0f", series[label][name])
    end
  end
  return concat(lines, "\n") .. "\n"
end

return _M
