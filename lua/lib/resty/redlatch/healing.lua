-- What a script call sends: the digest; and where the script is missing the script with it, in one write, which leaves
-- next to no time to lose it again. Never EVAL: servers from 7.4 on forget what came by it first.
local bundle = require "resty.redlatch.bundle"
local echo = require "resty.redlatch.echo"
local errors = require "resty.redlatch.errors"

-- How often one call asks again for a script that it misses.
local ROUNDS = 5

local _M = {}

-- @param asking whether the slot of the key is on its way to this node of a cluster, which serves who says so
-- @return the state of a call of the script `name`. Its field `loads` says whether the script goes in front
function _M.begin(call, name, strict, asking)
  call.script, call.strict, call.loads, call.round, call.load_error = bundle[name], strict, false, 0, nil
  call.asking = asking
  return call
end

-- What goes into the same write before EVALSHA.
-- @return an array of commands, arrays of words
function _M.ahead(call)
  local commands = {}
  if call.loads then
    commands[1] = { "SCRIPT", "LOAD", call.script.source }
  end
  if call.asking then
    -- Holds for the next command only.
    commands[#commands + 1] = { "ASKING" }
  end
  return commands
end

-- The answer to a command of `ahead`.
-- @param reply or false for an error reply
-- @param err that error
-- @return true when the script is loaded now
function _M.heard(call, reply, err)
  local digest = call.script.digest
  if reply == digest then
    call.load_error = nil
    return true
  elseif reply == false then
    -- Every script begins with these characters.
    call.load_error = echo.cut(err, "--[[")
  elseif type(reply) == "string" and #reply == #digest then
    call.load_error = "DIGEST " .. reply .. " came back from SCRIPT LOAD instead of " .. digest
  end
end

-- @param reply the answer to EVALSHA, or false for an error reply
-- @param err that error
-- @param is_loaded whether somebody else has loaded the script since the call was sent
-- @return true when the call has to be sent again; nil when the answer stands, and another error if it is one
function _M.goes_on(call, reply, err, is_loaded)
  if reply ~= false or call.strict or errors.code(err) ~= "NOSCRIPT" then
    return nil
  elseif call.load_error then
    return nil, call.load_error
  elseif call.round >= ROUNDS then
    return nil
  end
  call.round = call.round + 1
  call.loads = not (is_loaded and call.round == 1)
  return true
end

return _M
