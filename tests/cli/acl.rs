//! The rights that are printed are enough, and none of them is too much.

use std::time::Duration;

use redlatch::{Attempt, Client, Error, bundle::embedded, call::Caller};

use super::{Cli, answer, assert_fails, until};
use crate::support::{
    Raw,
    topology::{Member, Replicated},
};

fn rules(server: &Member, words: &[&str]) -> Vec<String> {
    let text = Cli::at(&server.url(), &[&["acl", "print"], words].concat()).must();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Gives the user `app` exactly `rules`.
fn give(raw: &mut Raw, rules: &[String]) {
    let words = ["ACL", "SETUSER", "app", "reset", "on", ">pw"].into_iter();
    raw.must::<()>(&words.chain(rules.iter().map(String::as_str)).collect::<Vec<_>>());
}

fn url(server: &Member) -> String {
    format!("redis://app:pw@{}", server.address())
}

/// Everything that callers do. Returns what went wrong or was not as it should be.
async fn everything(server: &Member, strict: bool) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let mut raw = server.raw();
    raw.must::<()>(&["FLUSHALL"]);
    raw.must::<()>(&["CONFIG", "RESETSTAT"]);
    // Those of the last time may not be gone yet.
    raw.must::<u64>(&["CLIENT", "KILL", "USER", "app"]);
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
    until("the other waits", || {
        waiter.is_finished() || raw.must::<Option<String>>(&["HGET", "redlatch:m1:n", "tail"]).is_some()
    });
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
    lease.release().await.map_err(text)
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
    let removable = rules.iter().filter(|rule| !rule.starts_with("reset") && *rule != "-@all");
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

#[test]
fn the_rights_of_a_deployer_are_enough_and_none_is_too_much() {
    let servers = Replicated::start(1, &[]);
    let (server, mut replica) = (&servers.primary, servers.replicas[0].raw());
    let mut raw = server.raw();
    let rules = rules(server, &["deployer"]);
    let url = url(server);
    // Exit code, whether something could not be seen, whether the replica was found.
    let everything = |raw: &mut Raw| -> Vec<(i32, bool, bool)> {
        raw.must::<()>(&["SCRIPT", "FLUSH"]);
        let tell = |words: &[&str]| {
            let told = Cli::at(&url, words).answer();
            let unknown = [&told.stdout, &told.stderr].iter().any(|text| text.contains("unknown"));
            (told.status, unknown, told.stdout.contains(&servers.replicas[0].address()))
        };
        vec![
            tell(&["load"]),
            tell(&["status", "--check", "--callers"]),
            tell(&["verify"]),
            tell(&["acl", "check", "default"]),
            tell(&["doctor"]),
        ]
    };
    give(&mut replica, &rules);
    give(&mut raw, &rules);
    let all = everything(&mut raw);
    // Doctor finds that this user itself may take no lock.
    let statuses: Vec<_> = all.iter().map(|(status, unknown, _)| (*status, *unknown)).collect();
    assert_eq!(statuses, [(0, false), (0, false), (0, false), (0, false), (1, false)]);
    for rule in rules.iter().filter(|rule| rule.starts_with('+')) {
        let less = rules.iter().filter(|other| *other != rule).cloned().collect::<Vec<_>>();
        give(&mut replica, &less);
        give(&mut raw, &less);
        assert_ne!(everything(&mut raw), all, "{rule} is too much");
    }
}

#[test]
fn rules_name_the_namespace_and_nothing_else() {
    let print = |words: &[&str]| Cli::new(&[&["acl", "print"], words].concat()).must();
    assert_eq!(
        print(&[]),
        "resetkeys ~redlatch:* resetchannels &redlatch:inbox:* -@all +client|setname +evalsha +hdel +hmget +hset \
         +pexpire +ping +publish +script|load +subscribe +time\n"
    );
    let strict = print(&["strict", "--namespace", "shop[1]"]);
    assert!(strict.starts_with("resetkeys ~shop\\[1\\]:* resetchannels &shop\\[1\\]:inbox:* -@all "), "{strict}");
    assert!(!strict.contains("script"), "{strict}");
    assert!(print(&["deployer", "--cluster"]).contains("+cluster|info +cluster|slots"));
    assert_eq!(Cli::new(&["export", "--as", "acl"]).must(), print(&["caller"]));
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/lua/README.md")).unwrap();
    assert!(readme.contains(&print(&["caller"])), "the nginx README has other rights");
}

#[test]
fn check_finds_what_a_user_lacks_and_who_is_unknown() {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    give(&mut raw, &rules(&server, &["caller"]));
    let check = |words: &[&str]| Cli::at(&server.url(), &[&["acl", "check"], words].concat()).answer();
    assert_eq!(check(&["app"]).status, 0);
    raw.must::<()>(&["ACL", "SETUSER", "app", "-hset", "resetchannels"]);
    let told = check(&["app"]);
    assert_eq!(told.status, 1);
    let problem = |what: &str, rule: &str| {
        format!(
            "redlatch: app may not {what} on {}\n  hint: ACL SETUSER app +{rule}, or the whole of `redlatch acl print`\n",
            server.address()
        )
    };
    let expected = problem("hset redlatch:m1:name", "hset")
        + &problem("publish redlatch:inbox:id", "publish")
        + &problem("subscribe redlatch:inbox:id", "subscribe");
    assert_eq!(told.stderr, expected);
    assert_eq!(check(&["app", "deployer"]).status, 1);
    let expected = "redlatch: ACL DRYRUN was refused (ERR): User 'nobody' not found\n";
    assert_fails(
        &server.url(),
        &["acl", "check", "nobody"],
        &answer(78, "", expected),
        &[("configuration", &server.address())],
    );
}
