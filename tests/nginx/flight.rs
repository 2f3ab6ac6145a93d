//! A leader of `single_flight` that was stopped, and came back when another one had filled.

use std::thread;
use std::time::Duration;

use super::{ask, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Raw, Server, say, signal};

/// `/flight?key=k&value=v`: fills with `v`, and waits while the file of that name with the ending `.hold` exists.
const LOCATIONS: &str = r#"
location = /flight {
    content_by_lua_block {
        local opts = { shm = "redlatch", renew = ngx.var.arg_renew ~= "no" }
        for option, value in pairs(require("handler").defaults) do
            opts[option] = value
        end
        local lock = require("resty.redlatch").new(opts)
        local arg = ngx.var
        local value, from = lock:single_flight(arg.arg_key, {
            ttl = tonumber(arg.arg_ttl or 60), stale = tonumber(arg.arg_stale or 0), lease = tonumber(arg.arg_lease or 0.5), wait = 20,
        }, function(value, size, hold)
            if hold then
                ngx.shared.counters:set("held", ngx.worker.pid())
            end
            while hold and ngx.shared.counters:get("held") do
                ngx.sleep(0.005)
            end
            ngx.shared.counters:incr("fills", 1, 0)
            return value .. ("."):rep(size)
        end, arg.arg_value, tonumber(arg.arg_size or 0), arg.arg_hold)
        ngx.say((value or "nil"):sub(1, 20), ", ", from)
    }
}
location = /held { content_by_lua_block { ngx.say(ngx.shared.counters:get("held") or 0) } }
location = /go_on { content_by_lua_block { ngx.shared.counters:delete("held") } }
location = /fills { content_by_lua_block { ngx.say(ngx.shared.counters:get("fills") or 0) } }
"#;

fn start(redis: &Server) -> Nginx {
    Config::redis(redis).workers(1).locations(LOCATIONS).start()
}

fn stored(redis: &Server) -> (String, u64) {
    ask(redis, &["HMGET", "redlatch:v1:k", "value", "fence"])
}

/// Stops the only worker in the middle of its fill, lets `meanwhile` happen on the other node, and lets it go on. Returns
/// the answer of the request that was stopped.
fn stopped_in_its_fill(node: &Nginx, path: &str, meanwhile: impl FnOnce()) -> String {
    thread::scope(|scope| {
        let request = scope.spawn(|| node.get(path).1);
        until("it fills", || node.get("/held").1.trim() != "0");
        let worker = node.workers()[0];
        signal(worker, "STOP");
        meanwhile();
        signal(worker, "CONT");
        node.get("/go_on");
        request.join().unwrap()
    })
}

#[test]
fn a_leader_that_was_stopped_beyond_its_lease_takes_what_its_successor_has_stored() {
    let redis = Server::start(&[]).unwrap();
    let (old, new) = (start(&redis), start(&redis));
    let mut fence = 0;
    let answer = stopped_in_its_fill(&old, "/flight?key=k&value=stale&hold=1", || {
        assert_eq!(new.get("/flight?key=k&value=fresh").1, "fresh, fill\n");
        fence = stored(&redis).1;
    });
    assert_eq!(answer, "fresh, fleet\n");
    assert_eq!(stored(&redis), ("fresh".to_owned(), fence));
    for node in [&old, &new] {
        assert_eq!(node.get("/flight?key=k&value=third").1, "fresh, node\n");
    }
    assert!(old.error_log().contains("a single flight lost its lease while it filled"), "{}", old.error_log());
}

#[test]
fn a_lost_lease_stores_nothing_even_if_nobody_else_has_filled() {
    let redis = Server::start(&[]).unwrap();
    let node = start(&redis);
    let answer = stopped_in_its_fill(&node, "/flight?key=k&value=late&hold=1", || {
        until("the lease is over", || {
            ask::<i64>(&redis, &["EXISTS", "redlatch:m1:k"]) == 1 && {
                let (granted, now): (String, (u64, u64)) =
                    (ask(&redis, &["HGET", "redlatch:m1:k", "deadline_ms"]), ask(&redis, &["TIME"]));
                granted.parse::<u64>().unwrap() + 50 < now.0 * 1000 + now.1 / 1000
            }
        });
    });
    assert_eq!(answer, "late, fill\n");
    assert_eq!(ask::<i64>(&redis, &["EXISTS", "redlatch:v1:k"]), 0);
    assert_eq!(node.get("/flight?key=k&value=next").1, "next, fill\n", "the node keeps nothing either");
}

