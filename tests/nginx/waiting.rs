//! Acquire that waits for others.

use std::thread;
use std::time::{Duration, Instant};

use super::{ask, fence, inspect, number, redis_and_nginx, text, until};
use crate::support::nginx::Nginx;

#[test]
fn a_waiter_gets_the_lock_soon_after_its_release() {
    let (_redis, nginx) = redis_and_nginx();
    let first = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| (nginx.call("acquire", &[("name", "n"), ("wait", "20")]), Instant::now()));
        until("the waiter is in the queue", || inspect(&nginx, "n")[6] == 1);
        nginx.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
        let released = Instant::now();
        let (lease, granted) = waiter.join().unwrap();
        assert!(fence(&lease) > fence(&first), "{lease}");
        assert!(number(&lease, "remaining") > 5.0, "the whole TTL, not the claim: {lease}");
        assert!(granted - released < Duration::from_secs(10), "took {:?}", granted - released);
    });
}

#[test]
fn a_waiter_gets_the_lock_when_the_lease_of_a_dead_holder_ends() {
    let (_redis, nginx) = redis_and_nginx();
    nginx.call("try_acquire", &[("name", "n"), ("ttl", "0.4")]);
    let lease = nginx.call("acquire", &[("name", "n"), ("wait", "20")]);
    assert!(lease["fence"].is_string(), "{lease}");
}

#[test]
fn the_wait_ends_at_its_limit_and_leaves_no_place_behind() {
    let (_redis, nginx) = redis_and_nginx();
    nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    let started = Instant::now();
    let refusal = nginx.call("acquire", &[("name", "n"), ("wait", "0.3")]);
    assert!(started.elapsed() >= Duration::from_millis(299));
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    assert_eq!(text(&refusal, "error"), "held");
    assert!(number(&refusal, "remaining") > 50.0);
    let seen = inspect(&nginx, "n");
    assert_eq!(seen[7], serde_json::json!([]), "no waiter is left: {seen}");
}

#[test]
fn waiters_are_served_in_the_order_of_arrival() {
    let (_redis, nginx) = redis_and_nginx();
    let first = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    let leases = thread::scope(|scope| {
        let nginx = &nginx;
        let waiters: Vec<_> = (1..=6)
            .map(|place| {
                let waiter = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("wait", "30"), ("hold", "0.01")]));
                until("one more waits", || inspect(nginx, "n")[6] == place);
                waiter
            })
            .collect();
        let early = nginx.call("try_acquire", &[("name", "n")]);
        assert_eq!(text(&early, "error"), "held");
        nginx.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect::<Vec<_>>()
    });
    let fences: Vec<_> = leases.iter().map(fence).collect();
    assert!(fences.is_sorted(), "{fences:?}");
    assert!(leases.iter().all(|lease| lease["released"] == true), "{leases:?}");
}

#[test]
fn a_waiter_that_died_costs_the_others_no_more_than_its_window() {
    let (_redis, nginx) = redis_and_nginx();
    let first = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    join(&nginx, "dead:1", "300", "dead");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| nginx.call("acquire", &[("name", "n"), ("wait", "20")]));
        until("both are in the queue", || inspect(&nginx, "n")[6] == 2);
        let released = Instant::now();
        nginx.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
        let lease = waiter.join().unwrap();
        assert!(lease["fence"].is_string(), "{lease}");
        assert!(released.elapsed() < Duration::from_secs(10), "took {:?}", released.elapsed());
    });
}

/// A waiter that never comes back, at the end of the queue of `n`.
fn join(nginx: &Nginx, owner: &str, window_ms: &str, label: &str) {
    let args = [owner, "10000", "0", "0", "3600000", label, window_ms, window_ms, "", "0"];
    let mut params = vec![("script", "mutex/acquire"), ("key", "redlatch:m1:n")];
    params.extend(args.map(|arg| ("a", arg)));
    assert_eq!(nginx.call("raw", &params)["reply"][0], 2);
}

#[test]
fn a_try_goes_past_any_number_of_dead_waiters() {
    let (_redis, nginx) = redis_and_nginx();
    nginx.call("try_acquire", &[("name", "n"), ("ttl", "5")]);
    (0..300).for_each(|i| join(&nginx, &format!("dead:{i}"), "5000", "dead"));
    until("nobody holds it", || inspect(&nginx, "n")[0] == 2);
    until("all are dead", || inspect(&nginx, "n")[7].as_array().unwrap().iter().all(|waiter| waiter[2] == 0));
    assert_eq!(inspect(&nginx, "n")[6], 300);
    assert!(nginx.call("try_acquire", &[("name", "n")])["fence"].is_string());
}

#[test]
fn a_release_goes_past_any_number_of_dead_waiters() {
    let (_redis, nginx) = redis_and_nginx();
    let first = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    // Windows that are open until all of them wait, so that none of them drops the ones before.
    (0..300).for_each(|i| join(&nginx, &format!("dead:{i}"), "5000", "dead"));
    join(&nginx, "alive:1", "60000", "alive");
    until("all but one are dead", || {
        inspect(&nginx, "n")[7].as_array().unwrap().iter().filter(|waiter| waiter[2] == 0).count() == 300
    });
    nginx.call("release", &[("name", "n"), ("owner", text(&first, "owner"))]);
    let seen = inspect(&nginx, "n");
    assert_eq!((&seen[0], &seen[4]), (&1.into(), &"alive".into()), "{seen}");
}

#[test]
fn plain_waits_by_asking_again() {
    let (redis, nginx) = redis_and_nginx();
    let waits = |seconds| [("name", "k"), ("o.family", "plain"), ("wait", seconds)];
    ask::<()>(&redis, &["SET", "k", "them"]);
    assert_eq!(text(&nginx.call("acquire", &waits("0.3")), "error"), "held");
    ask::<()>(&redis, &["PEXPIRE", "k", "150"]);
    let lease = nginx.call("acquire", &waits("20"));
    assert!(lease["owner"].is_string(), "{lease}");
}
