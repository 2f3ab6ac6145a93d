//! Leases that the driver renews, and how their end is told.

use std::thread;

use super::{ask, inspect, number, redis_and_nginx, text, until};
use crate::support::nginx::Config;
use crate::support::{Raw, Server, say, signal};

#[test]
fn a_held_lease_outlives_its_ttl() {
    let (_redis, nginx) = redis_and_nginx();
    let answer = nginx.call("hold", &[("name", "n"), ("ttl", "3"), ("hold", "5")]);
    assert!(number(&answer, "remaining") > 0.0, "{answer}");
    assert_eq!(answer["released"], true, "{answer}");
}

#[test]
fn max_hold_ends_the_renewals() {
    let (_redis, nginx) = redis_and_nginx();
    let answer = nginx.call("hold", &[("name", "n"), ("ttl", "0.3"), ("hold", "1.2"), ("max_hold", "0.4")]);
    assert_eq!(text(&answer, "error"), "lost", "{answer}");
}

#[test]
fn x4_renewals_go_on_in_a_worker_that_a_reload_replaces() {
    let (_redis, nginx) = redis_and_nginx();
    until("both workers are there", || nginx.workers().len() == 2);
    let old = nginx.workers();
    let answer = thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("ttl", "3"), ("hold", "5")]));
        until("it is held", || inspect(&nginx, "n")[0] == 1);
        nginx.reload();
        until("new workers are there", || nginx.workers().iter().any(|worker| !old.contains(worker)));
        holder.join().unwrap()
    });
    assert_eq!(answer["released"], true, "{answer}");
    assert!(old.contains(&(answer["worker"].as_u64().unwrap() as u32)), "{answer}");
    until("the old workers are gone", || nginx.workers().iter().all(|worker| !old.contains(worker)));
}

const WATCH: &str = r#"location = /watch {
    content_by_lua_block {
        local clock = require "resty.redlatch.clock"
        local lock = require("resty.redlatch").new(require("handler").defaults)
        local lease = assert(lock:acquire("n", { ttl = tonumber(ngx.var.arg_ttl) }))
        local lost = lease:wait_lost(20)
        ngx.say(tostring(lost), " ", tostring(lease.lost), " ", lease:remaining(), " ", clock() - lease.deadline < 0.5)
    }
}
location = /released {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        local lease = assert(lock:acquire("n", { ttl = 600 }))
        local watcher = ngx.thread.spawn(lease.wait_lost, lease, 600)
        ngx.sleep(0.05)
        assert(lease:release())
        local _, lost = ngx.thread.wait(watcher)
        ngx.say(tostring(lost), " ", tostring(lease.lost))
    }
}
location = /many {
    content_by_lua_block {
        local redlatch = require "resty.redlatch"
        local lock = redlatch.new(require("handler").defaults)
        local leases, writes = {}, nil
        for i = 1, 5000 do
            leases[i] = assert(lock:acquire("n" .. i, { ttl = 3 }))
        end
        ngx.sleep(3)
        local before = redlatch.stats()[1].counts
        ngx.sleep(3)
        local after = redlatch.stats()[1].counts
        for _, lease in ipairs(leases) do
            assert(not lease.lost)
        end
        ngx.say(after.renewed - before.renewed, " ", after.writes - before.writes)
        for _, lease in ipairs(leases) do
            lease:post_release()
        end
    }
}"#;

#[test]
fn the_holder_hears_that_the_server_lost_its_lease() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).locations(WATCH).start();
    thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.get("/watch?ttl=0.6"));
        until("it is held", || ask::<i64>(&redis, &["DEL", "redlatch:m1:n"]) == 1);
        assert_eq!(holder.join().unwrap().1, "true true 0 true\n", "{}", nginx.error_log());
    });
}

