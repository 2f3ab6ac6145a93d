//! The Rust client on a real server.

mod attack;
mod trouble;

use std::time::{Duration, Instant};

use redlatch::{Attempt, Client, ErrorKind};

use crate::support::Server;

async fn fixture() -> (Server, Client) {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    (server, client)
}

#[tokio::test]
async fn grants_a_free_resource_and_refuses_a_held_one() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("stock").unwrap();
    let lease = lock.try_acquire().await.unwrap().granted().unwrap();
    match lock.try_acquire().await.unwrap() {
        Attempt::Held(held) => assert!(held.remaining > Duration::from_secs(9)),
        Attempt::Granted(_) => panic!("two leases at once"),
    }
    lease.release().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().granted().is_some());
}

#[tokio::test]
async fn fences_rise_with_every_grant() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("stock").unwrap();
    let mut last = None;
    for _ in 0..100 {
        let lease = lock.acquire().await.unwrap();
        assert!(Some(lease.fence()) > last);
        last = Some(lease.fence());
        lease.release().await.unwrap();
    }
}

#[tokio::test]
async fn waiters_are_granted_in_order_without_waiting_for_a_heartbeat() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("stock").unwrap();
    let held = lock.acquire().await.unwrap();
    let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..20 {
        let (lock, sender) = (lock.clone(), sender.clone());
        tokio::spawn(async move {
            let lease = lock.acquire().await.unwrap();
            sender.send(number).unwrap();
            lease.release().await.unwrap();
        });
        while client.caller().inspect(b"redlatch:m1:stock", 0).await.unwrap().places < number + 1 {
            tokio::task::yield_now().await;
        }
    }
    let started = Instant::now();
    held.release().await.unwrap();
    for number in 0..20 {
        assert_eq!(order.recv().await, Some(number));
    }
    // Twenty heartbeats would be at least fifteen seconds.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_wait_that_is_over_leaves_the_queue() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("stock").unwrap();
    let held = lock.acquire().await.unwrap();
    assert!(lock.acquire_within(Duration::from_millis(50)).await.unwrap().granted().is_none());
    held.release().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().granted().is_some());
}

#[tokio::test]
async fn a_dropped_lease_is_given_back() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("stock").unwrap();
    drop(lock.acquire().await.unwrap());
    let lease = lock.acquire_within(Duration::from_secs(5)).await.unwrap();
    assert!(lease.granted().is_some());
}

#[tokio::test]
async fn renewal_keeps_a_lease_beyond_its_ttl() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("stock").unwrap().ttl(Duration::from_millis(1500)).unwrap();
    let lease = lock.acquire().await.unwrap();
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert!(!lease.is_lost());
    lease.release().await.unwrap();
}

#[tokio::test]
async fn the_holder_is_told_when_its_lease_was_taken_away() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("stock").unwrap().ttl(Duration::from_millis(600)).unwrap();
    let lease = lock.acquire().await.unwrap();
    client.caller().force_release(b"redlatch:m1:stock").await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), lease.lost()).await.unwrap();
    assert!(lease.is_lost());
    assert_eq!(lease.release().await.unwrap_err().kind(), ErrorKind::Lost);
}
