//! A lease is not used a moment longer than this machine can prove it.

use std::thread;
use std::time::{Duration, Instant};

use super::{driver, fence, number, redis_and_nginx, text};
use crate::support::nginx::Config;
use crate::support::{Raw, Server, signal};

#[test]
fn a_lease_is_over_at_its_local_deadline() {
    let (_redis, nginx) = redis_and_nginx();
    let params = [("name", "n"), ("ttl", "0.2"), ("hold", "0.21"), ("extend", "10"), ("renew", "false")];
    let answer = nginx.call("hold_and_extend", &params);
    assert_eq!(number(&answer, "before"), 0.0);
    assert_eq!(text(&answer, "error"), "lost");
    assert_eq!(number(&answer, "remaining"), 0.0);
}

#[test]
fn extend_moves_the_local_deadline() {
    let (_redis, nginx) = redis_and_nginx();
    let answer = nginx.call("hold_and_extend", &[("name", "n"), ("ttl", "5"), ("hold", "0.1"), ("extend", "20")]);
    let before = number(&answer, "before");
    assert!(before > 4.0 && before <= 4.895, "5 s less 0.1 s held and 6 ms margin: {answer}");
    let remaining = number(&answer, "remaining");
    assert!(remaining > 19.0 && remaining <= 19.979, "{answer}");
}

#[test]
fn a_lease_that_arrives_after_its_deadline_is_released_and_lost() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).start();
    let first = nginx.call("hold", &[("name", "n")]);
    signal(redis.pid(), "STOP");
    let commands = || number(&driver(&nginx)["counts"], "commands");
    let before = commands();
    let late = thread::scope(|scope| {
        let late = scope.spawn(|| nginx.call("try_acquire", &[("name", "n"), ("ttl", "0.1")]));
        super::until("it is asked for", || commands() > before);
        thread::sleep(Duration::from_millis(100));
        signal(redis.pid(), "CONT");
        late.join().unwrap()
    });
    assert_eq!(text(&late, "error"), "lost");
    let next = nginx.call("try_acquire", &[("name", "n")]);
    assert!(fence(&next) > fence(&first), "{next}");
}

#[test]
fn an_extend_that_gets_no_answer_ends_with_the_lease() {
    let (redis, nginx) = redis_and_nginx();
    let params = [("name", "n"), ("ttl", "3"), ("hold", "1"), ("extend", "60"), ("o.timeout", "1")];
    thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold_and_extend", &params));
        super::until("it is held", || super::ask::<i64>(&redis, &["EXISTS", "redlatch:m1:n"]) == 1);
        signal(redis.pid(), "STOP");
        let stopped = Instant::now();
        let answer = holder.join().unwrap();
        assert!(stopped.elapsed() < Duration::from_secs(10), "the lease of 60 s was not granted");
        signal(redis.pid(), "CONT");
        assert_eq!(text(&answer, "error"), "lost", "{answer}");
        assert_eq!(number(&answer, "remaining"), 0.0);
    });
}

#[test]
fn a_lease_that_is_over_here_stays_lost_even_if_the_server_would_extend_it() {
    let (redis, nginx) = redis_and_nginx();
    let params = [("name", "n"), ("ttl", "2"), ("hold", "2.1"), ("extend", "10"), ("renew", "false")];
    let answer = thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold_and_extend", &params));
        super::until("it is held", || super::ask::<i64>(&redis, &["EXISTS", "redlatch:m1:n"]) == 1);
        let owner = Raw::connect(&redis).lock("redlatch:m1:n").holder();
        let elsewhere = nginx.call("extend", &[("name", "n"), ("owner", &owner), ("ttl", "60")]);
        assert!(number(&elsewhere, "remaining") > 59.0, "{elsewhere}");
        holder.join().unwrap()
    });
    assert_eq!(text(&answer, "error"), "lost", "{answer}");
}

#[test]
fn of_two_extends_at_the_same_time_the_longer_one_counts() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis)
        .locations(
            r#"location = /both {
                content_by_lua_block {
                    local lease = assert(require("resty.redlatch").new(require("handler").defaults):acquire("n"))
                    for _, ttls in ipairs { { 5, 60 }, { 60, 5 } } do
                        local first = ngx.thread.spawn(lease.extend, lease, ttls[1])
                        local second = ngx.thread.spawn(lease.extend, lease, ttls[2])
                        assert(select(2, ngx.thread.wait(first)) and select(2, ngx.thread.wait(second)))
                        ngx.say(lease:remaining() > 59)
                    end
                }
            }"#,
        )
        .start();
    assert_eq!(nginx.get("/both"), (200, "true\ntrue\n".to_owned()), "{}", nginx.error_log());
}
