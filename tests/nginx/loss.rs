//! Workers, clients and servers that go away at a bad moment, and replies that get lost.

use std::thread;

use super::{ask, fence, free_port, inspect, number, redis_and_nginx, text, until, until_silence};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Raw, Server, signal};

/// The worker that holds `n`, by the label that it left there.
fn holder(nginx: &Nginx) -> u32 {
    until("it is held", || inspect(nginx, "n")[0] == 1);
    let label = inspect(nginx, "n")[4].as_str().unwrap().to_owned();
    let worker = label.rsplit('/').next().unwrap().parse().unwrap();
    assert!(nginx.workers().contains(&worker), "the label names the worker: {label}");
    worker
}

#[test]
fn x1_the_lock_of_a_killed_worker_is_free_after_its_ttl() {
    let (_redis, nginx) = redis_and_nginx();
    thread::scope(|scope| {
        let cut = scope.spawn(|| nginx.get(&Nginx::path("hold", &[("name", "n"), ("ttl", "3"), ("hold", "30")])));
        signal(holder(&nginx), "KILL");
        assert_eq!(cut.join().unwrap().0, 0, "the holder's client is cut off");
    });
    assert_eq!(text(&nginx.call("try_acquire", &[("name", "n")]), "error"), "held");
    assert!(nginx.call("acquire", &[("name", "n"), ("wait", "20")])["fence"].is_string());
}

#[test]
fn x2_a_reload_lets_the_holder_finish_and_release() {
    let (_redis, nginx) = redis_and_nginx();
    until("both workers are there", || nginx.workers().len() == 2);
    let old = nginx.workers();
    thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("ttl", "60"), ("hold", "1")]));
        until("it is held", || inspect(&nginx, "n")[0] == 1);
        let waiter = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("ttl", "60"), ("wait", "20")]));
        until("one waits", || inspect(&nginx, "n")[6] == 1);
        nginx.reload();
        until("new workers are there", || nginx.workers().iter().any(|worker| !old.contains(worker)));
        for answer in [holder.join().unwrap(), waiter.join().unwrap()] {
            assert_eq!(answer["released"], true, "{answer}");
            assert!(old.contains(&(answer["worker"].as_u64().unwrap() as u32)), "{answer}");
        }
    });
    assert!(nginx.call("try_acquire", &[("name", "n")])["fence"].is_string());
}

#[test]
fn x6_a_worker_that_slept_past_its_lease_neither_keeps_it_nor_ends_the_next_one() {
    let (redis, nginx) = redis_and_nginx();
    let other = Config::redis(&redis).start();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("ttl", "1.4"), ("hold", "1.2")]));
        let worker = holder(&nginx);
        signal(worker, "STOP");
        let next = other.call("acquire", &[("name", "n"), ("wait", "20"), ("ttl", "60")]);
        signal(worker, "CONT");
        let late = sleeper.join().unwrap();
        assert_eq!(number(&late, "remaining"), 0.0, "{late}");
        assert_eq!(text(&late, "error"), "lost", "{late}");
        assert!(fence(&next) > fence(&late));
        assert_eq!(inspect(&other, "n")[3].to_string(), text(&next, "fence"), "the next holder keeps it");
    });
}

#[test]
fn x5_a_client_that_hangs_up_does_not_keep_the_worker_from_releasing() {
    let (_redis, nginx) = redis_and_nginx();
    let client = nginx.send(&Nginx::path("hold", &[("name", "n"), ("ttl", "60"), ("hold", "1")]));
    holder(&nginx);
    drop(client);
    until("it is released", || inspect(&nginx, "n")[0] == 2);
}

#[test]
fn a_restarted_server_is_used_again_without_an_error() {
    let port = free_port().to_string();
    let redis = Server::start(&["--port", &port]).unwrap();
    let nginx = Config::new(&format!("port = {port}")).start();
    for _ in 0..10 {
        nginx.call("hold", &[("name", "n")]);
    }
    drop(redis);
    let _redis = Server::start(&["--port", &port]).unwrap();
    for _ in 0..10 {
        assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
    }
}

