//! How fast a lock passes from one holder to the next, beside the floor in the same run: one script call that publishes,
//! until the subscriber has the message. Everything runs once on all processors and once pinned to one.
//!
//! `make bench` prints the tables; `REDLATCH_BENCH_TURNS` sets the turns per line (20000).

mod lines;
mod peers;

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lines::{Figures, percentile};
use redis::{AsyncConnectionConfig, PushInfo, PushKind, aio::MultiplexedConnection};
use redlatch::{Client, private_server::PrivateServer};
use tokio::sync::mpsc;

const PUBLISH: &str = "return redis.call('PUBLISH', KEYS[1], ARGV[1])";
/// Tells the process that it was started on one processor.
const PINNED: &str = "REDLATCH_BENCH_PINNED";

/// A server on TCP, as between an application and a Redis on the same machine.
struct Fixture {
    _server: PrivateServer,
    url: String,
}

impl Fixture {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.expect("a port is free").port().to_string();
        let server = PrivateServer::start(&["--bind", "127.0.0.1", "--port", &port]).expect("redis-server starts");
        Self { _server: server, url: format!("redis://127.0.0.1:{port}") }
    }

    async fn raw(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url.as_str()).expect("the URL is valid");
        client.get_multiplexed_async_connection().await.expect("the server accepts")
    }

    /// Calls and microseconds of EVALSHA on the server so far.
    async fn scripts(&self) -> (u64, u64) {
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut self.raw().await).await.expect("INFO");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or_default();
        let field = |name: &str| {
            let value = line.split(',').find_map(|field| field.strip_prefix(name));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        (field("calls="), field("usec="))
    }
}

/// Time from a script call to its message at the subscriber, in microseconds.
async fn floor(fixture: &Fixture, turns: usize) -> Vec<f64> {
    let (sender, mut messages) = mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
        if push.kind == PushKind::Message {
            let _ = sender.send(Instant::now());
        }
        Ok::<(), std::convert::Infallible>(())
    });
    let client = redis::Client::open(format!("{}?protocol=resp3", fixture.url)).expect("the URL is valid");
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.expect("it connects");
    connection.subscribe("floor").await.expect("it subscribes");
    let digest: String =
        redis::cmd("SCRIPT").arg("LOAD").arg(PUBLISH).query_async(&mut connection).await.expect("the script loads");
    let mut times = Vec::with_capacity(turns);
    for turn in 0..turns {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&digest).arg(1).arg("floor").arg(turn);
        let started = Instant::now();
        let (reached, message) = tokio::join!(call.query_async::<u64>(&mut connection), messages.recv());
        assert_eq!(reached.expect("it publishes"), 1);
        times.push((message.expect("the message") - started).as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times
}

/// `waiters` tasks of one client take turns of `hold`.
async fn turns(fixture: &Fixture, waiters: usize, hold: Duration, turns: u64) -> Figures {
    let client = Client::connect(&fixture.url).await.expect("the client connects");
    let (begin, left) = (Instant::now(), Arc::new(AtomicU64::new(turns)));
    let (released, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let before = fixture.scripts().await.0;
    let tasks: Vec<_> = (0..waiters)
        .map(|_| {
            let lock = client.mutex("turns").expect("the name is good");
            let (left, released, held) = (Arc::clone(&left), Arc::clone(&released), Arc::clone(&held));
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let lease = lock.acquire().await.expect("the lease is granted");
                    let granted = begin.elapsed();
                    let from = Duration::from_nanos(released.load(Ordering::Relaxed));
                    times.push((granted.saturating_sub(from)).as_secs_f64() * 1e6);
                    if !hold.is_zero() {
                        tokio::time::sleep(hold).await;
                    }
                    let over = begin.elapsed();
                    // A timer of 1 ms takes up to 2 ms.
                    held.fetch_add((over - granted).as_nanos() as u64, Ordering::Relaxed);
                    released.store(over.as_nanos() as u64, Ordering::Relaxed);
                    lease.release().await.expect("it is given back");
                    if left.fetch_sub(1, Ordering::Relaxed) <= waiters as u64 {
                        return times;
                    }
                }
            })
        })
        .collect();
    let started = Instant::now();
    let mut per_waiter = Vec::new();
    for task in tasks {
        per_waiter.push(task.await.expect("the waiter ends"));
    }
    let elapsed = started.elapsed();
    let calls = fixture.scripts().await.0 - before;
    let held = Duration::from_nanos(held.load(Ordering::Relaxed));
    Figures::new(&per_waiter, elapsed, held, Some(calls))
}

