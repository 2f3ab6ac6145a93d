-- The parts of the module that ask where they run, as they are loaded in stream {}.
local ffi = require "ffi"

local phase

-- @return a part of the module, loaded anew where `ngx` is that of stream
local function part(name)
  local chunk = assert(loadfile(package.searchpath("resty.redlatch." .. name, package.path)))
  local stream = {
    get_phase = function() return phase end,
    req = { start_time = function() return 1 end },
    config = { subsystem = "stream" },
  }
  local function require_in_stream(module)
    if module == "resty.core.base" then
      return { get_request = function() return ffi.cast("void *", 8) end }
    end
    return require(module)
  end
  return setfenv(chunk, setmetatable({ ngx = stream, require = require_in_stream }, { __index = _G }))()
end

describe("in stream", function()
  it("preread and content may wait, and the refusal of the others names them", function()
    local phases = part("phases")
    for _, waiting in ipairs { "preread", "content", "timer", "ssl_cert", "ssl_client_hello" } do
      phase = waiting
      assert.is_nil(phases.problem("acquire"))
    end
    for _, other in ipairs { "init", "init_worker", "balancer", "log" } do
      phase = other
      assert.equal("redlatch: acquire waits for Redis, which nginx does not allow in the phase " .. other
        .. ": call it in preread or content, or in ngx.timer.at(0, ...)", phases.problem("acquire"))
    end
  end)

  it("the log phase gives back what preread and content have acquired", function()
    local held = part("held")
    local given_back = 0
    for _, acquiring in ipairs { "preread", "content" } do
      phase = acquiring
      held.add { give_back = function() given_back = given_back + 1 end }
    end
    phase = "log"
    assert.equal(2, held.give_back())
    assert.equal(2, given_back)
    assert.equal(0, held.give_back())
  end)

  it("a client certificate that the socket cannot show is refused, and nothing is tried without", function()
    local closed = false
    local sock = { settimeouts = function() end, close = function() closed = true end }
    local lock = { tls = { certificate = "certificate", key = "key", verify = true }, host = "h", address = "h:6380" }
    local ok, err = part("tls").handshake(lock, sock, 0)
    assert.is_nil(ok)
    assert.truthy(err:find("this nginx knows no client certificates in stream", 1, true), err)
    assert.is_true(closed)
  end)
end)
