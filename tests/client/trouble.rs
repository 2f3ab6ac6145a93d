//! Bad input and servers in trouble: what the caller is told, and that nothing is lost or changed.

use std::{io::Write, net::TcpListener, time::Duration};

use redlatch::{Attempt, Client, Error, ErrorKind};

use super::fixture;
use crate::support::{Raw, Server, signal, until};

#[track_caller]
fn assert_error<T>(result: Result<T, Error>, kind: ErrorKind, message: &str) {
    let error = result.err().expect("an error");
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
}

#[tokio::test]
async fn a_name_out_of_range_is_refused_before_anything_is_sent() {
    let (server, client) = fixture().await;
    let rule = "a lock name must be 1 to 512 bytes, this one has";
    assert_error(client.mutex(""), ErrorKind::Invalid, &format!("{rule} 0"));
    assert_error(client.mutex("x".repeat(600)), ErrorKind::Invalid, &format!("{rule} 600"));
    let rule = "a lock name must not contain NUL, CR or LF, this one does at byte";
    assert_error(client.mutex("a\0b"), ErrorKind::Invalid, &format!("{rule} 1"));
    assert_error(client.mutex("ab\n"), ErrorKind::Invalid, &format!("{rule} 2"));
    assert_error(client.plain("\r"), ErrorKind::Invalid, &format!("{rule} 0"));
    assert_eq!(Raw::connect(&server).must::<u64>(&["DBSIZE"]), 0);
}

#[tokio::test]
async fn a_ttl_out_of_range_is_refused_before_anything_is_sent() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("n").unwrap();
    for (ttl, said) in [
        (Duration::ZERO, "0ns"),
        (Duration::from_micros(500), "500µs"),
        (Duration::from_millis(2_678_400_001), "2678400.001s"),
        (Duration::from_millis(i64::MAX as u64), "9223372036854775.807s"),
    ] {
        let message = format!("ttl must be 1ms to 2678400s, not {said}");
        assert_error(lock.clone().ttl(ttl), ErrorKind::Invalid, &message);
        let lease = lock.try_acquire().await.unwrap().granted().unwrap();
        assert_error(lease.extend(ttl).await, ErrorKind::Invalid, &message);
        lease.release().await.unwrap();
    }
    assert!(lock.ttl(Duration::from_millis(1)).is_ok());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_error(
        Client::connect(&format!("redis://{free}")).await,
        ErrorKind::Unavailable,
        &format!("no server answers at {free}, is it running?"),
    );
}

#[tokio::test]
async fn a_server_that_is_not_redis_is_named_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    let error = Client::connect(&format!("redis://{address}")).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("connecting to {address} got an answer that is not Redis: is the address that of a Redis server?")
    );
}

#[tokio::test]
async fn a_password_is_asked_for_and_never_repeated() {
    let server = Server::start(&["--requirepass", "canary"]).unwrap();
    let error = Client::connect(&server.url()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("needs a password, put it into the URL"), "{error}");
    let error = Client::connect(&format!("{}?pass=wrongcanary", server.url())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("did not accept the user or password"), "{error}");
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    assert!(Client::connect(&format!("{}?pass=canary", server.url())).await.is_ok());
}

