//! Instances that come and go: with the routes of a gateway, or with every request.

use super::until;
use crate::support::Server;
use crate::support::nginx::Config;

/// Instances whose drivers differ; `/left` says how many drivers are left, and how many namespaces a connection would
/// subscribe.
const ROUTES: &str = r#"
location = /routes {
    content_by_lua_block {
        local defaults = require("handler").defaults
        for i = 1, 100 do
            local lock = require("resty.redlatch").new {
                socket = defaults.socket, keepalive = 0.05, username = "default", password = "p" .. i,
            }
            assert(lock:with("n", { wait = 5 }, function() end))
        end
    }
}
location = /left {
    content_by_lua_block {
        collectgarbage()
        collectgarbage()
        local left = 0
        for _ in pairs(require("resty.redlatch.driver").all()) do
            left = left + 1
        end
        ngx.say(left)
    }
}"#;

#[test]
fn drivers_go_with_the_instances_that_had_them() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).locations(ROUTES).start();
    // Any password does for this user.
    super::ask::<()>(&redis, &["ACL", "SETUSER", "default", "nopass"]);
    assert_eq!(nginx.get("/routes").0, 200, "{}", nginx.error_log());
    // The stack of a coroutine that nginx keeps for later may still show its last one.
    until("the drivers are gone", || nginx.get("/left").1.trim().parse::<u32>().unwrap() <= 1);
}

#[test]
fn with_the_code_cache_off_a_driver_names_the_option_for_that_once() {
    let redis = Server::start(&[]).unwrap();
    let location = r#"location = /uncached {
        lua_code_cache off;
        content_by_lua_block {
            local lock = require("resty.redlatch").new { socket = ngx.var.arg_socket, keepalive = 0.05 }
            ngx.say(tostring(lock:with("n", { wait = 5 }, function() end)))
        }
    }
    location = /cached {
        content_by_lua_block {
            local lock = require("resty.redlatch").new { socket = ngx.var.arg_socket, keepalive = 0.05 }
            ngx.say(tostring(lock:with("n", { wait = 5 }, function() end)))
        }
    }"#;
    let nginx = Config::redis(&redis).workers(1).locations(location).start();
    let warning = "redlatch: lua_code_cache is off";
    let get = |path: &str| {
        let path = format!("{path}?socket={}", redis.socket().display());
        assert_eq!(nginx.get(&path), (200, "true\n".to_owned()), "{}", nginx.error_log());
    };
    (0..5).for_each(|_| get("/cached"));
    assert!(!nginx.error_log().contains(warning), "{}", nginx.error_log());
    (0..5).for_each(|_| get("/uncached"));
    let log = nginx.error_log();
    assert!(log.contains("use the option connection = \"pool\" of new"), "{log}");
    // nginx itself warns when it starts.
    assert_eq!(log.matches(warning).count(), 1, "{log}");
}
