//! Locks that take more than one command, so that a crash, an expiry or another client can come in between.

use std::{io::Write, os::unix::net::UnixStream, time::Duration};

use redlatch::{
    Client, ErrorKind,
    bundle::embedded,
    call::{Acquire, AcquireArgs, Release},
};

use crate::support::{Raw, Server};

const KEY: &[u8] = b"redlatch:m1:stock";

async fn fixture() -> (Server, Raw, Client) {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let raw = Raw::connect(&server);
    (server, raw, client)
}

fn args(owner: &str, ttl: Duration) -> AcquireArgs<'_> {
    AcquireArgs {
        owner,
        ttl,
        queue: Duration::ZERO,
        claim: Duration::from_secs(3),
        not_after_us: None,
        fence_floor: None,
        retention: Duration::from_secs(3600),
        label: "",
        inbox: "",
        inbox_here: false,
    }
}

/// `SET lock:N 1 EX 10 NX`; the owner is written with a second command.
fn set_lock(raw: &mut Raw) -> bool {
    raw.must::<Option<String>>(&["SET", "lock:stock", "1", "EX", "10", "NX"]).is_some()
}

fn set_owner(raw: &mut Raw, owner: &str) {
    raw.must::<()>(&["SET", "lock_uuid:stock", owner]);
}

fn is_owner(raw: &mut Raw, owner: &str) -> bool {
    raw.must::<Option<String>>(&["GET", "lock_uuid:stock"]).as_deref() == Some(owner)
}

fn delete_both(raw: &mut Raw) {
    raw.must::<()>(&["DEL", "lock:stock"]);
    raw.must::<()>(&["DEL", "lock_uuid:stock"]);
}

/// What happens at the end of the TTL, now.
fn expire(raw: &mut Raw, key: &str) {
    raw.must::<()>(&["PEXPIRE", key, "0"]);
}

#[tokio::test]
async fn a_release_in_four_commands_deletes_the_lock_of_the_next_holder_and_ours_does_not() {
    let (_server, mut raw, client) = fixture().await;
    assert!(set_lock(&mut raw));
    set_owner(&mut raw, "first");
    assert!(is_owner(&mut raw, "first"), "the first holder begins to release");
    expire(&mut raw, "lock:stock");
    assert!(set_lock(&mut raw), "the second holder");
    set_owner(&mut raw, "second");
    delete_both(&mut raw);
    assert!(set_lock(&mut raw), "a third holder, while the second one works");

    let lock = client.mutex("stock").unwrap().renew(false);
    let first = lock.clone().ttl(Duration::from_millis(1)).unwrap();
    let caller = client.caller();
    assert!(matches!(
        caller.acquire(KEY, &args("first", Duration::from_millis(1))).await.unwrap(),
        Acquire::Granted { .. }
    ));
    let second = lock.acquire().await.unwrap();
    assert!(matches!(caller.release(KEY, "first").await.unwrap(), Release::NotHeld { .. }));
    assert!(first.try_acquire().await.unwrap().granted().is_none(), "no third holder");
    second.release().await.unwrap();
}

#[tokio::test]
async fn an_owner_in_a_second_key_can_be_overwritten_and_ours_comes_with_the_lock() {
    let (_server, mut raw, client) = fixture().await;
    assert!(set_lock(&mut raw), "the first holder, paused before it writes its owner");
    expire(&mut raw, "lock:stock");
    assert!(set_lock(&mut raw));
    set_owner(&mut raw, "second");
    set_owner(&mut raw, "first");
    assert!(!is_owner(&mut raw, "second"), "the holder cannot release");
    assert!(is_owner(&mut raw, "first"), "and who has lost the lock can");

    let caller = client.caller();
    caller.acquire(KEY, &args("first", Duration::from_millis(1))).await.unwrap();
    let second = client.mutex("stock").unwrap().acquire().await.unwrap();
    // A late copy of the first holder's only command.
    assert!(matches!(caller.acquire(KEY, &args("first", Duration::from_secs(9))).await.unwrap(), Acquire::Held { .. }));
    second.release().await.unwrap();
}

#[tokio::test]
async fn a_crash_between_setnx_and_expire_leaves_a_lock_for_ever_and_ours_always_has_a_deadline() {
    let (server, mut raw, client) = fixture().await;
    assert!(raw.must::<bool>(&["SETNX", "lock:stock", "first"]));
    // The process dies here, before its EXPIRE.
    assert_eq!(raw.must::<i64>(&["PTTL", "lock:stock"]), -1, "nothing will ever free it");
    assert!(!raw.must::<bool>(&["SETNX", "lock:stock", "second"]));

    // The connection closes right after the command was sent: nobody reads the reply, nobody will release.
    let digest = embedded().unwrap().get("mutex/acquire").unwrap().digest();
    let words = ["EVALSHA", digest.as_str(), "1", "redlatch:m1:stock"];
    let values = ["dead:1", "300", "0", "0", "60000", "", "0", "3000", "", "0"];
    let mut command = format!("*{}\r\n", words.len() + values.len());
    for word in words.iter().chain(&values) {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    UnixStream::connect(server.socket()).unwrap().write_all(command.as_bytes()).unwrap();
    while !raw.must::<bool>(&["EXISTS", "redlatch:m1:stock"]) {
        tokio::task::yield_now().await;
    }
    assert!(raw.must::<i64>(&["PTTL", "redlatch:m1:stock"]) > 0);
    client.mutex("stock").unwrap().acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn anyone_can_release_a_state_lock_and_nobody_but_the_owner_releases_ours() {
    let (_server, mut raw, client) = fixture().await;
    assert!(raw.must::<bool>(&["SETNX", "state:stock", "1"]), "the holder");
    assert!(raw.must::<bool>(&["DEL", "state:stock"]), "somebody else");
    assert!(raw.must::<bool>(&["SETNX", "state:stock", "1"]), "a second holder, while the first one works");

    let lock = client.mutex("stock").unwrap();
    let lease = lock.acquire().await.unwrap();
    assert!(matches!(client.caller().release(KEY, "stranger").await.unwrap(), Release::NotHeld { .. }));
    assert!(lock.try_acquire().await.unwrap().granted().is_none());
    lease.release().await.unwrap();

    let plain = client.plain("state:other").unwrap();
    let lease = plain.acquire().await.unwrap();
    client.caller().plain_release(b"state:other", b"1").await.unwrap();
    assert!(plain.try_acquire().await.unwrap().granted().is_none());
    lease.release().await.unwrap();
}

#[tokio::test]
async fn a_holder_that_lost_its_lock_is_told_so_when_it_releases() {
    let (_server, mut raw, client) = fixture().await;
    assert!(set_lock(&mut raw));
    set_owner(&mut raw, "first");
    expire(&mut raw, "lock:stock");
    assert!(is_owner(&mut raw, "first"), "its own key says that all is well");

    let lease = client.mutex("stock").unwrap().acquire().await.unwrap();
    client.caller().force_release(KEY).await.unwrap();
    assert_eq!(lease.release().await.unwrap_err().kind(), ErrorKind::Lost);
}
