//! The rights that are printed are enough, and none of them is too much.

use std::time::Duration;

use redlatch::{Attempt, Client, Error, bundle::embedded, call::Caller};

use super::{Cli, Running, answer, assert_fails, folder, info, until, version};
use crate::support::{
    Raw,
    topology::{Member, Replicated},
};

fn rules(server: &Member, words: &[&str]) -> Vec<String> {
    let text = Cli::at(&format!("{}/3", server.url()), &[&["acl", "print"], words].concat()).must();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Gives the user `app` exactly `rules`.
fn give(raw: &mut Raw, rules: &[String]) {
    let words = ["ACL", "SETUSER", "app", "reset", "on", ">pw"].into_iter();
    raw.must::<()>(&words.chain(rules.iter().map(String::as_str)).collect::<Vec<_>>());
}

/// In a database of its own, which takes a right of its own.
fn url(server: &Member) -> String {
    format!("redis://app:pw@{}/3", server.address())
}

/// What the server has denied since it was asked last.
fn denied(raw: &mut Raw) -> Vec<String> {
    let log: Vec<std::collections::HashMap<String, redis::Value>> = raw.must(&["ACL", "LOG"]);
    raw.must::<()>(&["ACL", "LOG", "RESET"]);
    log.into_iter().map(|entry| redis::from_redis_value(entry["object"].clone()).unwrap()).collect()
}

/// Everything that callers do. Returns what went wrong or was not as it should be.
async fn everything(server: &Member, strict: bool) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let mut raw = server.raw();
    raw.must::<()>(&["SELECT", "3"]);
    raw.must::<()>(&["FLUSHALL"]);
    raw.must::<()>(&["CONFIG", "RESETSTAT"]);
    // Those of the last time may not be gone yet.
    raw.must::<u64>(&["CLIENT", "KILL", "USER", "app"]);
    denied(&mut raw);
    if !strict {
        raw.must::<()>(&["SCRIPT", "FLUSH"]);
    }
    let settings = || Client::builder().strict(strict).timeout(Duration::from_secs(5));
    let one = settings().connect(&url(server)).await.map_err(text)?;
    let other = settings().connect(&url(server)).await.map_err(text)?;
    let lease = one.mutex("n").map_err(text)?.acquire().await.map_err(text)?;
    let named: String = raw.must(&["CLIENT", "LIST"]);
    if !named.contains(concat!("name=redlatch/", env!("CARGO_PKG_VERSION"))) {
        return Err("the connection has no name".to_owned());
    }
    let waiter = tokio::spawn(async move { other.mutex("n")?.acquire().await });
    until("the other waits", || waiter.is_finished() || raw.lock("redlatch:m1:n").is_queue_open());
    lease.extend(Duration::from_secs(20)).await.map_err(text)?;
    lease.release().await.map_err(text)?;
    let lease = waiter.await.expect("the task goes on").map_err(text)?;
    if raw.count("publish") == 0 {
        return Err("nobody was told".to_owned());
    }
    let subscribers: Vec<String> = raw.must(&["PUBSUB", "CHANNELS", "redlatch:inbox:*"]);
    if subscribers.is_empty() {
        return Err("nobody listens".to_owned());
    }
    let caller: &Caller = one.caller();
    let key = one.namespace().mutex_key(lease.name());
    caller.inspect(&key, 10).await.map_err(text)?;
    caller.force_release(&key).await.map_err(text)?;
    let store = embedded().unwrap().get("value/store").unwrap();
    caller.run(store, b"redlatch:v1:k", &[b"made", b"17", b"0", b"1000", b"60000"]).await.map_err(text)?;
    if caller.server_us(b"").await.map_err(text)?.is_none() {
        return Err("the time is not told".to_owned());
    }
    if let Err(error) = caller.command(&redis::cmd("PING"), || "PING".to_owned()).await {
        return Err(error.to_string());
    }
    let plain = one.plain("orders:7").map_err(text)?;
    let Attempt::Granted(lease) = plain.try_acquire().await.map_err(text)? else { return Err("held".to_owned()) };
    drop(plain.try_acquire().await.map_err(text)?);
    lease.extend(Duration::from_secs(20)).await.map_err(text)?;
    lease.release().await.map_err(text)?;
    for words in [&["run", "n", "--", "true"][..], &["inspect", "n"]] {
        let told = Cli::at(&url(server), words).answer();
        if told.status > 1 {
            return Err(told.stderr);
        }
    }
    match denied(&mut raw).as_slice() {
        [] => Ok(()),
        denied => Err(format!("was denied: {denied:?}")),
    }
}

