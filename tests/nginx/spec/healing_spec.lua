local bundle = require "resty.redlatch.bundle"
local healing = require "resty.redlatch.healing"

local name = "mutex/release"
local digest = bundle[name].digest
local missing = "NOSCRIPT No matching script."

-- What goes ahead of each EVALSHA while the script stays missing.
-- @param heard what the server says to SCRIPT LOAD, and its error
local function writes(strict, is_loaded, heard, err)
  local call = healing.begin({}, name, strict)
  local seen = {}
  local goes_on, other
  repeat
    local words = {}
    for i, command in ipairs(healing.ahead(call)) do
      words[i] = command[2]
      if command[2] == "LOAD" then
        healing.heard(call, heard, err)
      end
    end
    seen[#seen + 1] = table.concat(words, " ")
    goes_on, other = healing.goes_on(call, false, missing, is_loaded)
  until not goes_on
  return seen, other
end

describe("healing", function()
  it("ends with any other answer", function()
    for _, answer in ipairs { { { 1, 0, 5 } }, { false, "OOM full" }, { nil } } do
      assert.is_nil(healing.goes_on(healing.begin({}, name, false), answer[1], answer[2]))
    end
  end)

  it("loads the script in the same write, a bounded number of times", function()
    assert.same({ "", "LOAD", "LOAD", "LOAD", "LOAD", "LOAD" }, (writes(false, false, digest)))
  end)

  it("first asks again for what another call has loaded", function()
    assert.same({ "", "", "LOAD", "LOAD", "LOAD", "LOAD" }, (writes(false, true, digest)))
  end)

  it("ends with what kept the script from being loaded", function()
    local seen, err = writes(false, false, false, "NOPERM no")
    assert.same({ "", "LOAD" }, seen)
    assert.equal("NOPERM no", err)
    seen, err = writes(false, false, ("0"):rep(40))
    assert.same({ "", "LOAD" }, seen)
    assert.matches("^DIGEST 0+ came back from SCRIPT LOAD instead of " .. digest, err)
  end)

  it("knows when the script is loaded", function()
    local call = healing.begin({}, name, false)
    assert.is_true(healing.heard(call, digest))
    assert.is_nil(healing.heard(call, { 0, 0 }))
    assert.is_nil(call.load_error)
  end)

  it("never loads when it is strict", function()
    assert.same({ "" }, (writes(true, false)))
  end)
end)
