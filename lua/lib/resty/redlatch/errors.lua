-- What a Redis error reply means and what to do about it.
local find, match, gsub = string.find, string.match, string.gsub

local grant_the_user = "let the user run EVALSHA, EVAL, SCRIPT LOAD, PUBLISH and the commands of the scripts on these"
  .. " keys (ACL SETUSER)"
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
  NOPERM = grant_the_user,
  NOREPLICAS = "too few replicas are connected: mend them or lower min-replicas-to-write",
  OOM = "the server is full: raise its maxmemory or delete keys; leases that are held can be extended and released",
  QUEUEFULL = "100000 waiters are in front: ask later",
  READONLY = "this server is a replica: connect to the primary",
  TRYAGAIN = no_cluster,
  UNKILLABLE = "a script of somebody else runs for too long and has written: read the server's log",
  WRONGPASS = "check the options username and password",
  WRONGTYPE = "the key holds something else, left as it is: choose another name or namespace",
}

-- Errors that all have the code ERR.
local advice_by_text = {
  { "can't run this command", grant_the_user },
  { "without any password configured", "the server has no password: leave out the option password" },
  { "invalid password", "check the options username and password" },
  { "max number of clients", "raise maxclients on the server or lower pool_size" },
  { "DB index is out of range", "set the option database to one that the server has" },
  { "unknown command", "the server has renamed or turned off this command: allow EVALSHA, EVAL and SCRIPT" },
  { "unknown subcommand", "the server is too old: use Redis 6.2 or later" },
  { "wrong number of arguments for 'auth'", "the server knows no user names: leave out the option username" },
}

local _M = {}

-- Redis 6.2 wraps what a script raises: `ERR Error running script (call to f_…): @user_script:1: CODE text`.
local function unwrap(line)
  if find(line, "^ERR Error running script") then
    return match(line, ".*@user_script:%s*%d+:%s*%-?(.+)$") or line
  end
  return line
end

-- @param line an error reply without the leading `-`
-- @return its code, for instance "NOSCRIPT"
function _M.code(line)
  return match(unwrap(line), "^%u+") or "ERR"
end

-- @param line an error reply without the leading `-`
-- @return "redis: CODE text: what to do"
function _M.explain(line)
  local text = gsub(unwrap(line), "%s*script: %x+, on @user_script.*$", "")
  text = gsub(text, "[%s%.]+$", "")
  local what_to_do = advice[match(text, "^%u+")]
  if not what_to_do then
    for _, entry in ipairs(advice_by_text) do
      if find(text, entry[1], 1, true) then
        what_to_do = entry[2]
      end
    end
  end
  return "redis: " .. text .. " (" .. (what_to_do or "read the server's log") .. ")"
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
