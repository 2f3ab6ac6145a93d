-- What the drivers count, for people and for Prometheus.
local driver = require "resty.redlatch.driver"

local concat, sort = table.concat, table.sort

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

-- Where each worker leaves its counts for the others, at most once a second.
driver.on_publish(function(one)
  local shm = ngx.shared[one.shm or ""]
  if shm then
    local prefix = "s:" .. ngx.worker.id() .. ":" .. driver.server_name(one)
    for _, name in ipairs(order) do
      shm:set(prefix .. ":" .. name, one.counts[name])
    end
  end
end)

-- @return the counts of all workers that share a dictionary with this one, else of this worker, in Prometheus' text
--   format
function _M.prometheus()
  local lines = {}
  for _, name in ipairs(order) do
    local metric = "redlatch_nginx_" .. name .. "_total"
    lines[#lines + 1] = "# HELP " .. metric .. " " .. meanings[name]
    lines[#lines + 1] = "# TYPE " .. metric .. " counter"
    for _, one in pairs(driver.all()) do
      local server = driver.server_name(one)
      local shm = ngx.shared[one.shm or ""]
      for worker = 0, ngx.worker.count() - 1 do
        local count = shm and shm:get("s:" .. worker .. ":" .. server .. ":" .. name)
        if worker == ngx.worker.id() then
          count = one.counts[name]
        end
        if count then
          lines[#lines + 1] = metric .. '{server="' .. server .. '",worker="' .. worker .. '"} ' .. count
        end
      end
    end
  end
  return concat(lines, "\n") .. "\n"
end

return _M
