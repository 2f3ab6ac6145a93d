-- What a Redis error reply means and what to do about it.
local denied = require "resty.redlatch.denied"

local find, gsub, lower, match, upper = string.find, string.gsub, string.lower, string.match, string.upper

local no_cluster = "this module talks to one server: use one that owns all slots, or no cluster"

local advice = {
  ASK = no_cluster,
  BADARG = "caller and script do not fit: install the package again",
  BUSY = "a script of somebody else runs for too long: wait for it or end it on the server",
  CLUSTERDOWN = no_cluster,
  CROSSSLOT = no_cluster,
  DENIED = "the server is in protected mode: give it a password or the right bind address",
  DIGEST = "something on the way changes the script's bytes: look for a proxy that rewrites commands",
  FENCEEXHAUSTED = "a fence_floor near 2^53 was used for this name: choose another name",
  LOADING = "the server still reads its data: ask again in a moment",
  MASTERDOWN = "this replica has lost its primary: connect to the primary",
  MISCONF = "the server cannot save its data: free its disk or read its log",
  MOVED = no_cluster,
  NOAUTH = "set the options password and, if there is one, username",
  NOPROTO = "the server speaks no RESP3: use Redis 6.2 or later, with no proxy in between",
  NOREPLICAS = "too few replicas are connected: mend them or lower min-replicas-to-write",
  OOM = "the server is full: raise its maxmemory or delete keys; leases that are held can be extended and released",
  QUEUEFULL = "100000 waiters are in front: ask later",
  READONLY = "this server is a replica: connect to the primary",
  TOOOLD = "redlatch needs Redis 6.2 or later: upgrade the server",
  TRYAGAIN = no_cluster,
  UNKILLABLE = "a script of somebody else runs for too long and has written: read the server's log",
  WRONGPASS = "check the options username and password",
  WRONGTYPE = "the key holds something else, left as it is: choose another name or namespace",
}

-- Errors that all have the code ERR, by a part of their text in lower case.
local advice_by_text = {
  { "without any password configured", "the server has no password: leave out the option password" },
  { "no password is set", "the server has no password: leave out the option password" },
  { "invalid password", "check the options username and password" },
  { "operation not permitted", "check the options username and password" },
  { "max number of clients", "raise maxclients on the server or lower pool_size" },
  { "db index", "set the option database to one that the server has" },
  { "select is not allowed", "leave out the option database" },
  { "script killed by user", "somebody ended the script before it wrote anything: ask again" },
  { "after non deterministic commands", "let the server replicate what scripts do:"
    .. " CONFIG SET lua-replicate-commands yes" },
  { "wrong number of arguments for 'auth'", "the server knows no user names: leave out the option username" },
}

local lacks = { "unknown", "unsupported", "not supported", "not allowed", "disabled" }

-- What servers call a denial inside a script, which has the code ERR: up to 7.0, and later.
local denials = { "^The user executing the script can't", "^ACL failure in script" }

local _M = {}

-- Redis 7.0 and later say at the end where in which script an error came about; Valkey 9 does not say in which.
local function unplaced(line)
  return match(line, "^(.*%S)%s*script: %x+, on @[^@]*$") or match(line, "^(.*%S)%s*script: on @[^@]*$") or line
end

-- Up to Redis 6.2 what a script raises is wrapped, `ERR Error running script (call to f_…): @user_script:1: CODE text`,
-- with a second mark and a minus where a command of the script was refused.
local function unwrapped(line)
  local inner = match(line, "^ERR Error running script %(call to [^)]*%): (.*)$")
  -- What a script has caught and gives back has a mark and no wrap.
  inner = inner or find(line, "^@[^:]*:%s*%d+:") and line
  if not inner then
    return line
  end
  local rest = match(inner, "^@[^:]*:%s*%d+:%s*(.*)$")
  while rest do
    inner, rest = rest, match(rest, "^@[^:]*:%s*%d+:%s*(.*)$")
  end
  return gsub(inner, "^%-", "")
end

-- @return code and text of an error reply. Proxies give errors without a code.
local function read(line)
  local text = unwrapped(unplaced(line))
  local code, rest = match(text, "^(%u%u+) (.*)$")
  if not code then
    code, rest = match(text, "^%u%u+$") or "ERR", text
  end
  if code == "ERR" then
    for _, denial in ipairs(denials) do
      if find(rest, denial) then
        return "NOPERM", rest
      end
    end
  end
  return code, rest == code and "" or rest
end

-- What a text says about a command that the server does not have.
local function lacked(text)
  for _, lack in ipairs(find(text, "command", 1, true) and lacks or {}) do
    if find(text, lack, 1, true) then
      local name = match(text, "^[^'`\"]*['`\"](%a+)['`\"]")
      return "this server does not know " .. (name and upper(name) or "a command that this needs")
        .. ": it is older than Redis 6.2, it has the command renamed, or it is a proxy"
    end
  end
end

local function advice_for(text)
  text = lower(text)
  for _, entry in ipairs(advice_by_text) do
    if find(text, entry[1], 1, true) then
      return entry[2]
    end
  end
  return lacked(text)
end

-- @param line an error reply without the leading `-`
-- @return its code, for instance "NOSCRIPT"
function _M.code(line)
  return (read(line))
end

-- @param line an error reply without the leading `-`
-- @param asked what was asked for, as far as is known: a table with user, command, channel, script and key
-- @return "redis: CODE text (what to do)"
function _M.explain(line, asked)
  local code, text = read(line)
  local what_to_do = advice[code] or code == "ERR" and advice_for(text)
  if code == "NOPERM" then
    what_to_do = denied.advice(text, tonumber(match(line, "@[^:@]*:%s*(%d+)")), asked or {})
  end
  -- Some servers repeat what was sent to them, passwords too.
  text = gsub(text, ",?%s*[Ww]ith args beginning with.*$", "")
  text = gsub(text, "[%s%.]+$", "")
  local said = text == "" and code or code .. " " .. text
  return "redis: " .. said .. " (" .. (what_to_do or "read the server's log") .. ")"
end

-- @return that no connection came about
function _M.unreachable(lock, err)
  return "connection: " .. lock.address .. " cannot be reached (" .. (err or "no reason given")
    .. "): is the server running, are host and port right?"
end

-- @return that a connection came about and no Redis answered by it
function _M.silent(lock, err)
  return "connection: " .. lock.address .. " gives no Redis answer (" .. err .. "): is a Redis there, and awake?"
end

-- @param may_have_run whether a script, or a command that changes something, was on its way
-- @return that no reply came
function _M.no_reply(lock, err, may_have_run)
  if may_have_run then
    return "unknown: " .. lock.address .. " gave no reply (" .. err .. "): the script may have run"
  end
  return "connection: " .. lock.address .. " gave no reply (" .. err .. "): the script did not run"
end

return _M
