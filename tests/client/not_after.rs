//! Every acquire says until when it may be granted, so that a late copy of it leaves no lease that nobody knows of.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use redlatch::Client;

use crate::support::{Proxy, Raw, Server, nginx::Config};

const ACQUIRE: &str = "mutex/acquire";

/// What the acquires say that come by `proxy`.
fn listen(proxy: &Proxy) -> Arc<Mutex<Vec<u64>>> {
    let said = Arc::<Mutex<Vec<u64>>>::default();
    proxy.rule({
        let said = Arc::clone(&said);
        move |command| {
            if let Some(moment) = command.argument(ACQUIRE, "not_after_us") {
                said.lock().unwrap().push(moment.parse().unwrap());
            }
            None
        }
    });
    said
}

#[track_caller]
fn assert_all_bounded(server: &Server, said: &Mutex<Vec<u64>>) {
    let said = said.lock().unwrap();
    let hour = 3_600_000_000;
    let now_us = Raw::connect(server).now_ms() * 1000;
    assert!(said.len() >= 4, "{said:?}");
    assert!(said.iter().all(|at| (now_us - hour..now_us + hour).contains(at)), "at {now_us}: {said:?}");
}

#[tokio::test]
async fn the_rust_client_bounds_every_acquire_the_first_one_too() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let said = listen(&proxy);
    let client = Client::connect(&proxy.url()).await.unwrap();
    let lock = client.mutex("n").unwrap();
    let held = lock.try_acquire().await.unwrap().granted().unwrap();
    assert!(lock.acquire_within(Duration::from_millis(200)).await.unwrap().granted().is_none());
    Raw::connect(&server).must::<()>(&["SCRIPT", "FLUSH"]);
    proxy.cut();
    assert!(lock.try_acquire().await.unwrap().granted().is_none());
    held.release().await.unwrap();
    lock.acquire().await.unwrap().release().await.unwrap();
    assert_all_bounded(&server, &said);
}

#[test]
fn an_nginx_worker_bounds_every_acquire_the_first_one_too() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let said = listen(&proxy);
    let url = proxy.url();
    let nginx = Config::new(&format!("port = {}", url.rsplit(':').next().unwrap())).workers(1).start();
    assert!(nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")])["owner"].is_string());
    nginx.call("hold", &[("name", "n"), ("wait", "0.2"), ("ttl", "60")]);
    Raw::connect(&server).must::<()>(&["SCRIPT", "FLUSH"]);
    nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    nginx.call("try_acquire", &[("name", "m"), ("ttl", "60")]);
    assert_all_bounded(&server, &said);
}
