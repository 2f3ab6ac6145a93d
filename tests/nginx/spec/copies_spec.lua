local copies = require "resty.redlatch.copies"

-- A dictionary of nginx, as far as a copy needs it.
local function job(on_set)
  local entries, flags = {}, {}
  return {
    value_name = "v", ttl = 60, stale = 60, lock = { shm = "cache" },
    shm = {
      get = function(_, name) return entries[name], flags[name] end,
      set = function(_, name, value, _, flag)
        entries[name], flags[name] = value, flag
        if on_set then
          on_set()
        end
        return true
      end,
      delete = function(_, name) entries[name] = nil end,
    },
  }
end

describe("the copy of a node", function()
  it("is never replaced by one with a lower fence, fresh or not", function()
    for _, fresh in ipairs { 60, -1 } do
      local node = job()
      copies.keep(node, "new", "10", fresh)
      copies.keep(node, "old", "9", 60)
      assert.equal("new", (copies.look(node)))
      copies.keep(node, "newer", "11", 60)
      assert.equal("newer", (copies.look(node)))
    end
  end)

  it("is replaced by a value without a fence only when it is not fresh, and keeps its fence", function()
    local node = job()
    copies.keep(node, "new", "10", 60)
    copies.keep(node, "unfenced", nil, 60)
    assert.equal("new", (copies.look(node)))
    copies.keep(node, "new", "10", -1)
    copies.keep(node, "unfenced", nil, 60)
    local value, fresh, fence = copies.look(node)
    assert.same({ "unfenced", true, "10" }, { value, fresh, fence })
  end)

  it("takes nothing of a lease that is over, and gives back what it took while the lease ended", function()
    local left = 0
    local lease = { remaining = function() return left end }
    local node = job(function() left = 0 end)
    copies.keep(node, "late", "10", 60, lease)
    assert.is_nil((copies.look(node)))
    left = 1
    copies.keep(node, "late", "10", 60, lease)
    assert.is_nil((copies.look(node)))
  end)
end)
