//! Waiters of nginx in the one queue that all programs share.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ask, fence, inspect, number, redis_and_nginx, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Raw, Server, say, signal};

fn scripts_run(redis: &Server) -> u64 {
    Raw::connect(redis).count("evalsha")
}

fn hold(nginx: &Nginx, hold: &str) -> Value {
    nginx.call("hold", &[("name", "n"), ("wait", "60"), ("hold", hold)])
}

#[test]
fn a_contended_acquisition_costs_two_commands() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).start();
    hold(&nginx, "0");
    let before = scripts_run(&redis);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..25).for_each(|_| assert_eq!(hold(&nginx, "0.002")["released"], true)));
        }
    });
    let each = (scripts_run(&redis) - before) as f64 / 400.0;
    say(&format!("{each:.2} scripts for each of 400 leases"));
    assert!(each <= 2.2, "{each}");
}

const CROWD: &str = r#"location = /crowd {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        local entered, last = 0, 0
        local function visit()
            local lease = assert(lock:acquire("n", { wait = 60 }))
            entered = entered + 1
            assert(tonumber(lease.fence) > last)
            last = tonumber(lease.fence)
            assert(lease:release())
        end
        local visitors = {}
        for i = 1, tonumber(ngx.var.arg_count) do
            visitors[i] = ngx.thread.spawn(visit)
        end
        for _, visitor in ipairs(visitors) do
            local ok, err = ngx.thread.wait(visitor)
            assert(ok, err)
        end
        ngx.say(entered)
    }
}"#;

#[test]
fn c10_a_crowd_of_waiters_in_one_worker_has_one_subscription_and_no_herd() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).locations(CROWD).start();
    hold(&nginx, "0");
    let before = scripts_run(&redis);
    let crowd = 2000;
    assert_eq!(nginx.get(&format!("/crowd?count={crowd}")).1, format!("{crowd}\n"), "{}", nginx.error_log());
    let each = (scripts_run(&redis) - before) as f64 / f64::from(crowd);
    say(&format!("c10: {each:.2} scripts for each of {crowd} leases"));
    assert!(each <= 3.0, "{each}");
    let channels: Vec<String> = ask(&redis, &["PUBSUB", "CHANNELS", "redlatch:inbox:*"]);
    assert_eq!(channels.len(), 1, "{channels:?}");
}

#[test]
fn q1_waiters_of_a_killed_worker_cost_no_more_than_a_claim_lease() {
    let redis = Server::start(&[]).unwrap();
    let doomed = Config::redis(&redis).workers(1).options("claim = 1").start();
    let nginx = Config::redis(&redis).workers(1).options("claim = 1").start();
    let first = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    let cut: Vec<_> = (0..20).map(|_| doomed.send(&Nginx::path("hold", &[("name", "n"), ("wait", "60")]))).collect();
    until("all wait", || inspect(&nginx, "n")[6] == 20);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| (hold(&nginx, "0"), Instant::now()));
        until("the live one waits too", || inspect(&nginx, "n")[6] == 21);
        doomed.workers().iter().for_each(|&worker| signal(worker, "KILL"));
        let released = Instant::now();
        nginx.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
        let (lease, granted) = waiter.join().unwrap();
        assert_eq!(lease["released"], true, "{lease}");
        say(&format!("q1: granted {:?} after the release, behind 20 dead waiters", granted - released));
        assert!(granted - released < Duration::from_secs(10));
    });
    drop(cut);
}

