//! Misuse throws at the caller's line, and nothing is sent.

use super::{ask, redis_and_nginx, text};
use crate::support::Server;
use crate::support::nginx::{Config, Nginx};

#[track_caller]
fn throws(nginx: &Nginx, op: &str, params: &[(&str, &str)], message: &str) {
    let answer = nginx.call(op, params);
    let (line, thrown) = text(&answer, "thrown").split_once(": ").unwrap();
    assert!(line.contains("/tests/nginx/handler.lua:"), "blames {line}");
    assert_eq!(thrown, message);
}

#[test]
fn names_out_of_range_throw() {
    let (_redis, nginx) = redis_and_nginx();
    for op in ["try_acquire", "acquire"] {
        throws(&nginx, op, &[("name", "")], "redlatch: name must be a string of 1 to 512 bytes, not of 0");
        let longest = format!("{op:x<512}");
        assert!(nginx.call(op, &[("name", &longest)])["owner"].is_string());
        for length in [513, 600] {
            let message = format!("redlatch: name must be a string of 1 to 512 bytes, not of {length}");
            throws(&nginx, op, &[("name", &"x".repeat(length))], &message);
        }
        for name in ["a\0b", "a\rb", "a\nb"] {
            throws(&nginx, op, &[("name", name)], "redlatch: name must not contain NUL, CR or LF");
        }
        throws(&nginx, op, &[("name", "42")], "redlatch: name must be a string of 1 to 512 bytes, not number");
        throws(&nginx, op, &[], "redlatch: name must be a string of 1 to 512 bytes, not nil");
    }
}

#[test]
fn times_out_of_range_throw() {
    let (redis, nginx) = redis_and_nginx();
    let range = "must be a number from 0.001 to 2678400 seconds, not";
    for (ttl, shown) in [
        ("0", "0"),
        ("-1", "-1"),
        ("0.0001", "0.0001"),
        ("2678401", "2678401"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("s:1e3", "\"1e3\""),
        ("true", "true"),
    ] {
        let message = format!("redlatch: option ttl {range} {shown}");
        throws(&nginx, "acquire", &[("name", "n"), ("ttl", ttl)], &message);
        let message = format!("redlatch: ttl {range} {shown}");
        throws(&nginx, "extend", &[("name", "n"), ("owner", "o"), ("ttl", ttl)], &message);
    }
    let message = "redlatch: option wait must be a number from 0 to 2678400 seconds, not -1";
    throws(&nginx, "acquire", &[("name", "n"), ("wait", "-1")], message);
    let message = "redlatch: option fence_floor must be a fence: decimal digits of a number up to 9007199254740991";
    for floor in ["1.5", "-1", "x", "9007199254740992", "17976931348623157"] {
        throws(&nginx, "acquire", &[("name", "n"), ("fence_floor", floor)], message);
    }
    let message = "redlatch: option fence_floor goes with the mutex family: the plain family has no fence";
    throws(&nginx, "acquire", &[("name", "n"), ("fence_floor", "1"), ("o.family", "plain")], message);
    let stats: String = ask(&redis, &["INFO", "commandstats"]);
    assert!(!stats.contains("cmdstat_evalsha"), "nothing was sent: {stats}");
}

#[test]
fn owners_out_of_range_throw() {
    let (_redis, nginx) = redis_and_nginx();
    for op in ["extend", "release"] {
        let message = "redlatch: owner must not contain spaces";
        throws(&nginx, op, &[("name", "n"), ("owner", "a b")], message);
        let message = "redlatch: owner must be a string of 1 to 128 bytes, not of 129";
        throws(&nginx, op, &[("name", "n"), ("owner", &"x".repeat(129))], message);
    }
}

#[test]
fn options_out_of_range_throw() {
    let (_redis, nginx) = redis_and_nginx();
    for (option, value, message) in [
        ("o.hots", "x", "there is no option \"hots\""),
        ("o.host", "7", "option host must be a string of 1 to 255 bytes, not number"),
        ("o.port", "65536", "option port must be a whole number from 1 to 65535, not 65536"),
        ("o.port", "1.5", "option port must be a whole number from 1 to 65535, not 1.5"),
        ("o.database", "-1", "option database must be a whole number from 0 to 2147483647, not -1"),
        ("o.namespace", "", "option namespace must be 1 to 64 printable ASCII characters without spaces"),
        ("o.namespace", "a:b", "option namespace must not contain a colon, which ends it in the key"),
        ("o.timeout", "0", "option timeout must be a number from 0.001 to 3600 seconds, not 0"),
        ("o.pool_size", "0", "option pool_size must be a whole number from 1 to 65535, not 0"),
        ("o.keepalive", "x", "option keepalive must be a number from 0.001 to 86400 seconds, not \"x\""),
        ("o.ttl", "0", "option ttl must be a number from 0.001 to 2678400 seconds, not 0"),
        ("o.claim", "61", "option claim must be a number from 0.1 to 60 seconds, not 61"),
        ("o.retention", "59", "option retention must be a number from 60 to 2678400 seconds, not 59"),
        ("o.family", "fair", "option family must be \"mutex\" or \"plain\", not \"fair\""),
        ("o.strict", "1", "option strict must be true or false, not 1"),
        ("o.username", "u", "option username needs the option password"),
        ("o.port", "6379", "option socket goes without host and port"),
    ] {
        throws(&nginx, "try_acquire", &[("name", "n"), (option, value)], &format!("redlatch: {message}"));
    }
    let label = "x".repeat(129);
    let message = "redlatch: option label must be a string of 0 to 128 bytes, not of 129";
    throws(&nginx, "try_acquire", &[("name", "n"), ("o.label", &label)], message);
}

#[test]
fn an_unknown_option_of_a_call_throws() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis)
        .locations(
            r#"location = /typo {
                content_by_lua_block {
                    local lock = require("resty.redlatch").new(require("handler").defaults)
                    local _, err = pcall(lock.acquire, lock, "n", { wiat = 1 })
                    ngx.print(err)
                }
            }"#,
        )
        .start();
    assert_eq!(nginx.get("/typo").1, "redlatch: there is no option \"wiat\"");
}
