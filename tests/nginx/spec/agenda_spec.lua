local agendas = require "resty.redlatch.agenda"

describe("agenda", function()
  it("gives what is due, once", function()
    local agenda = agendas.new()
    local first, second = { "first" }, { "second" }
    agenda:put(first, 10.004)
    agenda:put(second, 12)
    assert.same({}, agenda:take(9.9))
    assert.same({ first }, agenda:take(11))
    assert.same({}, agenda:take(11))
    assert.same({ second }, agenda:take(1000))
    assert.is_nil(agenda:seconds(1000))
    assert.equal(0, agenda.used)
  end)

  it("gives together what falls into one slot", function()
    local agenda, entries = agendas.new(), {}
    for i = 1, 100 do
      entries[i] = { i }
      agenda:put(entries[i], 5.001 + i / 100000)
    end
    assert.equal(100, #agenda:take(5.01))
  end)

  it("says when it is the earliest", function()
    local agenda = agendas.new()
    local entries = { {}, {}, {} }
    assert.is_true(agenda:put(entries[1], 7))
    assert.is_false(agenda:put(entries[2], 8))
    assert.is_true(agenda:put(entries[3], 3))
    assert.near(1, agenda:seconds(2), 0.011)
  end)

  it("moves an entry that is put again, and forgets what is removed", function()
    local agenda = agendas.new()
    local entry, other = {}, {}
    agenda:put(entry, 5)
    agenda:put(entry, 6)
    agenda:put(other, 5)
    agenda:remove(other)
    assert.same({}, agenda:take(5.5))
    assert.same({ entry }, agenda:take(6))
  end)

  it("finds the next slot however far it is", function()
    local agenda = agendas.new()
    local near, far = {}, {}
    agenda:put(near, 5)
    agenda:put(far, 50000)
    agenda:take(6)
    assert.near(49994, agenda:seconds(6), 0.011)
    assert.same({ far }, agenda:take(50000))
  end)

  it("is empty when all entries are gone, however late they were due", function()
    local agenda = agendas.new()
    local entry, other = {}, {}
    agenda:put(entry, 5000)
    agenda:put(other, 70)
    agenda:remove(entry)
    assert.is_false(agenda:is_empty())
    assert.near(60, agenda:seconds(10), 0.011)
    agenda:remove(other)
    assert.is_true(agenda:is_empty())
    assert.is_nil(agenda:seconds(10))
    assert.equal(0, agenda.used)
  end)

  it("keeps nothing alive", function()
    local agenda = agendas.new()
    agenda:put({}, 5)
    collectgarbage()
    assert.same({}, agenda:take(6))
  end)
end)
