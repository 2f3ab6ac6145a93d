//! A primary that sentinels watch. Each test counts how often its fault really happened.

use std::thread;

use redis::Value;

use super::{fence, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::say;
use crate::support::topology::{Member, Replicated, WATCHED, Watched};

const BOTH: [&str; 2] = ["worker", "pool"];

fn over(url: &str, options: &str) -> Nginx {
    Config::new(&format!("url = '{url}', {options}")).workers(1).start()
}

/// Acquires and releases `name`, and returns its fence.
#[track_caller]
fn once(nginx: &Nginx, name: &str) -> u64 {
    let answer = nginx.call("hold", &[("name", name), ("wait", "10")]);
    assert_eq!(answer["released"], true, "{answer}");
    fence(&answer)
}

#[test]
fn n4_a_switch_after_a_crash_is_followed_and_fences_rise() {
    for connection in BOTH {
        let mut watched = Watched::start(&[]);
        let nginx = over(&watched.url(), &format!("connection = '{connection}'"));
        let before = once(&nginx, "n");
        let first = watched.primary();
        watched.servers[first].kill();
        let second = watched.switched_from(first);
        let mut after = None;
        until("the new primary is used", || {
            let answer = nginx.call("hold", &[("name", "n"), ("wait", "10")]);
            after = answer["fence"].as_str().map(|_| fence(&answer));
            after.is_some()
        });
        assert!(after > Some(before));
        assert!(watched.servers[second].raw().count("evalsha") > 0, "{connection}");
    }
}

/// It hears of the switch from the sentinels alone: nothing is asked of the driver meanwhile.
#[test]
fn r2_a_primary_that_was_replaced_while_it_was_stopped_gets_no_further_call() {
    let watched = Watched::start(&[]);
    let nginx = over(&watched.url(), "");
    once(&nginx, "n");
    let first = watched.primary();
    watched.servers[first].signal("STOP");
    let second = watched.switched_from(first);
    until("the connection is left", || {
        let driver = super::driver(&nginx);
        driver["connected"] == false || super::number(&driver["counts"], "connections") > 1.0
    });
    watched.servers[first].signal("CONT");
    let stale: Vec<Value> = watched.servers[first].raw().must(&["ROLE"]);
    let still_primary = stale.first() == Some(&Value::BulkString(b"master".to_vec()));
    say(&format!("r2: the replaced server still took itself for the primary: {still_primary}"));
    let before = watched.servers[first].raw().count("evalsha");
    once(&nginx, "n");
    assert_eq!(watched.servers[first].raw().count("evalsha"), before);
    assert!(watched.servers[second].raw().count("evalsha") > 0);
}

#[test]
fn r4_r8_a_demoted_primary_is_left_and_waiters_and_leases_come_along() {
    for connection in BOTH {
        let watched = Watched::start(&[]);
        let nginx = over(&watched.url(), &format!("connection = '{connection}', claim = 1"));
        let first = watched.primary();
        let second = thread::scope(|scope| {
            // Renewed by the driver; in the pool it lasts for its TTL.
            let ttl = if connection == "worker" { "3" } else { "20" };
            let params = [("name", "n"), ("ttl", ttl), ("hold", "6")];
            let holder = scope.spawn(move || nginx_call(&nginx, &params));
            let mut raw = watched.servers[first].raw();
            until("it is held", || raw.must::<u64>(&["EXISTS", "redlatch:m1:n"]) == 1);
            let other = over(&watched.url(), &format!("connection = '{connection}', claim = 1"));
            let waiter = scope.spawn(move || nginx_call(&other, &[("name", "n"), ("wait", "60")]));
            until("the other waits", || raw.lock("redlatch:m1:n").is_queue_open());
            assert_eq!(raw.must::<u64>(&["WAIT", "2", "5000"]), 2);
            watched.sentinels[0].raw().must::<()>(&["SENTINEL", "FAILOVER", WATCHED]);
            let second = watched.switched_from(first);
            let held = holder.join().unwrap();
            assert_eq!(held["released"], true, "{connection}: {held}");
            let next = waiter.join().unwrap();
            assert_eq!(next["released"], true, "{connection}: {next}");
            assert!(fence(&next) > fence(&held));
            second
        });
        assert!(watched.servers[second].raw().count("evalsha") > 0, "{connection}");
    }
}

fn nginx_call(nginx: &Nginx, params: &[(&str, &str)]) -> serde_json::Value {
    nginx.call("hold", params)
}

#[test]
fn sentinels_that_are_gone_or_stopped_do_not_matter_as_long_as_one_answers() {
    let mut watched = Watched::start(&[]);
    watched.sentinels[0].kill();
    watched.sentinels[1].signal("STOP");
    for connection in BOTH {
        once(&over(&watched.url(), &format!("connection = '{connection}'")), "n");
    }
    let connected = over(&watched.url(), "");
    once(&connected, "n");
    watched.sentinels[2].kill();
    for connection in BOTH {
        let answer =
            over(&watched.url(), &format!("connection = '{connection}'")).call("try_acquire", &[("name", "n")]);
        assert!(text(&answer, "error").starts_with("connection: "), "{answer}");
    }
    // Who is connected needs no sentinel.
    once(&connected, "n");
    watched.sentinels[1].signal("CONT");
}

#[test]
fn a_primary_that_the_sentinels_do_not_know_is_a_clear_error() {
    let servers = Replicated::start(1, &[]);
    let sentinel = Member::watching(&servers.primary);
    for connection in BOTH {
        let nginx =
            over(&format!("redis+sentinel://{}/other", sentinel.address()), &format!("connection = '{connection}'"));
        let answer = nginx.call("try_acquire", &[("name", "n")]);
        assert!(text(&answer, "error").contains("watch no primary called other: write the NAME"), "{answer}");
    }
}

#[test]
fn a_server_that_is_not_a_primary_is_not_used_whatever_a_sentinel_says() {
    let servers = Replicated::start(1, &[]);
    let replica = &servers.replicas[0];
    let (wrong, right) = (Member::watching(replica), Member::watching(&servers.primary));
    for connection in BOTH {
        let options = format!("connection = '{connection}'");
        let nginx = over(&format!("redis+sentinel://{}/{WATCHED}", wrong.address()), &options);
        let answer = nginx.call("try_acquire", &[("name", "n")]);
        let error = format!("connection: {} is named by the sentinels and is not the primary", replica.address());
        assert_eq!(text(&answer, "error"), error);
        // One that knows better is asked as well.
        let both = format!("redis+sentinel://{},{}/{WATCHED}", wrong.address(), right.address());
        for _ in 0..5 {
            once(&over(&both, &options), "n");
        }
    }
    assert_eq!(replica.raw().errors("READONLY"), 0);
}

#[test]
fn sentinels_have_a_login_of_their_own() {
    let primary = Member::start(&[]);
    let sentinel = Member::watching(&primary);
    primary.raw().must::<()>(&["CONFIG", "SET", "requirepass", "s3cret"]);
    let mut raw = sentinel.raw();
    raw.must::<()>(&["ACL", "SETUSER", "app", "on", ">w@tch", "+@all", "&*"]);
    raw.must::<()>(&["ACL", "SETUSER", "default", "off"]);
    let url = |login: &str| format!("redis+sentinel://:s3cret@{}/{WATCHED}{login}", sentinel.address());
    for connection in BOTH {
        let options = format!("connection = '{connection}'");
        once(&over(&url("?sentinel_user=app&sentinel_password=w@tch"), &options), "n");
        let answer = over(&url(""), &options).call("try_acquire", &[("name", "n")]);
        assert!(text(&answer, "error").starts_with("redis: NOAUTH "), "{answer}");
    }
}