/// Two workers of one node: the node's copy has the same rule.
#[test]
fn a_stopped_worker_leaves_the_copy_of_its_node_alone() {
    let redis = Server::start(&[]).unwrap();
    let node = Config::redis(&redis).workers(2).locations(LOCATIONS).start();
    let (mut bites, mut round) = (0, 0);
    while bites < 3 {
        round += 1;
        assert!(round < 60, "the other worker never answered");
        let key = format!("k{round}");
        thread::scope(|scope| {
            let path = format!("/flight?key={key}&value=stale&hold=1&renew=no");
            let request = scope.spawn({
                let node = &node;
                move || node.get(&path).1
            });
            until("it fills", || node.get("/held").1.trim() != "0");
            let worker: u32 = node.get("/held").1.trim().parse().unwrap();
            signal(worker, "STOP");
            let path = format!("/flight?key={key}&value=fresh");
            // The stopped worker may have accepted it: then it answers later, and this round shows nothing.
            let other = scope.spawn({
                let node = &node;
                move || node.get(&path).1
            });
            thread::sleep(Duration::from_millis(1200));
            let answered = other.is_finished();
            signal(worker, "CONT");
            node.get("/go_on");
            let (first, second) = (request.join().unwrap(), other.join().unwrap());
            if answered {
                assert_eq!((first.as_str(), second.as_str()), ("fresh, fleet\n", "fresh, fill\n"));
                assert_eq!(node.get(&format!("/flight?key={key}&value=third")).1, "fresh, node\n");
                bites += 1;
            }
        });
    }
    say(&format!("{bites} leaders came back too late, in {round} rounds"));
}

#[test]
fn readers_of_the_fleets_copy_get_the_value_as_it_was_filled() {
    let redis = Server::start(&[]).unwrap();
    let node = start(&redis);
    assert_eq!(node.get("/flight?key=k&value=12%2034&ttl=100&stale=50").1, "12%2034, fill\n");
    let (value, fresh_until, now): (String, u64, (u64, u64)) = {
        let (value, fresh_until) = ask(&redis, &["HMGET", "redlatch:v1:k", "value", "fresh_until_ms"]);
        (value, fresh_until, ask(&redis, &["TIME"]))
    };
    assert_eq!(value, "12%2034");
    assert!(fresh_until > now.0 * 1000 && fresh_until <= now.0 * 1000 + 101_000, "{fresh_until} at {now:?}");
    let kept: i64 = ask(&redis, &["PTTL", "redlatch:v1:k"]);
    assert!((100_000..=150_000).contains(&kept), "{kept}");
}

#[test]
fn a_value_that_is_too_large_for_the_dictionary_is_named_in_the_log_once() {
    let redis = Server::start(&[]).unwrap();
    let node = start(&redis);
    for from in ["fill", "fleet", "fleet", "fleet"] {
        assert_eq!(node.get("/flight?key=k&value=v&size=2000000").1, format!("v..................., {from}\n"));
    }
    let log = node.error_log();
    let complaint = "a value of 2000001 bytes does not fit into lua_shared_dict redlatch (no memory), \
                     so each request fetches it from Redis: make it larger";
    assert_eq!(log.matches(complaint).count(), 1, "{log}");
}

#[test]
fn a_full_server_leaves_the_value_to_the_node_and_says_so() {
    let redis = Server::start(&[]).unwrap();
    let node = start(&redis);
    let mut raw = Raw::connect(&redis);
    thread::scope(|scope| {
        let request = scope.spawn(|| node.get("/flight?key=k&value=v&hold=1").1);
        until("it fills", || node.get("/held").1.trim() != "0");
        raw.must::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        node.get("/go_on");
        assert_eq!(request.join().unwrap(), "v, fill\n");
    });
    assert_eq!(node.get("/flight?key=k&value=w").1, "v, node\n");
    assert!(node.error_log().contains("reaches this node only: redis: OOM"), "{}", node.error_log());
}