#[test]
fn a_lost_reply_is_asked_for_again_by_the_same_owner() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("timeout = 1").start();
    nginx.call("hold", &[("name", "n")]);
    signal(redis.pid(), "STOP");
    let lease = thread::scope(|scope| {
        let waiter = scope.spawn(|| nginx.call("try_acquire", &[("name", "n")]));
        until_silence(&nginx);
        signal(redis.pid(), "CONT");
        waiter.join().unwrap()
    });
    assert_eq!(fence(&lease).to_string(), inspect(&nginx, "n")[3].to_string(), "{lease}");
    assert_eq!(nginx.call("release", &[("name", "n"), ("owner", text(&lease, "owner"))])["released"], true);
}

#[test]
fn a_release_whose_reply_is_lost_is_still_a_release() {
    for family in ["mutex", "plain"] {
        let redis = Server::start(&[]).unwrap();
        let nginx = Config::redis(&redis).workers(1).options("timeout = 1").start();
        let params = [("name", "n"), ("ttl", "60"), ("hold", "2"), ("o.family", family)];
        nginx.call("hold", &params);
        ask::<()>(&redis, &["CONFIG", "RESETSTAT"]);
        let key = if family == "plain" { "n" } else { "redlatch:m1:n" };
        let answer = thread::scope(|scope| {
            let holder = scope.spawn(|| nginx.call("hold", &params));
            until("it is held", || {
                ask::<i64>(&redis, &["EXISTS", key]) == 1 && (family == "plain" || inspect(&nginx, "n")[0] == 1)
            });
            signal(redis.pid(), "STOP");
            until_silence(&nginx);
            signal(redis.pid(), "CONT");
            holder.join().unwrap()
        });
        assert_eq!(answer["released"], true, "{answer}");
        assert!(Raw::connect(&redis).count("evalsha") >= 3, "the release was sent twice");
    }
}

#[test]
fn an_acquire_that_nobody_waits_for_any_more_is_not_granted_later() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("timeout = 0.5").start();
    nginx.call("hold", &[("name", "n")]);
    signal(redis.pid(), "STOP");
    let answer = nginx.call("try_acquire", &[("name", "n")]);
    signal(redis.pid(), "CONT");
    assert!(text(&answer, "error").starts_with("unknown: unix:"), "{answer}");
    assert_eq!(inspect(&nginx, "n")[0], 2, "free, though the requests were run after all");
    assert!(Raw::connect(&redis).count("evalsha") > 0);
}

#[test]
fn x7_lua_resty_redis_104_no_reply_goes_to_another_question_after_a_timeout() {
    late_replies("worker");
}

#[test]
fn x7_lua_resty_redis_104_a_connection_that_timed_out_is_closed_not_pooled() {
    late_replies("pool");
}

fn late_replies(connection: &str) {
    let redis = Server::start(&[]).unwrap();
    let options = format!("timeout = 0.5, connection = '{connection}'");
    let nginx = Config::redis(&redis).workers(1).options(&options).start();
    nginx.call("hold", &[("name", "n")]);
    for round in 0..5 {
        signal(redis.pid(), "STOP");
        nginx.call("raw", &[("script", "mutex/inspect"), ("key", "late"), ("a", "0")]);
        signal(redis.pid(), "CONT");
        // With the late reply still in the pooled connection, each of these would read its predecessor's.
        for name in ["a", "b", "c"] {
            let name = format!("{name}{round}");
            let lease = nginx.call("try_acquire", &[("name", &name)]);
            let key = format!("redlatch:m1:{name}");
            assert_eq!(Raw::connect(&redis).lock(&key).holder(), text(&lease, "owner"));
            assert_eq!(Raw::connect(&redis).lock(&key).fence.to_string(), text(&lease, "fence"));
        }
    }
}

#[test]
fn a_server_clock_that_jumped_forward_refuses_no_acquire() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis)
        .locations(
            r#"location = /jump {
                content_by_lua_block {
                    local lock = require("resty.redlatch").new(require("handler").defaults)
                    assert(assert(lock:try_acquire("n")):release())
                    lock.server.ahead_us = lock.server.ahead_us - 3600 * 1e6
                    ngx.print(tostring(assert(lock:try_acquire("n")):release()))
                }
            }"#,
        )
        .start();
    assert_eq!(nginx.get("/jump"), (200, "true".to_owned()), "{}", nginx.error_log());
}
