-- The first integer of each script's reply, by the word of the script's header.
return {
  ["mutex/acquire"] = {
    granted = 1,
    queued = 2,
    held = 3,
    too_late = 4,
    spent = 5,
  },
  ["mutex/extend"] = {
    extended = 1,
    lost = 2,
  },
  ["mutex/release"] = {
    released = 1,
    handed_off = 2,
    left = 3,
    released_before = 4,
    not_held = 5,
  },
  ["plain/acquire"] = {
    granted = 1,
    held = 3,
    held_without_ttl = 6,
  },
  ["plain/extend"] = {
    extended = 1,
    lost = 2,
  },
  ["plain/release"] = {
    released = 1,
    not_held = 5,
  },
  ["value/store"] = {
    stored = 1,
    outdated = 2,
    too_late = 4,
  },
}
