//! What a request leaves behind when it is killed, fails, or ends where nothing may wait.

use std::thread;
use std::time::Duration;

use super::{ask, fence, inspect, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Server, say};

const LOCATIONS: &str = r#"
location = /held {
    lua_check_client_abort on;
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        local lease = assert(lock:acquire("n", { wait = 20, ttl = 60 }))
        ngx.sleep(tonumber(ngx.var.arg_hold or 30))
        lease:release()
    }
    log_by_lua_block { require("resty.redlatch").log() }
}
location = /unlogged {
    lua_check_client_abort on;
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        assert(lock:acquire("n", { ttl = tonumber(ngx.var.arg_ttl) }))
        ngx.sleep(30)
    }
}
location = /fails {
    error_page 500 /sorry;
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        assert(lock:acquire("n", { ttl = 60 }))
        error("the work failed")
    }
    log_by_lua_block { require("resty.redlatch").log() }
}
location = /sorry {
    internal;
    content_by_lua_block { ngx.say("sorry") }
    log_by_lua_block { require("resty.redlatch").log() }
}
location = /exits {
    access_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        assert(lock:acquire("n", { ttl = 60 }))
        ngx.exit(403)
    }
    log_by_lua_block { require("resty.redlatch").log() }
}
location = /header_filter {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        ngx.ctx.lease = assert(lock:acquire("n", { ttl = 60 }))
        ngx.say("x")
    }
    header_filter_by_lua_block { assert(ngx.ctx.lease:post_release()) }
}
location = /log {
    content_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        ngx.ctx.lease = assert(lock:acquire("n", { ttl = 60 }))
        ngx.say("x")
    }
    log_by_lua_block { assert(ngx.ctx.lease:post_release()) }
}
location = /pooled {
    content_by_lua_block {
        local opts = { connection = "pool" }
        for option, value in pairs(require("handler").defaults) do
            opts[option] = value
        end
        ngx.ctx.lease = assert(require("resty.redlatch").new(opts):acquire("n", { ttl = 60 }))
        ngx.say("x")
    }
    log_by_lua_block { assert(ngx.ctx.lease:post_release()) }
}
location = /balancer {
    access_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        ngx.ctx.lease = assert(lock:acquire("n", { ttl = 60 }))
    }
    proxy_pass http://behind;
}
"#;

fn start() -> (Server, Nginx) {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).locations(LOCATIONS).http(BALANCER).start();
    (redis, nginx)
}

const BALANCER: &str = r#"upstream behind {
    server 127.0.0.1:1;
    balancer_by_lua_block {
        assert(ngx.ctx.lease:post_release())
    }
}"#;

fn is_free(nginx: &Nginx) -> bool {
    inspect(nginx, "n")[0] == 2
}

#[test]
fn x5_a_client_that_hangs_up_gives_the_lease_back_at_once() {
    let (_redis, nginx) = start();
    let client = nginx.send("/held");
    until("it is held", || inspect(&nginx, "n")[0] == 1);
    drop(client);
    until("it is free, long before its TTL", || is_free(&nginx));
}

#[test]
fn a_waiter_whose_client_hangs_up_leaves_the_queue_at_once() {
    let (_redis, nginx) = start();
    let lease = nginx.call("try_acquire", &[("name", "n"), ("ttl", "60")]);
    let client = nginx.send("/held");
    until("it waits", || inspect(&nginx, "n")[6] == 1);
    drop(client);
    until("it has left", || inspect(&nginx, "n")[6] == 0);
    assert_eq!(nginx.call("release", &[("name", "n"), ("owner", text(&lease, "owner"))])["released"], true);
    assert!(is_free(&nginx));
}

#[test]
fn without_the_log_line_the_lease_of_a_killed_request_ends_with_its_ttl() {
    let (_redis, nginx) = start();
    let client = nginx.send("/unlogged?ttl=1");
    until("it is held", || inspect(&nginx, "n")[0] == 1);
    drop(client);
    // The renewals end with the object, which the collector finds while requests are served.
    until("it is free", || is_free(&nginx));
}

