//! More than one server: replicas, sentinels, a cluster, servers behind TLS. All of them real. Tests are named after the
//! fault whose id they begin with; each counts how often its fault really happened.

mod cluster;
mod inbox;
mod login;
mod migration;
mod replicas;
mod sentinel;
mod tls;

use std::time::Duration;

use redlatch::{Client, ClientBuilder, Lease, bundle::embedded};

use crate::support::topology::{Member, until};

/// Leases that outlive a switch of the primary.
fn patient() -> ClientBuilder {
    Client::builder().timeout(Duration::from_millis(500)).ttl(Duration::from_secs(20))
}

async fn acquire(client: &Client, name: &str) -> Lease {
    client.mutex(name).unwrap().acquire().await.unwrap()
}

/// Until when `member` says that the mutex `name` is held, in milliseconds of its clock.
fn deadline_ms(member: &Member, name: &str) -> u64 {
    member.raw().lock(&format!("redlatch:m1:{name}")).deadline_ms.unsigned_abs()
}

/// Waits until it is later than `deadline_ms` on `member`: who still has the lease then has renewed it.
fn outlive(member: &Member, deadline_ms: u64) {
    until("the lease would be over without a renewal", || member.raw().now_ms() > deadline_ms);
}

/// Acquires and releases `name` once, and returns the fence.
async fn once(client: &Client, name: &str) -> u64 {
    let lease = acquire(client, name).await;
    let fence = lease.fence().get();
    lease.release().await.unwrap();
    fence
}

/// Preloads every script, as `redlatch load` does.
fn load<'a>(members: impl IntoIterator<Item = &'a Member>) {
    for member in members {
        let mut raw = member.raw();
        for script in embedded().unwrap().scripts() {
            raw.run(&[b"SCRIPT", b"LOAD", script.source()]).unwrap();
        }
    }
}

/// The last fence that `member` knows of the mutex `name`, if any.
fn fence(member: &Member, name: &str) -> Option<u64> {
    Some(member.raw().lock(&format!("redlatch:m1:{name}")).fence.unsigned_abs()).filter(|&fence| fence > 0)
}

#[track_caller]
fn assert_bitten(what: &str, bites: u64) {
    println!("{what}: {bites}");
    assert!(bites > 0, "it never happened: {what}");
}
