//! What servers and proxies say to a connection: that they know no HELLO, that they are the wrong one, that they are
//! busy, and what they repeat of what was sent to them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{ask, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Fault, Proxy, Raw, Server, say};

const BOTH: [&str; 2] = ["worker", "pool"];

fn at(url: &str, options: &str) -> Nginx {
    let port = url.rsplit(':').next().unwrap();
    Config::new(&format!("port = {port}, {options}")).workers(1).start()
}

#[test]
fn where_hello_is_unknown_or_resp3_is_the_older_protocol_does() {
    let redis = Server::start(&["--requirepass", "secret"]).unwrap();
    for error in [
        "NOPROTO unsupported protocol version",
        "NOPROTO sorry, this protocol version is not supported.",
        "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'secret' ",
        "ERR unknown command `HELLO`, with args beginning with: `3`, ",
        "ERR Unknown Redis command 'HELLO'",
        "unsupported command 'hello'",
        "ERR unsupported command 'HELLO'",
        "ERR command 'HELLO' is not allowed",
        "ERR syntax error in HELLO option 'SETNAME'",
    ] {
        let proxy = Proxy::start(&redis);
        proxy.rule(move |command| command.is("HELLO").then_some(Fault::Refuse(error)));
        let nginx = at(&proxy.url(), "password = 'secret'");
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let answer = nginx.call("hold", &[("name", "n"), ("wait", "20"), ("hold", "0.05")]);
                    assert_eq!(answer["released"], true, "{answer}");
                });
            }
        });
        assert!(proxy.bites() > 0);
        assert!(!nginx.error_log().contains("secret"), "{}", nginx.error_log());
    }
}

/// What people see: answers and the error log.
#[track_caller]
fn tells_nothing(nginx: &Nginx, shown: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!shown.contains(secret), "{shown} tells {secret}");
        assert!(!nginx.error_log().contains(secret), "the log tells {secret}: {}", nginx.error_log());
    }
}

#[test]
fn a_server_that_renamed_a_command_makes_nobody_read_what_was_sent_to_it() {
    for renamed in ["HELLO", "AUTH", "EVALSHA", "SCRIPT", "SELECT", "TIME", "HGET", "SUBSCRIBE"] {
        let redis = Server::start(&["--requirepass", "s3cret", "--rename-command", renamed, ""]).unwrap();
        let file = format!("unix:{}", redis.socket().display());
        for connection in BOTH {
            let options = format!(
                "socket = '{file}', password = 's3cret', database = 1, connection = '{connection}', label = 'canary', shm = 'redlatch'"
            );
            let nginx = Config::new(&options).workers(1).locations(FLIGHT).start();
            let lease = nginx.call("try_acquire", &[("name", &format!("canary/{connection}"))]);
            let waited = nginx.call("acquire", &[("name", "canary"), ("wait", "0.2")]);
            let released = nginx.call("release", &[("name", "n"), ("owner", "canary-owner-canary")]);
            let (_, flight) = nginx.get("/flight");
            let errors =
                [&lease, &waited, &released].map(|answer| answer["error"].as_str().unwrap_or_default().to_owned());
            let shown = format!("{} {flight}", errors.join(" "));
            tells_nothing(&nginx, &shown, &["s3cret", "canary", ":1'", "--[["]);
            let must_fail = matches!(renamed, "EVALSHA" | "SCRIPT" | "SELECT" | "TIME" | "HGET");
            assert_eq!(must_fail, !errors[0].is_empty(), "{renamed} {connection}: {lease}");
            // What a script calls is not named.
            if must_fail && !matches!(renamed, "TIME" | "HGET") {
                assert!(errors[0].to_uppercase().contains(&format!("UNKNOWN COMMAND '{renamed}'")), "{}", errors[0]);
            }
        }
    }
}

const FLIGHT: &str = r#"location = /flight {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        ngx.say(lock:single_flight("canary", { wait = 1 }, function() return "value" end))
    }
}"#;

