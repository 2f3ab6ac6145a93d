--[[
@name mutex/inspect v1
@summary Tells who holds the lease and who waits; reads only, works on replicas.
@since 0.1.0
@redis 6.2
@complexity O(W) with W = max_waiters
@key lock: hash, all state of one lock
@arg max_waiters: how many places of the queue to look at, 0 to 1000
@reply 1 held: remaining_ms, now_us, fence, label, since_us, places, waiters
@reply 2 free: remaining_ms, now_us, fence, label, since_us, places, waiters
@error BADARG an argument is missing or out of range
@error WRONGTYPE the key holds something else
@effects HMGET TIME
@retry safe: reads only

label and since_us speak of the last holder when the lock is free; since_us is 0 when there was none.
places counts the tickets that are out, also those of waiters that left and are not stepped over yet.
waiters: one array for each place looked at, in order: ticket, waited_ms, window_ms, label. window_ms is 0 when the
waiter has not asked again in time; such a place is dropped at the next hand-off.
No owner token is ever in the reply.
]]
if #KEYS ~= 1 or #ARGV ~= 1 then
  return redis.error_reply('BADARG mutex/inspect takes 1 key and 1 argument')
end
local max_waiters = tonumber(ARGV[1])
if not max_waiters or string.find(ARGV[1], '%D') or max_waiters > 1000 then
  return redis.error_reply('BADARG max_waiters must be 0 to 1000')
end

local lock = redis.pcall('HMGET', KEYS[1], 'owner', 'deadline_ms', 'granted_ms', 'fence', 'holder', 'head', 'tail',
  'parked', 'seen_ms', 'behind_ms')
if lock.err then
  return lock
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = (now_us - now_us % 1000) / 1000

local remaining_ms = 0
if lock[2] and lock[2] - now_ms > 0 then
  remaining_ms = math.min(lock[2] - now_ms, tonumber(lock[3]))
end

-- The clock of the queue, by which windows end, never goes back.
local clock_ms = math.max(now_ms + (lock[10] or 0), tonumber(lock[9] or 0))
local waiters, fields, tail = {}, {}, tonumber(lock[7] or 0)
local first = tonumber(lock[8] or 0)
if first == 0 then
  first = tonumber(lock[6] or 1)
end
for ticket = first, math.min(tail, first + max_waiters - 1) do
  fields[#fields + 1] = 'place:' .. ticket
end
if #fields > 0 then
  local places = redis.call('HMGET', KEYS[1], unpack(fields))
  local owners = {}
  for i, place in ipairs(places) do
    if place then
      local window, waiter, who = string.match(place, '^(%d+) %d+ %d ([^ ]+) [^ ]* (.*)$')
      owners[#owners + 1] = 'waiter:' .. waiter
      waiters[#waiters + 1] = {first + i - 1, 0, math.max(window - clock_ms, 0), who}
    end
  end
  if #owners > 0 then
    for i, record in ipairs(redis.call('HMGET', KEYS[1], unpack(owners))) do
      local since_us = string.match(record or '', '^%d+ (%d+)$')
      waiters[i][2] = since_us and math.max(math.floor((now_us - since_us) / 1000), 0) or 0
    end
  end
end
local since_us, label = string.match(lock[5] or '', '^(%d+) (.*)$')
return {
  remaining_ms > 0 and 1 or 2, remaining_ms, now_us, lock[4] or '0', label or '', tonumber(since_us or 0),
  math.max(tail - first + 1, 0), waiters,
}
