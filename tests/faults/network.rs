//! Replies and commands that are lost, late, doubled or spoiled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redlatch::{Attempt, Client, ErrorKind};

use super::{assert_bitten, behind_proxy, holder, impatient, is_quiet};
use crate::support::{Fault, Proxy, Raw, Server, signal};

/// Lets `fault` happen to the script call number `turn` from now on.
fn strike(proxy: &Proxy, turn: u64, fault: Fault) {
    let mut calls = 0;
    proxy.rule(move |command| {
        calls += u64::from(command.digest().is_some());
        (command.digest().is_some() && calls == turn).then_some(fault)
    });
}

/// One life of a lease with somebody else in the queue: every answer must be as if nothing had happened, or say that
/// it is unknown.
async fn live(server: &Server, client: &Client, other: &Client) {
    let lock = client.mutex("n").unwrap();
    let lease = lock.acquire().await.unwrap();
    let (_, fence) = holder(server, "n").expect("the lease is held");
    assert_eq!(lease.fence().get(), fence, "the same fence, however often it was asked for");
    let waiter = tokio::spawn({
        let lock = other.mutex("n").unwrap();
        async move { lock.acquire().await.unwrap() }
    });
    while !Raw::connect(server).lock("redlatch:m1:n").is_queue_open() {
        tokio::task::yield_now().await;
    }
    lease.extend(Duration::from_secs(20)).await.unwrap();
    assert!(!waiter.is_finished(), "two holders");
    assert_eq!(holder(server, "n").unwrap().1, fence);
    if let Err(error) = lease.release().await {
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    }
    let next = waiter.await.unwrap();
    assert!(next.fence().get() > fence);
    // This one waits in the queue behind the proxy.
    let queued = tokio::spawn(async move { lock.acquire().await.unwrap() });
    while !Raw::connect(server).lock("redlatch:m1:n").is_queue_open() {
        tokio::task::yield_now().await;
    }
    let before = next.fence();
    next.release().await.unwrap();
    let last = queued.await.unwrap();
    assert!(last.fence() > before);
    drop(last);
    client.settle().await;
}

/// Nothing is left; what a copy of a call that came after everything took, by the end of that lease.
async fn ends_quiet(server: &Server, other: &Client, fault: Fault) {
    let started = Instant::now();
    while matches!(fault, Fault::Repeat(_)) && !is_quiet(server, "n") && started.elapsed() < Duration::from_secs(40) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(other.mutex("n").unwrap().try_acquire().await.unwrap());
        other.settle().await;
    }
    assert!(is_quiet(server, "n"));
}

async fn strike_in_turn(fault: Fault) {
    let (server, proxy, client) = behind_proxy(impatient()).await;
    let other = Client::connect(&server.url()).await.unwrap();
    let mut bites = 0;
    for turn in 1.. {
        strike(&proxy, turn, fault);
        live(&server, &client, &other).await;
        ends_quiet(&server, &other, fault).await;
        proxy.pass();
        if proxy.bites() == bites {
            break;
        }
        bites = proxy.bites();
    }
    assert_bitten(bites);
    assert!(bites >= 4, "acquire, extend, release, and the place in the queue");
}

#[tokio::test]
async fn n1_the_reply_of_every_call_in_turn_is_lost() {
    strike_in_turn(Fault::CutAfter).await;
}

#[tokio::test]
async fn n2_every_call_in_turn_is_lost() {
    strike_in_turn(Fault::CutBefore).await;
}

#[tokio::test]
async fn n4_every_call_in_turn_arrives_after_its_caller_gave_up() {
    strike_in_turn(Fault::HoldRequest(Duration::from_millis(450))).await;
}

#[tokio::test]
async fn n5_every_call_in_turn_arrives_twice() {
    strike_in_turn(Fault::Repeat(Duration::ZERO)).await;
}

#[tokio::test]
async fn n6_the_connection_swallows_everything_from_any_call_on() {
    strike_in_turn(Fault::HalfOpen).await;
}

#[tokio::test]
async fn n7_every_reply_in_turn_is_garbage() {
    strike_in_turn(Fault::Garbage).await;
}

#[tokio::test]
async fn n7_every_call_in_turn_passes_byte_by_byte() {
    strike_in_turn(Fault::Bytewise).await;
}

