//! Slots that move from node to node while their locks are in use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{acquire, assert_bitten, deadline_ms, once, outlive, patient};
use crate::support::topology::{Cluster, move_keys, open_slot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_slots_that_move_under_load_surface_no_error_and_lose_no_lease() {
    let cluster = Cluster::start(&[]);
    let client = patient().ttl(Duration::from_secs(6)).connect(&cluster.url()).await.unwrap();
    let held = acquire(&client, "{moving}held").await;
    let stop = Arc::new(AtomicBool::default());
    let rounds = Arc::new(AtomicU64::default());
    let load: Vec<_> = (0..8)
        .map(|number| {
            let (client, stop, rounds) = (client.clone(), Arc::clone(&stop), Arc::clone(&rounds));
            // Two of them share a lock, so that some wait; each second lock was never there before.
            let name = format!("{{moving}}n{}", number / 2);
            tokio::spawn(async move {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let fence = once(&client, &name).await;
                    assert!(fence > last, "{fence} after {last}");
                    last = fence;
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    once(&client, &format!("{{moving}}fresh{round}")).await;
                }
            })
        })
        .collect();
    let slot = cluster.members[0].raw().must::<u16>(&["CLUSTER", "KEYSLOT", "{moving}"]).to_string();
    let primaries: Vec<_> = (0..6).filter(|member| cluster.members[*member].is_primary()).collect();
    let mut moved = 0;
    for turn in 0..6 {
        let source = cluster.owner("{moving}");
        let target = *primaries.iter().find(|member| **member != source).expect("there are three");
        let (source, target) = (&cluster.members[source], &cluster.members[target]);
        open_slot(&slot, source, target);
        tokio::time::sleep(Duration::from_millis(200)).await;
        // No key is there yet, then some are here and some there: each call finds its node by itself.
        let caller = client.caller();
        caller
            .inspect(format!("redlatch:m1:{{moving}}never{turn}").as_bytes(), 0)
            .await
            .expect("it is asked for there");
        moved += move_keys(&slot, source, target);
        caller.inspect(b"redlatch:m1:{moving}held", 0).await.expect("it was moved");
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.close_slot(&slot, target);
        tokio::time::sleep(Duration::from_millis(if turn == 5 { 1500 } else { 100 })).await;
        assert!(!held.is_lost());
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("no error surfaces");
    }
    held.extend(Duration::from_secs(3)).await.unwrap();
    held.release().await.unwrap();
    let errors = |code| cluster.members.iter().map(|member| member.raw().errors(code)).sum::<u64>();
    assert_bitten("keys that moved", moved);
    assert_bitten("answers of ASK", errors("ASK"));
    assert_bitten("answers of MOVED", errors("MOVED"));
    assert_bitten("leases", rounds.load(Ordering::Relaxed));
    assert_eq!(errors("TRYAGAIN"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_node_that_imports_a_slot_is_healed_like_any_other() {
    let cluster = Cluster::start(&[]);
    let client = patient().connect(&cluster.url()).await.unwrap();
    let source = cluster.owner("redlatch:m1:n");
    let target = (0..6).find(|member| *member != source && cluster.members[*member].is_primary());
    let (source, target) = (&cluster.members[source], &cluster.members[target.expect("there are three")]);
    let slot = cluster.members[0].raw().must::<u16>(&["CLUSTER", "KEYSLOT", "redlatch:m1:n"]).to_string();
    open_slot(&slot, source, target);
    target.raw().must::<()>(&["SCRIPT", "FLUSH"]);
    let lease = acquire(&client, "n").await;
    assert_eq!(target.raw().must::<u64>(&["DBSIZE"]), 1);
    lease.release().await.unwrap();
    assert_bitten("scripts that were missing", target.raw().errors("NOSCRIPT"));
    assert_bitten("answers of ASK", source.raw().errors("ASK"));
    assert_eq!(target.raw().errors("MOVED"), 0, "each call there says that it was sent there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_slot_that_has_moved_is_asked_for_at_its_old_owner_once() {
    let cluster = Cluster::start(&[]);
    let client = patient().connect(&cluster.url()).await.unwrap();
    let lease = acquire(&client, "n").await;
    cluster.move_slot("redlatch:m1:n");
    for _ in 0..10 {
        lease.extend(Duration::from_secs(20)).await.unwrap();
    }
    let moved: u64 = cluster.members.iter().map(|member| member.raw().errors("MOVED")).sum();
    assert_eq!(moved, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_renewals_alone_find_a_slot_that_has_moved() {
    let cluster = Cluster::start(&[]);
    let client = patient().ttl(Duration::from_secs(8)).connect(&cluster.url()).await.unwrap();
    let lease = acquire(&client, "n").await;
    let target = cluster.move_slot("redlatch:m1:n");
    outlive(target, deadline_ms(target, "n"));
    assert!(!lease.is_lost());
    lease.release().await.unwrap();
}
