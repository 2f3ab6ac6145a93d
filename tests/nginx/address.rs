//! Hosts as people write them, and the resolver of nginx between them and the server.

use std::net::{TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::{free_port, text};
use crate::support::Server;
use crate::support::nginx::Config;
use crate::support::say;

const BOTH: [&str; 2] = ["worker", "pool"];

#[test]
fn an_ipv6_address_is_taken_with_and_without_brackets() {
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let port = free_port().to_string();
    let bind = if has_ipv6 { "::1" } else { "127.0.0.1" };
    let _redis = Server::start(&["--port", &port, "--bind", bind]).unwrap();
    for host in ["::1", "[::1]"] {
        for connection in BOTH {
            let nginx = Config::new(&format!("host = '{host}', port = {port}, connection = '{connection}'")).start();
            let answer = nginx.call("hold", &[("name", "n"), ("wait", "5")]);
            if has_ipv6 {
                assert_eq!(answer["released"], true, "{answer}");
            } else {
                let error = format!("connection: [::1]:{port} cannot be reached");
                assert!(text(&answer, "error").starts_with(&error), "{answer}");
            }
        }
    }
}

#[test]
fn a_resolver_that_does_not_answer_counts_within_the_timeout_and_is_named() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (heard_by, port) = (resolver.try_clone().unwrap(), resolver.local_addr().unwrap().port());
    let questions = thread::spawn(move || {
        heard_by.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        heard_by.recv(&mut [0; 512]).is_ok()
    });
    for connection in BOTH {
        let nginx = Config::new(&format!("host = 'redis.test', connection = '{connection}', timeout = 1"))
            .http(&format!("resolver 127.0.0.1:{port};"))
            .start();
        for (op, wait, most) in [("try_acquire", "0", 3), ("acquire", "1", 4)] {
            let started = Instant::now();
            let answer = nginx.call(op, &[("name", "n"), ("wait", wait)]);
            let took = started.elapsed();
            say(&format!("{connection}: {op} ended after {took:?}: {answer}"));
            // The resolver of nginx itself would take 30 s.
            assert!(took < Duration::from_secs(most + 5), "{op} took {took:?}");
            let error = text(&answer, "error");
            assert!(error.starts_with("connection: redis.test:6379 cannot be reached (timeout, "), "{error}");
            assert!(error.contains("nginx' resolver"), "{error}");
        }
    }
    assert!(questions.join().unwrap(), "the resolver was asked");
}

#[test]
fn a_host_name_without_a_resolver_says_what_to_set() {
    for connection in BOTH {
        let nginx = Config::new(&format!("host = 'localhost', connection = '{connection}'")).start();
        let answer = nginx.call("try_acquire", &[("name", "n")]);
        let error = text(&answer, "error");
        assert!(error.contains("set nginx' resolver or write an IP address, for localhost too"), "{error}");
    }
}
