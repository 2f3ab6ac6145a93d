//! Scripts that are missing on the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{ask, redis_and_nginx, text};
use crate::support::nginx::Config;
use crate::support::{Fault, Proxy, Raw, Server, say};

#[test]
fn loads_the_script_where_it_is_missing() {
    let (redis, nginx) = redis_and_nginx();
    for _ in 0..3 {
        ask::<()>(&redis, &["SCRIPT", "FLUSH"]);
        assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
    }
}

#[test]
fn a_storm_of_script_flush_causes_no_error_and_no_eval() {
    for connection in ["worker", "pool"] {
        let redis = Server::start(&[]).unwrap();
        let nginx = Config::redis(&redis).options(&format!("connection = '{connection}'")).start();
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
                assert_eq!(answer["released"], true, "{connection}: {answer}");
            }
        });
        let mut raw = Raw::connect(&redis);
        let (bites, evals) = (raw.errors("NOSCRIPT"), raw.count("eval"));
        say(&format!("{connection}: 800 calls met {bites} times NOSCRIPT"));
        assert!(bites > 0);
        assert_eq!(evals, 0);
    }
}

#[test]
fn a_missing_script_is_loaded_and_run_in_one_write() {
    for connection in ["worker", "pool"] {
        let redis = Server::start(&[]).unwrap();
        let proxy = Proxy::start(&redis);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        proxy.rule(move |command| {
            note.lock().unwrap().extend(["EVALSHA", "SCRIPT"].into_iter().find(|word| command.is(word)));
            command.is("SCRIPT").then_some(Fault::HoldReply(Duration::from_secs(3)))
        });
        let port = proxy.url().rsplit(':').next().unwrap().to_owned();
        let nginx = Config::new(&format!("port = {port}, connection = '{connection}', timeout = 1")).start();
        let inspect = [("script", "mutex/inspect"), ("key", "k"), ("a", "0")];
        // Who waited for the reply of the load would have sent nothing more, and known that.
        assert_eq!(nginx.call("raw", &inspect)["kind"], "unknown", "{connection}");
        assert_eq!(*seen.lock().unwrap(), ["EVALSHA", "SCRIPT", "EVALSHA"], "{connection}");
    }
}

#[test]
fn a_user_who_may_not_load_is_told_what_to_run() {
    let redis = Server::start(&[]).unwrap();
    ask::<()>(&redis, &["ACL", "SETUSER", "app", "on", ">app", "~*", "&*", "+@all", "-script|load"]);
    for connection in ["worker", "pool"] {
        let options = format!("username = 'app', password = 'app', connection = '{connection}'");
        let nginx = Config::redis(&redis).options(&options).start();
        let answer = nginx.call("try_acquire", &[("name", "n")]);
        let error = text(&answer, "error");
        let advice = "(the script is not on this server, and this user may not load it: run `redlatch load` as a user who \
                      may, or grant +script|load)";
        assert!(error.starts_with("redis: NOPERM ") && error.ends_with(advice), "{connection}: {error}");
    }
    assert_eq!(Raw::connect(&redis).count("eval"), 0);
}

#[test]
fn strict_never_loads_a_script() {
    let (redis, nginx) = redis_and_nginx();
    let strict = [("name", "n"), ("o.strict", "true")];
    assert_eq!(text(&nginx.call("try_acquire", &strict), "error"), "script missing");
    assert_eq!(text(&nginx.call("acquire", &[("wait", "1"), strict[0], strict[1]]), "error"), "script missing");
    let stats: String = ask(&redis, &["INFO", "commandstats"]);
    assert!(!stats.contains("script|load"), "{stats}");

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
