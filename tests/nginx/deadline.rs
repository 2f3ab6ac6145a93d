//! A lease is not used a moment longer than this machine can prove it.

use std::thread;
use std::time::Duration;

use super::{fence, number, redis_and_nginx, text};
use crate::support::nginx::Config;
use crate::support::{Server, signal};

#[test]
fn a_lease_is_over_at_its_local_deadline() {
    let (_redis, nginx) = redis_and_nginx();
    let params = [("name", "n"), ("ttl", "0.2"), ("hold", "0.21"), ("extend", "10")];
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
    let late = thread::scope(|scope| {
        let late = scope.spawn(|| nginx.call("try_acquire", &[("name", "n"), ("ttl", "0.3")]));
        thread::sleep(Duration::from_millis(500));
        signal(redis.pid(), "CONT");
        late.join().unwrap()
    });
    assert_eq!(text(&late, "error"), "lost");
    let next = nginx.call("try_acquire", &[("name", "n")]);
    assert!(fence(&next) > fence(&first), "{next}");
}

#[test]
fn extend_to_less_counts_from_when_it_was_sent_even_if_no_reply_comes() {
    let (redis, nginx) = redis_and_nginx();
    let params = [("name", "n"), ("ttl", "60"), ("hold", "0.3"), ("extend", "0.5"), ("o.timeout", "0.2")];
    thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold_and_extend", &params));
        super::until("it is held", || super::ask::<i64>(&redis, &["EXISTS", "redlatch:m1:n"]) == 1);
        signal(redis.pid(), "STOP");
        let answer = holder.join().unwrap();
        signal(redis.pid(), "CONT");
        assert!(number(&answer, "before") > 50.0, "{answer}");
        assert_eq!(text(&answer, "error"), "lost", "{answer}");
        assert_eq!(number(&answer, "remaining"), 0.0);
    });
}
