//! The client for programs without tokio.

use std::time::{Duration, Instant};

use redlatch::{
    Client as AsyncClient, ErrorKind,
    blocking::{Attempt, Client},
};

use crate::support::{Raw, Server};

fn fixture() -> (Server, Client) {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(AsyncClient::builder(), &server.url()).unwrap();
    (server, client)
}

#[test]
fn threads_take_turns() {
    let (server, client) = fixture();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let count = |raw: &mut Raw| raw.must::<Option<u64>>(&["GET", "counter"]).unwrap_or(0);
                    let sum = client.mutex("n").unwrap().with(|_| {
                        let mut raw = Raw::connect(&server);
                        let next = count(&mut raw) + 1;
                        raw.must::<()>(&["SET", "counter", &next.to_string()]);
                    });
                    sum.unwrap();
                }
            });
        }
    });
    assert_eq!(Raw::connect(&server).must::<u64>(&["GET", "counter"]), 100);
}

#[test]
fn a_lease_is_renewed_without_a_runtime_of_the_program() {
    let (server, client) = fixture();
    let lock = client.lock(client.inner().mutex("n").unwrap().ttl(Duration::from_secs(3)).unwrap());
    let lease = lock.acquire().unwrap();
    let mut raw = Raw::connect(&server);
    let first_end = raw.lock("redlatch:m1:n").deadline_ms.unsigned_abs();
    while raw.now_ms() <= first_end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!lease.is_lost());
    lease.release().unwrap();
}

#[test]
fn a_held_lock_says_so_and_a_dropped_lease_is_given_back() {
    let (_server, client) = fixture();
    let lock = client.mutex("n").unwrap();
    let lease = lock.acquire().unwrap();
    assert!(matches!(lock.try_acquire().unwrap(), Attempt::Held(_)));
    assert!(matches!(lock.acquire_within(Duration::from_millis(30)).unwrap(), Attempt::Held(_)));
    drop(lease);
    client.settle();
    assert!(matches!(lock.try_acquire().unwrap(), Attempt::Granted(_)));
}

#[test]
fn a_blocked_thread_hears_of_the_loss() {
    let (server, client) = fixture();
    let lock = client.lock(client.inner().mutex("n").unwrap().ttl(Duration::from_millis(900)).unwrap());
    let lease = lock.acquire().unwrap();
    Raw::connect(&server).must::<()>(&["FLUSHALL"]);
    let started = Instant::now();
    lease.lost();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(lease.release().unwrap_err().kind(), ErrorKind::Lost);
}

#[test]
fn a_client_can_be_dropped_within_a_runtime() {
    let (_server, client) = fixture();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async move { drop(client) });
}
