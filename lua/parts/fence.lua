-- The next fence is above all before, above what waiters have seen elsewhere, and not below the server's time.
local next_us = (floor_us > fence_us and floor_us or fence_us) + 1
if next_us < now_us then
  next_us = now_us
end
