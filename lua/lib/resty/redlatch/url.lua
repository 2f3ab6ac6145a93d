-- The URL of a server, of sentinels or of a cluster: the same forms, and the same sentences about mistakes, as those of
-- the Rust crate and the command line.
local find, gmatch, gsub, lower, match, sub = string.find, string.gmatch, string.gsub, string.lower, string.match,
  string.sub

local FORMS = "the URL is not understood, write redis://[USER@]HOST[:PORT][/DB], unix:///PATH,"
  .. " redis+sentinel://HOST[:PORT],…/NAME or redis+cluster://HOST[:PORT],…; rediss for TLS"

local with_tls = { redis = false, rediss = true, valkey = false, valkeys = true }
local ports = { [""] = 6379, cluster = 6379, sentinel = 26379 }
local options_of = { [""] = {}, cluster = {}, sentinel = { sentinel_user = true, sentinel_password = true } }
local reserved = { { "#", "%23" }, { "/", "%2F" }, { "?", "%3F" } }

local _M = {}

local function decode(text)
  return (gsub(text, "%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

-- The position of the last `character`.
local function last(text, character)
  return match(text, "^.*()" .. character)
end

-- What stands before the first `character`, and what after it.
local function cut(text, character)
  local at = find(text, character, 1, true)
  if not at then
    return text, ""
  end
  return sub(text, 1, at - 1), sub(text, at + 1)
end

local function query_of(text)
  local fields = {}
  for pair in gmatch(text, "[^&]+") do
    local name, value = cut(gsub(pair, "+", " "), "=")
    fields[#fields + 1] = { decode(name), decode(value) }
  end
  return fields
end

local function fault_of_login(login)
  for _, entry in ipairs(reserved) do
    if find(login, entry[1], 1, true) then
      return "the user or password in the URL has a '" .. entry[1] .. "', write " .. entry[2] .. " for it"
    end
  end
  if find(gsub(login, "%%%x%x", ""), "%", 1, true) then
    return "the user or password in the URL has a '%', write %25 for it"
  end
end

local function database_of(text)
  local number = tonumber(match(text, "^%+?%d+$"))
  return number and number < 2 ^ 32 and number or nil
end

local function read_host(text, port)
  local name, given = match(text, "^(.*):([^%]]*)$")
  name = name or text
  if name == "" then
    return nil, "the URL names no host, write redis://HOST[:PORT]"
  end
  if given then
    port = tonumber(match(given, "^%+?%d+$"))
    if not port or port < 1 or port > 65535 then
      return nil, "the port in the URL is not a number from 1 to 65535, write HOST:PORT"
    end
  end
  local bracketed = match(name, "^%[([%x:.]+)%]$")
  if not bracketed and not find(name, "^[%w._~%-]+$") or name == "0.0.0.0" or bracketed == "::" then
    return nil, FORMS
  end
  return { host = bracketed or name, port = port }
end

local function read_hosts(endpoint, kind, hosts)
  if kind == "" and find(hosts, ",", 1, true) then
    return "the URL names several servers, write redis+sentinel://HOST,…/NAME or redis+cluster://HOST,…"
  end
  for host in gmatch(hosts .. ",", "([^,]*),") do
    local address, fault = read_host(host, ports[kind])
    if fault then
      return fault
    end
    endpoint.addresses[#endpoint.addresses + 1] = address
  end
end

local function read_path(endpoint, kind, path)
  local database = path
  if kind == "sentinel" then
    endpoint.primary, database = cut(path, "/")
  end
  endpoint.database = database == "" and 0 or database_of(database)
  if not endpoint.database then
    return "what follows the last / of the URL is the number of a database, write /0"
  elseif kind == "cluster" and not (database == "" or database == "0") then
    return "a cluster has no databases but 0, leave away what follows the /"
  end
end

local function read_query(endpoint, kind, text)
  for _, pair in ipairs(query_of(text)) do
    local name, value = pair[1], pair[2]
    if not options_of[kind][name] then
      return 'the URL has an option "' .. name .. '" that is not known, leave away what follows the ?'
    end
    endpoint[name] = value
  end
end

local function read_login(endpoint, login)
  local username, password = cut(login, ":")
  endpoint.username = username ~= "" and decode(username) or nil
  -- A password that is empty is none.
  endpoint.password = password ~= "" and decode(password) or nil
end

-- @return what is wrong with what follows the scheme
local function read_rest(endpoint, kind, rest)
  -- A password of the sentinels may have an @.
  local query_at = kind == "sentinel" and find(rest, "?sentinel_", 1, true) or #rest + 1
  local at = last(sub(rest, 1, query_at - 1), "@")
  local login = sub(rest, 1, (at or 1) - 1)
  rest = sub(rest, (at or 0) + 1)
  local fault = fault_of_login(login)
  if fault then
    return fault
  elseif find(rest, "#", 1, true) then
    return "the URL has a #: in a password write %23; certificates are always checked, there is no #insecure"
  end
  read_login(endpoint, login)
  local before_query, query = cut(rest, "?")
  local hosts, path = cut(before_query, "/")
  fault = read_query(endpoint, kind, query) or read_hosts(endpoint, kind, hosts) or read_path(endpoint, kind, path)
  if not fault and kind == "sentinel" and endpoint.primary == "" then
    return "the URL does not name the primary that the sentinels watch, write …/NAME"
  end
  return fault
end

local function read_socket(endpoint, base, kind, rest)
  if sub(rest, 1, 1) ~= "/" then
    return "the path of a socket begins with /, write unix:///PATH"
  elseif not (base == "unix" and kind == "" or (base == "redis" or base == "valkey") and kind == "unix") then
    return FORMS
  end
  local path, query = cut(cut(rest, "#"), "?")
  endpoint.addresses[1] = { socket = decode(path) }
  local fields = {}
  for _, pair in ipairs(query_of(query)) do
    fields[pair[1]] = pair[2]
  end
  endpoint.username, endpoint.password = fields.user, fields.pass
  endpoint.database = database_of(fields.db or "0")
  return not endpoint.database and FORMS or nil
end

-- @return a table with kind ("", "sentinel" or "cluster"), tls, addresses (of host and port, or socket), username,
--   password, database; and for sentinels primary, sentinel_user and sentinel_password; or nil and what is wrong,
--   which repeats no secret
function _M.read(url)
  local scheme, rest = match(url, "^(.-)://(.*)$")
  if not scheme then
    return nil, "the URL has no scheme, write redis://HOST[:PORT] or unix:///PATH"
  end
  local base, kind = cut(lower(scheme), "+")
  local endpoint = { kind = kind, tls = with_tls[base] or false, addresses = {} }
  local fault
  if base == "unix" or kind == "unix" then
    endpoint.kind = ""
    fault = read_socket(endpoint, base, kind, rest)
  elseif with_tls[base] == nil or not options_of[kind] then
    fault = "the scheme of the URL is not known, write redis, rediss, unix, redis+sentinel or redis+cluster"
  else
    fault = read_rest(endpoint, kind, rest)
  end
  if fault then
    return nil, fault
  end
  return endpoint
end

return _M
