//! Each planted fault is found on a real server, with its fix.

use std::sync::atomic::{AtomicU64, Ordering};

use redlatch::bundle::embedded;
use serde_json::Value;

use super::{Cli, behind, blurred, product, version};
use crate::support::{
    ClockShim, Raw, Server,
    lock::{LockState, PlaceState},
    topology::{Cluster, Member, Replicated, until},
};

/// Checks that are not fine, as `id state`, with the fix each names; and the exit code.
fn found(url: &str, words: &[&str]) -> (Vec<String>, i32) {
    let told = Cli::at(url, &[&["doctor", "--format", "json"], words].concat()).answer();
    let object: Value = serde_json::from_str(&told.stdout).unwrap();
    let checks = object["data"]["checks"].as_array().unwrap_or_else(|| panic!("{object}"));
    let worse = checks.iter().filter(|check| check["state"] != "ok");
    let list = worse
        .map(|check| {
            let (id, state) = (check["id"].as_str().unwrap(), check["state"].as_str().unwrap());
            // What a server does not have no right gives.
            assert_eq!(
                check["fix"].is_null(),
                check["finding"].as_str().unwrap().contains("the server has no "),
                "{check}"
            );
            format!("{id} {state}")
        })
        .collect();
    (list, told.status)
}

/// A server that nothing is wrong with.
fn healthy() -> Member {
    let server = Member::start(&["--appendonly", "yes"]);
    Cli::at(&server.url(), &["load"]).must();
    assert_eq!(found(&server.url(), &["--strict"]), (Vec::new(), 0));
    server
}

#[track_caller]
fn finds(server: &Member, what: &[&str], status: i32) {
    let (list, code) = found(&server.url(), &[]);
    assert_eq!((list.iter().map(String::as_str).collect::<Vec<_>>(), code), (what.to_vec(), status));
}

#[test]
fn doctor_finds_missing_scripts() {
    let server = healthy();
    server.raw().must::<()>(&["SCRIPT", "FLUSH"]);
    finds(&server, &["D03 problem"], 1);
    let text = Cli::at(&server.url(), &["doctor"]).answer().stdout;
    assert!(
        text.ends_with("What to do\nD03  run `redlatch load`, or keep `redlatch load --watch` running\n"),
        "{text}"
    );
}

#[test]
fn doctor_finds_eviction() {
    let server = healthy();
    let mut raw = server.raw();
    raw.must::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    finds(&server, &["D06 warning"], 0);
    assert_eq!(found(&server.url(), &["--strict"]).1, 1);
    raw.must::<()>(&["CONFIG", "SET", "maxmemory", "100mb"]);
    finds(&server, &["D06 problem"], 1);
}

