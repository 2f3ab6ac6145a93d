//! Every error of the server becomes a sentence that says what to do.

use crate::servers::said;
use crate::support::nginx::{Config, Nginx, percent_encode};

fn nginx() -> Nginx {
    Config::new("")
        .locations(
            r#"location = /explain {
                content_by_lua_block {
                    local reply = ngx.unescape_uri(ngx.var.arg_reply)
                    local errors = require("resty.redlatch.errors")
                    ngx.print(errors.code(reply), "\n", errors.explain(reply))
                }
            }"#,
        )
        .start()
}

/// The code and the sentence that an error reply becomes.
fn read(nginx: &Nginx, reply: &str) -> (String, String) {
    let answer = nginx.get(&format!("/explain?reply={}", percent_encode(reply.as_bytes()))).1;
    let (code, sentence) = answer.split_once('\n').expect("two lines");
    (code.to_owned(), sentence.to_owned())
}

fn explained(nginx: &Nginx, reply: &str) -> String {
    read(nginx, reply).1
}

#[test]
fn every_recorded_error_is_read_as_the_rust_client_reads_it() {
    let nginx = nginx();
    for said in said::all() {
        let (code, sentence) = read(&nginx, said.text);
        assert_eq!(code, said.code, "{}", said.text);
        assert!(sentence.starts_with(&format!("redis: {code}")), "{sentence}");
        // A proxy's whole line is cut by who knows what was sent, see echo.lua.
        if !said.text.contains("unsupported command: ") {
            assert_eq!(said::forbidden(&sentence), None, "{sentence} of {}", said.text);
        }
    }
}

#[test]
fn what_redis_6_wraps_is_unwrapped() {
    let nginx = nginx();
    let wrong_type = "redis: WRONGTYPE Operation against a key holding the wrong kind of value \
                      (the key holds something else, left as it is: choose another name or namespace)";
    for reply in [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "WRONGTYPE Operation against a key holding the wrong kind of value script: 9ed1a00a, on @user_script:71.",
        "ERR Error running script (call to f_9ed1a00a): @user_script:71: WRONGTYPE Operation against a key holding \
         the wrong kind of value",
    ] {
        assert_eq!(explained(&nginx, reply), wrong_type);
    }
    let full = "redis: OOM command not allowed when used memory > 'maxmemory' (the server is full: raise its maxmemory or \
                delete keys; leases that are held can be extended and released)";
    let wrapped = "ERR Error running script (call to f_9ed1a00a): @user_script:1: @user_script: 1: -OOM command not allowed \
                   when used memory > 'maxmemory'.";
    assert_eq!(explained(&nginx, wrapped), full);
}

#[test]
fn each_code_has_its_own_advice() {
    let nginx = nginx();
    let unexplained = "(read the server's log)";
    for code in [
        "ASK 1 host:1",
        "BADARG x",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "CLUSTERDOWN The cluster is down",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "DENIED Redis is running in protected mode",
        "ERR AUTH <password> called without any password configured for the default user.",
        "ERR DB index is out of range",
        "ERR max number of clients reached",
        "ERR unknown command 'EVALSHA'",
        "FENCEEXHAUSTED no fence is left below 2^53 for this lock",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "MISCONF Redis is configured to save RDB snapshots",
        "MOVED 1 host:1",
        "NOAUTH Authentication required.",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "NOREPLICAS Not enough good replicas to write.",
        "QUEUEFULL 100000 places are taken",
        "READONLY You can't write against a read only replica.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "WRONGPASS invalid username-password pair or user is disabled.",
    ] {
        let sentence = explained(&nginx, code);
        assert!(!sentence.contains(unexplained), "{sentence}");
    }
    assert_eq!(explained(&nginx, "ERR a new one."), format!("redis: ERR a new one {unexplained}"));
}
