-- What an error reply says about the server and the user that it was given to.
local errors = require "resty.redlatch.errors"

local find, lower = string.find, string.lower

local _M = {}

local function says(err, ...)
  local text = lower(err)
  for i = 1, select("#", ...) do
    if find(text, (select(i, ...)), 1, true) then
      return true
    end
  end
  return false
end

-- The server, or a proxy before it, does not know the command, or has it for nobody.
function _M.is_unknown_command(err)
  return errors.code(err) == "ERR" and says(err, "command")
    and says(err, "unknown", "unsupported", "not supported", "not allowed", "disabled", "forbidden", "renamed")
end

-- The user may not do this, in whichever words the server has for it; or nobody may.
function _M.is_denied(err)
  return errors.code(err) == "NOPERM" or says(err, "no permissions", "acl failure", "can't run this command")
    or _M.is_unknown_command(err)
end

-- HELLO 3 is unknown, or RESP3 is: the older protocol may do, and its first command shows what else is the matter.
function _M.is_without_resp3(err)
  local code = errors.code(err)
  return code == "NOPROTO" or code == "ERR" and not says(err, "max number of clients") or _M.is_denied(err)
end

local of_wrong_server = {
  CLUSTERDOWN = true, LOADING = true, MASTERDOWN = true, MOVED = true, NOAUTH = true, NOREPLICAS = true,
  READONLY = true,
}

-- Another server may take what this one refuses: behind a front that sends new connections elsewhere after a failover,
-- an old one is not to be kept.
-- @param lock whose server it is: in a cluster another node is the right one for some keys, and this one for others
function _M.is_wrong_server(err, lock)
  local code = errors.code(err)
  return of_wrong_server[code] and not (lock.cluster and (code == "MOVED" or code == "CLUSTERDOWN")) or false
end

local passing = { BUSY = true, CLUSTERDOWN = true, LOADING = true, MASTERDOWN = true, TRYAGAIN = true }

-- Whether it is worth while to ask again.
-- @param err of the closed list: "redis: CODE text"
-- @param in_queue whether there is a place to lose, so that a failover is waited for too
function _M.may_pass(err, in_queue)
  local code = err:match("^redis: (%u+)")
  return passing[code] or in_queue and of_wrong_server[code] or false
end

return _M
