//! The faults that a lock on Redis must survive, each with an id, on a real server. Every test counts how often its fault
//! really happened, and fails when it never did.

mod clock;
mod holder;
mod input;
mod network;
mod queue;
mod renewal;
mod server;

use std::time::Duration;

use redlatch::{Client, ClientBuilder};

use crate::support::{Proxy, Raw, Server};

/// A server, a proxy in front of it, and a client behind that proxy.
async fn behind_proxy(settings: ClientBuilder) -> (Server, Proxy, Client) {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = settings.connect(&proxy.url()).await.unwrap();
    (server, proxy, client)
}

fn impatient() -> ClientBuilder {
    Client::builder().timeout(Duration::from_millis(300))
}

/// Who holds the mutex `name` on the server, and with which fence.
fn holder(server: &Server, name: &str) -> Option<(String, u64)> {
    let key = format!("redlatch:m1:{name}");
    let mut raw = Raw::connect(server);
    let lock = raw.lock(&key);
    let now_ms = i64::try_from(raw.now_ms()).unwrap();
    (lock.deadline_ms > now_ms + lock.behind_ms).then(|| (lock.holder(), lock.fence.unsigned_abs()))
}

/// Whether nobody holds the mutex `name` and nobody waits for it.
fn is_quiet(server: &Server, name: &str) -> bool {
    let (mut raw, key) = (Raw::connect(server), format!("redlatch:m1:{name}"));
    let fields: Vec<String> = raw.must(&["HKEYS", &key]);
    holder(server, name).is_none() && !raw.lock(&key).is_queue_open() && !fields.iter().any(|field| field.contains(':'))
}

/// How many script calls the server has served.
fn calls(server: &Server) -> u64 {
    Raw::connect(server).count("evalsha")
}

#[track_caller]
fn assert_bitten(bites: u64) {
    println!("the fault happened {bites} times");
    assert!(bites > 0, "the fault never happened");
}