#[test]
fn doctor_finds_missing_rights_of_the_callers() {
    let server = healthy();
    let mut raw = server.raw();
    raw.must::<()>(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-hset"]);
    let (list, code) = found(&server.url(), &["--user", "app"]);
    assert_eq!((list, code), (vec!["D05 problem".to_owned()], 1));
    let text = Cli::at(&server.url(), &["doctor", "--user", "app"]).answer().stdout;
    assert!(text.contains("app lacks rights of a caller: HSET"), "{text}");
    assert!(text.contains("D05  ACL SETUSER app +hset ~redlatch:*\n"), "{text}");
}

#[test]
fn doctor_says_what_it_may_not_see_and_is_not_content_without_being_told_to() {
    let server = healthy();
    let rules = ["on", ">pw", "+script|exists", "+client|setname", "+acl|whoami", "+acl|dryrun"];
    server.raw().must::<()>(&[&["ACL", "SETUSER", "app"], &rules[..]].concat());
    let url = format!("redis://app:pw@{}", server.address());
    let list = |words: &[&str]| found(&url, &[&["--user", "default", "--role", "strict"], words].concat());
    let unknown = ["D04", "D06", "D07", "D09", "D10", "D11", "D13", "D14"].map(|id| format!("{id} unknown"));
    if version(&mut server.raw()) >= (7, 0) {
        assert_eq!(list(&[]), (unknown.to_vec(), 1));
        assert_eq!(list(&["--allow-unknown", "--strict"]), (unknown.to_vec(), 0));
        let text = Cli::at(&url, &["doctor", "--user", "default"]).answer().stdout;
        assert!(text.contains("\n8 unknown, 4 ok\n"), "{text}");
        assert!(text.contains("the user may not run CONFIG GET"), "{text}");
        let grant =
            "D06 D09\n     grant the user that asks +config|get; role deployer has it: `redlatch acl print deployer`\n";
        assert!(text.contains(grant), "{text}");
        // Its own rights are those that it lacks.
        let (list, code) = found(&url, &["--allow-unknown"]);
        assert_eq!((list[0].as_str(), code), ("D05 problem", 1));
        // Nothing is known of somebody who is not there.
        assert_eq!(found(&server.url(), &["--user", "nobody", "--allow-unknown"]), (vec!["D05 problem".to_owned()], 1));
    }
}

/// A fix never takes away what a user has for its own work.
#[test]
fn doctor_judges_the_role_that_it_is_asked_about_and_its_fix_is_enough() {
    let server = healthy();
    let mut raw = server.raw();
    if version(&mut raw) < (7, 0) {
        return;
    }
    for role in ["caller", "strict", "deployer", "operator", "observer"] {
        let rules = Cli::at(&server.url(), &["acl", "print", role]).must();
        let words: Vec<_> = ["ACL", "SETUSER", role, "on", ">pw"].into_iter().chain(rules.split_whitespace()).collect();
        raw.must::<()>(&words);
    }
    for user in ["caller", "strict", "deployer", "operator", "observer"] {
        assert_eq!(found(&server.url(), &["--user", user, "--role", user, "--strict"]), (Vec::new(), 0));
        let other = if user == "deployer" { "operator" } else { "deployer" };
        assert_eq!(found(&server.url(), &["--user", user, "--role", other]), (vec!["D05 problem".to_owned()], 1));
        let text = Cli::at(&server.url(), &["doctor", "--user", user, "--role", other]).answer().stdout;
        let fix = text.lines().find_map(|line| line.strip_prefix("D05  ACL ")).unwrap_or_else(|| panic!("{text}"));
        let words: Vec<_> = fix.split_whitespace().collect();
        assert_eq!(words.len(), words.iter().collect::<std::collections::BTreeSet<_>>().len(), "{fix}");
        raw.must::<()>(&["ACL"].into_iter().chain(words).collect::<Vec<_>>());
        for role in [user, other] {
            assert_eq!(found(&server.url(), &["--user", user, "--role", role]), (Vec::new(), 0), "{user} {role} {fix}");
        }
    }
    // Who runs it is a deployer unless it says otherwise.
    let url = format!("redis://deployer:pw@{}", server.address());
    assert_eq!(found(&url, &["--strict"]), (Vec::new(), 0));
}

#[test]
fn doctor_sees_that_the_url_names_a_node_of_a_cluster() {
    let cluster = Cluster::start(&["--appendonly", "yes", "--min-replicas-to-write", "1"]);
    Cli::at(&cluster.url(), &["load"]).must();
    // A replica of it is one too.
    assert_eq!(found(&cluster.members[0].url(), &["--strict"]), (vec!["D15 problem".to_owned(); 2], 1));
}

#[test]
fn doctor_says_once_what_is_the_same_everywhere_the_worst_first_and_in_the_width_of_the_terminal() {
    let servers = Replicated::start(2, &["--appendonly", "yes", "--maxmemory-policy", "volatile-lru"]);
    let url = servers.primary.url();
    Cli::at(&url, &["load"]).must();
    servers.replicas[0].raw().must::<()>(&["SCRIPT", "FLUSH"]);
    let told = Cli::at(&url, &["doctor"]).answer();
    assert_eq!(told.status, 1, "{told:?}");
    let lines: Vec<_> = told.stdout.lines().collect();
    let states = ["problem", "warning", "unknown", "ok"];
    let rank = |line: &&str| line.split_whitespace().find_map(|word| states.iter().position(|state| *state == word));
    let ranks: Vec<_> = lines[1..].iter().take_while(|line| !line.is_empty()).map(rank).collect();
    assert!(ranks.is_sorted() && ranks.len() > 8, "{}", told.stdout);
    assert!(told.stdout.contains("3 servers: appendonly, fsync everysec\n"), "{}", told.stdout);
    let mut replicas: Vec<_> = servers.replicas.iter().map(Member::address).collect();
    replicas.sort();
    let addresses = [vec![servers.primary.address()], replicas].concat();
    assert!(
        told.stdout.contains(&format!("{}: maxmemory-policy is volatile-lru", addresses.join(", "))),
        "{}",
        told.stdout
    );
    assert!(lines[1].starts_with("D03  ") && lines[1].contains(&servers.replicas[0].address()), "{}", told.stdout);
    let shell = format!("stty rows 20 cols 60; {} doctor", env!("CARGO_BIN_EXE_redlatch"));
    let mut script = std::process::Command::new("timeout");
    script.args(["60", "script", "-qec", &shell, "/dev/null"]).env("REDLATCH_URL", &url).env("NO_COLOR", "1");
    let seen = String::from_utf8(script.output().unwrap().stdout).unwrap();
    let widest = seen.lines().map(|line| line.trim_end().chars().count()).max().unwrap();
    assert!(widest > 50 && widest <= 60, "{widest}\n{seen}");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // How far the clocks are apart is different each time.
    assert_eq!(words(&blurred(&seen)), words(&blurred(&told.stdout)));
}

#[test]
fn doctor_finds_persistence_that_is_off_or_failing() {
    let server = healthy();
    let mut raw = server.raw();
    raw.must::<()>(&["CONFIG", "SET", "appendfsync", "no"]);
    finds(&server, &["D09 warning"], 0);
    raw.must::<()>(&["CONFIG", "SET", "appendonly", "no"]);
    finds(&server, &["D09 warning"], 0);
    raw.must::<()>(&["CONFIG", "SET", "save", "3600 1"]);
    finds(&server, &["D09 warning"], 0);
    // A folder in the way of the snapshot makes it fail.
    let folder: Vec<String> = raw.must(&["CONFIG", "GET", "dir"]);
    std::fs::create_dir(std::path::Path::new(&folder[1]).join("dump.rdb")).unwrap();
    let _ = raw.run(&[b"SAVE"]);
    raw.must::<String>(&["BGSAVE"]);
    until("the snapshot has failed", || {
        server.raw().must::<String>(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err")
    });
    finds(&server, &["D09 problem"], 1);
}

#[test]
fn doctor_finds_a_fleet_without_min_replicas_and_a_replica_without_scripts_or_link() {
    let mut servers = Replicated::start(1, &["--appendonly", "yes"]);
    let url = servers.primary.url();
    Cli::at(&url, &["load"]).must();
    assert_eq!(found(&url, &[]), (vec!["D07 warning".to_owned()], 0));
    servers.primary.raw().must::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert_eq!(found(&url, &["--strict"]), (Vec::new(), 0));
    servers.primary.raw().must::<()>(&["CONFIG", "SET", "min-replicas-to-write", "2"]);
    servers.replicas[0].raw().must::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(found(&url, &[]), (vec!["D03 problem".to_owned(), "D07 problem".to_owned()], 1));
    servers.primary.kill();
    until("the replica misses its primary", || {
        servers.replicas[0].raw().must::<String>(&["INFO", "replication"]).contains("master_link_status:down")
    });
    let (list, _) = found(&servers.replicas[0].url(), &[]);
    assert!(list.contains(&"D08 problem".to_owned()), "{list:?}");
}

#[test]
fn doctor_finds_a_server_that_does_not_answer() {
    let servers = Replicated::start(1, &["--appendonly", "yes", "--min-replicas-to-write", "1"]);
    let url = servers.primary.url();
    Cli::at(&url, &["load"]).must();
    servers.replicas[0].signal("STOP");
    let (list, code) = found(&url, &["--timeout", "300ms"]);
    servers.replicas[0].signal("CONT");
    assert_eq!((list, code), (vec!["D01 problem".to_owned()], 1));
}

#[test]
fn doctor_finds_clocks_that_differ() {
    let clock = ClockShim::new();
    clock.set(60_000_000);
    let server = Member::start_in(&clock.environment(), &["--appendonly", "yes"]);
    Cli::at(&server.url(), &["load"]).must();
    finds(&server, &["D10 warning"], 0);
    let port = server.port.to_string();
    let replica = Member::start(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port]);
    until("the replica is known", || server.raw().must::<String>(&["INFO", "replication"]).contains("state=online"));
    server.raw().must::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    until("the replica is linked", || {
        replica.raw().must::<String>(&["INFO", "replication"]).contains("link_status:up")
    });
    Cli::at(&server.url(), &["load"]).must();
    finds(&server, &["D10 problem"], 1);
}

#[test]
fn doctor_finds_old_callers_and_made_up_scripts() {
    let server = healthy();
    let mut raw = server.raw();
    let mut old = Raw::open(&server.url());
    old.must::<()>(&["CLIENT", "SETNAME", "redlatch/0.0.1"]);
    finds(&server, &["D13 warning"], 0);
    drop(old);
    until("the old caller has gone", || !raw.must::<String>(&["CLIENT", "LIST"]).contains("redlatch/0.0.1"));
    for number in 0..600 {
        raw.must::<u64>(&["EVAL", &format!("return {number}"), "0"]);
    }
    finds(&server, &["D14 warning"], 0);
    raw.must::<()>(&["SCRIPT", "FLUSH"]);
    Cli::at(&server.url(), &["load"]).must();
    finds(&server, &[], 0);
}

#[test]
fn doctor_finds_slow_scripts_of_ours_and_no_others() {
    let server = healthy();
    let mut raw = server.raw();
    // A waiter's label of many megabytes, which no caller of ours sends, keeps a script busy.
    let place = PlaceState { owner: b"waiter".to_vec(), label: vec![b'x'; 64 << 20], ..PlaceState::default() };
    let lock = LockState { tail: 1, ..LockState::default() };
    raw.run(&[b"HSET", b"redlatch:m1:n", b"state", &lock.to_bytes(), b"place:1", &place.to_bytes()]).unwrap();
    raw.must::<u64>(&["EVAL", "return #redis.call('HGET', KEYS[1], 'place:1')", "1", "redlatch:m1:n"]);
    raw.must::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    finds(&server, &[], 0);
    let inspect = embedded().unwrap().get("mutex/inspect").unwrap().digest();
    raw.must::<redis::Value>(&["EVALSHA", inspect.as_str(), "1", "redlatch:m1:n", "1"]);
    finds(&server, &["D11 warning"], 0);
}

/// Redis before 7.4 evicts no scripts: its INFO is given such a field.
#[test]
fn doctor_tells_evictions_that_go_on_from_those_of_the_past() {
    static EVICTED: AtomicU64 = AtomicU64::new(3);
    static EACH_TIME: AtomicU64 = AtomicU64::new(0);
    let server = Server::start(&["--appendonly", "yes"]).unwrap();
    Cli::on(&server, &["load"]).must();
    let url = behind(&server, |bytes| {
        let field = b"total_eviction_exceeded_time:0";
        if let Some(at) = bytes.windows(field.len()).position(|window| window == field) {
            let evicted = EVICTED.fetch_add(EACH_TIME.load(Ordering::Relaxed), Ordering::Relaxed);
            bytes[at..at + field.len()].copy_from_slice(format!("evicted_scripts:{evicted:014}").as_bytes());
        }
    });
    assert_eq!(found(&url, &["--strict"]), (Vec::new(), 0));
    let text = Cli::at(&url, &["doctor"]).must();
    assert!(text.contains("none now; 3 since the server started"), "{text}");
    let status = Cli::at(&url, &["status"]).must();
    let mut lines = status.lines();
    assert!(lines.next().unwrap().ends_with("  evicted scripts: 3"), "{status}");
    let mut raw = Raw::connect(&server);
    let from = if product(&mut raw).starts_with("Valkey") { (8, 0) } else { (7, 4) };
    let said = lines.next().unwrap();
    let forgets = version(&mut raw) >= from;
    assert!(
        said.starts_with("scripts that came by EVAL were evicted") == forgets && said.is_empty() != forgets,
        "{status}"
    );
    EACH_TIME.store(2, Ordering::Relaxed);
    assert_eq!(found(&url, &[]), (vec!["D04 warning".to_owned()], 0));
    assert_eq!(found(&url, &["--strict"]).1, 1);
    let text = Cli::at(&url, &["doctor"]).must();
    let within = text.split("2 scripts were evicted within ").nth(1).unwrap_or_else(|| panic!("{text}"));
    let looked = within.split([' ', ':']).next().unwrap();
    assert!(looked.ends_with('s') && !looked.ends_with("ms"), "it looks for a second at least: {looked}");
}

#[test]
fn doctor_says_what_a_version_that_is_too_old_or_forgets_scripts_needs() {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    static EVICTED: AtomicU64 = AtomicU64::new(3);
    let server = Server::start(&["--appendonly", "yes"]).unwrap();
    Cli::on(&server, &["load"]).must();
    if !product(&mut Raw::connect(&server)).starts_with("Redis 7.0.") {
        return;
    }
    let url = behind(&server, |bytes| {
        let mut replace = |field: &[u8], text: &str| {
            if let Some(at) = bytes.windows(field.len()).position(|window| window == field) {
                bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
            }
        };
        replace(
            b"redis_version:7.0.",
            ["redis_version:6.0", "redis_version:7.4"][NUMBER.load(Ordering::Relaxed) as usize],
        );
        let evicted = EVICTED.fetch_add(1, Ordering::Relaxed);
        replace(b"total_eviction_exceeded_time:0", &format!("evicted_scripts:{evicted:014}"));
    });
    let text = Cli::at(&url, &["doctor"]).answer().stdout;
    assert!(text.contains(".15 is older than 6.2") && text.contains("upgrade the server to 6.2.7"), "{text}");
    assert!(!text.contains("SCRIPT FLUSH"), "{text}");
    NUMBER.store(1, Ordering::Relaxed);
    let text = Cli::at(&url, &["doctor"]).answer().stdout;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("one that came by EVAL first goes too: SCRIPT FLUSH and `redlatch load` make it stay"),
        "{text}"
    );
}

