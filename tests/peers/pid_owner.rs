//! nginx workers that sign their lock with their pid, which two machines or containers share easily.

use std::time::Duration;

use redlatch::Client;
use serde_json::Value;

use crate::support::{
    Raw, Server,
    nginx::{Config, Nginx},
};

fn owner(answer: &Value) -> String {
    answer["owner"].as_str().unwrap_or_else(|| panic!("not granted: {answer}")).to_owned()
}

#[test]
fn workers_with_the_same_pid_release_each_others_lock_and_ours_never_do() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    // Two hosts, and pid 7 is the first nginx worker in each container.
    let set = |raw: &mut Raw| raw.must::<Option<String>>(&["SET", "lock:stock", "7", "NX", "PX", "10000"]).is_some();
    let is_own = |raw: &mut Raw| raw.must::<Option<String>>(&["GET", "lock:stock"]).as_deref() == Some("7");
    assert!(set(&mut raw), "the worker of host A");
    assert!(is_own(&mut raw), "host B asks whether it is the owner, and works as well");
    raw.must::<()>(&["PEXPIRE", "lock:stock", "0"]);
    assert!(set(&mut raw), "the worker of host B");
    assert!(
        is_own(&mut raw) && raw.must::<bool>(&["DEL", "lock:stock"]),
        "host A releases what it believes is its own"
    );
    assert!(set(&mut raw), "and a third worker holds it together with host B");

    // Two instances of nginx stand for the hosts; the same name, hence the same key.
    let (a, b) = (Config::redis(&server).start(), Config::redis(&server).start());
    let lost = owner(&a.call("try_acquire", &[("name", "stock")]));
    raw.must::<()>(&["DEL", "redlatch:m1:stock"]);
    let current = owner(&b.call("acquire", &[("name", "stock"), ("wait", "10")]));
    assert_eq!(a.call("release", &[("name", "stock"), ("owner", &lost)])["error"], "lost");
    assert_eq!(a.call("try_acquire", &[("name", "stock")])["error"], "held");
    assert_eq!(b.call("release", &[("name", "stock"), ("owner", &current)])["released"], true);
}

#[test]
fn every_acquisition_of_every_worker_has_an_owner_token_of_its_own() {
    let server = Server::start(&[]).unwrap();
    let fleet: Vec<Nginx> = (0..2).map(|_| Config::redis(&server).start()).collect();
    let mut tokens = Vec::new();
    for nginx in &fleet {
        // Forked workers share the state of a seeded generator; ask each of them.
        let mut workers = std::collections::HashSet::new();
        while workers.len() < 2 {
            let answer = nginx.call("owners", &[("count", "20")]);
            workers.insert(answer["worker"].as_u64());
            tokens.extend(answer["owners"].as_array().unwrap().iter().map(|token| token.as_str().unwrap().to_owned()));
        }
    }
    let count = tokens.len();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_without_release_waits_for_its_ttl_and_ours_is_free_at_once() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    raw.must::<()>(&["SET", "lock:stock", "7", "NX", "PX", "600000"]);
    // The worker has done its work and only notes so in ngx.shared; the key stays for the other hosts.
    assert!(raw.must::<i64>(&["PTTL", "lock:stock"]) > 300_000);

    let nginx = Config::redis(&server).start();
    let answer = nginx.call("hold", &[("name", "stock"), ("ttl", "600"), ("hold", "0")]);
    assert_eq!(answer["released"], true, "{answer}");
    let client = Client::connect(&server.url()).await.unwrap();
    let lock = client.mutex("stock").unwrap().ttl(Duration::from_secs(1)).unwrap();
    assert!(lock.try_acquire().await.unwrap().granted().is_some());
}