#[tokio::test]
async fn n3_a_grant_that_arrives_after_its_ttl_is_not_returned() {
    let (_server, proxy, client) = behind_proxy(Client::builder()).await;
    let ttl = Duration::from_millis(300);
    let lock = client.mutex("n").unwrap().ttl(ttl).unwrap();
    let mut held = false;
    proxy.rule(move |command| {
        let first = command.runs("mutex/acquire") && !std::mem::replace(&mut held, true);
        first.then_some(Fault::HoldReply(Duration::from_millis(500)))
    });
    let started = Instant::now();
    let lease = lock.try_acquire().await.unwrap().granted().unwrap();
    assert!(started.elapsed() >= Duration::from_millis(500));
    assert!(!lease.is_lost());
    assert!(lease.remaining() <= ttl);
    assert_bitten(proxy.bites());
}

#[tokio::test]
async fn n3_a_grant_whose_every_reply_is_too_late_is_lost() {
    let (server, proxy, client) = behind_proxy(Client::builder().timeout(Duration::from_secs(1))).await;
    let lock = client.mutex("n").unwrap().ttl(Duration::from_millis(100)).unwrap();
    proxy.rule(|command| command.runs("mutex/acquire").then_some(Fault::HoldReply(Duration::from_millis(200))));
    assert_eq!(lock.try_acquire().await.err().unwrap().kind(), ErrorKind::Lost);
    proxy.pass();
    client.settle().await;
    assert!(is_quiet(&server, "n"));
    assert_bitten(proxy.bites());
}

#[tokio::test]
async fn n4_an_acquire_that_the_release_of_its_caller_overtakes_leaves_no_orphan() {
    let (server, proxy, client) = behind_proxy(Client::builder().timeout(Duration::from_secs(1))).await;
    let elsewhere = Client::connect(&server.url()).await.unwrap();
    client.mutex("warm").unwrap().acquire().await.unwrap().release().await.unwrap();
    for (held, queued) in [(false, false), (true, true)] {
        let first = if held { elsewhere.mutex("n").unwrap().try_acquire().await.unwrap().granted() } else { None };
        let before = proxy.bites();
        // The copy comes when the caller has gone and its release has run.
        proxy.rule(|command| command.runs("mutex/acquire").then_some(Fault::Repeat(Duration::from_millis(300))));
        let lock = client.mutex("n").unwrap();
        let acquire =
            async { if queued { lock.acquire().await.map(drop) } else { lock.try_acquire().await.map(drop) } };
        // Dropped while its question is on its way.
        let _ = tokio::time::timeout(Duration::ZERO, acquire).await;
        while proxy.bites() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.settle().await;
        proxy.pass();
        if let Some(first) = first {
            first.release().await.unwrap();
        }
        assert!(is_quiet(&server, "n"), "queued: {queued}");
    }
    assert_bitten(proxy.bites());
}