#[test]
fn doctor_takes_a_right_that_it_is_not_told_of_for_none() {
    let server = Member::start(&["--appendonly", "yes", "--rename-command", "PUBLISH", ""]);
    Cli::at(&server.url(), &["load"]).must();
    assert_eq!(found(&server.url(), &["--role", "caller"]), (vec!["D05 problem".to_owned()], 1));
    let text = Cli::at(&server.url(), &["doctor", "--role", "caller"]).answer().stdout;
    assert!(text.contains("it is not told whether default may PUBLISH"), "{text}");
}

#[test]
fn doctor_does_not_know_whether_a_cluster_serves_every_slot_without_info() {
    let options = ["--cluster-enabled", "yes", "--appendonly", "yes", "--rename-command", "INFO", ""];
    let node = Member::start(&options);
    node.raw().must::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let url = node.url().replace("redis://", "redis+cluster://");
    until("the cluster is up", || Cli::at(&url, &["load"]).answer().status == 0);
    let (found, _) = found(&url, &[]);
    assert!(found.contains(&"D12 unknown".to_owned()), "{found:?}");
}

/// A server has users of its own, and callers are served by primaries.
#[test]
fn doctor_does_not_look_for_a_callers_rights_on_replicas() {
    let servers = Replicated::start(1, &["--appendonly", "yes", "--min-replicas-to-write", "1"]);
    let url = servers.primary.url();
    Cli::at(&url, &["load"]).must();
    let rules = Cli::at(&url, &["acl", "print"]).must();
    let words: Vec<_> = ["ACL", "SETUSER", "app", "on", ">pw"].into_iter().chain(rules.split_whitespace()).collect();
    servers.primary.raw().must::<()>(&words);
    assert_eq!(found(&url, &["--user", "app", "--strict"]), (Vec::new(), 0));
    assert_eq!(found(&servers.replicas[0].url(), &["--user", "app"]).1, 0);
}

