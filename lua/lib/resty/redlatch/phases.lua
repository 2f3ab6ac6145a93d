-- Where nginx lets Lua wait for a reply.
local get_phase = ngx.get_phase

local waits = {
  rewrite = true, access = true, content = true, preread = true, timer = true,
  ssl_cert = true, ssl_session_fetch = true, ssl_client_hello = true,
}

local handlers = ngx.config.subsystem == "stream" and "preread or content" or "rewrite, access or content"

local _M = {}

-- @param method for the message
-- @return nil, or why the method cannot be called here
function _M.problem(method)
  local phase = get_phase()
  if not waits[phase] then
    return "redlatch: " .. method .. " waits for Redis, which nginx does not allow in the phase " .. phase
      .. ": call it in " .. handlers .. ", or in ngx.timer.at(0, ...)"
  end
end

-- @param method for the message
-- @return nil, or why the method cannot even leave its work to the driver here
function _M.post_problem(method)
  local phase = get_phase()
  if phase == "init" or phase == "exit_worker" then
    return "redlatch: " .. method .. " needs a timer, which nginx does not have in the phase " .. phase
  end
end

return _M