fn load(raw: &mut Raw) {
    for script in embedded().unwrap().scripts() {
        raw.run(&[b"SCRIPT", b"LOAD", script.source()]).unwrap();
    }
}

async fn enough_and_none_too_much(role: &str) {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    let strict = role == "strict";
    load(&mut raw);
    let rules = rules(&server, &[role, "--plain", "orders:*"]);
    give(&mut raw, &rules);
    assert_eq!(everything(&server, strict).await, Ok(()));
    // HLEN is for a queue of 100000 waiters.
    let removable =
        rules.iter().filter(|rule| !rule.starts_with("reset") && !["-@all", "+hlen"].contains(&rule.as_str()));
    let mut removed = 0;
    for rule in removable.clone() {
        let less: Vec<_> = rules.iter().filter(|other| *other != rule).cloned().collect();
        give(&mut raw, &less);
        load(&mut raw);
        assert!(everything(&server, strict).await.is_err(), "{rule} is too much");
        removed += 1;
    }
    println!("rights removed one by one: {removed}");
    assert!(removed > 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_of_a_caller_are_enough_and_none_is_too_much() {
    enough_and_none_too_much("caller").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_of_a_strict_caller_are_enough_and_none_is_too_much() {
    enough_and_none_too_much("strict").await;
}

/// Exit code of a verb, whether something could not be seen, and what was denied.
type Seen = (i32, bool, Vec<String>);

/// Runs `verbs` as the user `app`, on servers where it has exactly the printed rights of `role`, and then with one right
/// less each time.
fn enough_for_its_verbs_and_none_too_much(role: &str, verbs: &[&[&str]]) {
    let servers = Replicated::start(1, &[]);
    let (server, mut replica) = (&servers.primary, servers.replicas[0].raw());
    let mut raw = server.raw();
    let rules = rules(server, &[role]);
    let mut run = |rules: &[String]| -> Vec<Seen> {
        give(&mut replica, rules);
        give(&mut raw, rules);
        let seen = |words: &&[&str]| {
            let _waiter = prepare(server, words[0]);
            denied(&mut raw);
            denied(&mut replica);
            let told = Cli::at(&url(server), words).answer();
            let unknown = [&told.stdout, &told.stderr].iter().any(|text| text.contains("unknown"));
            // Without the right to ask, no replica is found.
            let alone = words[0] == "load" && !told.stdout.contains(&servers.replicas[0].address());
            (told.status, unknown || alone, [denied(&mut raw), denied(&mut replica)].concat())
        };
        verbs.iter().map(seen).collect()
    };
    let all = run(&rules);
    assert!(all.iter().all(|seen| *seen == (0, false, Vec::new())), "{all:?}");
    let mut removed = 0;
    // PEXPIREAT is for a hand-off after which the key has to live longer than it would, which is not prepared here.
    let removable =
        rules.iter().filter(|rule| !rule.starts_with("reset") && !["-@all", "+pexpireat"].contains(&rule.as_str()));
    for rule in removable {
        let less: Vec<_> = rules.iter().filter(|other| *other != rule).cloned().collect();
        assert_ne!(run(&less), all, "{rule} is too much");
        removed += 1;
    }
    println!("rights of {role} removed one by one: {removed}");
    assert!(removed > 7);
}

/// The lock is held, for force-release somebody waits for it, and for load there is something to load.
fn prepare(server: &Member, verb: &str) -> Option<Running> {
    let (mut raw, url) = (server.raw(), format!("{}/3", server.url()));
    raw.must::<()>(&["FLUSHALL"]);
    let folder = folder();
    let file = folder.path().join("owner");
    Cli::at(&url, &["load"]).must();
    Cli::at(&url, &["acquire", "n", "--ttl", "1h", "--owner-file", file.to_str().unwrap()]).must();
    if verb == "load" {
        raw.must::<()>(&["SCRIPT", "FLUSH"]);
    }
    (verb == "force-release").then(|| {
        let waiter = Cli::at(&url, &["run", "n", "-w", "60s", "--", "true"]).start();
        raw.must::<()>(&["SELECT", "3"]);
        until("somebody waits", || raw.lock("redlatch:m1:n").is_queue_open());
        waiter
    })
}

#[test]
fn the_rights_of_a_deployer_are_enough_for_its_verbs_and_none_is_too_much() {
    // Before 7.0 nobody can be asked about others.
    let user = if version(&mut Member::start(&[]).raw()) < (7, 0) { "app" } else { "default" };
    let verbs: &[&[&str]] = &[
        &["load"],
        &["status", "--check", "--callers"],
        &["verify"],
        &["acl", "print"],
        &["acl", "check", user, "deployer"],
        &["doctor"],
        &["ls"],
        &["inspect", "n"],
    ];
    enough_for_its_verbs_and_none_too_much("deployer", verbs);
}

#[test]
fn the_rights_of_an_operator_are_enough_for_its_verbs_and_none_is_too_much() {
    let verbs: &[&[&str]] = &[&["ls"], &["inspect", "n"], &["force-release", "n", "--yes", "--reason", "a test"]];
    enough_for_its_verbs_and_none_too_much("operator", verbs);
}

#[test]
fn the_rights_of_an_observer_are_enough_for_its_verbs_and_none_is_too_much() {
    let verbs: &[&[&str]] = &[&["ls"], &["inspect", "n"], &["status", "--check", "--callers"]];
    enough_for_its_verbs_and_none_too_much("observer", verbs);
}

/// As the user `app` with the rights of `role` but one, for each of them: whatever the server then denies to `verbs`, they
/// say which right that is and which role has it. Returns the rules that were named.
fn named_where_they_are_missing(role: &str, verbs: &[&[&str]]) -> Vec<String> {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    let rules = rules(&server, &[role]);
    let mut named = Vec::new();
    for rule in rules.iter().filter(|rule| rule.starts_with(['+', '~'])) {
        give(&mut raw, &rules);
        let rest: Vec<_> = rules.iter().filter(|other| *other != rule).cloned().collect();
        give(&mut raw, &rest);
        for words in verbs {
            let _waiter = prepare(&server, words[0]);
            let told = Cli::at(&url(&server), words).answer().stderr;
            if told.contains("NOPERM") {
                let has_it = format!("; grant {rule}; role {role} has it: `redlatch acl print {role}`");
                assert!(
                    told.contains("user app may not ") && told.contains(&has_it),
                    "{words:?} without {rule}: {told}"
                );
                named.push(rule.clone());
            }
        }
    }
    named.sort();
    named.dedup();
    named
}

#[test]
fn a_denial_names_the_one_right_that_is_missing_and_the_role_that_has_it() {
    let callers = named_where_they_are_missing("caller", &[&["run", "free", "--", "true"]]);
    assert_eq!(callers, ["+evalsha", "+hget", "+hset", "+pexpireat", "+select", "+time", "~redlatch:*"]);
    let reads = ["+evalsha", "+hget", "+scan", "+select", "+time", "~redlatch:*"];
    assert_eq!(named_where_they_are_missing("observer", &[&["ls"], &["inspect", "n"]]), reads);
    let ends = named_where_they_are_missing("operator", &[&["force-release", "n", "--yes", "--reason", "a test"]]);
    assert_eq!(ends, ["+evalsha", "+hdel", "+hget", "+hset", "+select", "+time", "~redlatch:*"]);
    let loads = named_where_they_are_missing("deployer", &[&["load"]]);
    assert_eq!(loads, ["+script|exists", "+script|load", "+select"]);
}

#[test]
fn what_may_not_be_seen_is_said_with_the_right_to_see_it() {
    let server = Member::start(&[]);
    give(&mut server.raw(), &rules(&server, &["caller"]));
    let grant = |right: &str, role: &str| {
        format!("grant the user that asks +{right}; role {role} has it: `redlatch acl print {role}`\n")
    };
    let told = Cli::at(&url(&server), &["load"]).answer().stderr;
    let alone =
        format!("redlatch: {} does not say which replicas it has, so nothing was loaded there: ", server.address());
    assert_eq!(told, alone + &grant("role", "deployer"));
    let told = Cli::at(&url(&server), &["status", "--callers"]).answer().stderr;
    assert_eq!(told, format!("redlatch: callers are unknown: {}", grant("client|list", "observer")));
}

#[test]
fn who_may_not_load_is_told_that_scripts_are_missing_and_not_that_rights_are() {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    give(&mut raw, &rules(&server, &["strict"]));
    let address = server.address();
    let told = |script: &str| {
        let advice = "and this user may not load it: run `redlatch load` as a user who may, or grant +script|load";
        answer(78, "", &format!("redlatch: {script} is not on {address}, {advice}\n"))
    };
    assert_eq!(Cli::at(&url(&server), &["run", "n", "--", "true"]).answer(), told("mutex/acquire"));
    assert_eq!(Cli::at(&url(&server), &["inspect", "n"]).answer(), told("mutex/inspect"));
}

#[test]
fn rules_name_the_namespace_and_nothing_else() {
    let print = |words: &[&str]| Cli::new(&[&["acl", "print", "--for", "7.0"], words].concat()).must();
    assert_eq!(
        print(&[]),
        "resetkeys ~redlatch:* resetchannels &redlatch:inbox:* -@all +client|setname +evalsha +hdel +hget +hlen +hmget +hset \
         +pexpire +pexpireat +ping +publish +script|exists +script|load +subscribe +time\n"
    );
    let strict = print(&["strict", "--namespace", "shop[1]"]);
    assert!(strict.starts_with("resetkeys ~shop\\[1\\]:* resetchannels &shop\\[1\\]:inbox:* -@all "), "{strict}");
    assert!(!strict.contains("load"), "{strict}");
    assert_eq!(Cli::new(&["export", "--as", "acl"]).must(), print(&["caller"]));
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/lua/README.md")).unwrap();
    assert!(readme.contains(&print(&["caller"])), "the nginx README has other rights");
}

#[test]
fn rules_are_those_of_the_version_and_of_what_the_url_means() {
    let print = |words: &[&str]| Cli::new(&[&["acl", "print"], words].concat()).must();
    let more = |words: &[&str], rule: &str| print(words).split_whitespace().any(|word| word == rule);
    for (version, has_setinfo) in [("6.2", true), ("7.0.15", false), ("7.2", true), ("7.4.1", true), ("8", true)] {
        assert_eq!(more(&["strict", "--for", version], "+client|setinfo"), has_setinfo, "{version}");
    }
    for (url, rule) in [
        ("redis://a/2", "+select"),
        ("redis+sentinel://a/orders", "+role"),
        ("redis+sentinel://a/orders/2", "+select"),
        ("redis+cluster://a", "+asking"),
        ("redis+cluster://a", "+cluster|slots"),
    ] {
        assert!(more(&["--for", "7.2", "--url", url], rule), "{url} {rule}");
        assert!(!more(&["--for", "7.2", "--url", "redis://a"], rule), "{rule}");
    }
    assert!(print(&["deployer", "--for", "7.2", "--cluster"]).contains("+cluster|info +cluster|slots"));
    // Without a server the rules are such that every one takes them, which is said.
    let told = Cli::new(&["acl", "print", "--url", "unix:///nowhere"]).answer();
    assert_eq!((told.status, told.stdout), (0, print(&["--for", "7.0"])));
    assert!(
        told.stderr.starts_with("redlatch: these rules are for Redis 7.0, because no server was asked"),
        "{}",
        told.stderr
    );
    assert_eq!(Cli::new(&["acl", "print", "--for", "new"]).answer().status, 2);
    // A server is asked what it is.
    let server = Member::start(&[]);
    let own = version(&mut server.raw());
    let asked = Cli::at(&server.url(), &["acl", "print", "--format", "json"]).must();
    let data = &serde_json::from_str::<serde_json::Value>(&asked).unwrap()["data"];
    assert!(data["for"].as_str().unwrap().starts_with(&format!("{}.{}", own.0, own.1)), "{data}");
}

#[test]
fn check_finds_what_a_user_lacks_and_who_is_unknown() {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    if version(&mut raw) < (7, 0) {
        return;
    }
    give(&mut raw, &rules(&server, &["caller"]));
    let check = |words: &[&str]| Cli::at(&server.url(), &[&["acl", "check"], words].concat()).answer();
    assert_eq!(check(&["app"]).status, 0);
    raw.must::<()>(&["ACL", "SETUSER", "app", "-hset", "resetchannels"]);
    let told = check(&["app"]);
    assert_eq!(told.status, 1);
    let problem = |what: &str, rule: &str| {
        format!(
            "redlatch: user app may not {what} on {}\n  hint: ACL SETUSER app {rule}; role caller has it: \
             `redlatch acl print caller`\n",
            server.address()
        )
    };
    // Once for all commands that are about a channel.
    let expected = problem("run HSET", "+hset") + &problem("use the channels &redlatch:inbox:*", "&redlatch:inbox:*");
    assert_eq!(told.stderr, expected);
    assert_eq!(check(&["app", "deployer"]).status, 1);
    let expected = format!("redlatch: there is no user nobody on {}\n", server.address());
    let words = ["acl", "check", "nobody"];
    assert_fails(&server.url(), &words, &answer(78, "", &expected), &[("configuration", &server.address())]);
}

/// As Redis 6.2, and servers that others look after.
#[test]
fn without_acl_dryrun_a_user_asks_for_itself_without_any_effect_and_nobody_else_is_said_to_be_fine() {
    let plain = Member::start(&[]);
    for role in ["caller", "strict", "deployer"] {
        let rules = Cli::at(&plain.url(), &["acl", "print", role, "--plain", "orders:*"]).must();
        let rules: Vec<_> = rules.split_whitespace().collect();
        let start = |rules: &[&str]| {
            let user = [&["--user", "app", "on", ">pw"], rules, &["+ping", "+dbsize"]].concat();
            Member::start(&[&user[..], &["--rename-command", "ACL", ""]].concat())
        };
        let check = |server: &Member, login: &str| {
            let url = format!("redis://{login}{}", server.address());
            Cli::at(&url, &["acl", "check", "app", role, "--plain", "orders:*"]).answer()
        };
        let server = start(&rules);
        let told = check(&server, "app:pw@");
        assert_eq!((told.status, told.stderr.as_str()), (0, ""), "{role}");
        let (keys, channels): (u64, Vec<String>) =
            (server.raw().must(&["DBSIZE"]), server.raw().must(&["PUBSUB", "CHANNELS"]));
        assert_eq!(
            (keys, channels, info(&mut server.raw(), "number_of_cached_scripts")),
            (0, vec![], Some("0".into()))
        );
        let expected = format!(
            "redlatch: {} does not tell the rights of app: it has no ACL DRYRUN, which came with Redis 7.0\n  hint: let \
             the user ask for itself: put its own URL into REDLATCH_URL\n",
            server.address()
        );
        assert_eq!(check(&server, ""), answer(78, "", &expected));
        // Each right that is taken away is missed.
        let mut removed = 0;
        for rule in rules
            .iter()
            .filter(|rule| rule.starts_with('+') && !["+acl|", "+ping"].iter().any(|no| rule.starts_with(no)))
        {
            let less: Vec<_> = rules.iter().filter(|other| *other != rule).copied().collect();
            let told = check(&start(&less), "app:pw@");
            // Of a channel such a server does not tell whether it is that or the command.
            let granted = format!("SETUSER app {rule}");
            let plain = if role == "deployer" { "" } else { " --plain 'orders:*'" };
            let has_it = format!("; role {role} has it: `redlatch acl print {role}{plain}`");
            assert!(
                told.status == 1 && told.stderr.contains(&granted) && told.stderr.contains(&has_it),
                "{rule} {told:?}"
            );
            removed += 1;
        }
        assert!(removed > 7);
    }
}

#[test]
fn where_dryrun_is_denied_a_user_asks_for_itself_and_is_not_told_of_others() {
    let server = Member::start(&[]);
    give(&mut server.raw(), &rules(&server, &["caller"]));
    let check = |url: &str| Cli::at(url, &["acl", "check", "app"]).must();
    assert_eq!(check(&url(&server)), check(&format!("{}/3", server.url())));
    let expected = format!(
        "redlatch: {} does not tell the rights of default: ACL DRYRUN is denied\n  hint: grant the user that asks \
         +acl|dryrun; role deployer has it: `redlatch acl print deployer`; or let the user ask for itself: put its own URL into REDLATCH_URL\n",
        server.address()
    );
    let words = ["acl", "check", "default"];
    assert_fails(&url(&server), &words, &answer(77, "", &expected), &[("denied", &server.address())]);
}

#[test]
fn a_right_that_a_server_does_not_tell_of_is_not_a_right_that_is_there() {
    for (renamed, role, what) in [
        ("PUBLISH", "caller", Some("PUBLISH")),
        ("SCRIPT", "strict", Some("SCRIPT EXISTS")),
        ("PING", "strict", Some("PING")),
        ("SCAN", "operator", Some("SCAN")),
        // We do without these.
        ("CLIENT", "caller", None),
        ("SLOWLOG", "deployer", None),
    ] {
        let server = Member::start(&["--rename-command", renamed, ""]);
        let told = Cli::at(&server.url(), &["acl", "check", "default", role]).answer();
        let untold =
            |what| format!("redlatch: {} does not tell whether user default may run {what}\n", server.address());
        let expected = what.map(untold).unwrap_or_default();
        assert_eq!((told.status, told.stderr), (i32::from(what.is_some()), expected), "{renamed}");
    }
}

#[test]
fn no_rule_is_printed_twice_or_for_nothing() {
    for role in ["caller", "strict", "deployer", "operator", "observer"] {
        let rules =
            Cli::new(&["acl", "print", role, "--for", "7.2", "--cluster", "--plain", "a:*", "--plain", "b:*"]).must();
        let rules: Vec<_> = rules.split_whitespace().collect();
        let once: std::collections::BTreeSet<_> = rules.iter().collect();
        assert_eq!(rules.len(), once.len(), "{role} {rules:?}");
        // Who takes no locks has no right to the keys of plain ones.
        assert_eq!(rules.contains(&"~a:*"), ["caller", "strict"].contains(&role), "{role} {rules:?}");
    }
}
