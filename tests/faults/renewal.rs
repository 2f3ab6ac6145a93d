//! Renewals: many at once, and in a runtime that is blocked.

use std::time::{Duration, Instant};

use redlatch::Client;

use super::{assert_bitten, calls};
use crate::support::{Raw, Server};

/// How often the server has read from a socket.
fn reads(server: &Server) -> u64 {
    let info: String = Raw::connect(server).must(&["INFO", "stats"]);
    let value = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap();
    value.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_of_five_thousand_leases_leave_in_few_writes() {
    const LEASES: usize = 5000;
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().ttl(Duration::from_secs(12)).connect(&server.url()).await.unwrap();
    let mut leases = Vec::new();
    for number in 0..LEASES {
        leases.push(client.mutex(format!("n{number}")).unwrap().try_acquire().await.unwrap().granted().unwrap());
    }
    let (before, reads_before) = (calls(&server), reads(&server));
    tokio::time::sleep(Duration::from_secs(9)).await;
    let renewals = calls(&server) - before;
    let reads = reads(&server) - reads_before;
    println!("{renewals} renewals of {LEASES} leases in {reads} reads of the server");
    assert!(renewals >= LEASES as u64, "each lease was renewed");
    assert!(reads * 10 < renewals, "at least ten renewals in each write");
    assert!(leases.iter().all(|lease| !lease.is_lost()));
}

/// Blocks a runtime of one thread for longer than the TTL, and tells whether the lease was lost, by all three signs.
fn block(own_thread: bool) -> bool {
    let server = Server::start(&[]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let settings = Client::builder().ttl(Duration::from_millis(1500)).renewal_thread(own_thread);
        let client = settings.connect(&server.url()).await.unwrap();
        let lease = client.mutex("n").unwrap().acquire().await.unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(4) {
            std::hint::spin_loop();
        }
        let lost = lease.is_lost();
        tokio::task::yield_now().await;
        let told = tokio::time::timeout(Duration::from_millis(1), lease.lost()).await.is_ok();
        assert_eq!(told, lost);
        // The keeper of a blocked runtime never renews a lease that is over.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(lease.is_lost(), lost);
        assert_eq!(lease.lost_token().is_cancelled(), lost);
        assert_eq!(lease.release().await.is_err(), lost);
        lost
    })
}

#[test]
fn c4_a_blocked_runtime_cannot_make_a_dead_lease_look_alive() {
    assert!(block(false));
    assert_bitten(1);
}

#[test]
fn c4_with_a_thread_of_its_own_a_lease_outlives_a_blocked_runtime() {
    assert!(!block(true));
    assert_bitten(1);
}
