//! Orders of events that would break a promise if nothing stood against them.

use std::time::Duration;

use redlatch::{Client, ErrorKind};

use super::fixture;
use crate::support::signal;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One poll: enough for a request to leave, not enough for its reply.
async fn drop_after_one_poll(future: impl Future) {
    tokio::select! {
        biased;
        _ = future => panic!("answered at once"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn a_dropped_extend_does_not_stop_the_renewals() {
    let (_server, client) = fixture().await;
    let lease = client.mutex("n").unwrap().ttl(ms(900)).unwrap().acquire().await.unwrap();
    drop_after_one_poll(lease.extend(ms(900))).await;
    tokio::time::sleep(ms(1500)).await;
    assert!(!lease.is_lost());
    lease.release().await.unwrap();
}

#[tokio::test]
async fn a_lost_lease_stays_lost_when_a_late_renewal_is_answered() {
    let (server, client) = fixture().await;
    let lease = client.mutex("n").unwrap().ttl(ms(600)).unwrap().acquire().await.unwrap();
    tokio::time::sleep(ms(100)).await;
    signal(server.pid(), "STOP");
    lease.lost().await;
    lease.lost_token().cancelled().await;
    signal(server.pid(), "CONT");
    for _ in 0..50 {
        tokio::time::sleep(ms(2)).await;
        assert_eq!((lease.is_lost(), lease.remaining()), (true, Duration::ZERO));
    }
    assert_eq!(lease.extend(ms(600)).await.unwrap_err().kind(), ErrorKind::Lost);
}

#[tokio::test]
async fn a_released_lease_is_never_reported_lost() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("n").unwrap().ttl(ms(30)).unwrap();
    for round in 0..200 {
        // On a busy machine a lease so short may be over when it is heard of.
        let Ok(lease) = lock.acquire().await else { continue };
        let token = lease.lost_token();
        tokio::time::sleep(ms(9) + Duration::from_micros(fastrand::u64(0..3000))).await;
        // What was lost before may be given back in time all the same.
        if !token.is_cancelled() && lease.release().await.is_ok() {
            tokio::time::sleep(ms(2)).await;
            assert!(!token.is_cancelled(), "round {round}");
        }
    }
}

#[tokio::test]
async fn a_ttl_shorter_than_any_reply_is_lost_and_not_asked_for_without_end() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("n").unwrap().ttl(ms(1)).unwrap();
    let limit = Duration::from_secs(20);
    let error = tokio::time::timeout(limit, lock.try_acquire()).await.expect("an end").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Lost);
}

#[tokio::test]
async fn a_ttl_with_a_fraction_of_a_millisecond_counts_without_it() {
    let (_server, client) = fixture().await;
    let lock = client.mutex("n").unwrap().ttl(Duration::from_micros(40_999)).unwrap().renew(false);
    let (mut longest, mut granted) = (Duration::ZERO, 0);
    for _ in 0..200 {
        // On a busy machine a lease so short may be over when it is heard of.
        let Ok(lease) = lock.acquire().await else { continue };
        longest = longest.max(lease.remaining());
        granted += 1;
        let _ = lease.extend(Duration::from_micros(40_999)).await;
        longest = longest.max(lease.remaining());
        let _ = lease.release().await;
    }
    println!("the longest of {granted} leases had {longest:?} left");
    assert!(granted > 0 && longest < ms(39), "{longest:?}");
}

#[tokio::test]
async fn g5_the_second_in_the_queue_learns_in_time_that_a_short_lease_is_over() {
    let (server, client) = fixture().await;
    let stopped = Client::connect(&server.url()).await.unwrap();
    let other = Client::connect(&server.url()).await.unwrap();
    let short = |client: &Client| client.mutex("n").unwrap().ttl(ms(300)).unwrap();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let held = short(&client).acquire().await.unwrap();
        let places = async |at_least| {
            while client.caller().inspect(b"redlatch:m1:n", 0).await.unwrap().places < at_least {
                tokio::time::sleep(ms(1)).await;
            }
        };
        let first = tokio::spawn({
            let lock = short(&stopped).renew(false);
            async move { lock.acquire().await.unwrap().into_owner_token() }
        });
        places(1).await;
        let second = tokio::spawn({
            let lock = short(&other);
            async move { lock.acquire().await.unwrap() }
        });
        places(2).await;
        held.release().await.unwrap();
        first.await.unwrap();
        let granted = std::time::Instant::now();
        let lease = second.await.unwrap();
        best = best.min(granted.elapsed());
        lease.release().await.unwrap();
    }
    println!("a lease of 300 ms that nobody gave back cost {best:?}");
    assert!(best < ms(450), "{best:?}");
}