#[test]
fn g9_the_holder_hears_of_the_end_at_its_deadline_without_an_answer() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).locations(WATCH).start();
    thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.get("/watch?ttl=0.6"));
        until("it is held", || ask::<i64>(&redis, &["EXISTS", "redlatch:m1:n"]) == 1);
        signal(redis.pid(), "STOP");
        let (_, answer) = holder.join().unwrap();
        signal(redis.pid(), "CONT");
        assert_eq!(answer, "true true 0 true\n", "{}", nginx.error_log());
    });
}

#[test]
fn who_waits_for_the_loss_of_a_lease_goes_on_at_its_release() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).locations(WATCH).start();
    assert_eq!(nginx.get("/released").1, "false false\n", "{}", nginx.error_log());
}

#[test]
fn renewals_of_many_leases_leave_together() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).locations(WATCH).start();
    let (_, answer) = nginx.get("/many");
    let (renewed, writes) = answer.trim().split_once(' ').unwrap_or_else(|| panic!("{answer}{}", nginx.error_log()));
    let (renewed, writes): (u32, u32) = (renewed.parse().unwrap(), writes.parse().unwrap());
    say(&format!("{renewed} renewals of 5000 leases in {writes} writes"));
    assert!(renewed >= 5000);
    assert!(writes * 5 < renewed, "{renewed} renewals in {writes} writes");
}

/// A renewal that is answered with the fence of a later grant is a loss: others may have held the lock since.
#[test]
fn an_extend_that_is_answered_for_another_grant_is_lost() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).start();
    let params = [("name", "n"), ("ttl", "60"), ("hold", "1"), ("extend", "60"), ("renew", "false")];
    let answer = thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold_and_extend", &params));
        until("it is held", || ask::<i64>(&redis, &["EXISTS", "redlatch:m1:n"]) == 1);
        Raw::connect(&redis).edit_lock("redlatch:m1:n", |lock| lock.fence += 1);
        holder.join().unwrap()
    });
    assert_eq!(text(&answer, "error"), "lost", "{answer}");
}

/// After a step ahead of the server's clock less is left than was believed here.
#[test]
fn an_extend_moves_the_deadline_to_what_the_server_says_is_left() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).start();
    let params = [("name", "n"), ("ttl", "60"), ("hold", "1"), ("extend", "5"), ("renew", "false")];
    let answer = thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold_and_extend", &params));
        until("it is held", || ask::<i64>(&redis, &["EXISTS", "redlatch:m1:n"]) == 1);
        Raw::connect(&redis).edit_lock("redlatch:m1:n", |lock| lock.deadline_ms -= 57_000);
        holder.join().unwrap()
    });
    let remaining = number(&answer, "remaining");
    assert!(remaining > 1.0 && remaining < 5.0, "{answer}");
}

#[test]
fn a_lease_that_its_request_has_dropped_ends_with_its_ttl() {
    let redis = Server::start(&[]).unwrap();
    let location = r#"location = /drop {
        content_by_lua_block {
            local lock = require("resty.redlatch").new(require("handler").defaults)
            assert(lock:acquire("n", { ttl = 0.5 }))
            collectgarbage()
            ngx.say("dropped")
        }
    }"#;
    let nginx = Config::redis(&redis).workers(1).locations(location).start();
    assert_eq!(nginx.get("/drop").0, 200);
    let freed = nginx.call("acquire", &[("name", "n"), ("wait", "20")]);
    assert!(freed["fence"].is_string(), "{freed}");
}

#[test]
fn the_log_phase_of_nobody_leaves_other_requests_alone() {
    let redis = Server::start(&[]).unwrap();
    let location = r#"location = /log {
        content_by_lua_block { ngx.say("x") }
        log_by_lua_block { ngx.log(ngx.NOTICE, "gave back ", require("resty.redlatch").log()) }
    }"#;
    let nginx = Config::redis(&redis).workers(1).locations(location).start();
    thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("hold", "0.5")]));
        until("it is held", || inspect(&nginx, "n")[0] == 1);
        nginx.get("/log");
        assert_eq!(holder.join().unwrap()["released"], true);
    });
    assert!(nginx.error_log().contains("gave back 0"));
}
