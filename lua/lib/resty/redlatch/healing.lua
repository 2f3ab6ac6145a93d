-- What a script call sends next: the digest; where the script is missing the script; and EVAL as the last resort.
local bundle = require "resty.redlatch.bundle"
local errors = require "resty.redlatch.errors"

-- A SCRIPT FLUSH can come between loading and running, again and again; after this many rounds EVAL ends it.
local ROUNDS = 3

local _M = {}

-- @return the state of a call of the script `name`: send `stage` next ("evalsha", "load" or "eval")
function _M.begin(call, name, strict)
  call.script, call.strict, call.stage, call.rounds = bundle[name], strict, "evalsha", 1
  return call
end

-- @param reply the answer to `call.stage`, or false for an error reply
-- @param err that error
-- @return true when `call.stage` has to be sent next; nil when the answer stands, and another error if it is one
function _M.goes_on(call, reply, err)
  if call.stage == "evalsha" then
    if reply ~= false or call.strict or errors.code(err) ~= "NOSCRIPT" then
      return nil
    end
    call.stage = call.rounds > ROUNDS and "eval" or "load"
    call.rounds = call.rounds + 1
    return true
  elseif call.stage == "load" then
    if reply and reply ~= call.script.digest then
      return nil, "DIGEST " .. tostring(reply) .. " came back from SCRIPT LOAD instead of " .. call.script.digest
    end
    call.stage = reply and "evalsha" or "eval"
    return true
  end
end

return _M
