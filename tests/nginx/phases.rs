//! Where nginx does not let Lua wait, the methods say so.

use super::until;
use crate::support::Server;
use crate::support::nginx::Config;

const LOCATIONS: &str = r#"
location = /header_filter {
    header_filter_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        local _, err = pcall(lock.acquire, lock, "n", { wait = 1 })
        ngx.header.x = nil
        ngx.ctx.err = err
    }
    body_filter_by_lua_block { ngx.arg[1], ngx.arg[2] = ngx.ctx.err, true }
    content_by_lua_block { ngx.say("") }
}
location = /log {
    log_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        ngx.log(ngx.NOTICE, select(2, pcall(lock.try_acquire, lock, "n")))
        local lease = lock:lease("n", "owner")
        ngx.log(ngx.NOTICE, select(2, pcall(lease.extend, lease)))
        ngx.log(ngx.NOTICE, select(2, pcall(lease.release, lease)))
        ngx.log(ngx.NOTICE, "remaining is ", lease:remaining())
    }
    content_by_lua_block { ngx.say("") }
}
location = /everywhere {
    rewrite_by_lua_block {
        lock = require("resty.redlatch").new(require("handler").defaults)
        ngx.ctx.lease = assert(lock:acquire("n"))
    }
    access_by_lua_block { assert(ngx.ctx.lease:extend()) }
    content_by_lua_block {
        assert(ngx.ctx.lease:release())
        local semaphore = require("ngx.semaphore").new()
        local result
        ngx.timer.at(0, function()
            local lease, err = lock:try_acquire("n")
            result = lease and lease:release() or err
            semaphore:post()
        end)
        semaphore:wait(5)
        ngx.say(tostring(result))
    }
}"#;

#[test]
fn x8_phases_that_cannot_wait_are_refused_with_the_reason() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).locations(LOCATIONS).start();
    let refusal = |method: &str, phase: &str| {
        format!(
            "redlatch: {method} waits for Redis, which nginx does not allow in the phase {phase}: \
             call it in rewrite, access or content, or in ngx.timer.at(0, ...)"
        )
    };
    assert_eq!(nginx.get("/header_filter").1, refusal("acquire", "header_filter"));
    nginx.get("/log");
    until("the log phase ran", || nginx.error_log().contains("remaining is 0"));
    for method in ["try_acquire", "extend", "release"] {
        assert!(nginx.error_log().contains(&refusal(method, "log")), "{method}");
    }
}

#[test]
fn rewrite_access_content_and_timers_may_wait() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).locations(LOCATIONS).start();
    assert_eq!(nginx.get("/everywhere"), (200, "true\n".to_owned()));
}
