//! A primary that sentinels watch.

use super::{once, patient};
use crate::support::topology::Watched;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_switch_after_a_crash_is_followed_and_fences_go_on() {
    let mut watched = Watched::start(&[]);
    let client = patient().connect(&watched.url()).await.unwrap();
    let before = once(&client, "n").await;
    let first = watched.primary();
    watched.servers[first].kill();
    let second = watched.switched_from(first);
    let after = once(&client, "n").await;
    assert!(after > before, "{after} after {before}");
    assert_ne!(first, second);
}
