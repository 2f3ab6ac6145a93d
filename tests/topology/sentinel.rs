//! A primary that sentinels watch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::Value;
use redlatch::ErrorKind;

use super::{acquire, assert_bitten, fence, load, once, patient};
use crate::support::{
    say,
    topology::{Member, Replicated, WATCHED, Watched, until},
};

/// Cuts the replicas off from their primary, which they may not follow any more: what it writes from now on stays there.
fn cut_off(watched: &Watched, primary: usize) {
    let mut raw = watched.servers[primary].raw();
    raw.must::<()>(&["ACL", "SETUSER", "default", "-psync", "-replconf"]);
    raw.must::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_fences_rise_through_a_fail_over_that_loses_the_last_grant() {
    let mut watched = Watched::start(&[]);
    let client = patient().connect(&watched.url()).await.unwrap();
    let first = watched.primary();
    let replicated = once(&client, "n").await;
    let caught_up: u64 = watched.servers[first].raw().must(&["WAIT", "2", "2000"]);
    assert_eq!(caught_up, 2);
    cut_off(&watched, first);
    let lease = acquire(&client, "n").await;
    watched.servers[first].kill();
    let second = watched.switched_from(first);
    let known = fence(&watched.servers[second], "n") == Some(lease.fence().get());
    assert_bitten("grants that only the dead primary knew", u64::from(!known));
    // The holder hears of it at its next renewal, or at a write that checks the fence.
    let other = patient().connect(&watched.url()).await.unwrap();
    let next = once(&other, "n").await;
    assert!(replicated < lease.fence().get() && lease.fence().get() < next, "{replicated}, {}, {next}", lease.fence());
    assert_eq!(lease.extend(Duration::from_secs(20)).await.unwrap_err().kind(), ErrorKind::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_a_primary_that_was_replaced_while_it_was_stopped_gets_no_further_call() {
    let watched = Watched::start(&[]);
    let client = patient().connect(&watched.url()).await.unwrap();
    once(&client, "n").await;
    let first = watched.primary();
    watched.servers[first].signal("STOP");
    let second = watched.switched_from(first);
    // The client is idle: it hears of the switch from the sentinels alone.
    until("all sentinels have learnt of it", || (0..3).all(|sentinel| watched.primary_as_of(sentinel) == second));
    tokio::time::sleep(Duration::from_millis(200)).await;
    watched.servers[first].signal("CONT");
    let stale = watched.servers[first].raw().must::<Vec<Value>>(&["ROLE"]);
    let still_primary = stale.first() == Some(&Value::BulkString(b"master".to_vec()));
    say(&format!("r2: the replaced server still took itself for the primary: {still_primary}"));
    let before = watched.servers[first].raw().count("evalsha");
    once(&client, "n").await;
    assert_eq!(watched.servers[first].raw().count("evalsha"), before);
    assert_bitten("calls of the new primary", watched.servers[second].raw().count("evalsha"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_r8_a_read_only_answer_leads_to_the_new_primary_and_waiters_come_along() {
    let watched = Watched::start(&[]);
    let client = patient().connect(&watched.url()).await.unwrap();
    let other = patient().connect(&watched.url()).await.unwrap();
    let lease = acquire(&client, "n").await;
    let waiter = tokio::spawn(async move { once(&other, "n").await });
    let mut raw = watched.servers[watched.primary()].raw();
    until("the other waits", || raw.lock("redlatch:m1:n").is_queue_open());
    let first = watched.primary();
    watched.sentinels[0].raw().must::<()>(&["SENTINEL", "FAILOVER", WATCHED]);
    let second = watched.switched_from(first);
    until("the old primary follows the new one", || !watched.servers[first].is_primary());
    // A connection that is still to the old primary learns it from this answer.
    let fence = lease.fence().get();
    lease.release().await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(30), waiter).await.expect("the waiter is granted").unwrap();
    assert!(next > fence);
    assert_bitten("calls of the new primary", watched.servers[second].raw().count("evalsha"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_a_switch_under_load_finds_every_script_and_loses_only_what_was_not_replicated() {
    let watched = Watched::start(&[]);
    load(&watched.servers);
    let client = patient().connect(&watched.url()).await.unwrap();
    let held = acquire(&client, "held").await;
    let ended = Arc::new(AtomicBool::default());
    let load: Vec<_> = (0..4)
        .map(|number| {
            let (client, ended) = (client.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                let (mut fences, mut lost) = (Vec::new(), 0);
                while !ended.load(Ordering::Relaxed) {
                    let lease = acquire(&client, &format!("n{number}")).await;
                    fences.push(lease.fence().get());
                    // The new primary does not know what the old one did last, and says so.
                    match lease.release().await {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::Lost => lost += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                (fences, lost)
            })
        })
        .collect();
    let first = watched.primary();
    watched.sentinels[0].raw().must::<()>(&["SENTINEL", "FAILOVER", WATCHED]);
    let second = watched.switched_from(first);
    until("the new primary is used", || watched.servers[second].raw().count("evalsha") > 20);
    ended.store(true, Ordering::Relaxed);
    let mut rounds = 0;
    for task in load {
        let (fences, lost) = task.await.unwrap();
        assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
        assert!(lost <= 1, "{lost} leases were lost by one task in one switch");
        rounds += fences.len() as u64;
    }
    assert_bitten("leases through the switch", rounds);
    assert!(!held.is_lost());
    held.extend(Duration::from_secs(20)).await.unwrap();
    for server in &watched.servers {
        assert_eq!(server.raw().errors("NOSCRIPT"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_a_promoted_server_without_scripts_is_healed_by_the_first_call() {
    let mut watched = Watched::start(&[]);
    let client = patient().connect(&watched.url()).await.unwrap();
    let before = once(&client, "n").await;
    let first = watched.primary();
    watched.servers[first].kill();
    let second = watched.switched_from(first);
    let after = once(&client, "n").await;
    assert!(after > before, "{after} after {before}");
    assert_bitten("scripts that the new primary lacked", watched.servers[second].raw().errors("NOSCRIPT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_are_gone_or_stopped_do_not_matter_as_long_as_one_answers() {
    let mut watched = Watched::start(&[]);
    watched.sentinels[0].kill();
    watched.sentinels[1].signal("STOP");
    let client = patient().connect(&watched.url()).await.unwrap();
    once(&client, "n").await;
    watched.sentinels[2].kill();
    let error = patient().connect(&watched.url()).await.err().expect("nobody says where the primary is");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Who is connected needs no sentinel.
    once(&client, "n").await;
    watched.sentinels[1].signal("CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_the_sentinels_do_not_know_is_a_clear_error() {
    let watched = Watched::start(&[]);
    let url = watched.url().replace("/orders", "/other");
    let error = patient().connect(&url).await.err().expect("nobody knows it");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("the sentinels watch no primary called other, write the NAME"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_a_primary_is_not_used_whatever_a_sentinel_says() {
    let servers = Replicated::start(1, &[]);
    let replica = &servers.replicas[0];
    let wrong = Member::watching(replica);
    let connect = async |sentinels: &str| patient().connect(&format!("redis+sentinel://{sentinels}/{WATCHED}")).await;
    let error = connect(&wrong.address()).await.err().expect("a replica is no primary");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the sentinels name a server that is not the primary"), "{error}");
    // One that knows better is asked as well.
    let right = Member::watching(&servers.primary);
    for _ in 0..10 {
        let client = connect(&format!("{},{}", wrong.address(), right.address())).await.unwrap();
        once(&client, "n").await;
    }
    assert_eq!(replica.raw().errors("READONLY"), 0);
}
