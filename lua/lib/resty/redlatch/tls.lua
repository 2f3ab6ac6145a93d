-- TLS to the server. What is not certain is refused, and never tried without.
local clock = require "resty.redlatch.clock"
local ssl = require "ngx.ssl"

local floor, format, max = math.floor, string.format, math.max

local _M = {}

local function read(option, path, parse)
  local file, err = io.open(path, "rb")
  if not file then
    return nil, "redlatch: option " .. option .. " cannot be read: " .. err
  end
  local text = file:read("*a")
  file:close()
  local parsed
  parsed, err = parse(text or "")
  if not parsed then
    return nil, "redlatch: option " .. option .. " is not PEM (" .. path .. "): " .. (err or "no reason given")
  end
  return parsed
end

-- @param opts the options of new
-- @param is_secure whether they ask for TLS
-- @return nil, or what is wrong with those that are about TLS
function _M.problem(opts, is_secure)
  if not is_secure then
    for _, option in ipairs { "ssl_verify", "server_name", "client_certificate", "client_key" } do
      if opts[option] ~= nil then
        return format("redlatch: option %s needs the option ssl, or a URL of rediss", option)
      end
    end
  elseif opts.socket or type(opts.connection) == "table" then
    return "redlatch: option ssl goes with host and port"
  elseif (opts.client_certificate == nil) ~= (opts.client_key == nil) then
    return "redlatch: options client_certificate and client_key go together"
  end
end

-- @param opts the options of new, which have no problem
-- @return what a handshake needs; or nil and what is wrong with a file
function _M.settings(opts)
  local tls = { verify = opts.ssl_verify ~= false }
  if opts.client_certificate then
    local problem
    tls.certificate, problem = read("client_certificate", opts.client_certificate, ssl.parse_pem_cert)
    if tls.certificate then
      tls.key, problem = read("client_key", opts.client_key, ssl.parse_pem_priv_key)
    end
    if problem then
      return nil, problem
    end
  end
  -- A pooled connection must never serve an instance that asks for more.
  tls.id = format("%s %s ", tostring(tls.verify), opts.client_certificate or "")
  return tls
end

-- Makes a socket that is connected a secure one.
-- @return true; or nil and "connection: …"
function _M.handshake(lock, sock, deadline)
  local tls = lock.tls
  local timeout = max(floor((deadline - clock()) * 1000), 1)
  sock:settimeouts(timeout, timeout, timeout)
  local ok, err = true, nil
  if tls.certificate and not sock.setclientcert then
    ok, err = nil, "this nginx knows no client certificates in " .. ngx.config.subsystem
  elseif tls.certificate then
    ok, err = sock:setclientcert(tls.certificate, tls.key)
  end
  if ok then
    ok, err = sock:sslhandshake(false, lock.server_name or lock.host, tls.verify)
    -- ngx_lua may call a handshake good that it has refused and closed the socket of (seen with 0.10.23).
    if ok and not sock:getreusedtimes() then
      ok, err = nil, "certificate refused"
    end
  end
  if ok then
    return true
  end
  sock:close()
  return nil, format("connection: %s makes no TLS connection (%s): is it a TLS port, does lua_ssl_trusted_certificate"
    .. " have its authority, is the option server_name the name in its certificate, does it want a client certificate?",
    lock.address, err or "no reason given")
end

return _M
