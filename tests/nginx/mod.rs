//! `resty.redlatch` in a real nginx against a real Redis.

mod deadline;
mod grants;
mod healing;
mod input;
mod package;
mod phases;
mod trouble;
mod waiting;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::nginx::{Config, Nginx};
use crate::support::redis::Redis;

fn redis_and_nginx() -> (Redis, Nginx) {
    let redis = Redis::start(&[]);
    let nginx = Config::redis(redis.port).start();
    (redis, nginx)
}

/// One command straight to the server.
#[track_caller]
fn ask<T: redis::FromRedisValue>(redis: &Redis, command: &[&str]) -> T {
    let client = redis::Client::open(("127.0.0.1", redis.port)).unwrap();
    let mut connection = client.get_connection().unwrap();
    redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).unwrap()
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

/// What `mutex/inspect` says of a name.
fn inspect(nginx: &Nginx, name: &str) -> Value {
    let key = format!("redlatch:m1:{name}");
    nginx.call("raw", &[("script", "mutex/inspect"), ("key", &key), ("a", "1000")])["reply"].take()
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
