-- What needs attention, and when. Kept in slots of 10 ms: what falls into one slot is done together.
-- Entries are held weakly: a lease that its request has dropped is not renewed any more.
local ceil, floor, max = math.ceil, math.floor, math.max

local SLOTS_PER_SECOND = 100

local _M = {}
local methods = {}
local mt = { __index = methods }
local weak = { __mode = "k" }

function _M.new()
  return setmetatable({ slots = {}, used = 0, first = nil }, mt)
end

-- @param entry a table; it keeps its slot in the field `slot`
-- @param at when, in seconds on the boot-time clock
-- @return true when nothing else is due before
function methods:put(entry, at)
  self:remove(entry)
  local number = floor(at * SLOTS_PER_SECOND)
  local slot = self.slots[number]
  if not slot then
    slot = setmetatable({}, weak)
    self.slots[number] = slot
    self.used = self.used + 1
  end
  slot[entry] = true
  entry.slot = number
  if not self.first or number < self.first then
    self.first = number
    return true
  end
  return false
end

function methods:remove(entry)
  local slot = entry.slot and self.slots[entry.slot]
  if slot then
    slot[entry] = nil
  end
  entry.slot = nil
end

-- @return an array of what is due at `now`, off the agenda
function methods:take(now)
  local due = {}
  local last = floor(now * SLOTS_PER_SECOND)
  while self.first and self.first <= last do
    local number = self.first
    for entry in pairs(self.slots[number]) do
      entry.slot = nil
      due[#due + 1] = entry
    end
    self.slots[number] = nil
    self.used = self.used - 1
    self:find_first(number)
  end
  return due
end

-- The first used slot after `number`: near it as a rule, else the least of all.
function methods:find_first(number)
  self.first = nil
  if self.used == 0 then
    return
  end
  for candidate = number + 1, number + SLOTS_PER_SECOND do
    if self.slots[candidate] then
      self.first = candidate
      return
    end
  end
  for candidate in pairs(self.slots) do
    if not self.first or candidate < self.first then
      self.first = candidate
    end
  end
end

-- Forgets slots whose entries are all gone.
-- @return true when nothing is left
function methods:is_empty()
  local first
  for number, slot in pairs(self.slots) do
    if next(slot) == nil then
      self.slots[number] = nil
      self.used = self.used - 1
    elseif not first or number < first then
      first = number
    end
  end
  self.first = first
  return not first
end

-- @return seconds from `now` until something is due; nil when nothing is
function methods:seconds(now)
  if not self.first then
    return nil
  end
  return max(ceil(self.first - now * SLOTS_PER_SECOND) / SLOTS_PER_SECOND, 0)
end

return _M
