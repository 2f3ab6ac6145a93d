-- The Redis protocol, RESP2 and RESP3: a command to bytes, and bytes, as they arrive, to replies.
-- Without recursion and without a table for each step, so that LuaJIT compiles it.
local byte, concat, find, sub = string.byte, table.concat, string.find, string.sub
local tonumber = tonumber
local null = ngx.null

local LONGEST_LINE = 65536
local LONGEST_STRING = 536870912
local DEEPEST = 32

local _M = {}

local lengths = {}
for length = 0, 1024 do
  lengths[length] = "\r\n$" .. length .. "\r\n"
end

-- @param prefix what goes before the arguments, see `prefix`
-- @return the bytes of a command
local parts = {}
function _M.encode(prefix, key, args)
  parts[1], parts[2], parts[3] = prefix, lengths[#key] or ("\r\n$" .. #key .. "\r\n"), key
  local n = 3
  for i = 1, #args do
    local arg = args[i]
    parts[n + 1], parts[n + 2] = lengths[#arg] or ("\r\n$" .. #arg .. "\r\n"), arg
    n = n + 2
  end
  parts[n + 1] = "\r\n"
  return concat(parts, "", 1, n + 1)
end

-- The beginning of a command of `count` words, whose first words are these.
function _M.prefix(count, ...)
  local words = { "*" .. count }
  for i = 1, select("#", ...) do
    local word = tostring((select(i, ...)))
    words[#words + 1] = "\r\n$" .. #word .. "\r\n" .. word
  end
  return concat(words)
end

-- A whole command.
function _M.command(...)
  return _M.prefix(select("#", ...), ...) .. "\r\n"
end

local parser = {}
local mt = { __index = parser }

-- Reads one connection's replies.
function _M.parser()
  return setmetatable({ data = "", at = 1, waiting = {}, waiting_bytes = 0, wanted = 0, depth = 0, stack = {} }, mt)
end

-- Takes bytes that have arrived.
function parser:feed(chunk)
  local waiting = self.waiting
  waiting[#waiting + 1] = chunk
  self.waiting_bytes = self.waiting_bytes + #chunk
  if self.waiting_bytes < self.wanted then
    -- The rest of a long string: joined once, when it is complete.
    return
  end
  local rest = self.at > #self.data and "" or sub(self.data, self.at)
  self.data, self.at = rest .. concat(waiting), 1
  self.waiting, self.waiting_bytes, self.wanted = {}, 0, 0
end

-- Whether all bytes that came have been read.
function parser:is_empty()
  return self.at > #self.data and self.waiting_bytes == 0
end

-- The value that begins at `at`.
-- @return the position after it, its outcome, the value, and for the beginning of an array how many values follow; nil
--   while bytes are missing, how many if that is known; false and what is wrong
local function read_value(data, at)
  local line_end = find(data, "\r\n", at, true)
  if not line_end then
    if #data - at > LONGEST_LINE then
      return false, "a line without end"
    end
    return nil, 0
  end
  local kind, following = byte(data, at), line_end + 2
  if kind == 58 then -- :
    return following, "reply", tonumber(sub(data, at + 1, line_end - 1))
  elseif kind == 36 or kind == 61 or kind == 33 then -- $ = !
    local length = tonumber(sub(data, at + 1, line_end - 1))
    if length == -1 then
      return following, "reply", null
    elseif not length or length < 0 or length > LONGEST_STRING then
      return false, "a length that is none"
    end
    local missing = following + length + 1 - #data
    if missing > 0 then
      return nil, missing
    end
    -- A verbatim string begins with its format, as in `txt:`.
    return following + length + 2, kind == 33 and "error" or "reply",
      sub(data, following + (kind == 61 and 4 or 0), following + length - 1)
  elseif kind == 42 or kind == 126 or kind == 62 then -- * ~ >
    local count = tonumber(sub(data, at + 1, line_end - 1))
    if count == -1 then
      return following, "reply", null
    end
    return following, kind == 62 and "push" or "reply", nil, count
  elseif kind == 43 or kind == 40 then -- + (
    return following, "reply", sub(data, at + 1, line_end - 1)
  elseif kind == 45 then -- -
    return following, "error", sub(data, at + 1, line_end - 1)
  elseif kind == 37 or kind == 124 then -- % |
    local count = tonumber(sub(data, at + 1, line_end - 1))
    return following, kind == 124 and "attribute" or "reply", nil, count and count * 2
  elseif kind == 95 then -- _
    return following, "reply", null
  elseif kind == 35 then -- #
    return following, "reply", byte(data, at + 1) == 116
  elseif kind == 44 then -- ,
    return following, "reply", tonumber(sub(data, at + 1, line_end - 1))
  end
  return false, "a reply of no known kind"
end

local function push(self, outcome, count)
  local depth = self.depth + 1
  if depth > DEEPEST then
    return false
  end
  local frame = self.stack[depth] or {}
  self.stack[depth] = frame
  frame.values, frame.left, frame.filled, frame.outcome = {}, count, 0, outcome
  self.depth = depth
  return true
end

-- The next reply that is complete.
-- @return "reply", "error" (an error reply) or "push", and the value: strings, numbers, booleans, arrays (a map is an
--   array of its keys and values in turn) and ngx.null; nil while bytes are missing; false and what is wrong when these
--   bytes are not Redis'
function parser:next()
  local stack = self.stack
  repeat
    local following, outcome, value, count = read_value(self.data, self.at)
    if not following then
      if following == nil then
        self.wanted = outcome
        return nil
      end
      return false, outcome
    end
    self.at = following
    if count then
      if count < 0 or count % 1 ~= 0 then
        return false, "a length that is none"
      elseif not push(self, outcome, count) then
        return false, "arrays in arrays without end"
      end
    elseif value == nil then
      return false, "a number that is none"
    elseif self.depth > 0 then
      local frame = stack[self.depth]
      frame.filled, frame.left = frame.filled + 1, frame.left - 1
      frame.values[frame.filled] = value
    else
      return outcome, value
    end
    -- What is full now is a value of the array around it.
    while self.depth > 0 and stack[self.depth].left == 0 do
      local frame = stack[self.depth]
      self.depth = self.depth - 1
      if frame.outcome ~= "attribute" then
        if self.depth == 0 then
          return frame.outcome, frame.values
        end
        local outer = stack[self.depth]
        outer.filled, outer.left = outer.filled + 1, outer.left - 1
        outer.values[outer.filled] = frame.values
      end
    end
  until false
end

return _M
