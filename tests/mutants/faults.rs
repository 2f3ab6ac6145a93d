//! Faults that distributed locks are known for, as changes of the shipped scripts.

use super::Mutant;

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
            &[("remaining_ms = lock[2] - now_ms\n  if", "remaining_ms = 0\n  if")],
        ),
        mutant("acquire waits for Redis' expiry", acquire, &[("lock[2] and lock[2] - now_ms > 0", "lock[2]")]),
        mutant("acquire ignores not_after_us", acquire, &[("not_after_us > 0 and", "false and")]),
        mutant("acquire compares not_after_us with ms", acquire, &[("now_us > not_after_us", "now_ms > not_after_us")]),
        mutant("acquire forgets who released last", acquire, &[(" or (owner == lock[1] and not lock[2])", "")]),
        mutant("acquire forgets who released before", acquire, &[("owner == lock[5] or ", "")]),
        mutant(
            "a retry is a new grant",
            acquire,
            &[(
                "return {1, lease_ms, now_us, lock[4]}",
                "return {1, ttl_ms, now_us, string.format('%.0f', lock[4] + 1)}",
            )],
        ),
        mutant(
            "a retry is refused",
            acquire,
            &[("  if owner == lock[1] then\n    -- Never", "  if false then\n    -- Never")],
        ),
        mutant(
            "a retry writes HSET first on a full server",
            acquire,
            &[(
                "    redis.call('PEXPIREAT', KEYS[1], expires_ms)\n    redis.call('HSET', KEYS[1], 'deadline_ms'",
                "    redis.call('HSET', KEYS[1], 'deadline_ms'",
            )],
        ),
        mutant("the lease is twice as long as told", acquire, &[("now_ms + ttl_ms", "now_ms + 2 * ttl_ms")]),
        mutant(
            "a clock that stepped back keeps the lease",
            acquire,
            &[("if remaining_ms > granted_ms then", "if false then")],
        ),
        mutant(
            "inspect believes a clock that stepped back",
            &["mutex/inspect"],
            &[("math.min(lock[2] - now_ms, tonumber(lock[3]))", "lock[2] - now_ms")],
        ),
        mutant(
            "a try queues",
            acquire,
            &[("  if queue_ms == 0 then\n    return {3, remaining_ms, now_us}\n  end\nend", "end")],
        ),
        mutant(
            "the fence is not raised",
            acquire,
            &[("math.max(last_fence + 1, now_us)", "math.max(last_fence, now_us)")],
        ),
        mutant("the fence is raised by release only to the clock", release, &[("last_fence >= now_us", "false")]),
        mutant("the fence is raised by force_release only to the clock", force, &[("last_fence >= now_us", "false")]),
        mutant(
            "the fence loses digits",
            &QUEUES,
            &[
                ("string.format('%.0f', last_fence + 1)", "tostring(last_fence + 1)"),
                (
                    "string.format('%.0f', math.max(last_fence + 1, now_us))",
                    "tostring(math.max(last_fence + 1, now_us))",
                ),
            ],
        ),
        mutant(
            "the floor is ignored",
            acquire,
            &[
                ("fence_floor >= now_us or ", ""),
                ("math.max(tonumber(lock[4] or 0), fence_floor)", "tonumber(lock[4] or 0)"),
            ],
        ),
        mutant("the clock is not the fence's floor", acquire, &[("local fence = now\n", "local fence = '1'\n")]),
        mutant("release grants without a fence left", release, &[(" and last_fence < 9007199254740991", "")]),
        mutant(
            "a newcomer overtakes",
            acquire,
            &[("if not lock[6] and remaining_ms == 0 then", "if remaining_ms == 0 then")],
        ),
        mutant("who comes first has the lock", acquire, &[("    if waiter == owner then\n", "    if owner then\n")]),
        mutant(
            "a waiter that asks again goes to the end",
            acquire,
            &[("ticket = tonumber(ticket)\n", "ticket = nil\n")],
        ),
        mutant(
            "asking again does not keep the place",
            acquire,
            &[(
                "elseif queue[3] then\n  redis.call('HDEL', KEYS[1], 'none')\nend",
                "elseif queue[3] then\n  do return {2, remaining_ms, now_us, ticket - head + 1} end\nend",
            )],
        ),
        mutant("the claim lease is the whole lease", acquire, &[("math.min(claim_ms, ttl_ms)", "ttl_ms")]),
        mutant("the claim lease is longer than the lease", acquire, &[("math.min(claim_ms, ttl_ms)", "claim_ms")]),
        mutant("the queue has no end", acquire, &[("tail - head >= 99999", "false")]),
        mutant("the queue ends early", acquire, &[(">= 99999 and", ">= 99998 and"), (">= 200000", ">= 199990")]),
        mutant("the queue ends late", acquire, &[(">= 200000", ">= 200030")]),
        mutant("extend without comparing the owner", extend, &[("owner ~= lock[1] or ", "")]),
        mutant("a repeated acquire shortens the lease", acquire, &[("math.max(ttl_ms, remaining_ms)", "ttl_ms")]),
        mutant(
            "a repeated acquire keeps a lease from before a step back of the clock",
            acquire,
            &[("math.max(ttl_ms, remaining_ms)", "math.max(ttl_ms, lock[2] - now_ms)")],
        ),
        mutant("extend shortens the lease", extend, &[("math.max(ttl_ms, remaining_ms)", "ttl_ms")]),
        mutant(
            "extend keeps a lease from before a step back of the clock",
            extend,
            &[("math.min(lock[2] - now_ms, tonumber(lock[4]))", "lock[2] - now_ms")],
        ),
        mutant(
            "plain shortens the lease",
            &["plain/acquire", "plain/extend"],
            &[("if remaining_ms > ttl_ms then", "if false then")],
        ),
        mutant("extend of a lease that ran out", extend, &[(" or remaining_ms == 0", "")]),
        mutant(
            "extend writes HSET first on a full server",
            extend,
            &[("redis.call('PEXPIREAT', KEYS[1], expires_ms)\n", "")],
        ),
        mutant(
            "release without comparing the owner",
            release,
            &[("if held and owner == lock[1] then", "if held then")],
        ),
        mutant(
            "release of a lease that ran out",
            release,
            &[("if held and owner == lock[1] then", "if lock[2] and owner == lock[1] then")],
        ),
        mutant(
            "release leaves no memo",
            release,
            &[(
                "    redis.call('HDEL', KEYS[1], 'deadline_ms')\n  end\n  return",
                "    redis.call('HDEL', KEYS[1], 'deadline_ms', 'owner')\n  end\n  return",
            )],
        ),
        mutant(
            "a hand-off leaves no memo",
            &QUEUES,
            &[("'holder', now .. ' ' .. who, 'released', released)", "'holder', now .. ' ' .. who, 'released', '')")],
        ),
        mutant(
            "a grant forgets the memo",
            acquire,
            &[("'holder', now .. ' ' .. label, 'released', released", "'holder', now .. ' ' .. label, 'released', ''")],
        ),
        mutant(
            "release does not hand off",
            release,
            &[("(outcome == 1 or not held) and last_fence", "false and last_fence")],
        ),
        mutant(
            "a waiter that leaves keeps the free lock from the next",
            release,
            &[("(outcome == 1 or not held) and last_fence", "outcome == 1 and last_fence")],
        ),
        mutant(
            "release takes the lock from another holder",
            release,
            &[
                ("(outcome == 1 or not held) and last_fence", "last_fence"),
                ("if outcome == 1 or not held then", "if true then"),
            ],
        ),
        mutant(
            "force_release keeps the memo of the former holder",
            force,
            &[("redis.call('HDEL', KEYS[1], 'deadline_ms', 'owner')", "redis.call('HDEL', KEYS[1], 'deadline_ms')")],
        ),
        mutant(
            "two places are popped at once",
            &QUEUES,
            &[("    head = ticket + 1\n    if here", "    head = ticket + 2\n    if here")],
        ),
        mutant(
            "the place is not popped",
            &QUEUES,
            &[("    head = ticket + 1\n    if here", "    head = ticket\n    if here")],
        ),
        mutant(
            "waiters that died are granted",
            &QUEUES,
            &[("if waiter == owner or window - clock_ms > 0 then", "if true then")],
        ),
        mutant(
            "a late waiter loses its place to its own question",
            acquire,
            &[("if waiter == owner or window - clock_ms > 0 then", "if window - clock_ms > 0 then")],
        ),
        mutant("who does not listen is granted", &QUEUES, &[("if here == '1' and reached == 0 then", "if false then")]),
        mutant(
            "in a cluster nobody is granted",
            &QUEUES,
            &[("if here == '1' and reached == 0 then", "if reached == 0 then")],
        ),
        mutant("who was stepped over is forgotten", &QUEUES, &[("        parked = ticket\n", "")]),
        mutant(
            "only the last one stepped over is remembered",
            &QUEUES,
            &[("      if parked == 0 then\n", "      if true then\n")],
        ),
        mutant(
            "who was stepped over does not come first again",
            acquire,
            &[("if ticket and ticket < head then", "if false then")],
        ),
        mutant("who was stepped over stays for ever", &QUEUES, &[("    parked = first_open(parked, head - 1)\n", "")]),
        mutant("an empty queue stays", &QUEUES, &[("if head > tail and parked == 0 then", "if false then")]),
        mutant(
            "a queue is dropped with its last listener",
            &QUEUES,
            &[("if head > tail and parked == 0 then", "if head > tail then")],
        ),
        mutant(
            "one call looks at every place",
            &QUEUES,
            &[(
                "old_head, expires_later, budget = now_ms + behind_ms, head, false, 64",
                "old_head, expires_later, budget = now_ms + behind_ms, head, false, 100000",
            )],
        ),
        mutant("nobody is told", &QUEUES, &[("if channel ~= '' then", "if false then")]),
        mutant(
            "the message has another fence",
            &QUEUES,
            &[("waiter .. ' ' .. fence .. ' ' .. lease", "waiter .. ' ' .. now_us .. ' ' .. lease")],
        ),
        mutant("who may not publish may not hand off", &QUEUES, &[("redis.pcall('PUBLISH'", "redis.call('PUBLISH'")]),
        mutant("held is an error on a full server", acquire, &[("redis.pcall('HSET'", "redis.call('HSET'")]),
        mutant(
            "the message is for somebody else",
            &QUEUES,
            &[("waiter .. ' ' .. fence .. ' ' .. lease", "'b' .. waiter .. ' ' .. fence .. ' ' .. lease")],
        ),
        mutant(
            "inspect tells owner tokens",
            &["mutex/inspect"],
            &[("math.max(window - clock_ms, 0), who}", "math.max(window - clock_ms, 0), waiter}")],
        ),
        mutant(
            "the key goes before its fence is passed",
            &["mutex/acquire", "mutex/extend", "mutex/release", "mutex/force_release"],
            &[
                ("math.max(now_ms + ttl_ms, math.ceil(fence / 1000) + 1)", "(now_ms + ttl_ms)"),
                ("math.max(now_ms + lease_ms, math.ceil(lock[4] / 1000) + 1)", "(now_ms + lease_ms)"),
                ("math.max(now_ms + lease_ms, math.ceil(lock[3] / 1000) + 1)", "(now_ms + lease_ms)"),
                ("math.max(now_ms + length_ms, math.ceil(last / 1000) + 1)", "(now_ms + length_ms)"),
            ],
        ),
        mutant(
            "a grant does not keep the key for its fence",
            acquire,
            &[("math.max(now_ms + ttl_ms, math.ceil(fence / 1000) + 1)", "(now_ms + ttl_ms)")],
        ),
        mutant(
            "a retry does not keep the key for its fence",
            acquire,
            &[("math.max(now_ms + lease_ms, math.ceil(lock[4] / 1000) + 1)", "(now_ms + lease_ms)")],
        ),
        mutant(
            "extend does not keep the key for its fence",
            extend,
            &[("math.max(now_ms + lease_ms, math.ceil(lock[3] / 1000) + 1)", "(now_ms + lease_ms)")],
        ),
        mutant("a grant makes the key go earlier", acquire, &[("expires_ms > tonumber(lock[8] or 0)", "true")]),
        mutant(
            "a retry makes the key go earlier",
            acquire,
            &[("    expires_ms = math.max(expires_ms, tonumber(lock[8] or 0))\n", "")],
        ),
        mutant(
            "extend makes the key go earlier",
            extend,
            &[("expires_ms = math.max(expires_ms, tonumber(lock[5] or 0))\n", "")],
        ),
        mutant("a waiter makes the key go earlier", acquire, &[("if least_ms > expires_ms then", "if true then")]),
        mutant("a hand-off does not keep the key", &QUEUES, &[("      keep(lease, fence, keep_ms)\n", "")]),
        mutant(
            "a hand-off keeps the key without the retention",
            &QUEUES,
            &[("keep(lease, fence, keep_ms)", "keep(lease, fence, 0)")],
        ),
        mutant(
            "a waiter's floor does not keep the key",
            acquire,
            &[("least_fence + 1, retention_ms", "0, retention_ms")],
        ),
        mutant(
            "a clock that stepped back keeps places",
            &QUEUES,
            &[("behind_ms = math.max(behind_ms, seen_ms - now_ms)\n", "")],
        ),
        mutant("closed places fill the queue", acquire, &[("    while budget > 0 do\n", "    while false do\n")]),
        mutant(
            "tickets of those who left fill the queue",
            acquire,
            &[
                (" and redis.call('HLEN', KEYS[1]) >= 200000 then", " then"),
                ("if redis.call('HLEN', KEYS[1]) >= 200000 then", "if true then"),
            ],
        ),
        mutant(
            "nobody is told to be the head",
            &QUEUES,
            &[
                ("local told = head ~= old_head", "local told = false"),
                ("told = lease / 3 > length_ms", "told = false"),
            ],
        ),
        mutant(
            "who becomes the head by a release is not told",
            release,
            &[("elseif held then\n  find_head()", "elseif held then\n  head = first_open(head, tail)")],
        ),
        mutant("every hand-off tells the next head", &QUEUES, &[("told = lease / 3 > length_ms", "told = true")]),
        mutant("the head is told by everybody", &QUEUES, &[("local told = head ~= old_head", "local told = true")]),
        mutant(
            "too late, spent and lost believe a clock that stepped back",
            acquire,
            &[("    remaining_ms, stepped_back = granted_ms, true", "    stepped_back = true")],
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
