//! One connection for a worker, whatever its requests do, and the modes without a driver.

use std::thread;
use std::time::{Duration, Instant};

use super::{ask, driver, number, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Server, say, signal};

/// The connections of nginx, as the server counts them; this test's own one is not counted.
fn connections(redis: &Server) -> usize {
    ask::<String>(redis, &["CLIENT", "LIST"]).lines().count() - 1
}

/// A count of the only driver of a nginx with one worker.
fn count(nginx: &Nginx, name: &str) -> f64 {
    number(&driver(nginx)["counts"], name)
}

#[test]
fn all_requests_of_a_worker_share_one_connection() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).start();
    thread::scope(|scope| {
        for i in 0..64 {
            let (nginx, name) = (&nginx, format!("n{}", i % 8));
            scope.spawn(move || {
                for _ in 0..20 {
                    let answer = nginx.call("hold", &[("name", &name), ("wait", "60")]);
                    assert_eq!(answer["released"], true, "{answer}");
                }
            });
        }
    });
    assert_eq!(connections(&redis), 1);
    assert_eq!(count(&nginx, "connections"), 1.0);
    let (commands, writes) = (count(&nginx, "commands"), count(&nginx, "writes"));
    say(&format!("{commands} commands left in {writes} writes"));
    assert!(writes < commands, "what is queued leaves in one write");
}

#[test]
fn a_killed_connection_is_replaced_and_waiters_lose_nothing() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).start();
    nginx.call("hold", &[("name", "n")]);
    let kills = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let answer = nginx.call("hold", &[("name", "n"), ("wait", "60"), ("hold", "0.002")]);
                        // A release whose reply is lost, and after which another has released, cannot be told from a loss.
                        let unknown = answer["error"].as_str().is_some_and(|error| error.starts_with("unknown: "));
                        assert!(answer["released"] == true || answer["fence"].is_string() && unknown, "{answer}");
                    }
                })
            })
            .collect();
        let mut kills = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            kills += ask::<u32>(&redis, &["CLIENT", "KILL", "TYPE", "pubsub"]);
            thread::sleep(Duration::from_millis(20));
        }
        kills
    });
    say(&format!("n8: {kills} connections killed"));
    assert!(kills > 5);
    assert!(count(&nginx, "connections") > 5.0);
}

#[test]
fn n6_a_connection_that_stays_silent_is_replaced() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("timeout = 0.3").start();
    nginx.call("hold", &[("name", "n")]);
    signal(redis.pid(), "STOP");
    let silent = nginx.call("try_acquire", &[("name", "n")]);
    signal(redis.pid(), "CONT");
    assert!(text(&silent, "error").starts_with("unknown: "), "{silent}");
    until("the lock is free again", || nginx.call("hold", &[("name", "n")])["released"] == true);
    assert!(count(&nginx, "connections") > 1.0);
}

#[test]
fn an_idle_driver_closes_its_connection_and_starts_again() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("keepalive = 0.2").start();
    nginx.call("hold", &[("name", "n")]);
    until("the connection is closed", || connections(&redis) == 0);
    assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
}

/// Uses every worker's driver for a lease of `ttl` seconds and asks nginx to end.
fn end_with_idle_drivers(ttl: &str) {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(3).start();
    until("every worker has a driver", || {
        nginx.call("hold", &[("name", "n"), ("wait", "1"), ("ttl", ttl)]);
        connections(&redis) == 3
    });
    // Nothing happens any more that could wake a worker by chance.
    thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    nginx.quit();
    assert!(asked.elapsed() < Duration::from_secs(20), "took {:?}, keepalive is 60 s", asked.elapsed());
}

#[test]
fn idle_drivers_do_not_hold_up_the_end_of_their_workers() {
    end_with_idle_drivers("0.3");
}

#[test]
fn released_leases_do_not_hold_up_the_end_of_their_workers() {
    end_with_idle_drivers("600");
}

#[test]
fn where_hello_is_unknown_waiters_poll() {
    let redis = Server::start(&[]).unwrap();
    // As a proxy does that forwards scripts only.
    ask::<String>(&redis, &["ACL", "SETUSER", "default", "-hello", "-subscribe"]);
    let nginx = Config::redis(&redis).workers(1).start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let answer = nginx.call("hold", &[("name", "n"), ("wait", "20"), ("hold", "0.05")]);
                assert_eq!(answer["released"], true, "{answer}");
            });
        }
    });
    assert_eq!(count(&nginx, "messages"), 0.0);
}

#[test]
fn without_the_right_to_subscribe_waiters_poll() {
    let redis = Server::start(&[]).unwrap();
    ask::<String>(&redis, &["ACL", "SETUSER", "default", "resetchannels"]);
    let nginx = Config::redis(&redis).workers(1).start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let answer = nginx.call("hold", &[("name", "n"), ("wait", "20"), ("hold", "0.05")]);
                assert_eq!(answer["released"], true, "{answer}");
            });
        }
    });
    assert!(nginx.error_log().contains("redlatch: no inbox, waiters ask again and again"), "{}", nginx.error_log());
}

const OWN: &str = r#"location = /own {
    content_by_lua_block {
        local installed, client = pcall(require, "resty.redis")
        local red = (installed and client or require "nginx.redis"):new()
        assert(red:connect("unix:" .. require("handler").defaults.socket))
        local lock = require("resty.redlatch").new { connection = red }
        local lease = assert(lock:acquire("n", { wait = 1 }))
        assert(lease:extend(5))
        assert(red:set("mine", lease.fence))
        ngx.say(tostring(lease:release()), " ", red:get("mine") == lease.fence)
    }
}"#;

#[test]
fn a_connection_of_the_users_own_is_used_and_left_open() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).locations(OWN).start();
    assert_eq!(nginx.get("/own"), (200, "true true\n".to_owned()), "{}", nginx.error_log());
}

#[test]
fn without_the_code_cache_pooled_connections_do() {
    let redis = Server::start(&[]).unwrap();
    let location = r#"location = /uncached {
        lua_code_cache off;
        content_by_lua_block {
            local socket = ngx.var.arg_socket
            local lock = require("resty.redlatch").new { socket = socket, connection = "pool" }
            local lease = assert(lock:acquire("n", { wait = 1 }))
            ngx.say(tostring(lease:release()))
        }
    }"#;
    let nginx = Config::redis(&redis).workers(1).locations(location).start();
    for _ in 0..3 {
        let path = format!("/uncached?socket={}", redis.socket().display());
        assert_eq!(nginx.get(&path), (200, "true\n".to_owned()), "{}", nginx.error_log());
    }
}