/// Time that a waiter waits beyond the TTL of a holder that died, in milliseconds.
async fn dead_holder(fixture: &Fixture, rounds: usize) -> Vec<f64> {
    let ttl = Duration::from_millis(300);
    let client = Client::connect(&fixture.url).await.expect("the client connects");
    let mut late = Vec::new();
    for round in 0..rounds {
        let name = format!("dead/{round}");
        let dead = client.mutex(&name).and_then(|lock| lock.ttl(ttl)).expect("the TTL is good").renew(false);
        let lease = dead.acquire().await.expect("the lease is granted");
        let died = Instant::now();
        drop(lease.into_owner_token());
        let lease = client.mutex(&name).expect("the name is good").acquire().await.expect("the lease is granted");
        late.push(died.elapsed().saturating_sub(ttl).as_secs_f64() * 1e3);
        lease.release().await.expect("it is given back");
    }
    late.sort_by(f64::total_cmp);
    late
}

/// Places of waiters that died, with the inbox of a subscriber that is still connected.
async fn queue_of(fixture: &Fixture, key: &[u8], count: usize, window: Duration) {
    let claim = Duration::from_secs(1);
    let mut raw = fixture.raw().await;
    let script =
        redlatch::bundle::embedded().expect("the bundle is good").get("mutex/acquire").expect("it has acquire");
    for first in (0..count).step_by(1000) {
        let mut pipe = redis::pipe();
        for number in first..(first + 1000).min(count) {
            let call = pipe.cmd("EVALSHA").arg(script.digest().as_str()).arg(1).arg(key).arg(format!("dead:{number}"));
            call.arg(10_000).arg(0).arg(0).arg(60_000).arg("dead");
            call.arg(window.as_millis() as u64).arg(claim.as_millis() as u64).arg("ghost").arg(1).ignore();
        }
        pipe.query_async::<()>(&mut raw).await.expect("they queue");
    }
}

/// How long a live waiter behind 1000 dead ones waits, in claim leases.
async fn thousand_dead(fixture: &Fixture) -> f64 {
    let client = Client::builder().claim(Duration::from_secs(1)).connect(&fixture.url).await.expect("it connects");
    let ghosts = redis::Client::open(format!("{}?protocol=resp3", fixture.url)).expect("the URL is valid");
    let config = AsyncConnectionConfig::new().set_push_sender(|_| Ok::<(), std::convert::Infallible>(()));
    let mut ghost = ghosts.get_multiplexed_async_connection_with_config(&config).await.expect("it connects");
    ghost.subscribe("ghost").await.expect("it subscribes");
    let lock = client.mutex("graves").expect("the name is good");
    let lease = lock.acquire().await.expect("the lease is granted");
    queue_of(fixture, b"redlatch:m1:graves", 1000, Duration::from_secs(1)).await;
    let waiter = tokio::spawn(async move { lock.acquire().await.expect("the lease is granted") });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let released = Instant::now();
    lease.release().await.expect("it is given back");
    waiter.await.expect("the waiter ends").release().await.expect("it is given back");
    released.elapsed().as_secs_f64()
}

