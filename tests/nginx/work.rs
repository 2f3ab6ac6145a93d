//! What the module builds on leases: `with`, `single_flight`, the methods of lua-resty-lock, counts.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::{ask, inspect, redis_and_nginx, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Raw, Server, say, signal};

const LOCATIONS: &str = r#"
location = /with {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        ngx.say(lock:with("n", nil, function(lease, a, b)
            return #lease.fence, a, b
        end, "a", "b"))
        local ran, err = lock:with("n", nil, function() error("the work failed") end)
        ngx.say(tostring(ran), " ", err:match("^error: .-the work failed"), " ", err:find("stack traceback", 1, true) ~= nil)
        local outer = assert(lock:acquire("n"))
        ngx.say(lock:with("n", nil, function() return "never" end))
        assert(outer:release())
        ran, err = lock:with("n", { ttl = 0.1, renew = false }, function() ngx.sleep(0.15) return "late" end)
        ngx.say(tostring(ran), " ", err)
        ngx.say(select(2, pcall(lock.with, lock, "n", nil, "no function")))
        ngx.say(tostring(lock:try_acquire("n"):release()))
    }
}
location = /flight {
    lua_check_client_abort on;
    content_by_lua_block {
        local opts = { shm = "redlatch", ttl = 0.5 }
        for option, value in pairs(require("handler").defaults) do
            opts[option] = value
        end
        local lock = require("resty.redlatch").new(opts)
        local arg = ngx.var
        local value, from = lock:single_flight(arg.arg_key, {
            ttl = tonumber(arg.arg_ttl or 60), stale = tonumber(arg.arg_stale or 0), lease = tonumber(arg.arg_lease or 0.5), wait = 20,
        }, function(key, seconds, fails)
            ngx.sleep(seconds)
            ngx.shared.counters:incr("fills", 1, 0)
            if fails then
                return nil, "no origin"
            end
            return "value of " .. key
        end, arg.arg_key, tonumber(arg.arg_fill or 0.05), arg.arg_fails)
        ngx.say(value or "nil", ", ", from)
    }
    log_by_lua_block { require("resty.redlatch").log() }
}
location = /fills { content_by_lua_block { ngx.say(ngx.shared.counters:get("fills") or 0) } }
location = /resty_lock {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        local resty_lock = require("resty.redlatch.lock").over(lock)
        local first = assert(resty_lock:new("my_locks", { exptime = 5, timeout = 0.1 }))
        local second = assert(resty_lock:new("my_locks", { timeout = 0 }))
        local function say(...)
            ngx.say(tostring((...)), " ", tostring((select(2, ...))))
        end
        say(type(first:lock("k")))
        say(first:lock("k"))
        say(second:lock("k"))
        say(first:expire(9))
        say(first:unlock())
        say(first:unlock())
        say(first:expire())
        say(type(second:lock("k")))
        say(second:unlock())
        say(first:lock(nil))
        say(resty_lock:new(nil))
    }
}"#;

fn start(redis: &Server) -> Nginx {
    Config::redis(redis).locations(LOCATIONS).start()
}

#[test]
fn with_says_ran_or_held_or_what_went_wrong_and_always_releases() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis);
    let (_, answer) = nginx.get("/with");
    let lines: Vec<_> = answer.lines().collect();
    assert_eq!(lines.len(), 6, "{answer}{}", nginx.error_log());
    assert_eq!(lines[0], "true16ab");
    assert!(lines[1].starts_with("nil error: ") && lines[1].ends_with("the work failed true"), "{}", lines[1]);
    assert_eq!(lines[2], "falseheld");
    assert_eq!(lines[3], "nil lost");
    assert!(lines[4].ends_with("redlatch: fn must be a function, not string"), "{}", lines[4]);
    assert_eq!(lines[5], "true");
}

fn fills(nginxes: &[&Nginx]) -> u32 {
    nginxes.iter().map(|nginx| nginx.get("/fills").1.trim().parse::<u32>().unwrap()).sum()
}