#[tokio::test]
async fn n6_renewals_survive_a_connection_that_swallows_them() {
    let (server, proxy, client) = behind_proxy(impatient()).await;
    let lease = client.mutex("n").unwrap().ttl(Duration::from_millis(1500)).unwrap().acquire().await.unwrap();
    let mut renewals = 0;
    proxy.rule(move |command| {
        renewals += u64::from(command.runs("mutex/extend"));
        // The second one, and all that come by the same connection.
        (command.runs("mutex/extend") && renewals == 2).then_some(Fault::HalfOpen)
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!lease.is_lost());
    assert_eq!(holder(&server, "n").unwrap().1, lease.fence().get());
    assert_bitten(proxy.bites());
}

#[tokio::test]
async fn n1_a_renewal_whose_reply_is_lost_is_asked_again_before_a_ttl_shorter_than_the_timeout_ends() {
    let (_server, proxy, client) = behind_proxy(Client::builder().timeout(Duration::from_secs(60))).await;
    let lease = client.mutex("n").unwrap().ttl(Duration::from_millis(1500)).unwrap().acquire().await.unwrap();
    let mut renewals = 0;
    proxy.rule(move |command| {
        renewals += u64::from(command.runs("mutex/extend"));
        (command.runs("mutex/extend") && renewals % 2 == 1).then_some(Fault::HoldReply(Duration::from_millis(300)))
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!lease.is_lost());
    assert_bitten(proxy.bites());
}

#[tokio::test]
async fn n6_a_waiter_whose_connection_swallows_its_grant_asks_in_time() {
    let (server, proxy, client) = behind_proxy(impatient()).await;
    let other = Client::connect(&server.url()).await.unwrap();
    let held = other.mutex("n").unwrap().acquire().await.unwrap();
    let waiter = tokio::spawn({
        let lock = client.mutex("n").unwrap();
        async move { lock.acquire().await.unwrap() }
    });
    while !Raw::connect(&server).lock("redlatch:m1:n").is_queue_open() {
        tokio::task::yield_now().await;
    }
    let swallowed = AtomicU64::new(0);
    proxy.rule(move |_| (swallowed.fetch_add(1, Ordering::Relaxed) == 0).then_some(Fault::HalfOpen));
    // Its next heartbeat goes nowhere, and so does the message.
    while proxy.bites() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    held.release().await.unwrap();
    let lease = tokio::time::timeout(Duration::from_secs(10), waiter).await.unwrap().unwrap();
    assert!(!lease.is_lost());
    assert_bitten(proxy.bites());
}

#[tokio::test]
async fn n8_a_message_lost_with_its_subscription_costs_one_heartbeat() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap();
    let mut admin = Raw::connect(&server);
    let mut killed = 0;
    for _ in 0..20 {
        let held = lock.acquire().await.unwrap();
        let waiter = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await.unwrap().release().await }
        });
        while !admin.lock("redlatch:m1:n").is_queue_open() {
            tokio::task::yield_now().await;
        }
        // The release and the kill race: the message goes to a subscriber that is gone, or is never sent.
        let release = tokio::spawn(held.release());
        killed += admin.must::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        let _ = release.await.unwrap();
        let outcome = tokio::time::timeout(Duration::from_secs(12), waiter).await.expect("nobody waits for ever");
        if let Err(error) = outcome.unwrap() {
            assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
        }
    }
    assert_bitten(killed);
}

#[tokio::test]
async fn n9_a_server_with_too_many_clients_is_unavailable_and_asked_in_pauses() {
    let server = Server::start(&["--maxclients", "4"]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::builder().timeout(Duration::from_millis(500)).connect(&proxy.url()).await.unwrap();
    let taken: Vec<_> = (0..2).map(|_| Raw::connect(&server)).collect();
    proxy.cut();
    let crowd: Vec<_> = (0..2).map(|_| Raw::connect(&server)).collect();
    let lock = client.mutex("n").unwrap();
    let tries: Vec<_> = (0..100)
        .map(|_| {
            let lock = lock.clone();
            tokio::spawn(async move { lock.try_acquire().await.map(drop) })
        })
        .collect();
    let mut refused = 0;
    for attempt in tries {
        let error = attempt.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        refused += 1;
    }
    // Every attempt to connect sends its HELLO: a hundred callers share a few.
    println!("{} commands for {refused} callers", proxy.commands());
    drop(crowd);
    assert!(matches!(lock.acquire_within(Duration::from_secs(10)).await.unwrap(), Attempt::Granted(_)));
    drop(taken);
    assert_bitten(refused);
}

#[tokio::test]
async fn n6_a_stopped_server_ends_a_call_within_its_timeout_and_patience() {
    let (server, _proxy, client) = behind_proxy(impatient()).await;
    let lock = client.mutex("n").unwrap();
    signal(server.pid(), "STOP");
    let started = Instant::now();
    let error = lock.try_acquire().await.err().unwrap();
    signal(server.pid(), "CONT");
    assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable), "{error}");
    // Twice the timeout by the rules; a hang guard.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    client.settle().await;
    assert!(is_quiet(&server, "n"));
}

#[tokio::test]
async fn an_outage_at_the_first_wait_is_waited_through() {
    let (_server, proxy, client) = behind_proxy(impatient()).await;
    let cuts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&cuts);
    proxy.rule(move |command| {
        let cut = command.is("SUBSCRIBE") && counted.fetch_add(1, Ordering::Relaxed) < 3;
        cut.then_some(Fault::CutBefore)
    });
    let lease = client.mutex("n").unwrap().acquire().await.unwrap();
    assert!(!lease.is_lost());
    assert_bitten(cuts.load(Ordering::Relaxed));
}
