//! Bugs that other lock libraries had in public, and the test here that would fail if we had them too.
//!
//! What needs more than one server waits for the tests of those topologies, and says so.

use std::{collections::BTreeSet, path::Path};

/// The test that covers a bug, or what that test waits for.
enum Cover {
    Test(&'static str),
    Waits(&'static str),
}

use Cover::{Test, Waits};

/// Where it was reported, what happened, and what covers it.
const BUGS: [(&str, &str, Cover); 61] = [
    (
        "etcd 11456",
        "a grant is returned after the lease has ended",
        Test("n3_a_grant_that_arrives_after_its_ttl_is_not_returned"),
    ),
    ("etcd 11457", "two clients work at once", Test("no_promise_breaks_while_holders_and_waiters_are_killed")),
    (
        "etcd 10811",
        "the holder does not hear that its lease is gone",
        Test("the_holder_is_told_when_its_lease_was_taken_away"),
    ),
    (
        "etcd 22082",
        "a repeated unlock deletes a newer lock of the same session",
        Test("n1_the_reply_of_every_call_in_turn_is_lost"),
    ),
    (
        "etcd 19597",
        "a waiter whose session died waits on",
        Test("q1_dead_waiters_cost_one_claim_lease_however_many_they_are"),
    ),
    ("etcd 16221", "a read-write lock is granted twice", Waits("read-write locks")),
    ("redisson 491", "waiters hang: the unlock came before the subscription", Test(SUBSCRIBED_LATE)),
    ("redisson 763", "waiters hang: the unlock message was missed", Test(MESSAGE_LOST)),
    ("redisson 1763", "a grant is lost between the look and the subscription", Test(SUBSCRIBED_LATE)),
    (
        "redisson 1104",
        "the fair lock's timeouts drift",
        Test("q5_short_waits_in_a_row_leave_no_places_that_live_longer"),
    ),
    (
        "redisson 2099",
        "the fair lock's timeouts drift",
        Test("q5_short_waits_in_a_row_leave_no_places_that_live_longer"),
    ),
    ("redisson 2883", "the fair lock jams on dead waiters", Test(DEAD_WAITERS)),
    (
        "redisson 3004",
        "a waiter that lives is evicted and hangs",
        Test("q4_a_waiter_that_lost_its_place_takes_another_one"),
    ),
    (
        "redisson 3730",
        "nobody wakes when a lease runs out",
        Test("q6_a_lease_that_runs_out_passes_to_the_first_waiter"),
    ),
    ("redisson 4595", "each dead waiter costs five seconds", Test(DEAD_WAITERS)),
    ("redisson 6150", "dead waiters are waited for without end", Test(DEAD_WAITERS)),
    ("redisson 7224", "keys of the queue are left behind", Test("c7_a_hundred_thousand_cancels_leave_no_orphan")),
    ("redisson 3194", "renewals stop after a reconnect", Test("n6_renewals_survive_a_connection_that_swallows_them")),
    ("redisson 5697", "renewals stop silently", Test("a_dropped_extend_does_not_stop_the_renewals")),
    ("redisson 5698", "renewals stop silently", Test("a_dropped_extend_does_not_stop_the_renewals")),
    ("redisson 7272", "a renewal that is scheduled during the unlock goes on", Test(RELEASED)),
    ("redisson 1966", "renewals of a lock that was given back go on", Test(RELEASED)),
    ("redisson 1626", "renewals of a lock that was given back go on", Test(RELEASED)),
    (
        "redisson 3521",
        "renewals of a dead worker's lock go on",
        Test("c1_the_lock_of_a_killed_holder_passes_on_when_its_ttl_is_over"),
    ),
    (
        "redisson 4698",
        "the holder is not told that a renewal failed",
        Test("s13_a_stopped_server_cannot_keep_a_lease_alive"),
    ),
    (
        "redisson 3636",
        "the holder is not told that the key is gone",
        Test("s16_what_an_administrator_takes_away_is_noticed_and_fences_rise"),
    ),
    (
        "redisson 6651",
        "an unlock whose reply was lost fails when repeated",
        Test("n1_the_reply_of_every_call_in_turn_is_lost"),
    ),
    (
        "redisson 4178",
        "a re-entry after a timeout leaves a lock that nobody can end",
        Test("a_lost_reentrant_lock_is_not_acquired_anew_while_shares_are_left"),
    ),
    (
        "redisson 4216",
        "one subscription per lock drains the pool",
        Test("c10_ten_thousand_waiters_of_one_process_cost_two_calls_each"),
    ),
    ("redisson 4064", "channels are left subscribed", Test("what_is_left_behind_is_noticed")),
    (
        "redisson 6510",
        "millions of fence counters are left behind",
        Test("a_counter_stays_for_ever_and_our_fence_for_its_retention"),
    ),
    ("redisson 4822", "a failed wait for replicas counts as a re-entry", Waits("replicas and WAIT")),
    ("redisson 3965", "two holders after a fail-over", Waits("sentinel and fail-over")),
    ("redlock-rb 36", "an extend makes a lock that had run out anew", Test("the_table_catches_every_known_fault")),
    ("redlock-rb 76", "not granted, but held: the reply was lost", Test("n1_the_reply_of_every_call_in_turn_is_lost")),
    (
        "redlock-rb 27",
        "NOSCRIPT after a restart",
        Test("s6_a_storm_of_script_flush_reaches_no_caller_and_nobody_sends_eval"),
    ),
    ("redlock-rb 148", "NOSCRIPT after a fail-over", Waits("sentinel and fail-over")),
    ("redlock-rb 50", "the server's clock is set", Test("no_promise_breaks_in_any_simulated_run")),
    (
        "node-redlock 11",
        "a server that refuses writes keeps the lock from its release",
        Test("s10_a_full_server_refuses_to_acquire_but_extends_and_releases"),
    ),
    (
        "node-redlock 65",
        "the release of a lock that ran out is told apart from nothing else",
        Test("a_lost_lease_is_neither_extended_nor_released"),
    ),
    (
        "node-redlock 169",
        "the deadline counts from the first attempt instead of the one that was granted",
        Test("n3_a_grant_that_arrives_after_its_ttl_is_not_returned"),
    ),
    (
        "node-redlock 168",
        "held by somebody else and server down are one error",
        Test("a_server_that_is_not_there_is_unavailable"),
    ),
    (
        "node-redlock 195",
        "application data under the name is taken for a lock",
        Test("a_key_of_another_kind_is_left_as_it_is"),
    ),
    (
        "node-redlock 218",
        "waiters are not served in order",
        Test("waiters_are_granted_in_order_without_waiting_for_a_heartbeat"),
    ),
    ("node-redlock 64", "CROSSSLOT", Waits("cluster")),
    ("redsync 186", "a quorum erodes", Waits("several independent servers")),
    ("redis-py 3847", "a cancelled acquire keeps the lock", Test("c7_acquires_dropped_at_any_time_leave_no_orphan")),
    (
        "rueidis 1010",
        "the release of a cancelled acquire overtakes it on another connection",
        Test("n4_an_acquire_that_the_release_of_its_caller_overtakes_leaves_no_orphan"),
    ),
    ("rueidis 602", "waiters burn a processor", Test("c10_ten_thousand_waiters_of_one_process_cost_two_calls_each")),
    (
        "RedLock.net 97",
        "a lock that was waited for is not renewed",
        Test("a_waited_for_lease_is_renewed_like_any_other"),
    ),
    ("RedLock.net 68", "a stuck holder renews for ever", Test("max_hold_stops_renewals_but_not_the_lease")),
    (
        "RedLock.net 93",
        "a holder that lost its lock goes on believing in it",
        Test("c2_a_holder_that_slept_past_its_ttl_does_not_touch_the_next_lease"),
    ),
    (
        "python-redis-lock 91",
        "renewals starve with the program",
        Test("c4_with_a_thread_of_its_own_a_lease_outlives_a_blocked_runtime"),
    ),
    (
        "rslock 6",
        "a guard that is dropped blocks the runtime",
        Test("c8_a_guard_dropped_outside_a_runtime_neither_blocks_nor_panics"),
    ),
    (
        "curator 1121",
        "an attempt inherits the forgotten lock of the one before",
        Test("no_two_owner_tokens_are_equal_across_workers"),
    ),
    ("redis-rs 698", "the reply of another request", Test("n7_every_reply_in_turn_is_garbage")),
    (
        "lua-resty-jit-uuid 13",
        "workers have equal random numbers",
        Test("no_two_owner_tokens_are_equal_across_workers"),
    ),
    ("ingress-nginx 3671", "workers have equal random numbers", Test("no_two_owner_tokens_are_equal_across_workers")),
    ("valkey 2651", "a step of the clock ends every lock", Test("no_promise_breaks_in_any_simulated_run")),
    (
        "consul 9788",
        "the command is stopped long after the lock is lost",
        Test("a_command_whose_lease_cannot_be_renewed_is_gone_before_another_can_hold_it"),
    ),
    (
        "consul 2022",
        "the shell is killed and not what it started",
        Test("a_lease_that_was_taken_away_kills_the_command_and_its_children"),
    ),
];

const SUBSCRIBED_LATE: &str = "q7_a_release_before_the_subscription_is_confirmed_is_not_missed";
const MESSAGE_LOST: &str = "n8_a_message_lost_with_its_subscription_costs_one_heartbeat";
const DEAD_WAITERS: &str = "q1_dead_waiters_cost_one_claim_lease_however_many_they_are";
const RELEASED: &str = "a_released_lease_is_never_reported_lost";

/// The names of all functions under `folder`.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| line.split_once("fn ")?.1.split_once('('));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_public_bug_is_covered_by_a_test_that_is_there() {
    let mut found = BTreeSet::new();
    functions(Path::new("tests"), &mut found);
    functions(Path::new("src"), &mut found);
    let (mut covered, mut waiting) = (0, 0);
    for (bug, story, cover) in &BUGS {
        match cover {
            Test(name) => {
                assert!(found.contains(*name), "{bug}: there is no test {name}");
                covered += 1;
            }
            Waits(what) => {
                println!("{bug} ({story}) waits for {what}");
                waiting += 1;
            }
        }
    }
    println!("{covered} covered, {waiting} waiting");
    let bugs: BTreeSet<&str> = BUGS.iter().map(|(bug, ..)| *bug).collect();
    assert_eq!(bugs.len(), BUGS.len(), "each bug once");
}
