local head, parked, floor_us, swept, longest_ms = 1, 0, 0, 0, 0
if tail > 0 then
  head, parked, floor_us, swept, longest_ms = struct.unpack('<ddddd', state, 59)
end
local old_head, old_parked = head, parked
