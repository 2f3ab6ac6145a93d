-- The key outlives lease, place and fence by the retention. It never goes earlier than an earlier call asked
-- for, and later does no harm, which spares most calls a command.
local keep_ms = now_ms + lease_ms + retain_ms
if last_us > now_us then
  keep_ms = math.max(keep_ms, math.ceil(last_us / 1000) + 1 + retain_ms)
end
local must_expire_later = keep_ms > expires_ms
if must_expire_later then
  expires_ms = keep_ms + math.floor(retain_ms / 8)
end
