//! One table of calls and replies, run in every way that a script can be called: `README.md` explains the tables.

mod drivers;
mod run;
mod subscriber;
mod table;
mod words;

use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt, process::Command};

use redlatch::{Name, Namespace, bundle};

use crate::support::{
    Raw, Server,
    nginx::{Config, percent_encode},
    topology::{Member, WATCHED, free_port, until},
};
pub use drivers::{Driver, RawDriver, Sources, shipped};
use drivers::{NginxDriver, TypedDriver};
pub use run::Runner;
use table::{Action, Expected};
pub use table::{Case, cases};

/// Runs every case and reports all that fail.
#[track_caller]
fn check(server: &Server, driver: &mut dyn Driver) {
    check_cases(server, driver, &cases());
}

#[track_caller]
fn check_cases(server: &Server, driver: &mut dyn Driver, cases: &[Case]) {
    let mut runner = Runner::new(server, driver);
    let failures: Vec<String> = cases.iter().filter_map(|case| runner.run(case).err()).collect();
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
    println!("{} cases, {} steps", cases.len(), cases.iter().map(|case| case.steps.len()).sum::<usize>());
}

#[test]
fn raw_evalsha_answers_as_the_table_says() {
    let server = Server::start(&[]).unwrap();
    check(&server, &mut RawDriver::new(&server, shipped()));
}

#[test]
fn the_rust_client_answers_as_the_table_says() {
    let server = Server::start(&[]).unwrap();
    check(&server, &mut TypedDriver::new(&server));
}

#[test]
fn nginx_answers_as_the_table_says_by_its_driver() {
    let server = Server::start(&[]).unwrap();
    check(&server, &mut NginxDriver::new(&server, "worker"));
}

#[test]
fn nginx_answers_as_the_table_says_by_pooled_connections() {
    let server = Server::start(&[]).unwrap();
    check(&server, &mut NginxDriver::new(&server, "pool"));
}

/// A replica is not what sentinels may name, and a node of a cluster is made one in another way.
fn without_replicas() -> Vec<Case> {
    let (replicas, others): (Vec<_>, Vec<_>) = cases().into_iter().partition(Case::makes_a_replica);
    assert!(replicas.len() < 8, "{}", replicas.len());
    others
}

#[test]
fn nginx_answers_as_the_table_says_by_sentinels() {
    let port = free_port();
    let server = Server::start(&["--bind", "127.0.0.1", "--port", &port.to_string()]).unwrap();
    let sentinel = Member::watching_port(port);
    let url = format!("redis+sentinel://{}/{WATCHED}", sentinel.address());
    for connection in ["worker", "pool"] {
        check_cases(&server, &mut NginxDriver::by_url(&url, connection), &without_replicas());
    }
}

#[test]
fn nginx_answers_as_the_table_says_in_a_cluster() {
    let port = free_port();
    let options = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--cluster-enabled", "yes"];
    let server = Server::start(&options).unwrap();
    let mut raw = Raw::connect(&server);
    raw.must::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until("the cluster of one is up", || raw.must::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    for connection in ["worker", "pool"] {
        let url = format!("redis+cluster://127.0.0.1:{port}");
        check_cases(&server, &mut NginxDriver::by_url(&url, connection), &without_replicas());
    }
}

#[test]
fn every_reply_and_every_error_of_every_script_is_in_the_table() {
    let mut promised = BTreeSet::new();
    for script in bundle::embedded().unwrap().scripts() {
        let header = script.header();
        promised.extend(header.replies.iter().map(|reply| (script.name(), reply.word.clone())));
        promised.extend(header.errors.iter().map(|(code, _)| (script.name(), code.clone())));
    }
    let cases = cases();
    let mut shown = BTreeSet::new();
    for step in cases.iter().flat_map(|case| &case.steps) {
        if let Action::Call { script, expected, .. } = &step.action {
            shown.extend(match expected {
                Expected::Reply { word, .. } => Some((script.as_str(), word.clone())),
                Expected::Error { code, .. } => Some((script.as_str(), code.clone())),
                Expected::Value(_) => None,
            });
        }
    }
    let absent: Vec<_> = promised.difference(&shown).collect();
    assert!(absent.is_empty(), "in a header but not in the table: {absent:?}");
    // What a server says by itself is in no header.
    let by_server = |word: &str| matches!(word, "OOM" | "READONLY");
    let unknown: Vec<_> = shown.difference(&promised).filter(|(_, word)| !by_server(word)).collect();
    assert!(unknown.is_empty(), "in the table but in no header: {unknown:?}");
}

#[test]
fn claims_are_unique_and_every_call_expects_something() {
    let cases = cases();
    let claims: BTreeSet<&str> = cases.iter().map(|case| case.claim.as_str()).collect();
    assert_eq!(claims.len(), cases.len());
    assert!(cases.iter().all(|case| !case.steps.is_empty()));
}

/// Names and their keys, as in `keys.txt`.
pub fn golden_keys() -> Vec<(Vec<u8>, Vec<u8>)> {
    include_str!("keys.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, key) = line.split_once(" -> ").expect("a line is name -> key");
            (table::unescape(name), table::unescape(key))
        })
        .collect()
}

#[test]
fn rust_makes_the_golden_keys() {
    for (name, key) in golden_keys() {
        let made = Namespace::default().mutex_key(&Name::new(&name).unwrap());
        assert_eq!(made.escape_ascii().to_string(), key.escape_ascii().to_string());
    }
}

#[test]
fn nginx_makes_the_golden_keys() {
    let server = Server::start(&[]).unwrap();
    let nginx = Config::redis(&server).start();
    let mut raw = Raw::connect(&server);
    for (name, key) in golden_keys() {
        // `s:` makes the handler pass a string even if it looks like a number.
        let (_, answer) = nginx.get(&format!("/call?op=try_acquire&name=s:{}", percent_encode(&name)));
        assert!(answer.contains("\"fence\":"), "{answer}");
        let exists = raw.run(&[b"EXISTS", &key]).unwrap();
        assert_eq!(exists, redis::Value::Int(1), "{}", key.escape_ascii());
    }
    assert_eq!(raw.must::<usize>(&["DBSIZE"]), golden_keys().len());
}

#[test]
fn the_command_line_makes_the_golden_keys() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    for (name, key) in golden_keys() {
        let output = Command::new(env!("CARGO_BIN_EXE_redlatch"))
            .args(["acquire", "--format", "json", "--"])
            .arg(OsStr::from_bytes(&name))
            .env("REDLATCH_URL", server.url())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let exists = raw.run(&[b"EXISTS", &key]).unwrap();
        assert_eq!(exists, redis::Value::Int(1), "{}", key.escape_ascii());
    }
    assert_eq!(raw.must::<usize>(&["DBSIZE"]), golden_keys().len());
}
