//! S14: the wall clock of a real server steps ahead, steps back and runs slow.

use std::time::Duration;

use redlatch::{Client, ErrorKind};

use super::holder;
use crate::support::{ClockShim, Raw, Server};

const MINUTE_US: i64 = 60_000_000;

/// A server whose clock can be set.
struct Clocked {
    server: Server,
    clock: ClockShim,
}

impl Clocked {
    fn start() -> Self {
        let clock = ClockShim::new();
        Self { server: Server::start_in(clock.environment(), &[]).unwrap(), clock }
    }

    /// From now on its clock is so many microseconds ahead of ours. Tells by how much it moved.
    fn set(&self, ahead_us: i64) -> i64 {
        let mut raw = Raw::connect(&self.server);
        let mut now = || -> i64 {
            let (seconds, micros): (i64, i64) = raw.must(&["TIME"]);
            seconds * 1_000_000 + micros
        };
        let before = now();
        self.clock.set(ahead_us);
        now() - before
    }
}

#[tokio::test]
async fn s14_after_a_step_ahead_the_holder_hears_at_its_next_renewal_and_fences_rise() {
    let clocked = Clocked::start();
    let client = Client::connect(&clocked.server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(3)).unwrap();
    let lease = lock.acquire().await.unwrap();
    assert!(clocked.set(MINUTE_US) > MINUTE_US / 2, "the fault bites");
    let next = lock.acquire().await.unwrap();
    assert!(next.fence() > lease.fence());
    tokio::time::timeout(Duration::from_secs(20), lease.lost()).await.expect("at the next renewal");
    assert_eq!(lease.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(holder(&clocked.server, "n").unwrap().0, next.owner_token());
}

#[tokio::test]
async fn s14_after_a_step_back_no_lease_outlives_its_ttl_and_fences_rise() {
    let clocked = Clocked::start();
    let client = Client::connect(&clocked.server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(2)).unwrap().renew(false);
    let dead = lock.acquire().await.unwrap();
    let fence = dead.fence();
    drop(dead.into_owner_token());
    assert!(clocked.set(-MINUTE_US) < -MINUTE_US / 2, "the fault bites");
    let next =
        tokio::time::timeout(Duration::from_secs(40), lock.acquire()).await.expect("not after a minute").unwrap();
    assert!(next.fence() > fence);
    next.release().await.unwrap();
}

#[tokio::test]
async fn s14_a_lease_is_renewed_through_steps_of_the_clock_by_less_than_it_has_left() {
    let clocked = Clocked::start();
    let client = Client::connect(&clocked.server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(3)).unwrap();
    let lease = lock.acquire().await.unwrap();
    let before = holder(&clocked.server, "n");
    for ahead_us in [400_000, -400_000, -MINUTE_US, -MINUTE_US + 400_000] {
        let moved = clocked.set(ahead_us);
        assert!(moved.abs() > 300_000, "the fault bites: {moved}");
        let mut raw = Raw::connect(&clocked.server);
        let mut end = || raw.lock("redlatch:m1:n").deadline_ms;
        let before_renewal = end();
        while end() == before_renewal {
            assert!(!lease.is_lost());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!lease.is_lost());
        assert_eq!(holder(&clocked.server, "n"), before);
    }
    lease.release().await.unwrap();
}
