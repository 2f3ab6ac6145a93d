//! The same turns with other libraries: rslock for Rust, redis-py and python-redis-lock for Python, node-redlock.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Fixture, lines::Figures};

const WAITERS: usize = 8;
const TURNS: u64 = 400;
const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

pub async fn run(fixture: &Fixture, floor: f64) {
    println!("  {}", rslock(fixture).await.line("rslock", WAITERS, 0, floor));
    let (waiters, turns) = (WAITERS.to_string(), TURNS.to_string());
    let print = |library: &str, command: &mut Command| match figures(command) {
        Some(figures) => println!("  {}", figures.line(library, WAITERS, 0, floor)),
        None => println!("  {library}: not here"),
    };
    if succeeds(&mut Command::new(format!("{TESTS}/peers/install"))) {
        for library in ["redis-py", "python-redis-lock"] {
            let mut python = Command::new(format!("{TESTS}/.venv/bin/python"));
            let script = format!("{TESTS}/benches/peers.py");
            print(library, python.args([&script, library, &fixture.url, &waiters, &turns]));
        }
    }
    let packages = ["redlock@5.0.0-beta.2", "ioredis@5"];
    let folder = format!("{TESTS}/.node");
    if succeeds(Command::new("npm").args(["install", "--silent", "--no-save", "--prefix", &folder]).args(packages)) {
        let script = format!("{TESTS}/benches/peers.mjs");
        print("node-redlock", Command::new("node").args([&script, &folder, &fixture.url, &waiters, &turns]));
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

async fn rslock(fixture: &Fixture) -> Figures {
    let manager = rslock::LockManager::new(vec![fixture.url.as_str()]);
    let (begin, left, released) = (Instant::now(), Arc::new(AtomicU64::new(TURNS)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (manager, left, released) = (manager.clone(), Arc::clone(&left), Arc::clone(&released));
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let guard = manager.acquire("peer:rslock", Duration::from_secs(10)).await.expect("it is granted");
                    let from = Duration::from_nanos(released.load(Ordering::Relaxed));
                    times.push(begin.elapsed().saturating_sub(from).as_secs_f64() * 1e6);
                    released.store(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    guard.release().await;
                    if left.fetch_sub(1, Ordering::Relaxed) <= WAITERS as u64 {
                        return times;
                    }
                }
            })
        })
        .collect();
    let mut per_waiter = Vec::new();
    for task in tasks {
        per_waiter.push(task.await.expect("the waiter ends"));
    }
    Figures::new(&per_waiter, begin.elapsed(), Duration::ZERO, None)
}

/// Reads what a peer prints: the seconds it took, then a line of microseconds for each waiter.
fn figures(command: &mut Command) -> Option<Figures> {
    let text = String::from_utf8(command.output().ok()?.stdout).ok()?;
    let mut lines = text.lines();
    let elapsed = Duration::from_secs_f64(lines.next()?.parse().ok()?);
    let numbers = |line: &str| line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    Some(Figures::new(&lines.map(numbers).collect::<Vec<_>>(), elapsed, Duration::ZERO, None))
}