#[test]
fn doctor_warns_of_a_server_that_does_not_count_replicas_for_scripts() {
    static PATCH: AtomicU64 = AtomicU64::new(0);
    let server = Server::start(&["--appendonly", "yes", "--min-replicas-to-write", "1"]).unwrap();
    Cli::on(&server, &["load"]).must();
    if !product(&mut Raw::connect(&server)).starts_with("Redis") {
        return;
    }
    let url = behind(&server, |bytes| {
        let mut replace = |field: &[u8], text: &dyn Fn(usize) -> String| {
            let Some(at) = bytes.windows(field.len()).position(|window| window == field) else { return };
            let value = &mut bytes[at + field.len()..];
            let length = value.iter().position(|byte| *byte == b'\r').unwrap();
            value[..length].copy_from_slice(text(length).as_bytes());
        };
        let width = |length| length - "6.2.".len();
        replace(b"redis_version:", &|length| {
            format!("6.2.{:0width$}", PATCH.load(Ordering::Relaxed), width = width(length))
        });
        replace(b"connected_slaves:", &|_| "1".to_owned());
    });
    for patch in [0, 6] {
        PATCH.store(patch, Ordering::Relaxed);
        assert_eq!(found(&url, &[]).0, ["D02 warning", "D07 warning"], "{patch}");
    }
    PATCH.store(7, Ordering::Relaxed);
    assert_eq!(found(&url, &["--strict"]), (Vec::new(), 0));
}

