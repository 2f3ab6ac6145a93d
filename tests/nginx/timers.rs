//! nginx has no timer for the driver: it refuses, throws, or drops it without a word.

use std::thread;
use std::time::{Duration, Instant};

use super::{ask, driver, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::topology::Cluster;
use crate::support::{Raw, Server, say};

/// `/occupy?count=8&seconds=5` starts timers that run for so long; `/timers` says how many run.
const OCCUPY: &str = r#"
location = /occupy {
    content_by_lua_block {
        for _ = 1, tonumber(ngx.var.arg_count) do
            ngx.timer.at(0, function(_, seconds) ngx.sleep(seconds) end, tonumber(ngx.var.arg_seconds))
        end
    }
}
location = /press {
    content_by_lua_block {
        ngx.timer.every(0.001, function() ngx.sleep(30) end)
    }
}
location = /timers { content_by_lua_block { ngx.say(ngx.timer.running_count()) } }
location = /posted {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        ngx.say(tostring(lock:lease("n", ngx.var.arg_owner):post_release()))
    }
}"#;

fn occupied(redis: &Server, seconds: &str) -> Nginx {
    occupied_with(Config::redis(redis), seconds)
}

fn occupied_with(config: Config, seconds: &str) -> Nginx {
    let nginx = config.workers(1).http("lua_max_running_timers 8;").locations(OCCUPY).start();
    nginx.get(&format!("/occupy?count=8&seconds={seconds}"));
    until("the timers run", || nginx.get("/timers").1.trim() == "8");
    nginx
}

#[test]
fn kong_7619_a_driver_whose_timer_was_dropped_is_started_again() {
    let redis = Server::start(&[]).unwrap();
    is_started_again(&occupied(&redis, "3"));
}

/// There a timer asks for the map first.
#[test]
fn kong_7619_in_a_cluster_too() {
    let cluster = Cluster::start(&[]);
    is_started_again(&occupied_with(Config::new(&format!("url = '{}'", cluster.url())), "3"));
}

fn is_started_again(nginx: &Nginx) {
    let started = Instant::now();
    let refused = nginx.call("try_acquire", &[("name", "n"), ("o.timeout", "0.5")]);
    assert_eq!(
        text(&refused, "error"),
        "connection: nginx does not run the timer of the driver: raise lua_max_running_timers"
    );
    assert!(started.elapsed() < Duration::from_secs(3), "in time: {:?}", started.elapsed());
    assert!(nginx.error_log().contains("lua_max_running_timers are not enough"), "it bit: {}", nginx.error_log());
    let patient = nginx.call("hold", &[("name", "n"), ("o.timeout", "20")]);
    assert_eq!(patient["released"], true, "{patient}");
    say(&format!("granted {:?} after the first try, beside timers of 3 s", started.elapsed()));
    assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
}

/// Nobody waits for the driver, so nobody but its own watch notices.
#[test]
fn what_was_posted_is_sent_when_nginx_has_a_timer_again() {
    let redis = Server::start(&[]).unwrap();
    let other = Config::redis(&redis).workers(1).start();
    let lease = other.call("try_acquire", &[("name", "n"), ("ttl", "600")]);
    let nginx = occupied(&redis, "3");
    assert_eq!(nginx.get(&format!("/posted?owner={}", text(&lease, "owner"))).1, "true\n");
    until("it is released", || !Raw::connect(&redis).lock("redlatch:m1:n").has_lease());
    assert!(nginx.error_log().contains("lua_max_running_timers are not enough"), "it bit: {}", nginx.error_log());
}

#[test]
fn a_lease_is_renewed_when_its_connection_breaks_while_other_timers_press() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).http("lua_max_running_timers 8;").locations(OCCUPY).start();
    let holder = thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("ttl", "3"), ("hold", "6")]));
        until("it holds", || ask::<i64>(&redis, &["EXISTS", "redlatch:m1:n"]) == 1);
        // From now on each timer that ends makes room for another one.
        nginx.get("/press");
        until("all timers are taken", || nginx.get("/timers").1.trim() == "8");
        ask::<u64>(&redis, &["CLIENT", "KILL", "TYPE", "pubsub"]);
        ask::<u64>(&redis, &["CLIENT", "KILL", "TYPE", "normal"]);
        holder.join().unwrap()
    });
    assert_eq!(holder["released"], true, "renewed all the time: {holder}");
    assert!(driver(&nginx)["counts"]["connections"].as_u64().unwrap() >= 2);
}

/// Takes all connections of its worker, calls, gives them back, and calls again.
const EXHAUST: &str = r#"location = /exhaust {
    content_by_lua_block {
        local options = require("handler").defaults
        local lock = require("resty.redlatch").new(options)
        local sockets = {}
        repeat
            local sock = ngx.socket.tcp()
            local ok = sock:connect("unix:" .. options.socket)
            sockets[#sockets + 1] = ok and sock or nil
        until not ok
        local _, err = lock:try_acquire("n", { renew = false })
        ngx.say(tostring(err))
        for _, sock in ipairs(sockets) do
            sock:close()
        end
        local lease
        for _ = 1, 100 do
            lease, err = lock:try_acquire("n")
            if lease then
                break
            end
            ngx.sleep(0.05)
        end
        ngx.say(lease and tostring(lease:release()) or err)
    }
}"#;

#[test]
fn lua_nginx_1338_without_connections_a_call_fails_in_words_and_the_worker_recovers() {
    let redis = Server::start(&[]).unwrap();
    for connection in ["worker", "pool"] {
        let options = format!("connection = '{connection}', timeout = 0.5");
        let nginx = Config::redis(&redis).workers(1).connections(12).locations(EXHAUST).options(&options).start();
        let (status, answer) = nginx.get("/exhaust");
        let log = nginx.error_log();
        assert_eq!(status, 200, "{answer}{log}");
        let (error, recovered) = answer.split_once('\n').unwrap();
        say(&format!("{connection}: {error}"));
        assert!(error.starts_with("connection: "), "{error}{log}");
        assert_eq!(recovered, "true\n", "{log}");
        assert!(log.contains("worker_connections are not enough"), "it bit: {log}");
        assert!(!log.contains("traceback") && !log.contains("runtime error"), "{log}");
    }
}

#[test]
fn too_many_pending_timers_are_said_to_be_too_many() {
    let redis = Server::start(&[]).unwrap();
    let location = r#"location = /fill {
        content_by_lua_block {
            for _ = 1, 20 do ngx.timer.at(60, function() end) end
            local lock = require("resty.redlatch").new(require("handler").defaults)
            ngx.say((select(2, lock:try_acquire("n"))))
        }
    }"#;
    let nginx = Config::redis(&redis).workers(1).http("lua_max_pending_timers 8;").locations(location).start();
    assert_eq!(
        nginx.get("/fill").1,
        "connection: nginx starts no timer (too many pending timers): raise lua_max_pending_timers\n"
    );
}