#[test]
fn a_posted_release_that_is_refused_is_sent_again() {
    let (redis, nginx) = start();
    let client = nginx.send("/held");
    until("it is held", || inspect(&nginx, "n")[0] == 1);
    ask::<()>(&redis, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    drop(client);
    until("it was refused", || ask::<String>(&redis, &["INFO", "errorstats"]).contains("errorstat_NOREPLICAS"));
    assert_eq!(inspect(&nginx, "n")[0], 1);
    ask::<()>(&redis, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    until("it is free, long before its TTL", || is_free(&nginx));
}

#[test]
fn whatever_ends_a_request_gives_its_lease_back() {
    let (_redis, nginx) = start();
    for (path, status) in
        [("/fails", 500), ("/exits", 403), ("/header_filter", 200), ("/log", 200), ("/pooled", 200), ("/balancer", 502)]
    {
        assert_eq!(nginx.get(path).0, status, "{path}{}", nginx.error_log());
        until(path, || is_free(&nginx));
    }
}

#[test]
fn clients_that_hang_up_at_any_moment_leave_no_orphan() {
    let (redis, nginx) = start();
    let mut last = 0;
    for i in 0..60 {
        let clients: Vec<_> = (0..4).map(|_| nginx.send("/held?hold=0.01")).collect();
        thread::sleep(Duration::from_micros(i * 997 % 25_000));
        drop(clients);
        if i % 10 == 9 {
            let next = nginx.call("acquire", &[("name", "n"), ("wait", "20"), ("ttl", "60")]);
            assert!(fence(&next) > last, "{next}");
            last = fence(&next);
            assert_eq!(nginx.call("release", &[("name", "n"), ("owner", text(&next, "owner"))])["released"], true);
        }
    }
    until("nobody holds or waits", || is_free(&nginx) && inspect(&nginx, "n")[6] == 0);
    let connections = ask::<String>(&redis, &["CLIENT", "LIST"]).lines().count() - 1;
    assert_eq!(connections, 1);
}

#[test]
fn x3_a_shutdown_that_cuts_the_holder_leaves_its_lease_to_the_ttl() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).main("worker_shutdown_timeout 300ms;").start();
    let path = Nginx::path("hold", &[("name", "n"), ("ttl", "1"), ("hold", "30")]);
    thread::scope(|scope| {
        let cut = scope.spawn(|| nginx.get(&path));
        until("it is held", || inspect(&nginx, "n")[0] == 1);
        nginx.reload();
        assert_ne!(cut.join().unwrap().0, 200);
    });
    let next = nginx.call("acquire", &[("name", "n"), ("wait", "20")]);
    say(&format!("x3: after the cut the next lease has the fence {}", fence(&next)));
}

#[test]
fn a_certificate_handshake_may_wait_for_a_lease() {
    let redis = Server::start(&[]).unwrap();
    let folder = Nginx::folder();
    let dir = folder.0.display().to_string();
    super::examples::self_signed(&folder.0);
    let server = format!(
        r#"server {{
            listen unix:{dir}/tls.sock ssl;
            ssl_certificate {dir}/fallback.crt;
            ssl_certificate_key {dir}/fallback.key;
            ssl_certificate_by_lua_block {{
                local lock = require("resty.redlatch").new(require("handler").defaults)
                local lease = assert(lock:acquire("n", {{ wait = 1 }}))
                package.loaded.fence = lease.fence
                assert(lease:release())
            }}
            location / {{ content_by_lua_block {{ ngx.say(require("fence")) }} }}
        }}"#
    );
    let nginx = Config::redis(&redis).workers(1).http(&server).start();
    let answer = super::examples::https(&format!("{dir}/tls.sock"), "example.org");
    assert!(answer.starts_with("1"), "{answer}{}", nginx.error_log());
}
