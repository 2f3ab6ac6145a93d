//! Servers that stop, lose data and are busy with something else.

use std::time::Duration;

use redlatch::{Client, ErrorKind};

use super::holder;
use crate::support::{Raw, Server, signal};

const LOCKS: usize = 50;

/// A server with an append-only file.
fn durable(fsync: &str) -> Server {
    Server::start(&["--appendonly", "yes", "--appendfsync", fsync]).unwrap()
}

/// Fifty leases of an hour, whose owner tokens outlive this process.
async fn hold(server: &Server) -> Vec<(String, u64)> {
    let client = Client::connect(&server.url()).await.unwrap();
    let mut leases = Vec::new();
    for number in 0..LOCKS {
        let lock = client.mutex(format!("n{number}")).unwrap().ttl(Duration::from_secs(3600)).unwrap();
        let lease = lock.acquire().await.unwrap();
        leases.push((lease.owner_token().to_owned(), lease.fence().get()));
        drop(lease.into_owner_token());
    }
    leases
}

/// How many of `leases` are still held; each that is not can be acquired, with a higher fence.
async fn kept(server: &Server, leases: &[(String, u64)]) -> usize {
    while Raw::connect(server).run(&[b"EXISTS", b"anything"]).is_err() {
        // It is loading its data.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let client = Client::connect(&server.url()).await.unwrap();
    let mut kept = 0;
    for (number, (owner, fence)) in leases.iter().enumerate() {
        let name = format!("n{number}");
        match client.mutex(&name).unwrap().try_acquire().await.unwrap().granted() {
            None => {
                kept += 1;
                assert_eq!(holder(server, &name), Some((owner.clone(), *fence)));
            }
            Some(lease) => {
                assert!(lease.fence().get() > *fence, "G2");
                lease.release().await.unwrap();
            }
        }
    }
    kept
}

#[tokio::test]
async fn s2_leases_survive_the_death_of_a_server_that_writes_them_down() {
    for fsync in ["everysec", "no", "always"] {
        let mut server = durable(fsync);
        let leases = hold(&server).await;
        signal(server.pid(), "KILL");
        server.start_again().unwrap();
        let kept = kept(&server, &leases).await;
        assert_eq!(kept, LOCKS, "appendfsync {fsync}");
    }
}

#[tokio::test]
async fn s3_fences_rise_through_a_power_cut_that_takes_the_last_writes() {
    let mut server = durable("no");
    let leases = hold(&server).await;
    signal(server.pid(), "KILL");
    let folder = server.socket().with_file_name("appendonlydir");
    let parts = std::fs::read_dir(folder).unwrap().map(|part| part.unwrap().path());
    let last = parts.filter(|part| part.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
    let length = std::fs::metadata(&last).unwrap().len();
    std::fs::File::options().write(true).open(&last).unwrap().set_len(length - 1500).unwrap();
    server.start_again().unwrap();
    let kept = kept(&server, &leases).await;
    println!("{kept} of {LOCKS} leases are left");
    assert!(kept > 0 && kept < LOCKS, "the cut bit: {kept} of {LOCKS}");
}

#[tokio::test]
async fn s4_a_clean_stop_without_persistence_loses_leases_and_with_it_keeps_them() {
    for (save, expected) in [("", 0), ("3600 1", LOCKS)] {
        let mut server = Server::start(&["--save", save]).unwrap();
        let leases = hold(&server).await;
        signal(server.pid(), "TERM");
        server.start_again().unwrap();
        assert_eq!(kept(&server, &leases).await, expected, "save {save:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s8_a_busy_server_is_asked_again_until_it_answers() {
    let server = Server::start(&["--busy-reply-threshold", "50"]).unwrap();
    let client = Client::builder().timeout(Duration::from_secs(5)).connect(&server.url()).await.unwrap();
    let lease = client.mutex("n").unwrap().acquire().await.unwrap();
    let url = server.url();
    let slow = tokio::task::spawn_blocking(move || {
        let _ = Raw::open(&url).run(&[b"EVAL", b"while true do end", b"0"]);
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let busy = Raw::connect(&server).run(&[b"PING"]).unwrap_err().to_string();
    assert!(busy.to_uppercase().contains("BUSY"), "the fault bites: {busy}");
    let (waiter, other) = (client.clone(), client.mutex("other").unwrap());
    let asked = tokio::spawn(async move { other.acquire().await.map(drop) });
    let released = tokio::spawn(async move { lease.release().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    Raw::connect(&server).must::<()>(&["SCRIPT", "KILL"]);
    slow.await.unwrap();
    asked.await.unwrap().unwrap();
    released.await.unwrap().unwrap();
    waiter.settle().await;
    assert_eq!((holder(&server, "n"), holder(&server, "other")), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_script_kill_never_finds_a_script_of_ours_half_done() {
    let server = Server::start(&["--busy-reply-threshold", "1"]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let url = server.url();
    let killer = std::thread::spawn(move || {
        let mut raw = Raw::open(&url);
        let mut refused = 0;
        for _ in 0..20_000 {
            match raw.run(&[b"SCRIPT", b"KILL"]) {
                Ok(_) => panic!("a script of ours ran long enough to be killed"),
                Err(_) => refused += 1,
            }
        }
        refused
    });
    let mut turns = 0_u64;
    while !killer.is_finished() {
        client.mutex("n").unwrap().acquire().await.unwrap().release().await.unwrap();
        turns += 1;
    }
    println!("{turns} turns beside {} attempts to kill a script", killer.join().unwrap());
}

#[tokio::test]
async fn s16_what_an_administrator_takes_away_is_noticed_and_fences_rise() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_millis(900)).unwrap();
    let mut raw = Raw::connect(&server);
    let mut last = 0;
    for command in [
        &["FLUSHALL"][..],
        &["FLUSHDB"],
        &["DEL", "redlatch:m1:n"],
        &["RENAME", "redlatch:m1:n", "elsewhere"],
        &["SWAPDB", "0", "1"],
    ] {
        let lease = lock.acquire().await.unwrap();
        assert!(lease.fence().get() > last, "{command:?}");
        last = lease.fence().get();
        raw.must::<redis::Value>(command);
        tokio::time::timeout(Duration::from_secs(20), lease.lost()).await.expect("at the next renewal");
        assert_eq!(lease.release().await.unwrap_err().kind(), ErrorKind::Lost, "{command:?}");
    }
}
