//! A primary and replicas that nobody watches.

use std::time::{Duration, Instant};

use redlatch::{Attempt, ErrorKind};

use super::{acquire, assert_bitten, fence, load, once, patient};
use crate::support::{
    Raw, Server, say,
    topology::{Replicated, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_fences_rise_through_an_exact_split_brain() {
    let servers = Replicated::start(1, &[]);
    let one = patient().connect(&servers.primary.url()).await.unwrap();
    let before = once(&one, "n").await;
    let replica = &servers.replicas[0];
    until("the replica has the lock", || fence(replica, "n") == Some(before));
    replica.raw().must::<()>(&["REPLICAOF", "NO", "ONE"]);
    let other = patient().connect(&replica.url()).await.unwrap();
    let here = acquire(&one, "n").await;
    let there = acquire(&other, "n").await;
    assert_bitten("two holders at once", 1);
    assert!(before < here.fence().get() && here.fence() < there.fence(), "{before} {} {}", here.fence(), there.fence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_fail_over_on_command_loses_no_lease() {
    let servers = Replicated::start(1, &[]);
    let client = patient().connect(&servers.primary.url()).await.unwrap();
    let lease = acquire(&client, "n").await;
    let replica = &servers.replicas[0];
    servers.primary.raw().must::<()>(&["FAILOVER", "TO", "127.0.0.1", &replica.port.to_string()]);
    until("the replica is the primary", || replica.is_primary());
    // The client of one address is told; the client of the other goes on with the same lease.
    let error = client.mutex("free").unwrap().try_acquire().await.err().expect("a replica takes no writes");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Some("READONLY")));
    let other = patient().connect(&replica.url()).await.unwrap();
    assert!(matches!(other.mutex("n").unwrap().try_acquire().await.unwrap(), Attempt::Held(_)));
    assert_eq!(fence(replica, "n"), Some(lease.fence().get()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_a_server_that_became_a_replica_is_left_when_its_address_leads_to_another_by_now() {
    let (before, now) = (Server::start(&[]).unwrap(), Server::start(&[]).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("redis.sock");
    std::os::unix::fs::symlink(before.socket(), &address).unwrap();
    let client = patient().connect(&format!("unix://{}", address.display())).await.unwrap();
    once(&client, "n").await;
    std::fs::remove_file(&address).unwrap();
    std::os::unix::fs::symlink(now.socket(), &address).unwrap();
    Raw::connect(&before).must::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = client.mutex("n").unwrap().try_acquire().await.err().expect("a replica takes no writes");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Some("READONLY")));
    once(&client, "n").await;
    assert_bitten("calls of the new primary", Raw::connect(&now).count("evalsha"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_without_replicas_a_primary_that_needs_them_grants_nothing() {
    let servers = Replicated::start(1, &["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"]);
    let client = patient().connect(&servers.primary.url()).await.unwrap();
    let lease = acquire(&client, "n").await;
    servers.replicas[0].signal("STOP");
    let mut refused = 0;
    until("the primary misses its replica", || {
        let info: String = servers.primary.raw().must(&["INFO", "replication"]);
        info.contains("min_slaves_good_slaves:0")
    });
    if let Err(error) = client.mutex("other").unwrap().try_acquire().await {
        assert_eq!(error.code(), Some("NOREPLICAS"), "{error}");
        refused += 1;
    }
    assert_bitten("acquires that were refused", refused);
    servers.replicas[0].signal("CONT");
    until("the primary has its replica again", || {
        let info: String = servers.primary.raw().must(&["INFO", "replication"]);
        info.contains("min_slaves_good_slaves:1")
    });
    lease.release().await.unwrap();
    once(&client, "other").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_a_replica_without_its_primary_is_unavailable_and_not_wrong() {
    let mut servers = Replicated::start(1, &["--replica-serve-stale-data", "no"]);
    let replica_url = servers.replicas[0].url();
    load([&servers.replicas[0]]);
    servers.primary.kill();
    until("the replica misses its primary", || {
        let info: String = servers.replicas[0].raw().must(&["INFO", "replication"]);
        info.contains("master_link_status:down")
    });
    let client = patient().strict(true).connect(&replica_url).await;
    let error = match client {
        Err(error) => error,
        Ok(client) => client.mutex("n").unwrap().try_acquire().await.err().expect("it has no data to answer from"),
    };
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, Some("MASTERDOWN")), "{error}");
    assert_bitten("answers of MASTERDOWN", servers.replicas[0].raw().errors("MASTERDOWN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healing_waits_for_no_replica_that_is_stopped() {
    let servers = Replicated::start(2, &[]);
    let timeout = Duration::from_secs(5);
    let client = patient().timeout(timeout).connect(&servers.primary.url()).await.unwrap();
    once(&client, "n").await;
    servers.replicas[0].signal("STOP");
    let mut raw = servers.primary.raw();
    let mut times = Vec::new();
    for _ in 0..20 {
        raw.must::<()>(&["SCRIPT", "FLUSH"]);
        let started = Instant::now();
        once(&client, "n").await;
        times.push(started.elapsed());
    }
    servers.replicas[0].signal("CONT");
    times.sort();
    say(&format!(
        "heal of both scripts with a stopped replica: {:?} at most, {:?} in the middle",
        times[19], times[10]
    ));
    assert_bitten("scripts that were missing", raw.errors("NOSCRIPT"));
    assert!(times[19] < timeout, "it waited for the replica");
}
