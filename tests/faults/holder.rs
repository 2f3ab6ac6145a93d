//! Holders that die, sleep and come back, and what a program does with its own waiters.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redlatch::{Client, ErrorKind};

use super::{assert_bitten, calls, holder, is_quiet};
use crate::support::{Raw, Server, signal};

const TTL: Duration = Duration::from_millis(1500);

/// A process of its own that holds `n` and renews it; killed with its command when dropped.
struct Holder(Child);

impl Holder {
    fn start(server: &Server) -> Self {
        let ttl = format!("{}ms", TTL.as_millis());
        let child = Command::new(env!("CARGO_BIN_EXE_redlatch"))
            .args(["run", "n", "--ttl", &ttl, "--url", &server.url(), "--", "sleep", "600"])
            .process_group(0)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while holder(server, "n").is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_the_lock_of_a_killed_holder_passes_on_when_its_ttl_is_over() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let dead = Holder::start(&server);
    let (_, fence) = holder(&server, "n").unwrap();
    let waiter = tokio::spawn(async move { client.mutex("n").unwrap().acquire().await.unwrap() });
    signal(dead.0.id(), "KILL");
    let killed = Instant::now();
    let lease = waiter.await.unwrap();
    println!("granted {:?} after the kill, the TTL is {TTL:?}", killed.elapsed());
    assert!(lease.fence().get() > fence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_a_holder_that_slept_past_its_ttl_does_not_touch_the_next_lease() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let mut sleeper = Holder::start(&server);
    signal(sleeper.0.id(), "STOP");
    let lease = client.mutex("n").unwrap().acquire().await.unwrap();
    let next = holder(&server, "n").unwrap();
    signal(sleeper.0.id(), "CONT");
    let status = tokio::task::spawn_blocking(move || sleeper.0.wait().unwrap()).await.unwrap();
    assert!(!status.success(), "the command was stopped, as its lease is lost");
    assert_eq!(holder(&server, "n"), Some(next));
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_a_holder_that_sleeps_for_less_than_its_ttl_keeps_the_lease() {
    let server = Server::start(&[]).unwrap();
    let sleeper = Holder::start(&server);
    let before = holder(&server, "n").unwrap();
    signal(sleeper.0.id(), "STOP");
    tokio::time::sleep(TTL / 6).await;
    signal(sleeper.0.id(), "CONT");
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(holder(&server, "n"), Some(before));
}

/// Every file under `folder`.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path.to_string_lossy().into_owned());
        }
    }
}

#[test]
fn c5_c6_leases_are_measured_by_the_boot_time_clock_and_by_no_other() {
    let mut files = vec!["src/clock.rs".to_owned()];
    ["src/protocol", "src/client", "src/call", "lua/lib"]
        .iter()
        .for_each(|folder| sources(Path::new(folder), &mut files));
    assert!(files.len() > 20, "{files:?}");
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let is_code = |line: &&str| !["--", "//"].iter().any(|mark| line.trim_start().starts_with(mark));
        let text: String = text.lines().filter(is_code).collect();
        // Here it only tells whether the worker has come to handle anything else since: it is no time of anything.
        let text = text.replace("local cached, now = ngx.now(), clock()", "");
        for clock in ["SystemTime", "std::time::Instant", "ngx.now", "ngx.time(", "os.time(", "ngx.update_time"] {
            assert!(!text.contains(clock), "{file} uses {clock}, which steps or stands still in a suspended machine");
        }
    }
    let clock = std::fs::read_to_string("src/clock.rs").unwrap();
    assert!(clock.contains("Boottime"), "it goes on while the machine is suspended");
}