#[test]
fn a_proxy_that_repeats_everything_in_its_own_words_makes_nobody_read_it() {
    let redis = Server::start(&["--requirepass", "s3c"]).unwrap();
    for refused in ["HELLO", "AUTH", "EVALSHA", "SCRIPT"] {
        for connection in BOTH {
            let proxy = Proxy::start(&redis);
            proxy.rule(move |command| {
                let words: Vec<_> = command.words().iter().map(|word| String::from_utf8_lossy(word)).collect();
                let what = words.join(" ").replace(['\r', '\n'], "_");
                command.is(refused).then(|| Fault::Refuse(format!("ERR cannot do <{what}> here").leak()))
            });
            let options = format!("password = 's3c', connection = '{connection}', label = 'canary'");
            let nginx = at(&proxy.url(), &options);
            ask_with_password(&redis, "SCRIPT", "FLUSH");
            let answers = [
                nginx.call("try_acquire", &[("name", "canary")]),
                nginx.call("acquire", &[("name", "canary"), ("wait", "0.2")]),
                nginx.call("release", &[("name", "n"), ("owner", "canary-owner")]),
            ];
            let shown = answers.map(|answer| answer["error"].as_str().unwrap_or_default().to_owned()).join(" ");
            tells_nothing(&nginx, &shown, &["s3c", "canary", "--[["]);
            if refused == "EVALSHA" {
                assert!(shown.contains("redis: ERR the server's words are left out"), "{shown}");
            }
        }
    }
}

fn ask_with_password(redis: &Server, command: &str, rest: &str) {
    let mut raw = Raw::connect(redis);
    raw.must::<()>(&["AUTH", "s3c"]);
    raw.must::<()>(&[command, rest]);
}

/// A front that sends new connections to the server that it is told, and leaves the others where they are.
struct Front {
    url: String,
    target: Arc<Mutex<PathBuf>>,
}

impl Front {
    fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let target = Arc::new(Mutex::new(server.socket()));
        let current = Arc::clone(&target);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = UnixStream::connect(&*current.lock().unwrap()).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || forward(&mut from, &mut to, |to| drop(to.shutdown(std::net::Shutdown::Both))));
                let (mut from, mut to) = (server, client);
                thread::spawn(move || {
                    forward(&mut from, &mut to, |to: &TcpStream| drop(to.shutdown(std::net::Shutdown::Both)));
                });
            }
        });
        Self { url, target }
    }

    fn switch(&self, server: &Server) {
        *self.target.lock().unwrap() = server.socket();
    }
}

fn forward<W: Write>(from: &mut impl Read, to: &mut W, end: impl Fn(&W)) {
    let mut chunk = [0; 65536];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    end(to);
}

#[test]
fn r4_behind_a_front_a_demoted_server_is_left_at_once() {
    for connection in BOTH {
        let (old, new) = (Server::start(&[]).unwrap(), Server::start(&[]).unwrap());
        let front = Front::to(&old);
        let nginx = at(&front.url, &format!("connection = '{connection}'"));
        assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
        front.switch(&new);
        ask::<()>(&old, &["REPLICAOF", "127.0.0.1", "1"]);
        for _ in 0..3 {
            let answer = nginx.call("hold", &[("name", "n")]);
            assert_eq!(answer["released"], true, "{connection}: {answer}");
        }
        let fields: Vec<String> = ask(&new, &["HKEYS", "redlatch:m1:n"]);
        assert!(!fields.is_empty(), "the new server was used");
        until("the old server is left", || !ask::<String>(&old, &["CLIENT", "LIST"]).contains("cmd=evalsha"));
    }
}

#[test]
fn r4_a_waiter_behind_a_front_goes_on_waiting_at_the_new_server() {
    let (old, new) = (Server::start(&[]).unwrap(), Server::start(&[]).unwrap());
    let front = Front::to(&old);
    let nginx = at(&front.url, "claim = 0.5");
    let holders = [&old, &new].map(|server| Config::redis(server).workers(1).start());
    let leases = holders.each_ref().map(|holder| holder.call("try_acquire", &[("name", "n"), ("ttl", "60")]));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("wait", "60")]));
        let queued = |server| Raw::connect(server).lock("redlatch:m1:n").is_queue_open();
        until("it waits", || queued(&old));
        front.switch(&new);
        ask::<()>(&old, &["REPLICAOF", "127.0.0.1", "1"]);
        until("it waits at the new server", || queued(&new));
        holders[1].call("release", &[("name", "n"), ("owner", text(&leases[1], "owner"))]);
        assert_eq!(waiter.join().unwrap()["released"], true);
    });
}