#[test]
fn one_fill_serves_worker_node_and_fleet() {
    let redis = Server::start(&[]).unwrap();
    let nodes = [start(&redis), start(&redis)];
    let warm = "/flight?key=warm";
    nodes.iter().for_each(|node| drop(node.get(warm)));
    let before = commands(&redis);
    let answers: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..64)
            .map(|i| {
                scope.spawn({
                    let node = &nodes[i % 2];
                    move || node.get("/flight?key=k").1
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut from = HashMap::new();
    for answer in &answers {
        let (value, source) = answer.trim().split_once(", ").unwrap();
        assert_eq!(value, "value of k");
        *from.entry(source).or_insert(0) += 1;
    }
    let commands = commands(&redis) - before;
    say(&format!("64 requests on 2 nodes were served from {from:?} with {commands} commands"));
    assert_eq!(from["fill"], 1);
    assert_eq!(fills(&[&nodes[0], &nodes[1]]), 2, "one of them for the warm key");
    assert!(commands <= 12 + 2, "two of them for the inboxes");
}

/// Commands that clients sent: no script runs these.
fn commands(redis: &Server) -> u64 {
    let mut raw = Raw::connect(redis);
    ["evalsha", "get", "set", "subscribe", "ping"].map(|command| raw.count(command)).iter().sum()
}

#[test]
fn a_stale_value_is_served_while_one_request_fills_again() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis);
    let path = "/flight?key=k&ttl=0.2&stale=60&fill=0.3";
    assert_eq!(nginx.get(path).1, "value of k, fill\n");
    until("it is stale", || nginx.get(path).1 == "value of k, stale\n");
    // The fleet's copy may have been written later than the node's, and be fresh for longer.
    until("it is filled again", || nginx.get(path).1.starts_with("value of k, ") && fills(&[&nginx]) >= 2);
    until("it is fresh again", || nginx.get(path).1 == "value of k, node\n");
}

#[test]
fn what_a_fill_returns_as_its_error_reaches_those_who_wait() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis);
    assert_eq!(nginx.get("/flight?key=k&fails=1").1, "nil, no origin\n");
    assert_eq!(nginx.get("/flight?key=k").1, "value of k, fill\n", "an error is not kept");
}

#[test]
fn when_the_one_who_fills_is_killed_the_next_one_takes_over() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis);
    // Killed with its client.
    let client = nginx.send("/flight?key=k&fill=30&lease=60");
    until("it fills", || ask::<i64>(&redis, &["EXISTS", "redlatch:m1:k"]) == 1);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| nginx.get("/flight?key=k&lease=60").1)).collect();
        thread::sleep(Duration::from_millis(50));
        drop(client);
        for waiter in waiters {
            assert!(waiter.join().unwrap().starts_with("value of k, "));
        }
    });
    // Killed with its worker.
    let client = nginx.send("/flight?key=j&fill=30");
    until("it fills", || inspect(&nginx, "j")[0] == 1);
    let label = inspect(&nginx, "j")[4].as_str().unwrap().to_owned();
    signal(label.rsplit('/').next().unwrap().parse().unwrap(), "KILL");
    assert!(nginx.get("/flight?key=j").1.starts_with("value of j, "));
    drop(client);
}

#[test]
fn without_redis_each_node_fills_for_itself() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis);
    drop(redis);
    assert_eq!(nginx.get("/flight?key=k").1, "value of k, fill\n");
    assert_eq!(nginx.get("/flight?key=k").1, "value of k, node\n");
    assert!(nginx.error_log().contains("redlatch: a node fills for itself: connection: "), "{}", nginx.error_log());
}

#[test]
fn the_methods_of_lua_resty_lock_answer_as_there() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis);
    let expected = "number nil\nnil locked\nnil timeout\ntrue nil\n1 nil\nnil unlocked\nnil unlocked\nnumber nil\n1 nil\n\
                    nil nil key\nnil dictionary not found\n";
    assert_eq!(nginx.get("/resty_lock").1, expected, "{}", nginx.error_log());
}

#[test]
fn single_flight_without_a_dictionary_says_what_is_missing() {
    let (_redis, nginx) = redis_and_nginx();
    let answer = nginx.call("try_acquire", &[("name", "n"), ("o.shm", "nowhere")]);
    assert!(text(&answer, "thrown").ends_with(r#"option shm must be the name of a lua_shared_dict, not "nowhere""#));
}
