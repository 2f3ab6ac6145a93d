//! Processes that use three locks while they are killed at random; a checker outside of them decides whether the locks
//! kept their promises.
//!
//! The records are independent of the clients: the append-only file of the server with the locks, which has every grant
//! in order, and a second server that plays the protected resource and notes every write that its fence check accepts.
//! What the clients believed, from when to when, comes from their own logs.
//!
//! `REDLATCH_TORTURE_ACQUISITIONS` sets the number of acquisitions (100000 by default), `REDLATCH_TORTURE_SEED` the
//! seed of all choices. The seed does not fix the order in which the processes run.

mod checker;
mod faults;
mod fleet;
mod histories;
mod history;
mod worker;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use checker::check;
use faults::Faults;
use fleet::Fleet;
use history::{Event, History, Section, Write};
use redlatch::{Client, bundle};

use crate::{
    conformance::{Sources, shipped},
    mutants::worst_faults,
    support::{Proxy, Raw, Server, lock::LockState, say, setting},
};

const NAMES: [&str; 3] = ["torture/a", "torture/b", "torture/c"];
const CLAIM: Duration = Duration::from_millis(300);
/// Longer than any lease, claim or window.
const QUIET: Duration = Duration::from_millis(1500);
const STUCK: Duration = Duration::from_secs(30);
/// Faults that this fleet cannot show: its clients send no extend after their own deadline and never ask for a shorter
/// lease, and the records do not tell who granted to a waiter that came too late.
const UNSEEN: [&str; 4] = [
    "extend without comparing the owner",
    "extend shortens the lease",
    "extend of a lease that ran out",
    "waiters that died are granted",
];

