//! Waiters that die, leave, come late and race.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use redlatch::{
    Attempt, Client, ErrorKind,
    call::{Acquire, AcquireArgs},
};

use super::{behind_proxy, calls, holder, is_quiet};
use crate::support::{Fault, Raw, Server};

const KEY: &str = "redlatch:m1:n";
const CLAIM: Duration = Duration::from_millis(700);

/// An acquire with all its arguments, for waiters that are not there any more.
async fn enqueue(client: &Client, owner: &str, inbox: &str) -> Acquire {
    let args = AcquireArgs {
        owner,
        ttl: Duration::from_secs(60),
        queue: CLAIM,
        claim: CLAIM,
        not_after_us: None,
        fence_floor: None,
        retention: Duration::from_secs(60),
        label: "waiter",
        inbox,
        inbox_here: true,
    };
    client.caller().acquire(KEY.as_bytes(), &args).await.unwrap()
}

async fn joined(server: &Server, count: u64) {
    let mut raw = Raw::connect(server);
    while raw.lock(KEY).tail.unsigned_abs() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How many leases dead waiters get, when so many of them were connected to the end, and died together.
async fn leases_of_dead(count: u64) -> u64 {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().claim(CLAIM).connect(&server.url()).await.unwrap();
    let lease = client.mutex("n").unwrap().acquire().await.unwrap();
    // The server still counts the subscriber, as it does for a process that was stopped.
    let mut ghost = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut ghost = ghost.as_pubsub();
    ghost.subscribe("ghost").unwrap();
    ghost.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for number in 0..count {
        assert!(matches!(enqueue(&client, &format!("dead:{number}"), "ghost").await, Acquire::Queued { .. }));
    }
    let waiter = tokio::spawn({
        let lock = client.mutex("n").unwrap();
        async move { lock.acquire().await.unwrap() }
    });
    joined(&server, count + 1).await;
    let released = Instant::now();
    lease.release().await.unwrap();
    waiter.await.unwrap().release().await.unwrap();
    println!("{count} dead waiters cost {:?}, the claim lease is {CLAIM:?}", released.elapsed());
    let mut leases = 0;
    while ghost.get_message().is_ok() {
        leases += 1;
    }
    leases
}

#[tokio::test]
async fn q1_dead_waiters_cost_one_claim_lease_however_many_they_are() {
    for count in [1, 100, 1000] {
        let leases = leases_of_dead(count).await;
        assert!(leases <= 1, "{leases} leases for {count} dead waiters");
    }
}

/// Lets a waiter give up at the moment of its grant, `turns` times; what became of it, by outcome.
async fn race(client: Client, name: String, turns: u64) -> BTreeMap<&'static str, u64> {
    let lock = client.mutex(&name).unwrap();
    let mut outcomes = BTreeMap::new();
    for turn in 0..turns {
        let held = lock.acquire().await.unwrap();
        let (before, after) = (fastrand::u32(0..8), fastrand::u32(0..8));
        let pause = async |polls: u32| {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
        };
        let release = async {
            pause(before).await;
            held.release().await.unwrap();
            pause(after).await;
        };
        let outcome = if turn % 2 == 0 {
            tokio::select! {
                biased;
                lease = lock.acquire() => {
                    lease.unwrap().release().await.unwrap();
                    "granted"
                }
                () = release => "cancelled",
            }
        } else {
            let limit = Duration::from_micros(fastrand::u64(1..400));
            let (attempt, ()) = tokio::join!(lock.acquire_within(limit), release);
            match attempt.unwrap() {
                Attempt::Granted(lease) => {
                    lease.release().await.unwrap();
                    "granted in time"
                }
                Attempt::Held(_) => "timed out",
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q2_q3_a_hundred_thousand_waiters_give_up_at_the_moment_of_their_grant() {
    const LOCKS: u64 = 8;
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let races: Vec<_> =
        (0..LOCKS).map(|number| tokio::spawn(race(client.clone(), format!("n{number}"), 100_000 / LOCKS))).collect();
    let mut outcomes = BTreeMap::new();
    for race in races {
        for (outcome, count) in race.await.unwrap() {
            *outcomes.entry(outcome).or_insert(0) += count;
        }
    }
    println!("{outcomes:?}");
    assert_eq!(outcomes.len(), 4, "both sides win now and then");
    client.settle().await;
    for number in 0..LOCKS {
        assert!(is_quiet(&server, &format!("n{number}")), "an orphan of n{number}");
    }
}

#[tokio::test]
async fn q4_a_waiter_that_lost_its_place_takes_another_one() {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().claim(CLAIM).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap();
    let held = lock.acquire().await.unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    joined(&server, 1).await;
    // As when its window was over at a hand-off.
    let mut raw = Raw::connect(&server);
    let owner = String::from_utf8(raw.place(KEY, 1).unwrap().owner).unwrap();
    raw.must::<u64>(&["HDEL", KEY, "place:1", &format!("waiter:{owner}")]);
    let other = client.mutex("n").unwrap();
    let newcomer = tokio::spawn(async move { other.acquire().await.unwrap() });
    joined(&server, 3).await;
    assert_eq!(raw.place(KEY, 1), None);
    held.release().await.unwrap();
    newcomer.await.unwrap().release().await.unwrap();
    waiter.await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn q5_short_waits_in_a_row_leave_no_places_that_live_longer() {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().claim(CLAIM).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(600)).unwrap();
    let _held = lock.acquire().await.unwrap();
    for _ in 0..30 {
        assert!(lock.acquire_within(Duration::from_millis(5)).await.unwrap().granted().is_none());
        let waiters = client.caller().inspect(KEY.as_bytes(), 100).await.unwrap().waiters;
        assert!(waiters.iter().all(|place| place.window <= CLAIM), "{waiters:?}");
    }
    client.settle().await;
    assert_eq!(client.caller().inspect(KEY.as_bytes(), 100).await.unwrap().waiters, []);
}

#[tokio::test]
async fn q6_a_lease_that_runs_out_passes_to_the_first_waiter() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let short = client.mutex("n").unwrap().ttl(Duration::from_millis(500)).unwrap().renew(false);
    let dead = short.acquire().await.unwrap();
    let (fence, _token) = (dead.fence(), dead.into_owner_token());
    let started = Instant::now();
    let lease = client.mutex("n").unwrap().acquire().await.unwrap();
    assert!(lease.fence() > fence);
    println!("granted after {:?}, the lease had 500 ms", started.elapsed());
}

#[tokio::test]
async fn q7_a_release_before_the_subscription_is_confirmed_is_not_missed() {
    let (server, proxy, client) = behind_proxy(Client::builder()).await;
    let other = Client::connect(&server.url()).await.unwrap();
    let held = other.mutex("n").unwrap().acquire().await.unwrap();
    let late = Duration::from_millis(400);
    proxy.rule(move |command| command.is("SUBSCRIBE").then_some(Fault::HoldReply(late)));
    let waiter = tokio::spawn(async move { client.mutex("n").unwrap().acquire().await.unwrap() });
    tokio::time::sleep(late / 4).await;
    assert!(!Raw::connect(&server).lock(KEY).is_queue_open(), "no place before the subscription");
    held.release().await.unwrap();
    waiter.await.unwrap().release().await.unwrap();
    super::assert_bitten(proxy.bites());
}

#[tokio::test]
async fn q8_an_owner_that_asks_twice_has_one_place() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let _held = client.mutex("n").unwrap().acquire().await.unwrap();
    for (owner, place) in [("a", 1), ("b", 2), ("a", 1), ("b", 2)] {
        let Acquire::Queued { position, .. } = enqueue(&client, owner, "").await else { panic!("{owner} waits") };
        assert_eq!(position, place);
    }
    assert_eq!(client.caller().inspect(KEY.as_bytes(), 10).await.unwrap().waiters.len(), 2);
}

#[tokio::test]
async fn q9_a_newcomer_does_not_take_a_free_lock_from_those_who_wait() {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().claim(Duration::from_secs(30)).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(600)).unwrap();
    let _held = lock.acquire().await.unwrap();
    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    joined(&server, 1).await;
    Raw::connect(&server).edit_lock(KEY, |lock| lock.deadline_ms = 1);
    assert!(lock.try_acquire().await.unwrap().granted().is_none());
    let lease = waiter.await.unwrap();
    assert_eq!(holder(&server, "n").unwrap().0, lease.owner_token());
}

#[tokio::test]
async fn q10_a_full_queue_says_so_and_takes_nobody() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let _held = client.mutex("n").unwrap().acquire().await.unwrap();
    enqueue(&client, "first", "").await;
    let mut raw = Raw::connect(&server);
    let fill = "for n = 2, 100000 do local w = 'w' .. n \
                redis.call('HSET', KEYS[1], 'place:' .. n, struct.pack('<dBBHdddd', 9999999999999, #w, 0, 0, 3000, 3000, \
                60000, 1) .. w, 'waiter:' .. w, struct.pack('<dd', n, 1)) end return 1";
    raw.must::<i64>(&["EVAL", fill, "1", KEY]);
    raw.edit_lock(KEY, |lock| lock.tail = 100_000);
    let error = client.mutex("n").unwrap().acquire().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("100000 waiters are in the queue"), "{error}");
    assert_eq!(raw.lock(KEY).tail, 100_000, "no place more");
    assert!(calls(&server) > 0);
}
