-- The methods of lua-resty-lock over a lock of the whole fleet: for code that was written for that library.
local clock = require "resty.redlatch.clock"

local _M = {}
local methods = {}
local mt = { __index = methods }

-- @syntax resty_lock = require("resty.redlatch.lock").over(instance)
-- @context any
-- @param instance what resty.redlatch's `new` returned
-- @return what `require "resty.lock"` returns: a table with the method new
function _M.over(instance)
  local class = {}

  -- @syntax obj, err = resty_lock:new(dict_name, opts?)
  -- @context any
  -- @param dict_name goes before the key: locks of the same name exclude each other in the whole fleet
  -- @param opts exptime (30 s) and timeout (5 s); step, ratio and max_step are not needed, as nobody polls
  function class.new(_, dict_name, opts)
    if type(dict_name) ~= "string" then
      return nil, "dictionary not found"
    end
    opts = opts or {}
    return setmetatable({
      instance = instance, prefix = dict_name .. ":", exptime = opts.exptime or 30, timeout = opts.timeout or 5,
    }, mt)
  end

  return class
end

-- @syntax elapsed, err = obj:lock(key)
-- @context as resty.redlatch's acquire
-- @return seconds that it took; or nil and "locked" (this object holds a lock), "timeout" or an error of resty.redlatch
function methods:lock(key)
  if key == nil then
    return nil, "nil key"
  elseif self.lease then
    return nil, "locked"
  end
  local started = clock()
  local lease, err = self.instance:acquire(self.prefix .. tostring(key), {
    ttl = self.exptime, wait = self.timeout, renew = false,
  })
  if not lease then
    return nil, err == "held" and "timeout" or err
  end
  self.lease = lease
  return clock() - started
end

-- @syntax ok, err = obj:unlock()
-- @context as resty.redlatch's release
-- @return 1; or nil and "unlocked" (nothing is held, or not any more) or an error of resty.redlatch
function methods:unlock()
  local lease = self.lease
  if not lease then
    return nil, "unlocked"
  end
  self.lease = nil
  local ok, err = lease:release()
  if ok then
    return 1
  end
  return nil, err == "lost" and "unlocked" or err
end

-- @syntax ok, err = obj:expire(timeout?)
-- @context as resty.redlatch's extend
-- @param timeout seconds from now, exptime by default; a lease never gets shorter
-- @return true; or nil and "unlocked" or an error of resty.redlatch
function methods:expire(timeout)
  if not self.lease then
    return nil, "unlocked"
  end
  local ok, err = self.lease:extend(timeout or self.exptime)
  if ok then
    return true
  elseif err == "lost" then
    self.lease = nil
    return nil, "unlocked"
  end
  return nil, err
end

return _M
