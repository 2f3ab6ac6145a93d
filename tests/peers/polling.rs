//! `SET key owner EX NX` and a Lua compare-and-delete: correct, but waiters poll, nobody comes first, and no number
//! tells an old holder from a new one.

use std::time::{Duration, Instant};

use redlatch::Client;

use crate::support::{Raw, Server};

fn set(raw: &mut Raw, owner: &str) -> bool {
    raw.must::<Option<String>>(&["SET", "old:stock", owner, "EX", "30", "NX"]).is_some()
}

fn compare_and_delete(raw: &mut Raw, owner: &str) -> bool {
    const SCRIPT: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
    raw.must(&["EVAL", SCRIPT, "1", "old:stock", owner])
}

/// How often the server ran `command` so far.
fn calls(raw: &mut Raw, command: &str) -> u64 {
    let text: String = raw.must(&["INFO", "commandstats"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_of_todays_lock_polls_and_ours_sleeps_until_it_is_woken() {
    let server = Server::start(&[]).unwrap();
    let (client, mut raw) = (Client::connect(&server.url()).await.unwrap(), Raw::connect(&server));

    assert!(set(&mut raw, "holder"));
    let (before, started) = (calls(&mut raw, "set"), Instant::now());
    for _ in 0..200 {
        assert!(!set(&mut raw, "waiter"));
        std::thread::sleep(Duration::from_millis(1));
    }
    let (polls, waited) = (calls(&mut raw, "set") - before, started.elapsed());
    assert_eq!(polls, 200);

    let lock = client.mutex("stock").unwrap().ttl(Duration::from_secs(60)).unwrap();
    let held = lock.acquire().await.unwrap();
    let before = calls(&mut raw, "evalsha");
    let started = Instant::now();
    let waiter = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(waited).await;
    held.release().await.unwrap();
    let granted = waiter.await.unwrap().unwrap();
    let (asked, waited) = (calls(&mut raw, "evalsha") - before, started.elapsed());
    granted.release().await.unwrap();
    // One to join and one release; and a heartbeat or a claim for every 750 ms, if it took so long.
    let heartbeats = u64::try_from(waited.as_millis() / 750).unwrap();
    assert!((2..=2 + heartbeats).contains(&asked), "{asked} commands in {waited:?}, {polls} polls before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_overtakes_a_waiter_of_todays_lock_and_never_one_of_ours() {
    let server = Server::start(&[]).unwrap();
    let (client, mut raw) = (Client::connect(&server.url()).await.unwrap(), Raw::connect(&server));
    assert!(set(&mut raw, "holder"));
    assert!(!set(&mut raw, "waiter"), "it sleeps until its next poll");
    assert!(compare_and_delete(&mut raw, "holder"));
    assert!(set(&mut raw, "newcomer"));
    assert!(!set(&mut raw, "waiter"), "it may wait for ever");

    let lock = client.mutex("stock").unwrap();
    let held = lock.acquire().await.unwrap();
    let waiting = lock.clone();
    let waiter = tokio::spawn(async move { waiting.acquire().await });
    while client.caller().inspect(b"redlatch:m1:stock", 1).await.unwrap().places == 0 {
        tokio::task::yield_now().await;
    }
    held.release().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().granted().is_none(), "the newcomer");
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test]
async fn grants_of_todays_lock_look_the_same_and_ours_have_rising_fences() {
    let server = Server::start(&[]).unwrap();
    let (client, mut raw) = (Client::connect(&server.url()).await.unwrap(), Raw::connect(&server));
    let mut grant = |owner| {
        let reply: String = raw.must(&["SET", "old:stock", owner, "EX", "30", "NX"]);
        assert!(compare_and_delete(&mut raw, owner));
        reply
    };
    assert_eq!(grant("first"), grant("second"), "no resource can tell which one is late");

    let lock = client.mutex("stock").unwrap();
    let first = lock.acquire().await.unwrap();
    let older = first.fence();
    first.release().await.unwrap();
    assert!(lock.acquire().await.unwrap().fence() > older);
}
