-- One buyer of the flash sale, as an nginx request: reads the stock, pays, writes the stock.
local cjson = require "cjson"
local installed, redis = pcall(require, "resty.redis")
if not installed then
  redis = require "nginx.redis"
end

local _M = {}
local settings = cjson.decode(os.getenv("REDLATCH_DEMO"))
local connection = settings.connection
connection.ttl = 10
local lock = require("resty.redlatch").new(connection)

local function shop()
  local client = redis:new()
  client:set_timeout(10000)
  local ok, err
  if connection.socket then
    ok, err = client:connect("unix:" .. connection.socket)
  else
    ok, err = client:connect(connection.host, connection.port)
  end
  if ok and connection.password and client:get_reused_times() == 0 then
    if connection.username then
      ok, err = client:auth(connection.username, connection.password)
    else
      ok, err = client:auth(connection.password)
    end
  end
  if ok and (connection.database or 0) > 0 then
    ok, err = client:select(connection.database)
  end
  if not ok then
    error("no Redis: " .. err)
  end
  return client
end

local function buy(client, fence)
  local stock = tonumber(client:get(settings.stock))
  if not stock or stock < 1 then
    return
  end
  ngx.sleep(settings.pay_seconds)
  client:set(settings.stock, stock - 1)
  client:rpush(settings.orders, fence)
end

function _M.serve()
  local client = shop()
  if ngx.var.arg_locked ~= "1" then
    buy(client, "none")
    client:set_keepalive(60000, 100)
    return ngx.print(cjson.encode({ waited_ms = 0 }))
  end
  ngx.update_time()
  local started = ngx.now()
  local lease, err = lock:acquire("item", { wait = 60 })
  ngx.update_time()
  local waited_ms = (ngx.now() - started) * 1000
  if not lease then
    return ngx.print(cjson.encode({ waited_ms = waited_ms, error = err }))
  end
  buy(client, lease.fence)
  local released, lost = lease:release()
  client:set_keepalive(60000, 100)
  ngx.print(cjson.encode({ waited_ms = waited_ms, fence = lease.fence, error = not released and lost or nil }))
end

return _M
