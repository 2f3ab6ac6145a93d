//! More than one server: replicas, sentinels, a cluster, servers behind TLS. All of them real.

mod cluster;
mod sentinel;

use std::time::Duration;

use redlatch::{Client, ClientBuilder, Lease};

/// Leases that outlive a switch of the primary.
fn patient() -> ClientBuilder {
    Client::builder().timeout(Duration::from_millis(500)).ttl(Duration::from_secs(20))
}

/// Acquires and releases `name` once, and returns the fence.
async fn once(client: &Client, name: &str) -> u64 {
    let lease: Lease = client.mutex(name).unwrap().acquire().await.unwrap();
    let fence = lease.fence().get();
    lease.release().await.unwrap();
    fence
}
