//! Scripts that are missing on the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{ask, redis_and_nginx, text};
use crate::support::nginx::Config;
use crate::support::{Raw, Server};

#[test]
fn loads_the_script_where_it_is_missing() {
    let (redis, nginx) = redis_and_nginx();
    for _ in 0..3 {
        ask::<()>(&redis, &["SCRIPT", "FLUSH"]);
        assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
    }
}

#[test]
fn a_storm_of_script_flush_causes_no_error() {
    let (redis, nginx) = redis_and_nginx();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Raw::connect(&redis);
            while !stop.load(Ordering::Relaxed) {
                connection.must::<()>(&["SCRIPT", "FLUSH"]);
            }
        });
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                let nginx = &nginx;
                scope.spawn(move || {
                    let name = format!("n{caller}");
                    (0..100).map(|_| nginx.call("hold", &[("name", &name)])).collect::<Vec<_>>()
                })
            })
            .collect();
        let answers: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for answer in answers.into_iter().flat_map(Result::unwrap) {
            assert_eq!(answer["released"], true, "{answer}");
        }
    });
    let errors: String = ask(&redis, &["INFO", "errorstats"]);
    let bites = errors.split("errorstat_NOSCRIPT:count=").nth(1).and_then(|rest| rest.lines().next());
    let bites: u32 = bites.expect("the storm bit").trim().parse().unwrap();
    println!("800 calls met {bites} times NOSCRIPT");
    assert!(bites > 0);
}

#[test]
fn strict_never_loads_a_script() {
    let (redis, nginx) = redis_and_nginx();
    let strict = [("name", "n"), ("o.strict", "true")];
    assert_eq!(text(&nginx.call("try_acquire", &strict), "error"), "script missing");
    assert_eq!(text(&nginx.call("acquire", &[("wait", "1"), strict[0], strict[1]]), "error"), "script missing");
    let stats: String = ask(&redis, &["INFO", "commandstats"]);
    assert!(!stats.contains("cmdstat_eval:") && !stats.contains("script|load"), "{stats}");

    nginx.call("hold", &[("name", "n")]);
    assert_eq!(nginx.call("hold", &strict)["released"], true);
}

#[test]
fn a_script_that_many_miss_is_loaded_once() {
    let redis = Server::start(&[]).unwrap();
    let crowd = r#"location = /crowd {
        content_by_lua_block {
            local lock = require("resty.redlatch").new(require("handler").defaults)
            local threads = {}
            for i = 1, 64 do
                threads[i] = ngx.thread.spawn(function() assert(lock:try_acquire("n" .. i)) end)
            end
            for i = 1, 64 do
                assert(ngx.thread.wait(threads[i]))
            end
            ngx.say(require("resty.redlatch").stats()[1].counts.scripts_loaded)
        }
    }"#;
    let nginx = Config::redis(&redis).workers(1).locations(crowd).start();
    assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
    ask::<String>(&redis, &["SCRIPT", "FLUSH"]);
    // Acquire and release at first, then acquire.
    assert_eq!(nginx.get("/crowd").1, "3\n", "{}", nginx.error_log());
}