#[tokio::test]
async fn a_read_only_replica_refuses() {
    let server = Server::start(&["--replicaof", "127.0.0.1", "1"]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    assert_error(
        client.mutex("n").unwrap().try_acquire().await,
        ErrorKind::Refused,
        "mutex/acquire of \"redlatch:m1:n\" was refused (READONLY): \
         this server is a read-only replica, connect to the primary",
    );
}

#[tokio::test]
async fn s10_a_full_server_refuses_to_acquire_but_extends_and_releases() {
    let (server, client) = fixture().await;
    let held = client.mutex("held").unwrap().try_acquire().await.unwrap().granted().unwrap();
    Raw::connect(&server).must::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_error(
        client.mutex("free").unwrap().try_acquire().await,
        ErrorKind::Refused,
        "mutex/acquire of \"redlatch:m1:free\" was refused (OOM): \
         the server is full, free memory or raise maxmemory; nothing was written",
    );
    held.extend(Duration::from_secs(20)).await.unwrap();
    held.release().await.unwrap();
    assert_eq!(Raw::connect(&server).must::<u64>(&["DBSIZE"]), 1);
}

#[tokio::test]
async fn an_acl_that_denies_scripts_or_their_commands_is_named() {
    let (server, _) = fixture().await;
    let mut admin = Raw::connect(&server);
    for (user, denied, command) in [("noscripts", "-evalsha", "EVALSHA"), ("nohset", "-hset", "HSET")] {
        admin.must::<()>(&["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all", denied]);
        let client = Client::connect(&format!("{}?user={user}&pass=secret", server.url())).await.unwrap();
        let error = client.mutex("n").unwrap().try_acquire().await.err().unwrap();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Some("NOPERM")), "{error}");
        let rule = denied.replace('-', "+");
        let told = format!("user {user} may not run {command}; grant {rule}; role caller has it");
        assert!(error.to_string().contains(&told), "{error}");
        assert_eq!(error.lacks(), Some(&*rule));
        let strict = Client::builder().strict(true);
        let client = strict.connect(&format!("{}?user={user}&pass=secret", server.url())).await.unwrap();
        let error = client.mutex("n").unwrap().try_acquire().await.err().unwrap();
        assert!(error.to_string().ends_with("; role strict has it: `redlatch acl print strict`"), "{error}");
    }
    assert_eq!(admin.must::<u64>(&["DBSIZE"]), 0);
}

#[tokio::test]
async fn a_key_of_another_kind_is_left_as_it_is() {
    let (server, client) = fixture().await;
    let mut raw = Raw::connect(&server);
    raw.must::<()>(&["SET", "redlatch:m1:n", "precious"]);
    raw.must::<()>(&["LPUSH", "list", "precious"]);
    for error in [
        client.mutex("n").unwrap().try_acquire().await.err().unwrap(),
        client.plain("list").unwrap().try_acquire().await.err().unwrap(),
    ] {
        assert_eq!(error.code(), Some("WRONGTYPE"));
        assert!(error.to_string().contains("it was left as it is"), "{error}");
    }
    assert_eq!(raw.must::<String>(&["GET", "redlatch:m1:n"]), "precious");
    assert_eq!(raw.must::<Vec<String>>(&["LRANGE", "list", "0", "-1"]), ["precious"]);
}

#[tokio::test]
async fn s13_a_stopped_server_cannot_keep_a_lease_alive() {
    let (server, client) = fixture().await;
    let lock = client.mutex("n").unwrap().ttl(Duration::from_millis(500)).unwrap();
    let lease = lock.acquire().await.unwrap();
    let token = lease.lost_token();
    signal(server.pid(), "STOP");
    tokio::time::timeout(Duration::from_secs(20), lease.lost()).await.expect("told without a reply");
    assert!(lease.is_lost() && lease.remaining().is_zero());
    tokio::time::timeout(Duration::from_secs(20), token.cancelled()).await.expect("the token too");
    signal(server.pid(), "CONT");
}

#[tokio::test]
async fn n4_an_acquire_that_arrives_after_its_caller_gave_up_takes_nothing() {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().timeout(Duration::from_millis(200)).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap();
    signal(server.pid(), "STOP");
    let error = lock.try_acquire().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    signal(server.pid(), "CONT");
    client.settle().await;
    let other = Client::connect(&server.url()).await.unwrap();
    assert!(other.mutex("n").unwrap().try_acquire().await.unwrap().granted().is_some());
}

#[tokio::test]
async fn s1_fences_rise_through_the_loss_of_all_data_and_a_restart() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let start = || Server::start(&["--bind", "127.0.0.1", "--port", &port]).unwrap();
    let mut server = start();
    let client = Client::connect(&format!("redis://127.0.0.1:{port}")).await.unwrap();
    let lock = client.mutex("n").unwrap();
    let mut last = None;
    for _ in 0..5 {
        let lease = lock.acquire().await.unwrap();
        assert!(Some(lease.fence()) > last);
        last = Some(lease.fence());
        Raw::connect(&server).must::<()>(&["FLUSHALL"]);
        drop(server);
        server = start();
        // The data went with the server. Whether a first, unanswered release came before that cannot be known.
        assert!(matches!(lease.release().await.unwrap_err().kind(), ErrorKind::Lost | ErrorKind::Unknown));
    }
}