/// A primary that answers nothing but READONLY is not asked without a pause.
#[test]
fn a_server_that_stays_a_replica_is_not_flooded_with_connections() {
    let redis = Server::start(&[]).unwrap();
    ask::<()>(&redis, &["REPLICAOF", "127.0.0.1", "1"]);
    let nginx = Config::redis(&redis).workers(1).start();
    let connections = |redis| -> u64 {
        let stats: String = ask(redis, &["INFO", "stats"]);
        stats.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap().parse().unwrap()
    };
    let (before, started) = (connections(&redis), Instant::now());
    let mut calls = 0;
    while started.elapsed() < Duration::from_secs(3) {
        assert!(text(&nginx.call("try_acquire", &[("name", "n")]), "error").starts_with("redis: READONLY "));
        calls += 1;
    }
    let made = connections(&redis) - before;
    say(&format!("{calls} calls in 3 s made {made} connections"));
    assert!(made <= 40, "{made} connections");
}

#[test]
fn every_acquire_says_until_when_it_may_be_granted() {
    let redis = Server::start(&[]).unwrap();
    for (connection, time_is_refused) in [("worker", false), ("worker", true), ("pool", false), ("pool", true)] {
        let proxy = Proxy::start(&redis);
        let limits = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&limits);
        proxy.rule(move |command| {
            if command.runs("mutex/acquire") {
                seen.lock().unwrap().push(String::from_utf8_lossy(&command.words()[6]).into_owned());
            }
            let refused = time_is_refused && command.is("TIME");
            refused.then_some(Fault::Refuse("ERR unknown command 'TIME', with args beginning with: "))
        });
        let nginx = at(&proxy.url(), &format!("connection = '{connection}'"));
        assert_eq!(nginx.call("hold", &[("name", "n"), ("wait", "1")])["released"], true);
        proxy.cut();
        until("the next one is granted", || nginx.call("hold", &[("name", "n"), ("wait", "1")])["released"] == true);
        let limits = limits.lock().unwrap();
        assert!(limits.len() >= 2);
        let now: (u64, u64) = ask(&redis, &["TIME"]);
        for limit in limits.iter() {
            let limit_s = limit.parse::<u64>().unwrap() / 1_000_000;
            assert!(limit_s + 60 > now.0 && limit_s < now.0 + 60, "{connection} {time_is_refused}: {limit}");
        }
    }
}

/// Each step takes nearly as long as a whole call may.
#[test]
fn one_deadline_counts_for_connecting_subscribing_loading_and_asking() {
    let redis = Server::start(&[]).unwrap();
    for connection in BOTH {
        ask::<()>(&redis, &["SCRIPT", "FLUSH"]);
        let proxy = Proxy::start(&redis);
        proxy.rule(|_| Some(Fault::HoldReply(Duration::from_millis(900))));
        let nginx = at(&proxy.url(), &format!("connection = '{connection}', timeout = 1"));
        for (op, wait, most) in [("try_acquire", "0", 3), ("acquire", "1", 4)] {
            let started = Instant::now();
            let answer = nginx.call(op, &[("name", "n"), ("wait", wait)]);
            let took = started.elapsed();
            say(&format!("{connection}: {op} ended after {took:?}: {answer}"));
            assert!(took < Duration::from_secs(most) + Duration::from_millis(900), "{op} took {took:?}: {answer}");
        }
        proxy.pass();
    }
}

/// Each byte comes in time, and the last one never.
#[test]
fn one_deadline_counts_however_slowly_a_reply_drips() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _ = client.write_all(b"$1000\r\n");
                while client.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    for connection in BOTH {
        let nginx = Config::new(&format!("port = {port}, connection = '{connection}', timeout = 0.5")).start();
        let started = Instant::now();
        let answer = nginx.call("try_acquire", &[("name", "n")]);
        let took = started.elapsed();
        let error = text(&answer, "error");
        assert!(error.starts_with("connection: ") && error.contains("(timeout)"), "{error}");
        // A thousand bytes take 50 s.
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[test]
fn s8_who_waits_goes_on_while_the_server_is_busy() {
    let redis = Server::start(&["--busy-reply-threshold", "50"]).unwrap();
    for connection in BOTH {
        let nginx = Config::redis(&redis).options(&format!("connection = '{connection}'")).start();
        assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut raw = Raw::connect(&redis);
                let _ = raw.run(&[b"EVAL", b"while true do end", b"0"]);
            });
            let mut other = Raw::connect(&redis);
            until("it is busy", || other.run(&[b"GET", b"x"]).is_err());
            let waiter = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("wait", "60")]));
            let refused = nginx.call("try_acquire", &[("name", "other")]);
            assert!(text(&refused, "error").starts_with("redis: BUSY "), "{refused}");
            assert!(!waiter.is_finished());
            other.must::<()>(&["SCRIPT", "KILL"]);
            assert_eq!(waiter.join().unwrap()["released"], true);
        });
    }
}
