-- A connection to the server that a lock means: always the same, or the one that sentinels name.
local greeting = require "resty.redlatch.greeting"
local lines = require "resty.redlatch.line"
local sentinels = require "resty.redlatch.sentinel"

local _M = {}

-- @return as reach
local function reach_one(lock, deadline, pool_size)
  local line, err = lines.open(lock, deadline, pool_size and { pool = lock.pool, pool_size = pool_size })
  if not line then
    return nil, err, "connection"
  elseif line.sock:getreusedtimes() > 0 then
    return line
  end
  local kind, value = greeting.introduce(line, lock, deadline)
  if kind == "reply" and lock.sentinels then
    kind, value = sentinels.check_role(line, lock, deadline)
    if not kind then
      line.sock:close()
      return nil, value, "connection"
    end
    kind = "reply"
  end
  if kind == "reply" then
    line.address = lock.address
    return line
  end
  line.sock:close()
  return nil, greeting.failure(lock, kind, value)
end

local function reach_primary(lock, deadline, pool_size)
  local following, finish = sentinels.candidates(lock, deadline)
  local line, err, kind
  repeat
    local candidate, trouble = following()
    if candidate then
      line, err, kind = reach_one(candidate, deadline, pool_size)
      sentinels.remember(lock, line and candidate)
    else
      err, kind = err or trouble, kind or "connection"
    end
  until line or not candidate
  finish()
  return line, err, kind
end

-- @param deadline when to give up, on the boot-time clock
-- @param pool_size of nginx' connection pool, if it may be a connection of that
-- @param fresh true when what was remembered has led to the wrong server
-- @return a line that has introduced itself; or nil, an error of the closed list, and "connection" or "refused"
function _M.reach(lock, deadline, pool_size, fresh)
  if not lock.sentinels then
    return reach_one(lock, deadline, pool_size)
  end
  local known = pool_size and not fresh and sentinels.remembered(lock)
  local line = known and reach_one(known, deadline, pool_size)
  if line then
    return line
  end
  return reach_primary(lock, deadline, pool_size)
end

return _M
