//! A Redis Cluster of three primaries and three replicas.

use super::{once, patient};
use crate::support::topology::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_serves_locks_of_every_node() {
    let cluster = Cluster::start(&[]);
    let client = patient().connect(&cluster.url()).await.unwrap();
    for number in 0..30 {
        once(&client, &format!("n{number}")).await;
    }
}