/// As servers that others look after, one command after the other and all of them.
#[test]
fn servers_without_some_commands_are_served_as_far_as_can_be_and_what_is_unknown_is_named() {
    let all = ["ROLE", "ACL", "CLIENT", "INFO", "CONFIG", "SLOWLOG"];
    let mut cases: Vec<Vec<&str>> = all.iter().map(|command| vec![*command]).collect();
    cases.push(all.to_vec());
    for absent in cases {
        let without: Vec<_> = absent.iter().flat_map(|command| ["--rename-command", command, ""]).collect();
        let server = Server::start(&[&["--appendonly", "yes"], &without[..]].concat()).unwrap();
        let lacks = |command: &str| absent.contains(&command);
        let own = product(&mut Raw::connect(&Server::start(&[]).unwrap()));
        Cli::on(&server, &["load"]).must();
        let status = Cli::on(&server, &["status", "--check", "--callers"]).must();
        let head = status.lines().next().unwrap();
        assert!(head.contains(&own), "{absent:?} {status}");
        assert!(head.ends_with("  primary") || lacks("ROLE") && lacks("INFO"), "{absent:?} {status}");
        assert_eq!(
            status.contains("unknown"),
            lacks("CLIENT") || lacks("ROLE") && lacks("INFO"),
            "{absent:?} {status}"
        );
        assert_eq!(Cli::on(&server, &["run", "n", "--", "true"]).must(), "");
        assert_eq!(Cli::on(&server, &["acl", "print"]).answer().stderr, "");
        let check = Cli::on(&server, &["acl", "check", "default"]).must();
        assert_eq!(check.contains("absent"), lacks("CLIENT"), "{absent:?} {check:?}");
        let text = Cli::on(&server, &["doctor"]).answer().stdout;
        for (command, asked) in
            [("INFO", "INFO"), ("CLIENT", "CLIENT LIST"), ("CONFIG", "CONFIG GET"), ("SLOWLOG", "SLOWLOG GET")]
        {
            assert_eq!(text.contains(&format!("the server has no {asked}")), lacks(command), "{absent:?} {text}");
        }
        let unknown = absent.iter().any(|command| !["ROLE", "ACL"].contains(command));
        let allowed = Cli::on(&server, &["doctor", "--allow-unknown"]).answer().status;
        assert_eq!(
            (Cli::on(&server, &["doctor"]).answer().status, allowed),
            (i32::from(unknown), 0),
            "{absent:?} {text}"
        );
    }
}

