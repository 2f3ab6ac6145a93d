//! Faults that distributed locks are known for, as changes of the shipped scripts.

use super::Mutant;

const ALL: [&str; 5] = ["mutex/acquire", "mutex/extend", "mutex/release", "mutex/force_release", "mutex/inspect"];
const QUEUES: [&str; 3] = ["mutex/acquire", "mutex/release", "mutex/force_release"];

fn mutant(name: &str, scripts: &[&'static str], edits: &[(&str, &str)]) -> Mutant {
    let edits = edits.iter().map(|&(from, to)| (from.to_owned(), to.to_owned())).collect();
    Mutant { name: name.to_owned(), scripts: scripts.to_vec(), edits }
}

/// The faults that distributed locks are known for.
pub fn known_faults() -> Vec<Mutant> {
    let acquire = &["mutex/acquire"];
    let release = &["mutex/release"];
    let extend = &["mutex/extend"];
    let force = &["mutex/force_release"];
    vec![
        mutant(
            "acquire grants a held lock",
            acquire,
            &[("deadline_ms > clock_ms and deadline_ms - clock_ms or 0", "0")],
        ),
        mutant(
            "acquire waits for Redis' expiry",
            acquire,
            &[("deadline_ms > clock_ms and deadline_ms - clock_ms or 0", "deadline_ms > 0 and 1 or 0")],
        ),
        mutant("acquire ignores not_after_us", acquire, &[("not_after_us > 0 and", "false and")]),
        mutant("acquire compares not_after_us with ms", acquire, &[("now_us > not_after_us", "now_ms > not_after_us")]),
        mutant("acquire forgets who released last", acquire, &[(" or owner == holder and deadline_ms == 0", "")]),
        mutant("acquire forgets who released before", acquire, &[("owner == released or ", "")]),
        mutant(
            "a retry is a new grant",
            acquire,
            &[("return {1, lease_ms, now_us, fence_us}", "return {1, ttl_ms, now_us, fence_us + 1}")],
        ),
        mutant(
            "a retry is refused",
            acquire,
            &[("local renews = remaining_ms > 0 and owner == holder", "local renews = false")],
        ),
        mutant(
            "a full server refuses writes",
            &["mutex/acquire", "mutex/extend", "mutex/release", "mutex/force_release"],
            &[(
                "if redis.pcall('HSET', KEYS[1], 'state', state) ~= 0 then",
                "if redis.call('HSET', KEYS[1], 'state', state) ~= 0 then",
            )],
        ),
        mutant(
            "the lease is twice as long as told",
            acquire,
            &[("deadline_ms = clock_ms + lease_ms", "deadline_ms = clock_ms + 2 * lease_ms")],
        ),
        mutant(
            "a clock that stepped back keeps the lease",
            &ALL,
            &[("  behind_ms = clock_ms - now_ms\n", "  behind_ms = 0\n")],
        ),
        mutant(
            "inspect believes a clock that stepped back",
            &["mutex/inspect"],
            &[("  behind_ms = clock_ms - now_ms\n", "  behind_ms = 0\n")],
        ),
        mutant(
            "a clock that stepped back stands still",
            &ALL,
            &[
                ("local stepped_back = now_ms + behind_ms < clock_ms", "local stepped_back, step = false, clock_ms"),
                ("clock_ms = now_ms + behind_ms", "clock_ms = math.max(now_ms + behind_ms, step)"),
            ],
        ),
        mutant(
            "a try queues",
            acquire,
            &[(
                "local waits = queue_ms and queue_ms > 0",
                "local waits = true\nqueue_ms, claim_ms, inbox, inbox_here = queue_ms or 60000, claim_ms or 1, inbox or '', inbox_here or '0'",
            )],
        ),
        mutant(
            "the fence is not raised",
            acquire,
            &[("(floor_us > fence_us and floor_us or fence_us) + 1", "(floor_us > fence_us and floor_us or fence_us)")],
        ),
        mutant(
            "the fence is raised by release only to the clock",
            release,
            &[("(floor_us > fence_us and floor_us or fence_us) + 1", "now_us")],
        ),
        mutant(
            "the fence is raised by force_release only to the clock",
            force,
            &[("(floor_us > fence_us and floor_us or fence_us) + 1", "now_us")],
        ),
        mutant(
            "the fence loses digits",
            &QUEUES,
            &[(
                "next_us == now_us and #time[2] == 6 and time[1] .. time[2] or string.format('%.0f', next_us)",
                "tostring(next_us)",
            )],
        ),
        mutant("the fence of the message drops zeros", &QUEUES, &[(" and #time[2] == 6", "")]),
        mutant("the floor is ignored", acquire, &[("if floor_us < fence_floor then", "if false then")]),
        mutant(
            "the floor of a waiter is forgotten",
            &["mutex/release", "mutex/force_release"],
            &[("floor_us > fence_us and floor_us or fence_us", "fence_us")],
        ),
        mutant("the clock is not the fence's floor", acquire, &[("if next_us < now_us then", "if false then")]),
        mutant("release grants without a fence left", release, &[(" and next_us <= 9007199254740991", "")]),
        mutant(
            "a newcomer overtakes",
            acquire,
            &[("if remaining_ms == 0 and tail == 0 then", "if remaining_ms == 0 then")],
        ),
        mutant("who comes first has the lock", acquire, &[("if place and waiter == owner then", "if place then")]),
        mutant(
            "a waiter that asks again goes to the end",
            acquire,
            &[("  if place then\n    ticket, waits_since_us", "  if false then\n    ticket, waits_since_us")],
        ),
        mutant(
            "asking again does not keep the place",
            acquire,
            &[("    redis.call('HSET', KEYS[1], 'place:' .. ticket, place)\n", "")],
        ),
        mutant(
            "the claim lease is the whole lease",
            acquire,
            &[("claim_ms < ttl_ms and claim_ms or ttl_ms", "ttl_ms")],
        ),
        mutant(
            "the claim lease is longer than the lease",
            acquire,
            &[("claim_ms < ttl_ms and claim_ms or ttl_ms", "claim_ms")],
        ),
        mutant("the queue has no end", acquire, &[("tail - head >= 99999 and", "false and")]),
        mutant(
            "the queue ends early",
            acquire,
            &[("tail - head >= 99999", "tail - head >= 99998"), ("> 200000", "> 199990")],
        ),
        mutant("the queue ends late", acquire, &[("> 200000", "> 200030")]),
        mutant("extend without comparing the owner", extend, &[(" or owner ~= holder", "")]),
        mutant(
            "a repeated acquire shortens the lease",
            acquire,
            &[("remaining_ms > ttl_ms and remaining_ms or ttl_ms", "ttl_ms")],
        ),
        mutant("extend shortens the lease", extend, &[("remaining_ms > ttl_ms and remaining_ms or ttl_ms", "ttl_ms")]),
        mutant("extend of a lease that ran out", extend, &[("remaining_ms == 0 or ", "")]),
        mutant(
            "release without comparing the owner",
            release,
            &[("if remaining_ms > 0 and owner == holder then", "if remaining_ms > 0 then")],
        ),
        mutant(
            "release of a lease that ran out",
            release,
            &[("if remaining_ms > 0 and owner == holder then", "if deadline_ms > 0 and owner == holder then")],
        ),
        mutant(
            "release leaves no memo",
            release,
            &[(
                "state = struct.pack('<ddd', 0, clock_ms, behind_ms) .. string.sub(state, 25)",
                "state = struct.pack('<dddddddBB', 0, clock_ms, behind_ms, expires_ms, fence_us, since_us, 0, 0, 0)",
            )],
        ),
        mutant("a hand-off leaves no memo", &QUEUES, &[("  released = holder\n", "  released = ''\n")]),
        mutant(
            "a grant forgets the memo",
            acquire,
            &[(
                "  if deadline_ms == 0 and holder ~= '' then\n    released = holder\n  end\n  local lease_ms",
                "  released = ''\n  local lease_ms",
            )],
        ),
        mutant(
            "the lease of a dead holder makes it the memo",
            &QUEUES,
            &[("if deadline_ms == 0 and holder ~= '' then", "if holder ~= '' then")],
        ),
        mutant("release does not hand off", release, &[("if remaining_ms == 0 and next_us", "if false and next_us")]),
        mutant(
            "a waiter that leaves keeps the free lock from the next",
            release,
            &[("if remaining_ms == 0 and next_us", "if code == 1 and next_us")],
        ),
        mutant(
            "release takes the lock from another holder",
            release,
            &[("if remaining_ms == 0 and next_us", "if true and next_us")],
        ),
        mutant(
            "force_release keeps the memo of the former holder",
            force,
            &[(
                "holder, fence_us, deadline_ms, remaining_ms = '', next_us, 0, 0",
                "fence_us, deadline_ms, remaining_ms = next_us, 0, 0\nwords = holder .. words",
            )],
        ),
        mutant("two places are popped at once", &QUEUES, &[("head = first + 1\n", "head = first + 2\n")]),
        mutant("the place is not popped", &QUEUES, &[("head = first + 1\n", "head = first\n")]),
        mutant(
            "waiters that died are granted",
            &QUEUES,
            &[("if closes_ms > clock_ms or waiter == owner then", "if true then")],
        ),
        mutant(
            "a late waiter loses its place to its own question",
            acquire,
            &[("if closes_ms > clock_ms or waiter == owner then", "if closes_ms > clock_ms then")],
        ),
        mutant("who does not listen is granted", &QUEUES, &[("if here == 0 or reached ~= 0 then", "if true then")]),
        mutant(
            "in a cluster nobody is granted",
            &QUEUES,
            &[("if here == 0 or reached ~= 0 then", "if reached ~= 0 then")],
        ),
        mutant("who was stepped over is forgotten", &QUEUES, &[("parked = first\n", "parked = 0\n")]),
        mutant("only the last one stepped over is remembered", &QUEUES, &[("if parked == 0 then\n", "if true then\n")]),
        mutant(
            "who was stepped over does not come first again",
            acquire,
            &[("if ticket < head then", "if false then")],
        ),
        mutant(
            "who was stepped over stays for ever",
            &QUEUES,
            &[("parked = first_open(parked, head - 1)\n", "parked = first_open(parked, parked - 1)\n")],
        ),
        mutant("an empty queue stays", &QUEUES, &[("head > tail and parked == 0 then", "false then")]),
        mutant(
            "a queue is dropped with its last listener",
            &QUEUES,
            &[("head > tail and parked == 0 then", "head > tail then")],
        ),
        mutant("one call looks at every place", &QUEUES, &[("local budget = 64", "local budget = 100000")]),
        mutant("nobody is told", &QUEUES, &[("if inbox_length > 0 then", "if false then")]),
        mutant(
            "the message has another fence",
            &QUEUES,
            &[(
                "waiter .. ' ' .. fence .. ' ' .. lease_ms",
                "waiter .. ' ' .. string.format('%.0f', now_us - 1) .. ' ' .. lease_ms",
            )],
        ),
        mutant(
            "who may not publish may not hand off",
            &QUEUES,
            &[("reached = redis.pcall('PUBLISH'", "reached = redis.call('PUBLISH'")],
        ),
        mutant(
            "held is an error on a full server",
            acquire,
            &[(
                "    redis.pcall('HSET', KEYS[1], 'state', state)\n  end\n  return {3",
                "    redis.call('HSET', KEYS[1], 'state', state)\n  end\n  return {3",
            )],
        ),
        mutant(
            "the message is for somebody else",
            &QUEUES,
            &[("waiter .. ' ' .. fence .. ' ' .. lease_ms", "'b' .. waiter .. ' ' .. fence .. ' ' .. lease_ms")],
        ),
        mutant(
            "inspect tells owner tokens",
            &["mutex/inspect"],
            &[("string.sub(place, 45 + length + inbox_length)", "string.sub(place, 45)")],
        ),
        mutant(
            "the key goes before its fence is passed",
            &["mutex/acquire", "mutex/extend", "mutex/release", "mutex/force_release"],
            &[("if last_us > now_us then", "if false then")],
        ),
        mutant(
            "a grant does not keep the key for its fence",
            acquire,
            &[("if last_us > now_us then", "if false then")],
        ),
        mutant("extend does not keep the key for its fence", extend, &[("if last_us > now_us then", "if false then")]),
        mutant(
            "release does not keep the key for its fence",
            release,
            &[("if last_us > now_us then", "if false then")],
        ),
        mutant(
            "force_release does not keep the key for its fence",
            force,
            &[("if last_us > now_us then", "if false then")],
        ),
        mutant(
            "acquire makes the key go earlier",
            acquire,
            &[("local must_expire_later = keep_ms > expires_ms", "local must_expire_later = true")],
        ),
        mutant(
            "extend makes the key go earlier",
            extend,
            &[("local must_expire_later = keep_ms > expires_ms", "local must_expire_later = true")],
        ),
        mutant(
            "release makes the key go earlier",
            release,
            &[("local must_expire_later = keep_ms > expires_ms", "local must_expire_later = true")],
        ),
        mutant(
            "a hand-off does not keep the key",
            &["mutex/release", "mutex/force_release"],
            &[("local must_expire_later = keep_ms > expires_ms", "local must_expire_later = false")],
        ),
        mutant(
            "a hand-off keeps the key without the retention",
            &QUEUES,
            &[(
                "retain_ms, since = struct.unpack('<dBBHdddd', place)",
                "retain_ms, since = struct.unpack('<dBBHdddd', place)\n    retain_ms = 0",
            )],
        ),
        mutant(
            "a waiter's floor does not keep the key",
            acquire,
            &[(
                "remaining_ms > queue_ms and remaining_ms or queue_ms, next_us, retention_ms",
                "remaining_ms > queue_ms and remaining_ms or queue_ms, 0, retention_ms",
            )],
        ),
        mutant(
            "a place does not keep the key",
            acquire,
            &[(
                "remaining_ms > queue_ms and remaining_ms or queue_ms, next_us, retention_ms",
                "remaining_ms, next_us, retention_ms",
            )],
        ),
        mutant(
            "closed places fill the queue",
            acquire,
            &[("    while budget > 0 and first <= tail do\n", "    while false do\n")],
        ),
        mutant(
            "tickets of those who left fill the queue",
            acquire,
            &[
                (" and redis.call('HLEN', KEYS[1]) > 200000 then", " then"),
                ("if redis.call('HLEN', KEYS[1]) > 200000 then", "if true then"),
            ],
        ),
        mutant(
            "nobody is told to be the head",
            &QUEUES,
            &[("first ~= old_head and waiting ~= owner", "false and waiting ~= owner")],
        ),
        mutant(
            "who becomes the head by a release is not told",
            release,
            &[("first ~= old_head and waiting ~= owner", "false and waiting ~= owner")],
        ),
        mutant(
            "every hand-off tells the next head",
            &QUEUES,
            &[(" and closes_ms - window_ms / 3 * 2 > deadline_ms", "")],
        ),
        mutant(
            "the head is told by everybody",
            &QUEUES,
            &[("first ~= old_head and waiting ~= owner", "waiting ~= owner")],
        ),
        mutant(
            "the head is only looked for when the lease is over",
            &QUEUES,
            &[("if remaining_ms * 3 <= longest_ms", "if remaining_ms <= 0")],
        ),
        mutant(
            "plain shortens the lease",
            &["plain/acquire", "plain/extend"],
            &[("if remaining_ms > ttl_ms then", "if false then")],
        ),
        mutant("plain takes a held key", &["plain/acquire"], &[("'NX', ", "")]),
        mutant("plain sets no expiry", &["plain/acquire"], &[(", 'PX', ARGV[2]", "")]),
        mutant(
            "plain takes everybody for the owner",
            &["plain/acquire"],
            &[("if holder == owner then", "if true then")],
        ),
        mutant("plain refuses its owner", &["plain/acquire"], &[("if holder == owner then", "if false then")]),
        mutant(
            "plain says held where there is no TTL",
            &["plain/acquire"],
            &[("if remaining_ms < 0 then", "if false then")],
        ),
        mutant("plain extends for everybody", &["plain/extend"], &[("if holder ~= owner then", "if not holder then")]),
        mutant(
            "plain releases for everybody",
            &["plain/release"],
            &[("if holder ~= owner then", "if not holder then")],
        ),
        mutant(
            "plain releases what it does not understand",
            &["plain/release"],
            &[
                ("if type(holder) == 'table' then", "if false then"),
                ("if holder ~= owner then", "if type(holder) ~= 'table' and holder ~= owner then"),
            ],
        ),
    ]
}
