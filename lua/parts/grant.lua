if deadline_ms == 0 and holder ~= '' then
  released = holder
end
holder, words = waiter, waiter .. released .. who
fence_us, since_us, deadline_ms, remaining_ms = next_us, now_us, clock_ms + lease_ms, lease_ms
