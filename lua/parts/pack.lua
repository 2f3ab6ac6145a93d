state = struct.pack('<dddddddBB', deadline_ms, clock_ms, behind_ms, expires_ms, fence_us, since_us, tail, #holder,
  #released) .. (tail > 0 and struct.pack('<ddddd', head, parked, floor_us, swept, longest_ms) or '') .. words
