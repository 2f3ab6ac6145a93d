//! The same turns with other libraries: rslock for Rust, redis-py and python-redis-lock for Python.

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
    let figures = rslock(fixture).await;
    println!("  {}", figures.line("rslock", WAITERS, 0, floor));
    let installed = Command::new(format!("{TESTS}/peers/install")).status();
    if !installed.is_ok_and(|status| status.success()) {
        println!("  no Python peers: tests/peers/install failed");
        return;
    }
    for library in ["redis-py", "python-redis-lock"] {
        match python(fixture, library) {
            Some(figures) => println!("  {}", figures.line(library, WAITERS, 0, floor)),
            None => println!("  {library}: failed"),
        }
    }
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

fn python(fixture: &Fixture, library: &str) -> Option<Figures> {
    let output = Command::new(format!("{TESTS}/.venv/bin/python"))
        .args([&format!("{TESTS}/benches/peers.py"), library, &fixture.url, &WAITERS.to_string(), &TURNS.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut lines = text.lines();
    let elapsed = Duration::from_secs_f64(lines.next()?.parse().ok()?);
    let numbers = |line: &str| line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    Some(Figures::new(&lines.map(numbers).collect::<Vec<_>>(), elapsed, Duration::ZERO, None))
}