#[tokio::test]
async fn n8_a_waiter_whose_connection_is_cut_is_still_granted() {
    let (server, client) = fixture().await;
    let lock = client.mutex("n").unwrap();
    let other = Client::connect(&server.url()).await.unwrap();
    let held = other.mutex("n").unwrap().acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap().fence() }
    });
    while other.caller().inspect(b"redlatch:m1:n", 0).await.unwrap().places == 0 {
        tokio::task::yield_now().await;
    }
    let killed: u64 = Raw::connect(&server).must(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert!(killed >= 1);
    let fence = held.fence();
    held.release().await.unwrap();
    let granted = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("within a heartbeat").unwrap();
    assert!(granted > fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_acquires_dropped_at_any_time_leave_no_orphan() {
    let (server, client) = fixture().await;
    let lock = client.mutex("n").unwrap();
    let (mut granted, mut dropped) = (0, 0);
    for _ in 0..50 {
        let attempts: Vec<_> = (0..20)
            .map(|_| {
                let lock = lock.clone();
                let patience = Duration::from_micros(fastrand::u64(0..3000));
                tokio::spawn(async move { tokio::time::timeout(patience, lock.acquire()).await.is_ok() })
            })
            .collect();
        for attempt in attempts {
            if attempt.await.unwrap() { granted += 1 } else { dropped += 1 }
        }
    }
    println!("{granted} granted, {dropped} dropped");
    assert!(granted > 0 && dropped > 0);
    client.settle().await;
    let state = client.caller().inspect(b"redlatch:m1:n", 1000).await.unwrap();
    assert!(!state.held && state.waiters.is_empty(), "{state:?}");
    assert!(Raw::connect(&server).must::<i64>(&["PTTL", "redlatch:m1:n"]) > 0);
}

#[tokio::test]
async fn c8_a_guard_dropped_outside_a_runtime_neither_blocks_nor_panics() {
    let (_server, client) = fixture().await;
    let lease = client.mutex("n").unwrap().acquire().await.unwrap();
    std::thread::spawn(move || drop(lease)).join().unwrap();
    let Attempt::Granted(_) = client.mutex("n").unwrap().acquire_within(Duration::from_secs(20)).await.unwrap() else {
        panic!("the lease was not given back");
    };
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_has_its_whole_ttl_also_after_a_hand_off() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(60)).unwrap().renew(false);
    let held = lock.acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    while client.caller().inspect(b"redlatch:m1:n", 0).await.unwrap().places == 0 {
        tokio::task::yield_now().await;
    }
    held.release().await.unwrap();
    let lease = waiting.await.unwrap();
    assert!(lease.remaining() > Duration::from_secs(30), "{:?}", lease.remaining());
}

/// As behind an address that leads to another server after a switch, while that is not a primary yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_a_waiter_outlasts_a_server_that_takes_no_writes_for_a_while() {
    for (begin, end, code) in [
        (&["REPLICAOF", "127.0.0.1", "1"][..], &["REPLICAOF", "NO", "ONE"][..], "READONLY"),
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
            "NOREPLICAS",
        ),
    ] {
        let (server, client) = fixture().await;
        let mut raw = Raw::connect(&server);
        let held = client.mutex("n").unwrap().ttl(Duration::from_secs(60)).unwrap().acquire().await.unwrap();
        let other = Client::connect(&server.url()).await.unwrap();
        let lock = other.mutex("n").unwrap().ttl(Duration::from_secs(60)).unwrap();
        let waiter = tokio::spawn(async move { lock.acquire().await });
        until("it waits", || raw.lock("redlatch:m1:n").is_queue_open());
        raw.must::<()>(begin);
        let mut watch = Raw::connect(&server);
        until("a question was refused", || watch.errors(code) > 0);
        assert_eq!(client.mutex("n").unwrap().try_acquire().await.err().map(|error| error.kind()), None);
        Raw::connect(&server).must::<()>(end);
        held.release().await.unwrap();
        waiter.await.unwrap().expect(code).release().await.unwrap();
    }
}