#[test]
fn replicas_are_found_without_role_too() {
    let servers = Replicated::start(1, &["--rename-command", "ROLE", ""]);
    let text = Cli::at(&servers.primary.url(), &["load"]).must();
    assert!(text.contains(&servers.replicas[0].address()) && text.ends_with(" loaded on 2 servers\n"), "{text}");
}

#[test]
fn doctor_finds_a_cluster_that_does_not_serve_every_slot() {
    let cluster = Cluster::start(&[
        "--appendonly",
        "yes",
        "--min-replicas-to-write",
        "1",
        "--cluster-require-full-coverage",
        "no",
    ]);
    let url = cluster.url();
    Cli::at(&url, &["load"]).must();
    assert_eq!(found(&url, &["--strict"]), (Vec::new(), 0));
    let owner = cluster.owner("n");
    let slot = cluster.members[0].raw().must::<u16>(&["CLUSTER", "KEYSLOT", "n"]).to_string();
    for member in &cluster.members {
        let _ = member.raw().run(&[b"CLUSTER", b"DELSLOTS", slot.as_bytes()]);
    }
    assert!(cluster.members[owner].is_primary());
    let (list, code) = found(&url, &[]);
    assert_eq!((list.first().map(String::as_str), code), (Some("D12 problem"), 1), "{list:?}");
}
