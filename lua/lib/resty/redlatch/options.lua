-- What callers may pass. Nothing here throws: the public functions do, at their caller's line.
local tls = require "resty.redlatch.tls"
local urls = require "resty.redlatch.url"

local format = string.format

local LONGEST_TTL = 2678400
local LARGEST_FENCE = 9007199254740991

local _M = {}

local function show(value)
  if type(value) == "string" then
    return format("%q", #value > 64 and value:sub(1, 64) .. "..." or value)
  end
  return tostring(value)
end

local function number(least, most, unit)
  return function(value)
    if type(value) ~= "number" or not (value >= least and value <= most) then
      return format("must be a number from %s to %s%s, not %s", least, most, unit or "", show(value))
    end
  end
end

local function whole(least, most)
  return function(value)
    if type(value) ~= "number" or not (value >= least and value <= most) or value % 1 ~= 0 then
      return format("must be a whole number from %s to %s, not %s", least, most, show(value))
    end
  end
end

local function bytes(least, most)
  return function(value)
    if type(value) ~= "string" or #value < least or #value > most then
      return format("must be a string of %d to %d bytes, not %s", least, most,
        type(value) == "string" and "of " .. #value or type(value))
    elseif value:find("[%z\r\n]") then
      return "must not contain NUL, CR or LF"
    end
  end
end

local ttl = number(0.001, LONGEST_TTL, " seconds")
local name = bytes(1, 512)

local function namespace(value)
  if type(value) ~= "string" or #value > 64 or not value:find("^[!-~]+$") then
    return "must be 1 to 64 printable ASCII characters without spaces"
  elseif value:find(":", 1, true) then
    -- `a` and the name `b:m1:c`, `a:m1:b` and the name `c`: two locks, one key.
    return "must not contain a colon, which ends it in the key"
  end
end

local function fence_floor(value)
  if type(value) == "string" then
    value = value:find("^%d+$") and #value <= 16 and tonumber(value)
  end
  if type(value) ~= "number" or not (value >= 0 and value <= LARGEST_FENCE) or value % 1 ~= 0 then
    return format("must be a fence: decimal digits of a number up to %.0f", LARGEST_FENCE)
  end
end

local function boolean(value)
  if type(value) ~= "boolean" then
    return "must be true or false, not " .. show(value)
  end
end

local function connection(value)
  if type(value) == "table" then
    return not (value._sock and value.close) and "must be a connected object of resty.redis" or nil
  elseif value ~= "worker" and value ~= "pool" then
    return 'must be "worker", "pool" or a connected object of resty.redis, not ' .. show(value)
  end
end

local max_hold = number(0.001, math.huge, " seconds")

local function url(value)
  if type(value) ~= "string" then
    return "must be a string, not " .. type(value)
  end
  local _, problem = urls.read(value)
  return problem and "cannot be taken: " .. problem
end

local rules_of_new = {
  url = url,
  host = bytes(1, 255),
  port = whole(1, 65535),
  socket = bytes(1, 108),
  username = bytes(1, 512),
  password = bytes(1, 4096),
  database = whole(0, 2147483647),
  namespace = namespace,
  timeout = number(0.001, 3600, " seconds"),
  pool_size = whole(1, 65535),
  keepalive = number(0.001, 86400, " seconds"),
  ttl = ttl,
  claim = number(0.1, 60, " seconds"),
  retention = number(60, LONGEST_TTL, " seconds"),
  label = bytes(0, 128),
  family = function(value)
    if value ~= "mutex" and value ~= "plain" then
      return 'must be "mutex" or "plain", not ' .. show(value)
    end
  end,
  strict = boolean,
  ssl = boolean,
  ssl_verify = boolean,
  server_name = bytes(1, 255),
  client_certificate = bytes(1, 4096),
  client_key = bytes(1, 4096),
  connection = connection,
  renew = boolean,
  max_hold = max_hold,
  shm = function(value)
    if type(value) ~= "string" or not ngx.shared[value] then
      return "must be the name of a lua_shared_dict, not " .. show(value)
    end
  end,
}

local rules_of_try = { ttl = ttl, fence_floor = fence_floor, renew = boolean, max_hold = max_hold, detached = boolean }
local rules_of_acquire = { wait = number(0, LONGEST_TTL, " seconds") }
for option, rule in pairs(rules_of_try) do
  rules_of_acquire[option] = rule
end

local rules_of_flight = {
  ttl = number(0.001, LONGEST_TTL, " seconds"), stale = number(0, LONGEST_TTL, " seconds"), lease = ttl,
  wait = number(0, LONGEST_TTL, " seconds"),
}

local function problem_with(given, rules)
  if given == nil then
    return nil
  elseif type(given) ~= "table" then
    return "redlatch: options must be a table, not " .. type(given)
  end
  for option, value in pairs(given) do
    local rule = rules[option]
    if not rule then
      return "redlatch: there is no option " .. show(option)
    end
    local problem = rule(value)
    if problem then
      return "redlatch: option " .. option .. " " .. problem
    end
  end
end

-- @return the seconds that the server will count
function _M.whole_milliseconds(seconds)
  return math.floor(seconds * 1000 + 0.5) / 1000
end

-- Each of the following returns nil, or what is wrong.

-- What the URL says is said once; a password is better kept out of it.
local in_url = { "host", "port", "socket", "ssl", "username", "database" }

local function url_problem(given, endpoint)
  for _, option in ipairs(in_url) do
    if given[option] ~= nil then
      return "redlatch: option url goes without the option " .. option
    end
  end
  if endpoint.username and not (endpoint.password or given.password) then
    return "redlatch: option url names a user and no password: write USER:PASSWORD@ or set the option password"
  elseif endpoint.kind ~= "" and type(given.connection) == "table" then
    return "redlatch: option url names " .. (endpoint.kind == "cluster" and "a cluster" or "sentinels")
      .. ", which goes without a connection of your own"
  end
end

-- @return also whether the options ask for TLS, when nothing is wrong
function _M.new_problem(given)
  local problem = problem_with(given, rules_of_new)
  if problem or not given then
    return problem, false
  end
  local endpoint = given.url and urls.read(given.url)
  local is_secure = endpoint and endpoint.tls or given.ssl or false
  if endpoint then
    problem = url_problem(given, endpoint)
  elseif given.username and not given.password then
    problem = "redlatch: option username needs the option password"
  elseif given.socket and (given.host or given.port) then
    problem = "redlatch: option socket goes without host and port"
  end
  if not problem and given.renew and (given.connection or "worker") ~= "worker" then
    problem = "redlatch: option renew needs the driver: leave out the option connection"
  end
  problem = problem or tls.problem(given, is_secure)
  return problem, not problem and is_secure
end

function _M.name_problem(value)
  local problem = name(value)
  return problem and "redlatch: name " .. problem
end

function _M.owner_problem(value)
  local problem = bytes(1, 128)(value) or (value:find(" ", 1, true) and "must not contain spaces")
  return problem and "redlatch: owner " .. problem
end

function _M.ttl_problem(value)
  local problem = value ~= nil and ttl(value)
  return problem and "redlatch: ttl " .. problem or nil
end

function _M.seconds_problem(value)
  local problem = number(0, math.huge)(value)
  return problem and "redlatch: seconds " .. problem
end

function _M.try_problem(given)
  return problem_with(given, rules_of_try)
end

function _M.acquire_problem(given)
  return problem_with(given, rules_of_acquire)
end

function _M.flight_problem(given)
  return problem_with(given, rules_of_flight)
end

return _M
