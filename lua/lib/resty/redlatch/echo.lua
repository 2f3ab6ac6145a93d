-- Some servers and proxies repeat in an error what was sent to them: passwords, owner tokens, values. Nothing of it is
-- shown to people.
local errors = require "resty.redlatch.errors"

local find, gsub, sub = string.find, string.gsub, string.sub

-- A repeated argument may be cut short.
local ENOUGH = 12

local _M = {}

local function is_word(text, at)
  return find(text, "^%w", at) ~= nil
end

-- Whether `text` has `sent`, or its beginning, as a word of its own.
local function repeats(text, sent)
  local beginning = sub(sent, 1, ENOUGH)
  local from, to = find(text, beginning, 1, true)
  while from do
    local begins = from == 1 or not is_word(text, from - 1) or not is_word(beginning, 1)
    local ends = #sent > ENOUGH or not is_word(text, to + 1) or not is_word(beginning, #beginning)
    if begins and ends then
      return true
    end
    from, to = find(text, beginning, from + 1, true)
  end
  return false
end

-- @param err an error reply
-- @param ... what was sent: strings, arrays of strings, nil
-- @return the error without it
function _M.cut(err, ...)
  local text = gsub(err, ",? *[Ww]ith args beginning with:.*$", "")
  for i = 1, select("#", ...) do
    local sent = select(i, ...)
    for _, word in ipairs(type(sent) == "table" and sent or { sent }) do
      -- Numbers are no secrets, and errors that name a limit have some; but a password may be one.
      if word ~= "" and (type(sent) == "string" or not find(word, "^%d+$")) and repeats(text, word) then
        return errors.code(text) .. " the server's words are left out, as they repeat what was sent"
      end
    end
  end
  return text
end

return _M
