local bundle = require "resty.redlatch.bundle"
local healing = require "resty.redlatch.healing"

local name = "mutex/release"
local digest = bundle[name].digest

-- The stages that these answers lead through.
local function stages(strict, ...)
  local call = healing.begin({}, name, strict)
  local seen = { call.stage }
  for _, answer in ipairs { ... } do
    if not healing.goes_on(call, answer[1], answer[2]) then
      break
    end
    seen[#seen + 1] = call.stage
  end
  return seen
end

local missing = { false, "NOSCRIPT No matching script." }

describe("healing", function()
  it("ends with any other answer", function()
    assert.same({ "evalsha" }, stages(false, { { 1, 0, 5 } }))
    assert.same({ "evalsha" }, stages(false, { false, "OOM full" }))
    assert.same({ "evalsha" }, stages(false, { nil }))
  end)

  it("loads the script where it is missing", function()
    assert.same({ "evalsha", "load", "evalsha" }, stages(false, missing, { digest }))
  end)

  it("takes EVAL after three rounds, or where nothing can be loaded", function()
    assert.same({ "evalsha", "load", "evalsha", "load", "evalsha", "load", "evalsha", "eval" },
      stages(false, missing, { digest }, missing, { digest }, missing, { digest }, missing))
    assert.same({ "evalsha", "load", "eval" }, stages(false, missing, { false, "NOPERM no" }))
  end)

  it("never loads when it is strict", function()
    assert.same({ "evalsha" }, stages(true, missing))
  end)

  it("refuses another digest", function()
    local call = healing.begin({}, name, false)
    assert.is_true(healing.goes_on(call, false, missing[2]))
    local goes_on, err = healing.goes_on(call, "other")
    assert.is_nil(goes_on)
    assert.matches("^DIGEST other came back from SCRIPT LOAD instead of " .. digest, err)
  end)
end)
