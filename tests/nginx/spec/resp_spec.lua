local resp = require "resty.redlatch.resp"

-- Everything that a parser finds in these chunks, as { kind, value } pairs.
local function read(...)
  local parser, found = resp.parser(), {}
  for _, chunk in ipairs { ... } do
    parser:feed(chunk)
    while true do
      local kind, value = parser:next()
      if kind == nil then
        break
      end
      found[#found + 1] = { kind, value }
      if kind == false then
        return found
      end
    end
  end
  return found
end

local everything = "+OK\r\n-ERR no\r\n:-42\r\n$5\r\nhe\r\no\r\n$-1\r\n$0\r\n\r\n*2\r\n:1\r\n*2\r\n$1\r\na\r\n"
  .. "*0\r\n*-1\r\n%1\r\n+key\r\n:7\r\n~1\r\n#t\r\n_\r\n,1.5\r\n(12345678901234567890\r\n!5\r\nERR x\r\n"
  .. "=7\r\ntxt:abc\r\n|1\r\n+ttl\r\n:9\r\n+after\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n#f\r\n"
local null = ngx.null
local meaning = {
  { "reply", "OK" }, { "error", "ERR no" }, { "reply", -42 }, { "reply", "he\r\no" }, { "reply", null },
  { "reply", "" }, { "reply", { 1, { "a", {} } } }, { "reply", null }, { "reply", { "key", 7 } }, { "reply", { true } },
  { "reply", null }, { "reply", 1.5 }, { "reply", "12345678901234567890" }, { "error", "ERR x" }, { "reply", "abc" },
  { "reply", "after" }, { "push", { "message", "c", "m" } }, { "reply", false },
}

describe("resp", function()
  it("reads every kind of reply", function()
    assert.same(meaning, read(everything))
  end)

  it("reads the same whatever the chunks", function()
    for size = 1, 40 do
      local chunks = {}
      for at = 1, #everything, size do
        chunks[#chunks + 1] = everything:sub(at, at + size - 1)
      end
      assert.same(meaning, read(unpack(chunks)))
    end
  end)

  it("joins a long string once", function()
    local long, chunks = ("x"):rep(1000000), {}
    local bytes = "$1000000\r\n" .. long .. "\r\n+next\r\n"
    for at = 1, #bytes, 4096 do
      chunks[#chunks + 1] = bytes:sub(at, at + 4095)
    end
    assert.same({ { "reply", long }, { "reply", "next" } }, read(unpack(chunks)))
  end)

  it("refuses what is not Redis'", function()
    for _, bytes in ipairs {
      "HTTP/1.1 400\r\n", "*x\r\n", "$-2\r\n", "$1e99\r\n", ":x\r\n", "*1.5\r\n", ("*1\r\n"):rep(40), ("+x"):rep(40000),
    } do
      local found = read(bytes)
      assert.is_false(found[#found][1], bytes:sub(1, 20))
    end
  end)

  it("writes a command", function()
    assert.equal("*2\r\n$3\r\nGET\r\n$3\r\na b\r\n", resp.command("GET", "a b"))
    assert.equal("*5\r\n$7\r\nEVALSHA\r\n$1\r\nd\r\n$1\r\n1\r\n$3\r\nkey\r\n$0\r\n\r\n",
      resp.encode(resp.prefix(5, "EVALSHA", "d", 1), "key", { "" }))
    local long = ("k"):rep(2000)
    assert.equal("*2\r\n$3\r\nGET\r\n$2000\r\n" .. long .. "\r\n", resp.encode(resp.prefix(2, "GET"), long, {}))
  end)
end)
