local slots = require "resty.redlatch.slots"

describe("slots", function()
  it("are those of the cluster specification", function()
    assert.equal(12739, slots.of("123456789"))
    assert.equal(slots.of("user1000"), slots.of("{user1000}.following"))
    assert.equal(slots.of("{b"), slots.of("a{{b}}c"))
    assert.equal(slots.of("b"), slots.of("a{b}{c}"))
    assert.are_not.equal(slots.of("b"), slots.of("a{b"))
    -- Nothing between the braces: the whole key counts.
    assert.are_not.equal(slots.of("bar"), slots.of("foo{}{bar}"))
  end)

  it("belong to the node that the answer came from where that does not know its host", function()
    local ranges, replicas = slots.read({
      { 0, 99, { "", 7000, "id" }, { "b", 7001, "id" } },
      { 100, 16383, { "?", 7002, "id" }, { "b", 7003, "id" } },
    }, "a")
    assert.same({ { first = 0, last = 99, owner = { host = "a", port = 7000 } },
      { first = 100, last = 16383, owner = { host = "a", port = 7002 } } }, ranges)
    assert.same({ { host = "b", port = 7001 }, { host = "b", port = 7003 } }, replicas)
  end)

  it("that nobody owns are no map", function()
    assert.is_nil(slots.read({}, "a"))
    assert.is_nil(slots.read({ { 0, 99 } }, "a"))
    assert.is_nil(slots.read("OK", "a"))
  end)
end)