/// A program that ends without the runtime that would give leases back.
#[test]
fn c8_what_a_stopped_runtime_held_ends_by_its_ttl() {
    let server = Server::start(&[]).unwrap();
    let start = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (start(), start());
    let lease = first.block_on(async {
        let client = Client::connect(&server.url()).await.unwrap();
        let lock = client.mutex("n").unwrap().ttl(Duration::from_millis(700)).unwrap();
        lock.acquire().await.unwrap()
    });
    drop(first);
    drop(lease);
    second.block_on(async {
        let client = Client::connect(&server.url()).await.unwrap();
        client.mutex("n").unwrap().acquire().await.unwrap().release().await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c10_ten_thousand_waiters_of_one_process_cost_two_calls_each() {
    const WAITERS: u64 = 10_000;
    let server = Server::start(&[]).unwrap();
    let settings = Client::builder().claim(Duration::from_secs(60)).ttl(Duration::from_secs(600));
    let client = settings.timeout(Duration::from_secs(60)).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap();
    let held = lock.acquire().await.unwrap();
    let before = calls(&server);
    let waiting: Vec<_> = (0..WAITERS)
        .map(|_| {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire().await?.release().await })
        })
        .collect();
    let mut raw = Raw::connect(&server);
    while raw.lock("redlatch:m1:n").tail.unsigned_abs() < WAITERS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let channels: Vec<String> = raw.must(&["PUBSUB", "CHANNELS"]);
    assert_eq!(channels.len(), 1, "one subscription for all");
    held.release().await.unwrap();
    for waiter in waiting {
        waiter.await.unwrap().unwrap();
    }
    let calls = calls(&server) - before;
    println!("{calls} calls for {WAITERS} acquisitions and one release");
    assert!(calls <= WAITERS * 22 / 10, "{calls} calls");
    client.settle().await;
    assert!(is_quiet(&server, "n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_a_hundred_thousand_cancels_leave_no_orphan() {
    const TASKS: u64 = 16;
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let tasks = (0..TASKS).map(|task| {
        let client = client.clone();
        tokio::spawn(async move {
            let lock = client.mutex(format!("n{}", task % 4)).unwrap();
            let (mut cancelled, mut granted) = (0_u64, 0_u64);
            while cancelled < 100_000 / TASKS {
                let polls = fastrand::u32(0..12);
                let attempt = lock.acquire();
                tokio::pin!(attempt);
                let patience = async {
                    for _ in 0..polls {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    biased;
                    outcome = &mut attempt => match outcome {
                        Ok(lease) => {
                            granted += 1;
                            drop(lease);
                        }
                        Err(error) => panic!("{error}"),
                    },
                    () = patience => cancelled += 1,
                }
            }
            (cancelled, granted)
        })
    });
    let (mut cancelled, mut granted) = (0, 0);
    for task in tasks.collect::<Vec<_>>() {
        let (more, others) = task.await.unwrap();
        (cancelled, granted) = (cancelled + more, granted + others);
    }
    client.settle().await;
    println!("{cancelled} cancelled, {granted} granted");
    assert_bitten(cancelled);
    for number in 0..4 {
        assert!(is_quiet(&server, &format!("n{number}")), "an orphan of n{number}");
    }
}

#[tokio::test]
async fn i5_nothing_but_the_owner_token_of_the_lease_ends_or_extends_it() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let lease = client.mutex("n").unwrap().acquire().await.unwrap();
    let (caller, key, hour) = (client.caller(), b"redlatch:m1:n", Duration::from_secs(3600));
    let before = holder(&server, "n");
    for owner in ["stranger", "", &lease.owner_token().to_uppercase(), &format!("{}0", lease.owner_token())] {
        let extended = caller.extend(key, owner, hour, hour).await;
        assert!(!matches!(extended, Ok(redlatch::call::Extend::Extended { .. })), "{owner:?}");
        let released = caller.release(key, owner).await;
        assert!(!matches!(released, Ok(redlatch::call::Release::Released { .. })), "{owner:?}");
        assert_eq!(holder(&server, "n"), before);
    }
    lease.release().await.unwrap();
    let error = client.mutex("n").unwrap().acquire_within(Duration::from_millis(1)).await;
    assert!(error.is_ok_and(|attempt| attempt.granted().is_some()), "{:?}", ErrorKind::Lost);
}