/// A worker of the torture test when it is started as one; as a test of its own it has nothing to do.
#[test]
fn worker_process() {
    if let Ok(orders) = std::env::var(worker::VARIABLE) {
        worker::run(&serde_json::from_str(&orders).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_breaks_while_holders_and_waiters_are_killed() {
    let goal = setting("REDLATCH_TORTURE_ACQUISITIONS", 100_000);
    let seed = setting("REDLATCH_TORTURE_SEED", fastrand::u64(..));
    say(&format!("torture: {goal} acquisitions, seed {seed}"));
    let violations = torture(goal, seed, None).await;
    assert!(
        violations.is_empty(),
        "seed {seed}: {} violations: {:#?}",
        violations.len(),
        &violations[..violations.len().min(20)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_bundle_breaks_promises() {
    let mut survivors = Vec::new();
    for mutant in worst_faults() {
        if UNSEEN.contains(&mutant.name.as_str()) {
            continue;
        }
        let sources = mutant.apply(&shipped());
        let mut first = None;
        for _ in 0..6 {
            let sources = sources.clone();
            // A run that fails before its end has noticed something as well.
            let run = tokio::spawn(async move { torture(1500, fastrand::u64(..), Some(&sources)).await });
            let violations = run.await.unwrap_or_else(|failure| vec![failure.to_string()]);
            first = violations.into_iter().next();
            if first.is_some() {
                break;
            }
        }
        match first {
            Some(first) => say(&format!("{}\n  caught by {first:.200}", mutant.name)),
            None => survivors.push(mutant.name),
        }
    }
    assert_eq!(survivors, [""; 0]);
}

/// Runs scripts of `broken` wherever a Rust process asks for a shipped one.
fn swap(proxy: &Proxy, raw: &mut Raw, broken: &Sources) {
    for script in bundle::embedded().unwrap().scripts() {
        let sha: String = raw.must(&["SCRIPT", "LOAD", &broken[script.name()]]);
        proxy.swap(&script.digest().to_string(), &sha);
    }
}

/// What breaks in `goal` acquisitions.
async fn torture(goal: u64, seed: u64, broken: Option<&Sources>) -> Vec<String> {
    let mut choices = fastrand::Rng::with_seed(seed);
    let options = ["--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0"];
    let (locks, resource) = (Server::start(&options).unwrap(), Server::start(&[]).unwrap());
    let logs = resource.socket().with_file_name("logs");
    std::fs::create_dir(&logs).unwrap();
    // Who only looks is patient: a server may wait for its turn on a busy machine.
    let client = Client::builder().timeout(Duration::from_secs(60)).connect(&locks.url()).await.unwrap();
    let mut ledger = Raw::connect(&resource);
    let proxy = broken.map(|broken| {
        let proxy = Proxy::start(&locks);
        let mut raw = Raw::connect(&locks);
        swap(&proxy, &mut raw, broken);
        // As if the server's clock had stepped back by an hour: then only scripts raise the fence.
        let (seconds, micros): (i64, i64) = raw.must(&["TIME"]);
        for name in NAMES {
            let lock = LockState { fence: (seconds + 3600) * 1_000_000 + micros, ..LockState::default() };
            raw.run(&[b"HSET", format!("redlatch:m1:{name}").as_bytes(), b"state", &lock.to_bytes()]).unwrap();
        }
        proxy
    });
    let url = proxy.as_ref().map_or_else(|| locks.url(), Proxy::url);

    let started = Instant::now();
    let mut fleet = Fleet::start(&locks, &url, &resource, logs, &mut choices);
    let mut faults = Faults::default();
    let mut progress = NAMES.map(|name| (name, 0, Instant::now()));
    loop {
        tokio::time::sleep(Duration::from_millis(choices.u64(150..900))).await;
        faults.strike(&client, &mut fleet, &mut choices).await;
        fleet.check_running();
        for (name, value, changed) in &mut progress {
            let now = field(&mut ledger, name, "value");
            if now > *value {
                (*value, *changed) = (now, Instant::now());
            }
            if changed.elapsed() > if broken.is_some() { STUCK / 3 } else { STUCK } {
                return vec![format!("nobody was granted {name} for {STUCK:?}")];
            }
        }
        let (rust, nginx) = (accepted(&mut ledger, "rust"), accepted(&mut ledger, "nginx"));
        let enough = broken.is_some() || (nginx * 10 >= goal && faults.have_bitten());
        if rust + nginx >= goal && enough {
            break;
        }
        // Both are to have their share, however fast they are; a broken bundle reaches Rust only.
        fleet.pause_requests(nginx * if broken.is_some() { 9 } else { 1 } > rust + 100);
    }
    ledger.must::<()>(&["SET", "over", "1"]);
    let mut remarks = fleet.finish(Duration::from_secs(60));
    let elapsed = started.elapsed();
    remarks.extend(left_behind(&client, &mut Raw::connect(&locks)).await);

    let lines = fleet.lines();
    let history = gather(&locks, &mut ledger, &lines, &faults, remarks);
    if broken.is_none() {
        report(&history, &faults, &mut ledger, elapsed, seed);
        assert!(faults.have_bitten(), "{faults:?}");
    }
    check(&history).iter().map(|violation| format!("{violation:?}")).collect()
}

#[tokio::test]
async fn what_is_left_behind_is_noticed() {
    let server = Server::start(&[]).unwrap();
    let (client, mut raw) = (Client::connect(&server.url()).await.unwrap(), Raw::connect(&server));
    assert_eq!(left_behind(&client, &mut raw).await, [""; 0]);

    let other = Client::connect(&server.url()).await.unwrap();
    raw.must::<()>(&["HSET", "redlatch:m1:torture/a", "waiter:gone", "9 9"]);
    let _held = other.mutex("torture/b").unwrap().acquire().await.unwrap();
    raw.must::<()>(&["SET", "redlatch:m1:torture/c:queue", "1"]);
    let remarks = left_behind(&client, &mut raw).await;
    assert_eq!(remarks[0], "left behind in redlatch:m1:torture/a: waiter:gone");
    assert_eq!(remarks[1], "torture/b is not free");
    assert_eq!(remarks[2], "left behind: redlatch:m1:torture/c:queue");
    assert!(remarks[3].starts_with("still subscribed: redlatch:inbox:"), "{remarks:?}");
}

/// What is wrong once everybody is gone and every lease and window is over.
async fn left_behind(client: &Client, raw: &mut Raw) -> Vec<String> {
    tokio::time::sleep(QUIET).await;
    let mut remarks = Vec::new();
    for name in NAMES {
        match client.mutex(name).unwrap().try_acquire().await.unwrap().granted() {
            Some(lease) => lease.release().await.unwrap(),
            None => remarks.push(format!("{name} is not free")),
        }
        let key = format!("redlatch:m1:{name}");
        let left_ms: i64 = raw.must(&["PTTL", &key]);
        // One hour of retention behind a lease of ten seconds, and up to an eighth more, which spares commands.
        if !(1..=4_060_000).contains(&left_ms) {
            remarks.push(format!("{key} stays for {left_ms} ms"));
        }
        let fields: Vec<String> = raw.must(&["HKEYS", &key]);
        let queue = fields.iter().filter(|field| field.starts_with("place:") || field.starts_with("waiter:"));
        if raw.lock(&key).is_queue_open() {
            remarks.push(format!("left behind in {key}: a queue"));
        }
        remarks.extend(queue.map(|field| format!("left behind in {key}: {field}")));
    }
    let keys: Vec<String> = raw.must(&["KEYS", "*"]);
    let foreign = keys.iter().filter(|key| !NAMES.iter().any(|name| **key == format!("redlatch:m1:{name}")));
    remarks.extend(foreign.map(|key| format!("left behind: {key}")));
    let channels: Vec<String> = raw.must(&["PUBSUB", "CHANNELS"]);
    remarks.extend(channels.iter().map(|channel| format!("still subscribed: {channel}")));
    remarks
}

fn gather(locks: &Server, ledger: &mut Raw, lines: &[String], faults: &Faults, mut remarks: Vec<String>) -> History {
    let mut sections = Vec::new();
    for line in lines {
        match (Section::parse(line), line.as_str()) {
            (Some(section), _) => sections.push(section),
            (None, "held" | "lost" | "killed") => {}
            (None, _) => remarks.push(line.clone()),
        }
    }
    let (mut writes, mut counters) = (BTreeMap::new(), BTreeMap::new());
    for name in NAMES {
        let entries: Vec<String> = ledger.must(&["LRANGE", &format!("writes:{name}"), "0", "-1"]);
        writes.insert(name.to_owned(), entries.iter().filter_map(|entry| Write::parse(entry)).collect());
        counters.insert(name.to_owned(), ledger.must(&["HGET", &format!("counter:{name}"), "value"]));
    }
    let folder = locks.socket().parent().unwrap().to_owned();
    let events = history::read_append_only_file(&folder, "redlatch:m1:");
    History { events, writes, counters, sections, deaths: faults.deaths.clone(), remarks }
}

fn report(history: &History, faults: &Faults, ledger: &mut Raw, elapsed: Duration, seed: u64) {
    let (mut grants, mut queued) = (0, 0);
    for events in history.events.values() {
        let mut waiters = std::collections::HashSet::new();
        for event in events {
            match event {
                Event::Queued { owner, .. } => drop(waiters.insert(owner)),
                Event::Granted { owner, .. } => {
                    grants += 1;
                    queued += u32::from(waiters.contains(owner));
                }
                _ => {}
            }
        }
    }
    let count = |verdict: &str| history.sections.iter().filter(|section| section.verdict == verdict).count();
    let stale: u64 =
        NAMES.iter().map(|name| field(ledger, name, "stale_writes") + field(ledger, name, "stale_reads")).sum();
    say(&format!(
        "torture: seed {seed}, {:.1} s: {} writes from Rust, {} from nginx; {grants} leases, {queued} of them to \
         waiters; {} sections kept, {} ended late, {stale} stale accesses refused; killed {} holders and {} waiters, \
         stopped {} holders and {} waiters beyond their lease; {} of the killed \
         were nginx workers",
        elapsed.as_secs_f64(),
        accepted(ledger, "rust"),
        accepted(ledger, "nginx"),
        count("kept"),
        count("late"),
        faults.holders_killed,
        faults.waiters_killed,
        faults.holders_stopped,
        faults.waiters_stopped,
        faults.nginx_killed,
    ));
}

fn accepted(ledger: &mut Raw, kind: &str) -> u64 {
    NAMES.iter().map(|name| field(ledger, name, &format!("accepted:{kind}"))).sum()
}

fn field(ledger: &mut Raw, name: &str, field: &str) -> u64 {
    ledger.must::<Option<u64>>(&["HGET", &format!("counter:{name}"), field]).unwrap_or(0)
}
