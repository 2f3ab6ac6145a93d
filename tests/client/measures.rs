//! What a program's recorder of metrics gets.

use std::{collections::BTreeMap, time::Duration};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use redlatch::Client;

use super::fixture;
use crate::support::Raw;

/// How often each metric was recorded.
fn counts(snapshotter: &Snapshotter) -> BTreeMap<String, u64> {
    let metrics = snapshotter.snapshot().into_vec().into_iter();
    metrics
        .map(|(key, _, _, value)| {
            let count = match value {
                DebugValue::Counter(count) => count,
                DebugValue::Histogram(values) => values.len() as u64,
                DebugValue::Gauge(_) => panic!("there are no gauges"),
            };
            (key.key().name().to_owned(), count)
        })
        .collect()
}

#[tokio::test]
async fn everything_that_is_documented_is_recorded() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let (server, client) = fixture().await;
    let mut raw = Raw::connect(&server);
    let lock = client.mutex("n").unwrap().ttl(Duration::from_millis(900)).unwrap();

    raw.must::<()>(&["SCRIPT", "FLUSH"]);
    let lease = lock.acquire().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // One waiter is handed the lease, and one has given up when it is.
    let next = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    queued(&client, 1).await;
    lease.release().await.unwrap();
    let next = next.await.unwrap();
    let given_up = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.map(drop) }
    });
    queued(&client, 1).await;
    let (waiter, fields) = (given_up, raw.must::<Vec<String>>(&["HKEYS", "redlatch:m1:n"]));
    assert!(fields.iter().any(|field| field.starts_with("waiter:")), "{fields:?}");
    raw.edit_lock("redlatch:m1:n", |lock| lock.deadline_ms = 1);
    // This call hands the lease on before the runtime can run the waiter, which is then gone.
    let owner = fields.iter().find_map(|field| field.strip_prefix("waiter:")).unwrap().to_owned();
    waiter.abort();
    hand_off(&mut raw, &owner);
    let _ = waiter.await;
    client.settle().await;
    next.lost().await;

    let counts = counts(&snapshotter);
    for metric in [
        "redlatch_wait_seconds",
        "redlatch_hold_seconds",
        "redlatch_hand_off_seconds",
        "redlatch_grants_to_nobody_total",
        "redlatch_lost_total",
        "redlatch_renewal_lateness_seconds",
        "redlatch_script_reloads_total",
    ] {
        assert!(counts.get(metric).is_some_and(|count| *count > 0), "{metric} in {counts:?}");
    }
}

async fn queued(client: &Client, count: u64) {
    while client.caller().inspect(b"redlatch:m1:n", 0).await.unwrap().places < count {
        tokio::task::yield_now().await;
    }
}

/// What a release of somebody else does to a lock whose lease ran out.
fn hand_off(raw: &mut Raw, waiter: &str) {
    let script = redlatch::bundle::embedded().unwrap().get("mutex/release").unwrap();
    raw.run(&[b"EVAL", script.source(), b"1", b"redlatch:m1:n", b"somebody"]).unwrap();
    assert_eq!(raw.lock("redlatch:m1:n").holder(), waiter);
}
