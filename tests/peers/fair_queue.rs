//! A fair queue in which every waiter has a timeout of its own behind the one before, and a fence that is a counter:
//! the algorithm of Redisson's fair and fenced locks, written anew.

use std::time::Duration;

use redlatch::{Client, Fence, call::AcquireArgs};

use crate::support::{Raw, Server};

const DEAD: usize = 20;
const STEP_MS: u64 = 5000;

/// Drops waiters in front whose timeout is over, then grants to the first one or joins behind the last one.
/// KEYS: lock, list of waiters, their timeouts; ARGV: who, now, TTL of the lease, step. Reply: 0 when granted, else
/// the waiter's timeout.
const FAIR: &str = "
    while true do
        local first = redis.call('LINDEX', KEYS[2], 0)
        if not first or tonumber(redis.call('ZSCORE', KEYS[3], first)) > tonumber(ARGV[2]) then break end
        redis.call('LPOP', KEYS[2])
        redis.call('ZREM', KEYS[3], first)
    end
    local first = redis.call('LINDEX', KEYS[2], 0)
    if redis.call('EXISTS', KEYS[1]) == 0 and (not first or first == ARGV[1]) then
        redis.call('LREM', KEYS[2], 0, ARGV[1])
        redis.call('ZREM', KEYS[3], ARGV[1])
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
        return 0
    end
    local mine = redis.call('ZSCORE', KEYS[3], ARGV[1])
    if mine then return tonumber(mine) end
    local last = redis.call('LINDEX', KEYS[2], -1)
    local from = last and redis.call('ZSCORE', KEYS[3], last) or ARGV[2] + math.max(redis.call('PTTL', KEYS[1]), 0)
    redis.call('RPUSH', KEYS[2], ARGV[1])
    redis.call('ZADD', KEYS[3], from + ARGV[4], ARGV[1])
    return from + ARGV[4]";

/// One attempt at the time `now_ms`, which the test makes up. Returns the waiter's timeout, 0 when granted.
fn fair_acquire(raw: &mut Raw, who: &str, now_ms: u64) -> u64 {
    let (now, step) = (now_ms.to_string(), STEP_MS.to_string());
    raw.must(&["EVAL", FAIR, "3", "fair", "fair:queue", "fair:timeout", who, &now, "30000", &step])
}

#[test]
fn waiters_that_died_stall_the_fair_queue_for_one_timeout_each() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    assert_eq!(fair_acquire(&mut raw, "holder", 0), 0);
    for number in 0..DEAD {
        assert!(fair_acquire(&mut raw, &format!("dead/{number}"), 0) > 0);
    }
    assert!(fair_acquire(&mut raw, "alive", 0) > 0);
    raw.must::<()>(&["DEL", "fair"]);

    // The lock is free from here on. Ask again and again, as time goes on.
    let granted_ms = (0..).step_by(100).find(|&now_ms| fair_acquire(&mut raw, "alive", now_ms) == 0).unwrap();
    assert!(granted_ms >= DEAD as u64 * STEP_MS, "granted after {granted_ms} ms");
}

/// Puts `DEAD` waiters in front of everybody else; nobody will ever ask for them again.
async fn queue_the_dead(client: &Client, inbox: &str, inbox_here: bool) {
    for number in 0..DEAD {
        let args = AcquireArgs {
            owner: &format!("dead:{number}"),
            ttl: Duration::from_secs(10),
            queue: Duration::from_secs(3),
            claim: Duration::from_secs(3),
            not_after_us: None,
            fence_floor: None,
            retention: Duration::from_secs(3600),
            label: "dead",
            inbox,
            inbox_here,
        };
        client.caller().acquire(b"redlatch:m1:stock", &args).await.unwrap();
    }
}

async fn places(client: &Client) -> u64 {
    client.caller().inspect(b"redlatch:m1:stock", 0).await.unwrap().places
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_whose_connection_is_gone_cost_ours_nothing() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let lock = client.mutex("stock").unwrap();
    let held = lock.acquire().await.unwrap();
    queue_the_dead(&client, "redlatch:inbox:dead", true).await;
    let waiter = tokio::spawn(async move { lock.acquire().await });
    while places(&client).await <= DEAD as u64 {
        tokio::task::yield_now().await;
    }
    // The release itself steps over the dead: it is this very grant that the waiter gets.
    held.release().await.unwrap();
    let now = client.caller().inspect(b"redlatch:m1:stock", 100).await.unwrap();
    assert!(now.held && now.label != b"dead", "{now:?}");
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test]
async fn waiters_that_only_poll_cost_ours_one_window_together() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let _held = client.mutex("stock").unwrap().acquire().await.unwrap();
    queue_the_dead(&client, "", false).await;
    let waiters = client.caller().inspect(b"redlatch:m1:stock", 100).await.unwrap().waiters;
    assert_eq!(waiters.len(), DEAD);
    let longest = waiters.iter().map(|place| place.window).max().unwrap();
    assert!(longest <= Duration::from_secs(3), "all windows are over after {longest:?}");
}

#[tokio::test]
async fn a_counter_starts_again_at_one_after_data_loss_and_our_fence_goes_on_rising() {
    let server = Server::start(&[]).unwrap();
    let (client, mut raw) = (Client::connect(&server.url()).await.unwrap(), Raw::connect(&server));
    let before: u64 = (0..5).map(|_| raw.must(&["INCR", "fence:stock"])).max().unwrap();
    raw.must::<()>(&["FLUSHALL"]);
    let after: u64 = raw.must(&["INCR", "fence:stock"]);
    assert!(after < before, "a resource that has seen {before} refuses the new holder with {after}");

    let lock = client.mutex("stock").unwrap();
    let mut last: Option<Fence> = None;
    for _ in 0..5 {
        let lease = lock.acquire().await.unwrap();
        raw.must::<()>(&["FLUSHALL"]);
        assert!(Some(lease.fence()) > last);
        last = Some(lease.fence());
        drop(lease);
    }
}

#[tokio::test]
async fn a_counter_stays_for_ever_and_our_fence_for_its_retention() {
    let server = Server::start(&[]).unwrap();
    let (client, mut raw) = (Client::connect(&server.url()).await.unwrap(), Raw::connect(&server));
    raw.must::<()>(&["INCR", "fence:stock"]);
    assert_eq!(raw.must::<i64>(&["PTTL", "fence:stock"]), -1);

    client.mutex("stock").unwrap().acquire().await.unwrap().release().await.unwrap();
    let keys: Vec<String> = raw.must(&["KEYS", "redlatch:*"]);
    assert_eq!(keys, ["redlatch:m1:stock"]);
    assert!((1..=4_060_000).contains(&raw.must::<i64>(&["PTTL", &keys[0]])));
}
