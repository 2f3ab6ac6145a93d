-- Which node of a Redis Cluster owns a key: slots of keys, and what CLUSTER SLOTS says of them.
local bit = require "bit"

local band, bxor, lshift, rshift = bit.band, bit.bxor, bit.lshift, bit.rshift
local byte, find, sub = string.byte, string.find, string.sub

local SLOTS = 16384

local _M = {}

-- CRC16 as the cluster specification of Redis has it (XMODEM: polynomial 0x1021, from 0).
local table_of_crc = {}
for i = 0, 255 do
  local crc = lshift(i, 8)
  for _ = 1, 8 do
    crc = band(crc, 0x8000) ~= 0 and bxor(lshift(crc, 1), 0x1021) or lshift(crc, 1)
  end
  table_of_crc[i] = band(crc, 0xffff)
end

-- @return the slot of a key: of what stands between its first `{` and the next `}`, unless that is nothing
function _M.of(key)
  local open = find(key, "{", 1, true)
  local close = open and find(key, "}", open + 1, true)
  if close and close > open + 1 then
    key = sub(key, open + 1, close - 1)
  end
  local crc = 0
  for i = 1, #key do
    crc = bxor(band(lshift(crc, 8), 0xffff), table_of_crc[band(bxor(rshift(crc, 8), byte(key, i)), 0xff)])
  end
  return crc % SLOTS
end

-- `host port id …`; a node that does not know its own host leaves it out.
local function address(node, asked)
  local host, port = node[1], tonumber(node[2])
  if type(host) ~= "string" or host == "" or host == "?" then
    host = asked
  end
  return port and { host = host, port = port }
end

-- Reads the reply to CLUSTER SLOTS.
-- @param asked the host that gave it
-- @return an array of { first, last, owner } and an array of the replicas, addresses of host and port; nil when the
--   reply names no owner
function _M.read(reply, asked)
  if type(reply) ~= "table" or #reply == 0 then
    return nil
  end
  local ranges, replicas = {}, {}
  for i, range in ipairs(reply) do
    local owner = type(range) == "table" and type(range[3]) == "table" and address(range[3], asked)
    if not owner then
      return nil
    end
    ranges[i] = { first = range[1], last = range[2], owner = owner }
    for j = 4, #range do
      replicas[#replicas + 1] = address(range[j], asked)
    end
  end
  return ranges, replicas
end

return _M
