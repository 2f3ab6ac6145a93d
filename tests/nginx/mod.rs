//! `resty.redlatch` in a real nginx against a real Redis.

mod address;
mod age;
mod cluster;
mod connection;
mod contract;
mod counts;
mod deadline;
mod driver;
mod examples;
mod fleet;
mod flight;
mod grants;
mod healing;
mod inbox;
mod input;
mod loss;
mod messages;
mod package;
mod phases;
mod queue;
mod readme;
mod redirects;
mod renewal;
mod requests;
mod routes;
mod sentinel;
mod stream;
mod timers;
mod tls;
mod trouble;
mod units;
mod url;
mod waiting;
mod work;

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::nginx::{Config, Nginx};
use crate::support::{Raw, Server};

fn redis_and_nginx() -> (Server, Nginx) {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).start();
    (redis, nginx)
}

/// One command straight to the server.
#[track_caller]
fn ask<T: redis::FromRedisValue>(server: &Server, command: &[&str]) -> T {
    Raw::connect(server).must(command)
}

/// A string field of an answer.
#[track_caller]
fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}"))
}

#[track_caller]
fn number(answer: &Value, field: &str) -> f64 {
    answer[field].as_f64().unwrap_or_else(|| panic!("no {field} in {answer}"))
}

/// The fence of a lease, which is a string on the wire.
#[track_caller]
fn fence(answer: &Value) -> u64 {
    text(answer, "fence").parse().unwrap()
}

/// What the only driver of a nginx with one worker says of itself.
fn driver(nginx: &Nginx) -> Value {
    nginx.call("stats", &[])["stats"][0].take()
}

/// Until the driver has found that its connection stays silent.
fn until_silence(nginx: &Nginx) {
    until("the connection is given up", || driver(nginx)["connected"] == false);
}

/// What `mutex/inspect` says of a name.
fn inspect(nginx: &Nginx, name: &str) -> Value {
    let key = format!("redlatch:m1:{name}");
    nginx.call("raw", &[("script", "mutex/inspect"), ("key", &key), ("a", "1000")])["reply"].take()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
