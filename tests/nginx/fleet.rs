//! Two instances of two workers under load, while workers are killed and configurations reloaded.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{ask, driver, inspect, number, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Server, say, setting, signal};

/// Short where its end is waited for; long where nobody dies, so that a busy machine does not miss it.
const KILLED_TTL: f64 = 0.5;
const RELOADED_TTL: f64 = 10.0;

#[derive(Default)]
struct Seen {
    leases: u32,
    violations: Vec<String>,
    /// For how long the lock was not held after the lease of a dead holder, in seconds.
    late: Vec<f64>,
    cut: u32,
    refused: Vec<String>,
}

/// Enters the room until `over`.
fn visit(nginx: &Nginx, ttl: f64, over: &AtomicBool, seen: &Mutex<Seen>) {
    let path = Nginx::path("guarded", &[("name", "n"), ("wait", "20"), ("ttl", &ttl.to_string())]);
    while !over.load(Ordering::Relaxed) {
        let (status, body) = nginx.get(&path);
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let mut seen = seen.lock().unwrap();
        if status != 200 {
            seen.cut += 1;
            drop(seen);
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        seen.leases += 1;
        if let Some(violation) = answer["violation"].as_str() {
            seen.violations.push(violation.to_owned());
        }
        if let Some(late) = answer["late"].as_f64() {
            seen.late.push(late);
        }
        if answer["released"] != true {
            seen.refused.push(body);
        }
    }
}

/// Runs `trouble` that often on one of the two instances under load.
fn under_load(times: u32, ttl: f64, trouble: impl Fn(&Nginx, u32)) -> (Server, [Nginx; 2], Seen) {
    let redis = Server::start(&[]).unwrap();
    let nodes = [Config::redis(&redis).start(), Config::redis(&redis).start()];
    let (over, seen) = (AtomicBool::new(false), Mutex::new(Seen::default()));
    thread::scope(|scope| {
        for i in 0..8 {
            let (node, over, seen) = (&nodes[i % 2], &over, &seen);
            scope.spawn(move || visit(node, ttl, over, seen));
        }
        for i in 0..times {
            let leases = seen.lock().unwrap().leases;
            trouble(&nodes[i as usize % 2], i);
            until("the lock goes on", || seen.lock().unwrap().leases > leases + 8);
        }
        over.store(true, Ordering::Relaxed);
    });
    (redis, nodes, seen.into_inner().unwrap())
}

/// What must be so when everything has come to rest.
fn at_rest(redis: &Server, nodes: &[Nginx; 2]) {
    until("nobody holds or waits", || {
        // Places of the dead go with the calls of the living.
        assert_eq!(nodes[0].call("hold", &[("name", "n"), ("wait", "20")])["released"], true);
        let state = inspect(&nodes[0], "n");
        state[0] == 2 && state[6] == 0
    });
    for node in nodes {
        until("both workers serve", || node.workers().len() == 2);
        for _ in 0..20 {
            assert_eq!(node.call("hold", &[("name", "m"), ("wait", "20")])["released"], true);
        }
    }
    // One for each worker; and this test's.
    until("no connection is left over", || ask::<String>(redis, &["CLIENT", "LIST"]).lines().count() <= 5);
}

fn check(seen: &mut Seen, what: &str) {
    seen.late.sort_by(f64::total_cmp);
    let p99 = seen.late.get(seen.late.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0.0);
    say(&format!(
        "{what}: {} leases, {} requests cut, {} leases of dead holders, {:.0} ms p99 from their end to the next",
        seen.leases,
        seen.cut,
        seen.late.len(),
        p99 * 1000.0
    ));
    assert_eq!(seen.violations, Vec::<String>::new());
    assert!(p99 < KILLED_TTL + 1.0, "{:?}", seen.late);
}

#[test]
fn a_hundred_killed_workers_make_no_second_holder_and_free_the_lock_in_time() {
    let (redis, nodes, mut seen) = under_load(100, KILLED_TTL, |node, i| {
        until("both workers are there", || node.workers().len() == 2);
        signal(node.workers()[i as usize / 2 % 2], "KILL");
    });
    check(&mut seen, "100 kills");
    assert!(seen.cut > 0 && !seen.late.is_empty(), "the kills hit");
    at_rest(&redis, &nodes);
}

#[test]
fn a_hundred_reloads_lose_no_lease() {
    let (redis, nodes, mut seen) = under_load(100, RELOADED_TTL, |node, _| node.reload());
    check(&mut seen, "100 reloads");
    // A connection that the old worker has accepted but not read is cut by nginx itself: that request never ran.
    assert_eq!(seen.refused, Vec::<String>::new());
    at_rest(&redis, &nodes);
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const LOAD: &str = r#"location = /load {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        for i = 1, tonumber(ngx.var.arg_count) do
            local lease = assert(lock:acquire("n" .. ngx.var.arg_id .. "/" .. i % 50, { wait = i % 2 }))
            assert(lease:release())
        end
        ngx.say(ngx.timer.pending_count(), " ", ngx.timer.running_count())
    }
}"#;

#[test]
fn memory_connections_and_timers_stay_flat() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).locations(LOAD).start();
    let rounds = setting("REDLATCH_NGINX_LOAD", 10);
    until("the worker is there", || nginx.workers().len() == 1);
    let worker = nginx.workers()[0];
    let round = || {
        thread::scope(|scope| {
            for id in 0..10 {
                let nginx = &nginx;
                scope.spawn(move || {
                    let (status, answer) = nginx.get(&format!("/load?id={id}&count=1000"));
                    assert_eq!((status, answer.as_str()), (200, "1 1\n"), "{}", nginx.error_log());
                });
            }
        });
    };
    (0..3).for_each(|_| round());
    let before = resident(worker);
    (0..rounds).for_each(|_| round());
    let after = resident(worker);
    let leases = rounds * 10_000;
    say(&format!("{leases} leases: memory from {before} to {after} KiB"));
    assert!(after < before + 4096, "from {before} to {after} KiB in {leases} leases");
    assert_eq!(number(&driver(&nginx)["counts"], "connections"), 1.0);
}
