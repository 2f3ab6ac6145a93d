//! `with`, `acquire_all` and the re-entrant lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redlatch::{ErrorKind, Reentrant, acquire_all};

use super::fixture;
use crate::support::Raw;

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn with_runs_the_work_under_the_lease_and_gives_it_back() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("n").unwrap();
    let held = lock
        .with(async |lease| {
            assert!(!lease.is_lost());
            lock.try_acquire().await.unwrap().granted().is_none()
        })
        .await;
    assert!(held.unwrap(), "nobody else has it meanwhile");
    assert!(lock.try_acquire().await.unwrap().granted().is_some());
}

#[tokio::test]
async fn with_drops_the_work_when_the_lease_is_lost() {
    let (server, client) = fixture().await;
    let lock = client.mutex("n").unwrap().ttl(Duration::from_millis(600)).unwrap();
    let dropped = Arc::new(AtomicBool::new(false));
    let work = Dropped(Arc::clone(&dropped));
    let outcome = lock
        .with(async |_| {
            let _work = work;
            Raw::connect(&server).must::<()>(&["FLUSHALL"]);
            std::future::pending::<()>().await;
        })
        .await;
    assert_eq!(outcome.err().unwrap().kind(), ErrorKind::Lost);
    assert!(dropped.load(Ordering::Relaxed));
}

#[tokio::test]
async fn with_gives_the_lease_back_when_the_work_panics() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("n").unwrap();
    let work = lock.clone();
    let outcome = tokio::spawn(async move { work.with(async |_| panic!("the work fails")).await }).await;
    assert!(outcome.is_err());
    client.settle().await;
    assert!(lock.try_acquire().await.unwrap().granted().is_some());
}

#[tokio::test]
async fn all_locks_are_acquired_whatever_order_others_name_them_in() {
    let (_server, client) = fixture().await;
    let names = ["a", "b", "c"].map(|name| client.mutex(name).unwrap());
    let mut tasks = Vec::new();
    for turn in 0..6 {
        let mut locks = names.clone();
        locks.rotate_left(turn % 3);
        if turn % 2 == 0 {
            locks.reverse();
        }
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                let leases = acquire_all(&locks).await.unwrap();
                let order: Vec<_> = leases.iter().map(|lease| lease.name().clone()).collect();
                assert_eq!(order, locks.iter().map(|lock| lock.name().clone()).collect::<Vec<_>>());
                for lease in leases {
                    lease.release().await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("no deadlock").unwrap();
    }
}

#[tokio::test]
async fn nothing_is_kept_when_not_all_locks_can_be_had() {
    let (_server, client) = fixture().await;
    let names = ["a", "b"].map(|name| client.mutex(name).unwrap());
    let _held = names[1].acquire().await.unwrap();
    let all = tokio::time::timeout(Duration::from_millis(100), acquire_all(&names)).await;
    assert!(all.is_err(), "b is held");
    client.settle().await;
    assert!(names[0].try_acquire().await.unwrap().granted().is_some());
    assert_eq!(client.caller().inspect(b"redlatch:m1:b", 10).await.unwrap().waiters, []);
}

#[tokio::test]
async fn a_lock_that_is_named_twice_is_refused() {
    let (server, client) = fixture().await;
    let twice = ["a", "a"].map(|name| client.mutex(name).unwrap());
    let error = acquire_all(&twice).await.err().unwrap();
    assert_eq!(error.to_string(), "\"a\" is named twice: it would wait for itself");
    assert_eq!(Raw::connect(&server).must::<u64>(&["DBSIZE"]), 0);
}

#[tokio::test]
async fn a_reentrant_lock_is_shared_by_its_clones_and_excludes_other_handles() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("n").unwrap();
    let ours = Reentrant::new(lock.clone());
    let first = ours.acquire().await.unwrap();
    let second = ours.clone().acquire().await.unwrap();
    assert_eq!(first.fence(), second.fence());
    first.release().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().granted().is_none(), "one share is left");
    let theirs = Reentrant::new(lock.clone());
    let waits = tokio::spawn(async move { theirs.acquire().await.unwrap().fence() });
    let fence = second.fence();
    second.release().await.unwrap();
    assert!(waits.await.unwrap() > fence);
}

#[tokio::test]
async fn a_lost_reentrant_lock_is_not_acquired_anew_while_shares_are_left() {
    let (server, client) = fixture().await;
    let ours = Reentrant::new(client.mutex("n").unwrap());
    let first = ours.acquire().await.unwrap();
    Raw::connect(&server).must::<()>(&["FLUSHALL"]);
    assert_eq!(first.extend(Duration::from_secs(5)).await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(ours.acquire().await.err().unwrap().kind(), ErrorKind::Lost);
    drop(first);
    assert!(!ours.acquire().await.unwrap().is_lost());
}

/// A late copy of the acquire was granted after the loss of all data: others may have held the lock in between.
#[tokio::test]
async fn a_lease_whose_fence_is_another_one_is_lost() {
    let (server, client) = fixture().await;
    let lease = client.mutex("n").unwrap().acquire().await.unwrap();
    Raw::connect(&server).edit_lock("redlatch:m1:n", |lock| lock.fence += 1);
    assert_eq!(lease.extend(Duration::from_secs(5)).await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(lease.is_lost());
}