#[test]
fn q2_q3_a_wait_that_ends_in_the_moment_of_its_grant_loses_no_grant() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).start();
    let (mut granted, mut given_up) = (0, 0);
    for round in 0..120 {
        let lease = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
        assert!(lease["fence"].is_string(), "round {round}: {lease}");
        thread::scope(|scope| {
            let waiter = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("wait", "0.03")]));
            thread::sleep(Duration::from_millis(27) + Duration::from_micros(round * 61 % 6000));
            nginx.call("release", &[("name", "n"), ("owner", text(&lease, "owner"))]);
            let answer = waiter.join().unwrap();
            if answer["released"] == true {
                granted += 1;
            } else {
                assert_eq!(text(&answer, "error"), "held", "{answer}");
                given_up += 1;
            }
        });
        until("it is free", || inspect(&nginx, "n")[0] == 2 && inspect(&nginx, "n")[6] == 0);
    }
    say(&format!("q2 q3: {granted} granted, {given_up} given up"));
    assert!(granted > 0 && given_up > 0);
}

#[test]
fn q4_a_waiter_that_was_stopped_beyond_its_window_asks_again() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("claim = 0.5").start();
    let other = Config::redis(&redis).workers(1).start();
    let first = other.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| hold(&nginx, "0"));
        until("it waits", || inspect(&other, "n")[6] == 1);
        nginx.workers().iter().for_each(|&worker| signal(worker, "STOP"));
        let place = Raw::connect(&redis).lock("redlatch:m1:n").tail;
        thread::sleep(Duration::from_millis(700));
        other.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
        let barge = other.call("acquire", &[("name", "n"), ("wait", "20")]);
        assert!(barge["fence"].is_string(), "{barge} (tail {place})");
        nginx.workers().iter().for_each(|&worker| signal(worker, "CONT"));
        other.call("release", &[("name", "n"), ("owner", text(&barge, "owner"))]);
        let late = sleeper.join().unwrap();
        assert!(fence(&late) > fence(&barge), "{late}");
    });
}

#[test]
fn q6_a_queue_is_woken_when_its_holder_dies() {
    let (_redis, nginx) = redis_and_nginx();
    nginx.call("try_acquire", &[("name", "n"), ("ttl", "0.5")]);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| hold(&nginx, "0"))).collect();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap()["released"], true);
        }
    });
}

/// Its heartbeats come every 15 to 20 s: the new connection makes it ask.
#[test]
fn n8_a_waiter_whose_message_was_lost_with_its_connection_asks_on_the_next() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("claim = 60, ttl = 600").start();
    let other = Config::redis(&redis).workers(1).options("connection = 'pool'").start();
    let first = other.call("try_acquire", &[("name", "n"), ("ttl", "600")]);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| (hold(&nginx, "0"), Instant::now()));
        until("it waits", || inspect(&other, "n")[6] == 1);
        let worker = nginx.workers()[0];
        signal(worker, "STOP");
        assert_eq!(ask::<i64>(&redis, &["CLIENT", "KILL", "TYPE", "pubsub"]), 1);
        other.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
        let released = Instant::now();
        signal(worker, "CONT");
        let (lease, granted) = waiter.join().unwrap();
        assert_eq!(lease["released"], true, "{lease}");
        assert!(granted - released < Duration::from_secs(10), "took {:?}", granted - released);
    });
}

#[test]
fn q9_a_try_does_not_overtake_the_queue() {
    let (_redis, nginx) = redis_and_nginx();
    let first = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| hold(&nginx, "0.3"));
        until("one waits", || inspect(&nginx, "n")[6] == 1);
        nginx.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
        let barge = nginx.call("try_acquire", &[("name", "n")]);
        assert_eq!(text(&barge, "error"), "held", "{barge}");
        assert_eq!(waiter.join().unwrap()["released"], true);
    });
}

#[test]
fn a_pushed_lease_counts_from_the_last_question_that_was_answered() {
    let (_redis, nginx) = redis_and_nginx();
    let first = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| hold(&nginx, "0"));
        until("one waits", || inspect(&nginx, "n")[6] == 1);
        thread::sleep(Duration::from_millis(300));
        nginx.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
        let lease = waiter.join().unwrap();
        let remaining = number(&lease, "remaining");
        assert!(remaining < 2.75 && remaining > 0.9, "a claim lease of 3 s, asked for 0.3 s ago: {lease}");
    });
}
