local clock = require "resty.redlatch.clock"
local resp = require "resty.redlatch.resp"
local wires = require "resty.redlatch.wire"

describe("the reader of a connection", function()
  it("lets others have their turn while there is always more to read", function()
    local message = ">3\r\n$7\r\nmessage\r\n$5\r\ninbox\r\n$5\r\no 0 0\r\n"
    local chunk, ends = message:rep(100), clock() + 5
    local wire = { parser = resp.parser(), sock = { receiveany = function()
      if clock() > ends then
        return nil, "closed"
      end
      return chunk
    end } }
    local heard = 0
    local reader = ngx.thread.spawn(wires.read, wire, nil, nil, function() heard = heard + 1 end)
    local turns = 0
    while turns < 5 and clock() < ends do
      ngx.sleep(0.001)
      turns = turns + 1
    end
    local in_time = clock() < ends
    ends = 0
    ngx.thread.wait(reader)
    assert.is_true(in_time)
    assert.equal(5, turns)
    assert.is_true(heard > 0)
  end)
end)
