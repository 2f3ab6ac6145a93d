//! A message that no script has sent gives nobody a lease.

use std::time::Duration;

use redlatch::{Attempt, Client, Lease};

use crate::support::{Raw, Server};

const KEY: &str = "redlatch:m1:n";
const CLAIM: Duration = Duration::from_secs(20);

/// The owner token that a client uses next after that of `held`.
pub fn waiter_of(held: &Lease) -> String {
    let (id, number) = held.owner_token().split_once(':').unwrap();
    format!("{id}:{}", number.parse::<u64>().unwrap() + 1)
}

/// The inbox of the client that holds `held`.
pub fn inbox_of(held: &Lease) -> String {
    format!("redlatch:inbox:{}", held.owner_token().split_once(':').unwrap().0)
}

/// `FENCE LEASE` as a forger might write it, who does not know the key; `now_us` is the server's clock.
fn shapes(now_us: u64, held_us: u64) -> Vec<String> {
    let lease = CLAIM.as_millis();
    let mut shapes: Vec<String> = [
        0,
        1,
        held_us - 1,
        held_us,
        now_us - 60_000_000,
        now_us + 60_000_000,
        now_us + 3_600_000_000,
        (1 << 53) - 1,
        1 << 53,
        u64::MAX,
    ]
    .iter()
    .map(|fence| format!("{fence} {lease}"))
    .collect();
    for lease in
        ["0", "1", "2999", "3000", "19999", "20001", "60000", "2678400000", "18446744073709551616", "-1", "1e3", ""]
    {
        shapes.push(format!("{now_us} {lease}"));
    }
    shapes.extend(
        ["", "0 0", "x y", "1", &format!("{now_us} {lease} 1"), &format!(" {now_us} {lease}")].map(str::to_owned),
    );
    shapes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_message_gives_no_lease_while_another_holds_it() {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().claim(CLAIM).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(600)).unwrap();
    let held = lock.acquire().await.unwrap();
    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    while client.caller().inspect(KEY.as_bytes(), 0).await.unwrap().places == 0 {
        tokio::task::yield_now().await;
    }
    let (owner, inbox) = (waiter_of(&held), inbox_of(&held));
    let mut raw = Raw::connect(&server);
    let mut asked = 0;
    let shapes = shapes(raw.now_ms() * 1000, held.fence().get());
    for shape in &shapes {
        let before = raw.count("evalsha");
        raw.must::<u64>(&["PUBLISH", &inbox, &format!("{owner} {shape}")]);
        // Each makes the waiter ask, and costs no more than that.
        while raw.count("evalsha") == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        asked += raw.count("evalsha") - before;
        assert!(!waiter.is_finished(), "{shape}");
    }
    println!("{} forged messages cost {asked} questions", shapes.len());
    for nonsense in ["", " ", "\u{0}", "nobody 1 3000", &"x".repeat(100_000)] {
        raw.must::<u64>(&["PUBLISH", &inbox, nonsense]);
    }
    raw.run(&[b"PUBLISH", inbox.as_bytes(), b"\xff\xfe 1 3000"]).unwrap();
    assert_eq!(client.caller().inspect(KEY.as_bytes(), 9).await.unwrap().waiters.len(), 1, "it kept its place");
    let fence = held.fence();
    held.release().await.unwrap();
    let lease = waiter.await.unwrap();
    assert!(lease.fence() > fence && !lease.is_lost());
    lease.release().await.unwrap();
}

/// The server's clock has shown that fence, since the waiter asked: that it was granted to another is known here only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fence_of_another_waiter_of_the_same_process_gives_no_lease() {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().claim(CLAIM).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(600)).unwrap();
    let held = lock.acquire().await.unwrap();
    let wait = || {
        let lock = lock.clone();
        tokio::spawn(async move { lock.acquire().await.unwrap() })
    };
    let queued = async |places| {
        while client.caller().inspect(KEY.as_bytes(), 0).await.unwrap().places < places {
            tokio::task::yield_now().await;
        }
    };
    let first = wait();
    queued(1).await;
    let second = wait();
    queued(2).await;
    let inbox = inbox_of(&held);
    held.release().await.unwrap();
    let first = first.await.unwrap();
    let forged = format!("{} {} {}", waiter_of(&first), first.fence(), CLAIM.as_millis());
    let mut raw = Raw::connect(&server);
    // By itself it would ask each seven seconds.
    let told = async {
        for _ in 0..30 {
            let asked = raw.count("evalsha");
            raw.must::<u64>(&["PUBLISH", &inbox, &forged]);
            while raw.count("evalsha") == asked {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("each makes the waiter ask");
    assert!(!second.is_finished());
    let fence = first.fence();
    first.release().await.unwrap();
    let lease = second.await.unwrap();
    assert!(lease.fence() > fence);
    lease.release().await.unwrap();
}

#[tokio::test]
async fn a_forged_message_to_who_does_not_wait_changes_nothing() {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().claim(CLAIM).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap();
    let held = lock.acquire().await.unwrap();
    assert!(matches!(lock.acquire_within(Duration::from_millis(5)).await.unwrap(), Attempt::Held(_)));
    client.settle().await;
    let mut raw = Raw::connect(&server);
    for shape in shapes(raw.now_ms() * 1000, held.fence().get()) {
        for owner in [waiter_of(&held), held.owner_token().to_owned()] {
            raw.must::<u64>(&["PUBLISH", &inbox_of(&held), &format!("{owner} {shape}")]);
        }
    }
    assert!(lock.try_acquire().await.unwrap().granted().is_none());
    assert!(!held.is_lost());
    held.release().await.unwrap();
}
