//! A leader of `single_flight` that was stopped, and came back when another one had filled.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use super::{ask, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Raw, Server, signal};

/// `/flight?key=k&value=v`: fills with `v`, and with `hold=1` waits for `/go_on`.
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
                ngx.shared.counters:set("held" .. hold, ngx.worker.pid())
            end
            while hold and ngx.shared.counters:get("held" .. hold) do
                ngx.sleep(0.005)
            end
            ngx.shared.counters:incr("fills", 1, 0)
            return value .. ("."):rep(size)
        end, arg.arg_value, tonumber(arg.arg_size or 0), arg.arg_hold)
        ngx.shared.counters:incr("ended", 1, 0)
        ngx.say((value or "nil"):sub(1, 20), ", ", from)
    }
}
location = /held { content_by_lua_block { ngx.say(ngx.shared.counters:get("held" .. (ngx.var.arg_hold or 1)) or 0) } }
location = /go_on { content_by_lua_block { ngx.shared.counters:delete("held" .. (ngx.var.arg_hold or 1)) } }
location = /ended { content_by_lua_block { ngx.say(ngx.shared.counters:get("ended") or 0) } }
location = /flag { content_by_lua_block { ngx.say(ngx.shared.redlatch:get("f:redlatch:k") ~= nil) } }
location = /worker { content_by_lua_block { ngx.header.x_worker, ngx.header.content_length = ngx.worker.pid(), 0 } }
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
                let mut raw = Raw::connect(&redis);
                raw.lock("redlatch:m1:k").deadline_ms.unsigned_abs() + 50 < raw.now_ms()
            }
        });
    });
    assert_eq!(answer, "late, fill\n");
    assert_eq!(ask::<i64>(&redis, &["EXISTS", "redlatch:v1:k"]), 0);
    assert_eq!(node.get("/flight?key=k&value=next").1, "next, fill\n", "the node keeps nothing either");
}

/// A connection to a worker of `node` that is not `avoided`.
fn connect_to_another(node: &Nginx, avoided: u32) -> UnixStream {
    let mut found = None;
    until("another worker answers", || {
        let mut connection = node.connect();
        connection.write_all(b"GET /worker HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|read| read == 1) {
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let worker = head.lines().find_map(|line| line.strip_prefix("x-worker: ")).unwrap();
        found = (worker != avoided.to_string()).then_some(connection);
        found.is_some()
    });
    found.unwrap()
}

fn send(connection: &mut UnixStream, path: &str) {
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
}

fn body(connection: &mut UnixStream) -> String {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A leader in one worker of a node is stopped beyond its lease; `meanwhile` gets the node and a connection to the other
/// worker, and the stopped one goes on when it is over. Returns the answer of the leader.
fn stopped_beside_another(redis: &Server, meanwhile: impl FnOnce(&Nginx, &mut UnixStream, u32)) -> String {
    let node = Config::redis(redis).workers(2).locations(LOCATIONS).start();
    thread::scope(|scope| {
        let request = scope.spawn(|| node.get("/flight?key=k&value=stale&hold=1&renew=no").1);
        until("it fills", || node.get("/held").1.trim() != "0");
        let worker: u32 = node.get("/held").1.trim().parse().unwrap();
        let mut other = connect_to_another(&node, worker);
        signal(worker, "STOP");
        meanwhile(&node, &mut other, worker);
        request.join().unwrap()
    })
}

/// Two workers of one node: the node's copy has the same rule.
#[test]
fn a_stopped_worker_leaves_the_copy_of_its_node_alone() {
    let redis = Server::start(&[]).unwrap();
    let answer = stopped_beside_another(&redis, |node, other, stopped| {
        send(other, "/flight?key=k&value=fresh");
        assert_eq!(body(other), "fresh, fill\n");
        signal(stopped, "CONT");
        node.get("/go_on");
        until("the copy is looked at", || node.get("/flight?key=k&value=third").1 == "fresh, node\n");
    });
    assert_eq!(answer, "fresh, fleet\n");
}

#[test]
fn a_stopped_worker_leaves_the_flag_of_its_successor_alone() {
    let redis = Server::start(&[]).unwrap();
    let answer = stopped_beside_another(&redis, |node, other, stopped| {
        send(other, "/flight?key=k&value=fresh&hold=2&lease=60");
        until("the other worker fills", || node.get("/held?hold=2").1.trim() != "0");
        signal(stopped, "CONT");
        node.get("/go_on");
        until("the stopped one has ended", || node.get("/ended").1 == "1\n");
        assert_eq!(node.get("/flag").1, "true\n");
        node.get("/go_on?hold=2");
        assert_eq!(body(other), "fresh, fill\n");
        assert_eq!(node.get("/flag").1, "false\n");
    });
    assert_eq!(answer, "stale, fill\n");
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
