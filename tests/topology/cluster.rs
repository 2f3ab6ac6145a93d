//! A Redis Cluster of three primaries and three replicas.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redlatch::{Attempt, ErrorKind};

use super::{acquire, assert_bitten, deadline_ms, fence, load, once, outlive, patient};
use crate::support::{
    say,
    topology::{Cluster, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_cluster_locks_live_where_their_slot_is_and_waiters_are_told_from_every_node() {
    let cluster = Cluster::start(&[]);
    let client = patient().connect(&cluster.url()).await.unwrap();
    let other = patient().connect(&cluster.url()).await.unwrap();
    let started = Instant::now();
    for (member, name) in cluster.names() {
        let lease = acquire(&client, &name).await;
        assert_eq!(fence(&cluster.members[member], &name), Some(lease.fence().get()), "{name}");
        let waiter = tokio::spawn({
            let (other, name) = (other.clone(), name.clone());
            async move { once(&other, &name).await }
        });
        let mut raw = cluster.members[member].raw();
        until("the other waits", || raw.lock(&format!("redlatch:m1:{name}")).is_queue_open());
        let fence = lease.fence().get();
        lease.release().await.unwrap();
        assert!(waiter.await.unwrap() > fence);
    }
    assert!(started.elapsed() < Duration::from_secs(20), "waiters were not told");
    let published: u64 = cluster.members.iter().map(|member| member.raw().count("publish")).sum();
    assert_bitten("r12: messages", published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_node_that_lacks_a_script_is_healed_alone_while_a_replica_is_stopped() {
    let cluster = Cluster::start(&[]);
    let client = patient().connect(&cluster.url()).await.unwrap();
    let names = cluster.names();
    for (_, name) in &names {
        once(&client, name).await;
    }
    let replica = cluster.members.iter().find(|member| !member.is_primary()).expect("there are replicas");
    replica.signal("STOP");
    let (member, name) = &names[0];
    cluster.members[*member].raw().must::<()>(&["SCRIPT", "FLUSH"]);
    let loads: Vec<u64> = names.iter().map(|(member, _)| cluster.members[*member].raw().count("script|load")).collect();
    let started = Instant::now();
    once(&client, name).await;
    say(&format!("heal of a cluster node with a stopped replica: {:?}", started.elapsed()));
    let healed: Vec<u64> =
        names.iter().map(|(member, _)| cluster.members[*member].raw().count("script|load")).collect();
    replica.signal("CONT");
    assert_bitten("scripts that were missing", cluster.members[*member].raw().errors("NOSCRIPT"));
    assert_eq!((healed[0] - loads[0], healed[1] - loads[1], healed[2] - loads[2]), (2, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_cluster_failover_keeps_leases_and_finds_every_script() {
    let cluster = Cluster::start(&[]);
    load(&cluster.members);
    let client = patient().connect(&cluster.url()).await.unwrap();
    let (member, name) = cluster.names().remove(0);
    let lease = acquire(&client, &name).await;
    let id = cluster.members[member].id();
    let replica = cluster
        .members
        .iter()
        .find(|member| {
            member
                .raw()
                .must::<String>(&["CLUSTER", "NODES"])
                .lines()
                .any(|line| line.contains("myself,slave") && line.contains(&id))
        })
        .expect("it has a replica");
    replica.raw().must::<()>(&["CLUSTER", "FAILOVER"]);
    until("the replica took over", || replica.is_primary() && !cluster.members[member].is_primary());
    lease.extend(Duration::from_secs(20)).await.unwrap();
    lease.release().await.unwrap();
    once(&client, &name).await;
    assert_bitten("calls of the new owner", replica.raw().count("evalsha"));
    assert_eq!(cluster.members.iter().map(|member| member.raw().errors("NOSCRIPT")).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_fences_rise_through_a_promotion_in_the_cluster_that_loses_the_last_grant() {
    let mut cluster = Cluster::start(&[]);
    let client = patient().connect(&cluster.url()).await.unwrap();
    let (member, name) = cluster.names().remove(0);
    let before = once(&client, &name).await;
    let id = cluster.members[member].id();
    let replica = (0..6)
        .find(|other| {
            let nodes: String = cluster.members[*other].raw().must(&["CLUSTER", "NODES"]);
            nodes.lines().any(|line| line.contains("myself,slave") && line.contains(&id))
        })
        .expect("it has a replica");
    let caught_up: u64 = cluster.members[member].raw().must(&["WAIT", "1", "2000"]);
    assert_eq!(caught_up, 1);
    let mut raw = cluster.members[member].raw();
    raw.must::<()>(&["ACL", "SETUSER", "default", "-psync", "-replconf"]);
    raw.must::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]);
    let lease = acquire(&client, &name).await;
    cluster.members[member].kill();
    until("the replica took over", || cluster.members[replica].is_primary());
    until("the cluster is up", || {
        cluster.members[replica].raw().must::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
    });
    let known = fence(&cluster.members[replica], &name) == Some(lease.fence().get());
    assert_bitten("grants that only the dead primary knew", u64::from(!known));
    let other = patient().connect(&cluster.url()).await.unwrap();
    let next = once(&other, &name).await;
    assert!(before < lease.fence().get() && lease.fence().get() < next, "{before} {} {next}", lease.fence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_cluster_that_is_down_grants_nothing_tells_holders_and_comes_back() {
    let cluster = Cluster::start(&["--cluster-replica-no-failover", "yes"]);
    let client = patient().ttl(Duration::from_secs(4)).connect(&cluster.url()).await.unwrap();
    let names = cluster.names();
    let lease = acquire(&client, &names[0].1).await;
    let stopped = &cluster.members[names[1].0];
    stopped.signal("STOP");
    until("the cluster is down", || {
        cluster.members[names[0].0].raw().must::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:fail")
    });
    let error = client.mutex(&names[2].1).unwrap().try_acquire().await.err();
    let told = tokio::time::timeout(Duration::from_secs(10), lease.lost()).await;
    stopped.signal("CONT");
    assert!(told.is_ok(), "the holder was not told");
    assert!(error.is_none_or(|error| matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown)));
    assert_bitten("answers of CLUSTERDOWN", cluster.members[names[0].0].raw().errors("CLUSTERDOWN"));
    cluster.settled();
    once(&client, &names[2].1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_primary_delays_only_its_own_locks() {
    let cluster = Cluster::start(&["--cluster-replica-no-failover", "yes", "--cluster-require-full-coverage", "no"]);
    let timeout = Duration::from_secs(5);
    let client = Arc::new(patient().timeout(timeout).connect(&cluster.url()).await.unwrap());
    let names = cluster.names();
    for (_, name) in &names {
        once(&client, name).await;
    }
    cluster.members[names[0].0].signal("STOP");
    let lost = client.mutex(&names[0].1).unwrap().try_acquire().await;
    assert!(lost.is_err());
    let started = Instant::now();
    for (_, name) in &names[1..] {
        let Attempt::Granted(lease) = client.mutex(name).unwrap().try_acquire().await.unwrap() else { panic!("held") };
        lease.release().await.unwrap();
    }
    let took = started.elapsed();
    let newcomer = patient().connect(&cluster.url()).await.expect("the others answer");
    once(&newcomer, &names[2].1).await;
    cluster.members[names[0].0].signal("CONT");
    say(&format!("two locks of other nodes while one is stopped: {took:?}"));
    assert!(took < timeout, "they waited for the stopped node: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_primary_ends_only_the_leases_that_it_has() {
    let cluster = Cluster::start(&["--cluster-replica-no-failover", "yes", "--cluster-require-full-coverage", "no"]);
    let client = patient().ttl(Duration::from_secs(6)).connect(&cluster.url()).await.unwrap();
    let names = cluster.names();
    let mut leases = Vec::new();
    for (_, name) in &names {
        leases.push(acquire(&client, name).await);
    }
    cluster.members[names[0].0].signal("STOP");
    let told = tokio::time::timeout(Duration::from_secs(60), leases[0].lost()).await;
    for (member, name) in &names[1..] {
        outlive(&cluster.members[*member], deadline_ms(&cluster.members[*member], name));
    }
    let kept: Vec<_> = leases[1..].iter().map(|lease| !lease.is_lost()).collect();
    cluster.members[names[0].0].signal("CONT");
    assert!(told.is_ok(), "the holder was not told");
    assert_eq!(kept, [true, true]);
}
