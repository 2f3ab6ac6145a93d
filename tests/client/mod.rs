//! The Rust client on a real server.

mod attack;
mod blocking;
mod convenience;
mod deadlines;
mod events;
mod forged;
mod healing;
pub mod inbox;
mod measures;
mod names;
mod not_after;
mod tenants;
mod trouble;

use std::time::{Duration, Instant};

use redlatch::{Attempt, Client, ErrorKind};

use crate::support::Server;

/// Compiles only while the public types can be shared between threads.
#[test]
fn the_public_types_are_send_and_sync() {
    fn shared<T: Send + Sync>() {}
    shared::<Client>();
    shared::<redlatch::Lock<redlatch::Mutex>>();
    shared::<redlatch::Lease<redlatch::Plain>>();
    shared::<redlatch::Error>();
}

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

/// Until the server's clock has moved on by that much.
async fn on_the_server(client: &Client, time: Duration) {
    let now_us = async || client.caller().inspect(b"clock", 0).await.unwrap().now_us;
    let end = now_us().await + u64::try_from(time.as_micros()).unwrap();
    while now_us().await < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn renewal_keeps_a_lease_beyond_its_ttl() {
    let (_server, client) = fixture().await;
    let ttl = Duration::from_secs(3);
    let lease = client.mutex("stock").unwrap().ttl(ttl).unwrap().acquire().await.unwrap();
    on_the_server(&client, ttl).await;
    assert!(!lease.is_lost());
    lease.release().await.unwrap();
}

#[tokio::test]
async fn a_waited_for_lease_is_renewed_like_any_other() {
    let (_server, client) = fixture().await;
    let ttl = Duration::from_secs(3);
    let lock = client.mutex("stock").unwrap().ttl(ttl).unwrap();
    let held = lock.acquire().await.unwrap();
    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    while client.caller().inspect(b"redlatch:m1:stock", 0).await.unwrap().places == 0 {
        tokio::task::yield_now().await;
    }
    held.release().await.unwrap();
    let lease = waiter.await.unwrap();
    on_the_server(&client, ttl).await;
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

#[tokio::test]
async fn a_contended_acquisition_costs_two_commands() {
    let server = Server::start(&[]).unwrap();
    // Heartbeats and renewals every twenty seconds do not come within this test.
    let client = Client::builder().claim(Duration::from_secs(60)).connect(&server.url()).await.unwrap();
    let lock = client.mutex("stock").unwrap().ttl(Duration::from_secs(60)).unwrap();
    let held = lock.acquire().await.unwrap();
    let mut connection = crate::support::Raw::connect(&server);
    connection.must::<()>(&["CONFIG", "RESETSTAT"]);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire().await.unwrap().release().await.unwrap() })
        })
        .collect();
    while connection.count("evalsha") < 50 {
        tokio::task::yield_now().await;
    }
    // Its answer comes after theirs. A waiter that finds both the answer and a push cannot say which was first, and asks.
    held.extend(Duration::from_secs(60)).await.unwrap();
    tokio::task::yield_now().await;
    held.release().await.unwrap();
    for waiter in waiting {
        waiter.await.unwrap();
    }
    // Fifty that queue, one extend, and one release for each of the fifty and the first holder.
    assert_eq!(connection.count("evalsha"), 50 + 1 + 51);
}
