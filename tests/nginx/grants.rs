//! Acquire, extend and release without trouble.

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;

use super::{ask, fence, number, redis_and_nginx, text};
use crate::support::nginx::Config;
use crate::support::{Raw, Server, setting};

#[test]
fn grants_a_free_name_with_a_fence_and_the_remaining_time() {
    let (_redis, nginx) = redis_and_nginx();
    let lease = nginx.call("try_acquire", &[("name", "orders/42"), ("ttl", "20")]);
    assert_eq!(text(&lease, "name"), "orders/42");
    assert!(fence(&lease) > 1_600_000_000_000_000, "{lease}");
    let remaining = number(&lease, "remaining");
    assert!(remaining > 19.0 && remaining < 19.98, "20 s less the margin of 21 ms: {lease}");
}

#[test]
fn the_same_name_is_the_same_key_for_everybody() {
    let (redis, nginx) = redis_and_nginx();
    let lease = nginx.call("try_acquire", &[("name", "orders/42"), ("o.namespace", "shop")]);
    let owner = Raw::connect(&redis).lock("shop:m1:orders/42").holder();
    assert_eq!(text(&lease, "owner"), owner);
}

#[test]
fn a_second_asker_hears_held_and_for_how_long() {
    let (_redis, nginx) = redis_and_nginx();
    nginx.call("try_acquire", &[("name", "n"), ("ttl", "20")]);
    let refusal = nginx.call("try_acquire", &[("name", "n")]);
    assert_eq!(text(&refusal, "error"), "held");
    let remaining = number(&refusal, "remaining");
    assert!(remaining > 19.0 && remaining <= 20.0, "{refusal}");
}

#[test]
fn fences_rise_and_stay_above_the_floor() {
    let (_redis, nginx) = redis_and_nginx();
    let first = nginx.call("hold", &[("name", "n")]);
    let second = nginx.call("hold", &[("name", "n")]);
    assert!(fence(&second) > fence(&first));
    let third = nginx.call("hold", &[("name", "n"), ("fence_floor", "9007199254740000")]);
    assert_eq!(text(&third, "fence"), "9007199254740001");
}

#[test]
fn extend_sets_the_lease_again_from_now_on_any_worker() {
    let (_redis, nginx) = redis_and_nginx();
    let lease = nginx.call("try_acquire", &[("name", "n"), ("ttl", "5")]);
    let mut workers = HashSet::new();
    while workers.len() < 2 {
        let extended = nginx.call("extend", &[("name", "n"), ("owner", text(&lease, "owner")), ("ttl", "60")]);
        assert!(number(&extended, "remaining") > 59.0, "{extended}");
        assert_eq!(fence(&extended), fence(&lease));
        workers.insert(extended["worker"].as_u64().unwrap());
    }
}

#[test]
fn release_frees_the_name_and_says_true_again() {
    let (_redis, nginx) = redis_and_nginx();
    let lease = nginx.call("try_acquire", &[("name", "n")]);
    let owned = [("name", "n"), ("owner", text(&lease, "owner"))];
    assert_eq!(nginx.call("release", &owned)["released"], true);
    assert_eq!(nginx.call("release", &owned)["released"], true);
    assert!(nginx.call("try_acquire", &[("name", "n")])["fence"].is_string());
}

#[test]
fn release_by_another_owner_says_lost_and_changes_nothing() {
    let (_redis, nginx) = redis_and_nginx();
    nginx.call("try_acquire", &[("name", "n")]);
    let stranger = nginx.call("release", &[("name", "n"), ("owner", "somebody:1")]);
    assert_eq!(text(&stranger, "error"), "lost");
    assert_eq!(text(&nginx.call("try_acquire", &[("name", "n")]), "error"), "held");
}

#[test]
fn workers_exclude_each_other() {
    let (_redis, nginx) = redis_and_nginx();
    let workers = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let done = nginx.call("count", &[("name", "n"), ("wait", "30")]);
                    assert_eq!(done["released"], true, "{done}");
                    workers.lock().unwrap().insert(done["worker"].as_u64().unwrap());
                }
            });
        }
    });
    let last = nginx.call("count", &[("name", "n")]);
    assert_eq!(last["count"], 121, "120 additions before this one: {last}");
    assert_eq!(workers.into_inner().unwrap().len(), 2, "both workers took part");
}

#[test]
fn no_two_owner_tokens_are_equal_across_workers() {
    let redis = Server::start(&[]).unwrap();
    // A token that is made before the fork must not give all workers the same client id.
    let nginx = Config::redis(&redis).workers(8).options("label = require('resty.redlatch.owner').token()").start();
    let goal = usize::try_from(setting("REDLATCH_TOKENS", 200_000)).unwrap();
    let seen = Mutex::new((HashSet::new(), HashSet::new(), 0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..goal {
                    let answer = nginx.call("owners", &[("count", "2000")]);
                    let mut seen = seen.lock().unwrap();
                    let (owners, workers, count) = &mut *seen;
                    workers.insert(answer["worker"].as_u64().unwrap());
                    for owner in answer["owners"].as_array().unwrap() {
                        owners.insert(owner.as_str().unwrap().to_owned());
                        *count += 1;
                    }
                    if *count >= goal && workers.len() == 8 {
                        break;
                    }
                }
            });
        }
    });
    let (owners, workers, count) = seen.into_inner().unwrap();
    assert_eq!(workers.len(), 8, "every worker made some");
    assert!(count >= goal);
    assert_eq!(owners.len(), count);
    let clients: HashSet<_> = owners.iter().map(|owner| owner.split(':').next().unwrap()).collect();
    assert_eq!(clients.len(), 8, "one client id per worker");
    assert!(clients.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{clients:?}");
}

#[test]
fn plain_uses_the_raw_key_as_everybody_else_does() {
    let (redis, nginx) = redis_and_nginx();
    let plain = ("o.family", "plain");
    let lease = nginx.call("try_acquire", &[("name", "my:lock"), ("ttl", "20"), plain]);
    assert_eq!(ask::<String>(&redis, &["GET", "my:lock"]), text(&lease, "owner"));
    assert!(ask::<i64>(&redis, &["PTTL", "my:lock"]) > 19_000);
    assert!(lease["fence"].is_null(), "{lease}");

    let owned = [("name", "my:lock"), ("owner", text(&lease, "owner")), ("ttl", "60"), plain];
    assert!(number(&nginx.call("extend", &owned), "remaining") > 59.0);
    assert_eq!(nginx.call("release", &owned)["released"], true);
    assert_eq!(ask::<i64>(&redis, &["EXISTS", "my:lock"]), 0);
    assert_eq!(text(&nginx.call("release", &owned), "error"), "lost", "plain has no memo of what was released");
}

#[test]
fn plain_respects_the_keys_of_others() {
    let (redis, nginx) = redis_and_nginx();
    let try_it = || nginx.call("try_acquire", &[("name", "their"), ("o.family", "plain")]);
    ask::<()>(&redis, &["SET", "their", "them", "NX", "PX", "20000"]);
    let refusal = try_it();
    assert_eq!(text(&refusal, "error"), "held");
    assert!(number(&refusal, "remaining") > 19.0);

    ask::<()>(&redis, &["SET", "their", "1"]);
    let refusal = try_it();
    assert_eq!(text(&refusal, "error"), "held");
    assert!(refusal["remaining"].is_null(), "nobody knows for how long: {refusal}");
}