/// Server time of one acquire of a lock with 10000 waiters, in microseconds: without waiting, and as a heartbeat.
async fn long_queue(fixture: &Fixture) -> (f64, f64) {
    let client = Client::connect(&fixture.url).await.expect("it connects");
    let lock = client.mutex("crowd").and_then(|lock| lock.ttl(Duration::from_secs(600))).expect("the TTL is good");
    let _lease = lock.acquire().await.expect("the lease is granted");
    queue_of(fixture, b"redlatch:m1:crowd", 10_000, Duration::from_secs(60)).await;
    let cost = async |before: (u64, u64)| {
        let after = fixture.scripts().await;
        (after.1 - before.1) as f64 / (after.0 - before.0) as f64
    };
    let before = fixture.scripts().await;
    for _ in 0..5000 {
        assert!(lock.try_acquire().await.expect("an answer").granted().is_none());
    }
    let without = cost(before).await;
    let before = fixture.scripts().await;
    queue_of(fixture, b"redlatch:m1:crowd", 10_000, Duration::from_secs(60)).await;
    (without, cost(before).await)
}

/// What renewing 5000 leases once costs the server, in milliseconds, and in how many reads it gets them.
async fn renewals(fixture: &Fixture) -> (u64, f64, u64) {
    let client = Client::builder().ttl(Duration::from_secs(12)).connect(&fixture.url).await.expect("it connects");
    let mut leases = Vec::new();
    for number in 0..5000 {
        let lock = client.mutex(format!("many/{number}")).expect("the name is good");
        leases.push(lock.try_acquire().await.expect("an answer").granted().expect("it is free"));
    }
    let reads = async || {
        let stats: String = redis::cmd("INFO").arg("stats").query_async(&mut fixture.raw().await).await.expect("INFO");
        let reads = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        reads.and_then(|reads| reads.parse::<u64>().ok()).unwrap_or(0)
    };
    let (before, reads_before) = (fixture.scripts().await, reads().await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = fixture.scripts().await;
    (after.0 - before.0, (after.1 - before.1) as f64 / 1e3, reads().await - reads_before)
}

async fn run(fixture: &Fixture, count: usize, is_pinned: bool) {
    let base = floor(fixture, count).await;
    let median = percentile(&base, 0.5);
    println!(
        "  floor: {median:.1} us median, {:.1} us p99; 1 / floor = {:.0} per second",
        percentile(&base, 0.99),
        1e6 / median
    );
    println!("  {}", Figures::HEADER);
    for hold_ms in [0, 1] {
        for waiters in [8, 64] {
            let count = if hold_ms == 0 { count as u64 } else { count as u64 / 10 };
            let figures = turns(fixture, waiters, Duration::from_millis(hold_ms), count).await;
            println!("  {}", figures.line("redlatch", waiters, hold_ms, median));
        }
    }
    let again = percentile(&floor(fixture, count).await, 0.5);
    println!("  floor afterwards: {again:.1} us median");
    if is_pinned {
        return;
    }
    let late = dead_holder(fixture, 100).await;
    println!(
        "\ndead holder: {:.1} ms beyond its TTL in the median, {:.1} ms p99",
        percentile(&late, 0.5),
        percentile(&late, 0.99)
    );
    println!("1000 dead waiters in front: {:.2} claim leases", thousand_dead(fixture).await);
    let (without, heartbeat) = long_queue(fixture).await;
    println!(
        "server time of an acquire with 10000 waiters queued: {without:.1} us to try, {heartbeat:.1} us to queue again"
    );
    let (calls, ms, reads) = renewals(fixture).await;
    println!("5000 leases: {calls} renewals in {reads} reads of the server, {ms:.1} ms of its time\n");
    println!("peers, 8 waiters, hold 0");
    println!("  {}", Figures::HEADER);
    peers::run(fixture, median).await;
}

fn main() {
    let count = std::env::var("REDLATCH_BENCH_TURNS").map_or(20_000, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let is_pinned = std::env::var(PINNED).is_ok();
    println!(
        "hand-off from a release to the next holder, {}",
        if is_pinned { "pinned to one processor" } else { "unpinned" }
    );
    runtime.block_on(run(&Fixture::start(), count, is_pinned));
    if !is_pinned {
        let this = std::env::current_exe().expect("this program has a path");
        let pinned = Command::new("taskset").args(["-c", "0"]).arg(this).env(PINNED, "1").status();
        if !pinned.is_ok_and(|status| status.success()) {
            println!("no pinned run: taskset (package util-linux) is missing or failed");
        }
    }
}
