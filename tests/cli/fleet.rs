//! Verbs that reach all servers: load, status and verify on primaries and replicas, by sentinels and in a cluster.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use redlatch::bundle::embedded;

use serde_json::{Value, json};

use super::{Answer, Cli, answer, assert_fails, blurred};
use crate::support::{
    Fault, Proxy, Raw, Server,
    topology::{Cluster, Member, Replicated, WATCHED, Watched},
};

pub fn count() -> usize {
    embedded().unwrap().scripts().len()
}

/// How many of the scripts `member` has.
pub fn present(member: &Member) -> usize {
    let mut words = vec!["SCRIPT", "EXISTS"];
    words.extend(embedded().unwrap().scripts().iter().map(|script| {
        let digest: &'static redlatch::bundle::Digest = Box::leak(Box::new(script.digest()));
        digest.as_str()
    }));
    member.raw().must::<Vec<bool>>(&words).iter().filter(|present| **present).count()
}

fn on(url: &str, words: &[&str]) -> Cli {
    Cli::at(url, words)
}

#[test]
fn load_reaches_the_replicas_and_then_has_nothing_to_do() {
    let servers = Replicated::start(2, &[]);
    let url = servers.primary.url();
    let text = on(&url, &["load"]).must();
    assert!(text.ends_with(&format!("\n{} loaded on 3 servers\n", 3 * count())), "{text}");
    assert!(text.starts_with(&format!(
        "     SERVER{}  ROLE\n[1]  {}  primary\n",
        " ".repeat(servers.primary.address().len() - 6),
        servers.primary.address()
    )));
    assert_eq!(servers.replicas.iter().map(present).sum::<usize>(), 2 * count());
    assert_eq!(on(&url, &["load"]).must(), format!("nothing to do: all {} scripts are on 3 servers\n", count()));
    assert_eq!(on(&url, &["status", "--check"]).answer().status, 0);
}

#[test]
fn a_replica_that_lacks_scripts_or_does_not_answer_is_named() {
    let servers = Replicated::start(1, &[]);
    let (url, replica) = (servers.primary.url(), &servers.replicas[0]);
    on(&url, &["load"]).must();
    replica.raw().must::<()>(&["SCRIPT", "FLUSH"]);
    let message = format!(
        "redlatch: {} of the bundle's scripts are missing on {}\n  hint: load them with `redlatch load`\n",
        count(),
        replica.address()
    );
    let shown = on(&url, &["status"]).must();
    assert!(shown.contains("present  missing\n"), "{shown}");
    let missing = ("missing", replica.address());
    assert_fails(&url, &["status", "--check"], &answer(1, &shown, &message), &[(missing.0, &missing.1)]);
    replica.signal("STOP");
    let silent = format!("redlatch: connecting to {} took longer than 300ms\n", replica.address());
    let timeout = ["--timeout", "300ms"];
    let partly = on(&url, &[&["load", "--allow-partial"][..], &timeout].concat()).answer();
    assert_eq!((partly.status, &partly.stderr), (0, &silent), "{partly:?}");
    assert!(partly.stdout.starts_with("nothing to do: "), "{partly:?}");
    let words = [&["load"][..], &timeout].concat();
    assert_fails(&url, &words, &Answer { status: 75, ..partly }, &[("unavailable", &replica.address())]);
    let told = on(&url, &[&["status"][..], &timeout].concat()).answer();
    assert_eq!((told.status, &told.stderr), (0, &silent), "{told:?}");
    assert!(told.stdout.contains("no answer"), "{told:?}");
    assert_eq!(on(&url, &[&["status", "--check"][..], &timeout].concat()).answer().status, 1);
    assert_eq!(on(&url, &[&["verify"][..], &timeout].concat()).answer().status, 1);
    replica.signal("CONT");
}

#[test]
fn a_server_that_answers_each_command_slowly_is_given_up_at_a_deadline() {
    let server = Server::start(&[]).unwrap();
    Cli::on(&server, &["load"]).must();
    let proxy = Proxy::start(&server);
    // doctor has some dozens of questions; a server has the time of ten.
    proxy.rule(|command| {
        let slow = ["ACL", "CONFIG", "TIME", "INFO"].iter().any(|word| command.is(word));
        slow.then_some(Fault::HoldReply(Duration::from_millis(500)))
    });
    let words = ["doctor", "--timeout", "1s"];
    let expected = format!(
        "redlatch: {} was not done within 10s\n  hint: it answers, but slowly; with a longer --timeout it has more time\n",
        proxy.url().trim_start_matches("redis://").trim_end_matches('/')
    );
    let told = on(&proxy.url(), &words).answer();
    // On a machine that stands still a single command may take too long instead.
    if !told.stderr.contains("took longer than 1s") {
        assert_eq!(told, answer(69, "", &expected));
    }
    assert_eq!(told.status, 69);
}

#[test]
fn progress_over_many_servers_is_shown_on_a_terminal_and_nowhere_else() {
    let servers = Replicated::start(3, &[]);
    let url = servers.primary.url();
    on(&url, &["load"]).must();
    servers.replicas[0].signal("STOP");
    let words = ["load", "--allow-partial", "--timeout", "500ms"];
    let piped = on(&url, &words).answer();
    let shell = format!("{} {}", env!("CARGO_BIN_EXE_redlatch"), words.join(" "));
    let on_terminal = |shell: &str| {
        let mut script = std::process::Command::new("timeout");
        script.args(["60", "script", "-qec", shell, "/dev/null"]).env("REDLATCH_URL", &url).env("TERM", "xterm");
        String::from_utf8(script.output().unwrap().stdout).unwrap()
    };
    let (seen, quiet) = (on_terminal(&shell), on_terminal(&format!("{shell} -q")));
    servers.replicas[0].signal("CONT");
    assert!(seen.contains("3 of 4 servers"), "{seen:?}");
    assert!(!quiet.contains("of 4 servers"), "{quiet:?}");
    assert!(!piped.stderr.contains("of 4 servers") && !piped.stdout.contains("of 4 servers"), "{piped:?}");
}

#[test]
fn verbs_that_read_change_nothing() {
    let servers = Replicated::start(1, &[]);
    let url = servers.primary.url();
    on(&url, &["load"]).must();
    let mut monitor = TcpStream::connect(servers.primary.address()).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    for words in [
        &["status", "--callers"][..],
        &["verify"],
        &["doctor"],
        &["acl", "check", "default"],
        &["inspect", "n"],
        &["ls"],
        &["load", "--dry-run"],
        &["load"],
    ] {
        assert!(on(&url, words).answer().status < 2, "{words:?}");
    }
    servers.primary.raw().must::<String>(&["ECHO", "the end"]);
    let mut transcript = String::new();
    let mut buffer = [0; 4096];
    while !transcript.contains("the end") {
        let length = monitor.read(&mut buffer).unwrap();
        transcript += &String::from_utf8_lossy(&buffer[..length]);
    }
    // Of commands that the server ran, also within scripts.
    let harmless = [
        "\"HELLO\"",
        "\"CLIENT\"",
        "\"ROLE\"",
        "\"SCRIPT\" \"EXISTS\"",
        "\"INFO\"",
        "\"CONFIG\" \"GET\"",
        "\"ACL\"",
        "\"TIME\"",
        "\"SLOWLOG\" \"GET\"",
        "\"SCAN\"",
        "\"EVALSHA\"",
        "\"HGET\"",
        "\"ECHO\"",
        "\"PING\"",
        "\"replconf\"",
        "\"REPLCONF\"",
    ];
    let lines: Vec<_> = transcript.lines().filter(|line| line.contains('"')).collect();
    let inspect = embedded().unwrap().get("mutex/inspect").unwrap().digest();
    for line in &lines {
        assert!(harmless.iter().any(|word| line.to_uppercase().contains(&word.to_uppercase())), "{line}");
        assert!(!line.contains("\"EVALSHA\"") || line.contains(inspect.as_str()), "{line}");
    }
    assert!(lines.len() > 20, "{transcript}");
}

#[test]
fn sentinels_and_clusters_are_found_by_url_or_by_flags() {
    let watched = Watched::start(&[]);
    let text = on(&watched.url(), &["load"]).must();
    assert!(text.ends_with(&format!("\n{} loaded on 3 servers\n", 3 * count())), "{text}");
    let sentinels: Vec<_> = watched.sentinels.iter().map(Member::address).collect();
    let flags = ["--sentinel", &sentinels[0], "--sentinel", &sentinels[1], "--master", WATCHED];
    let words = [&["load", "--url", "redis://ignored.invalid"][..], &flags].concat();
    assert_eq!(Cli::new(&words).must(), format!("nothing to do: all {} scripts are on 3 servers\n", count()));
    let held = Cli::new(&[&["run", "n", "--url", "redis://ignored.invalid"][..], &flags, &["--", "true"]].concat());
    assert_eq!(held.answer().status, 0);
    let cluster = Cluster::start(&[]);
    let text = on(&cluster.url(), &["load"]).must();
    assert!(text.ends_with(&format!("\n{} loaded on 6 servers\n", 6 * count())), "{text}");
    let words = ["status", "--check", "--cluster", "--url", &cluster.members[4].url()];
    let told = Cli::new(&words).must();
    assert_eq!((told.matches("  primary").count(), told.matches("  replica").count()), (3, 3), "{told}");
    for name in ["a", "b", "c", "d"] {
        assert_eq!(on(&cluster.url(), &["run", name, "--", "true"]).answer().status, 0);
    }
    // With the rights that are printed for it.
    for (url, members) in [(watched.url(), &watched.servers), (cluster.url(), &cluster.members)] {
        let rules = on(&url, &["acl", "print", "strict"]).must();
        for member in members {
            let words = ["ACL", "SETUSER", "app", "on", ">pw"].into_iter().chain(rules.split_whitespace());
            member.raw().must::<()>(&words.collect::<Vec<_>>());
        }
        let url = url.replace("://", "://app:pw@");
        for name in ["a", "b", "c", "d"] {
            let told = on(&url, &["run", name, "--", "true"]).answer();
            assert_eq!((told.status, told.stderr.as_str()), (0, ""), "{url}");
        }
    }
    // A node of a cluster that is taken for a single server says what to do.
    let told = (0..20).map(|number| Cli::at(&cluster.members[0].url(), &["inspect", &number.to_string()]).answer());
    let moved: Vec<Answer> = told.filter(|told| told.status == 78).collect();
    assert!(!moved.is_empty());
    assert_eq!(
        blurred(&moved[0].stderr),
        "redlatch: mutex/inspect of \"redlatch:m#:#\" was refused (MOVED): this is a node of a Redis Cluster, write \
         redis+cluster:// in the URL or say --cluster\n"
    );
}

#[test]
fn ls_finds_the_locks_of_every_node_of_a_cluster() {
    let cluster = Cluster::start(&[]);
    let folder = super::folder();
    for name in ["a", "b", "c", "d", "e"] {
        let file = folder.path().join(name);
        on(&cluster.url(), &["acquire", name, "--ttl", "1h", "--owner-file", file.to_str().unwrap()]).must();
    }
    let text = on(&cluster.url(), &["ls"]).must();
    let names: Vec<_> = text.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_which_versions_the_callers_are_of() {
    let server = Member::start(&[]);
    on(&server.url(), &["load"]).must();
    let client = redlatch::Client::connect(&server.url()).await.unwrap();
    let mut old = Raw::open(&server.url());
    old.must::<()>(&["CLIENT", "SETNAME", "redlatch/0.0.9"]);
    let text = on(&server.url(), &["status", "--callers"]).must();
    let table = text.split("\n\n").last().unwrap();
    let address = server.address();
    let width = address.len();
    assert_eq!(
        table,
        format!(
            "{:<width$}  CALLERS OF VERSION  CONNECTIONS\n{address}  0.0.9               1\n{address}  {:<18}  1\n",
            "SERVER",
            env!("CARGO_PKG_VERSION")
        )
    );
    drop(client);
}

/// Whatever CLIENT LIST calls the command that asks.
#[test]
fn status_and_doctor_count_no_connection_of_their_own() {
    let servers = Replicated::start(1, &[]);
    let cluster = Cluster::start(&[]);
    for url in [servers.primary.url(), cluster.url()] {
        on(&url, &["load"]).must();
        for _ in 0..5 {
            assert!(on(&url, &["status", "--callers"]).must().ends_with("\nno caller is connected\n"));
            assert!(!on(&url, &["doctor"]).answer().stdout.contains("connection"));
        }
    }
}

#[test]
fn flags_that_contradict_the_url_are_refused() {
    let refused = |words: &[&str], stderr: &str| {
        assert_fails("", words, &answer(78, "", stderr), &[("configuration", "")]);
    };
    refused(
        &["load", "--cluster", "--url", "unix:///tmp/x"],
        "redlatch: --cluster and --sentinel need a URL that begins with redis:// or rediss://\n",
    );
    refused(
        &["load", "--tls-ca", "/nowhere", "--url", "rediss://localhost"],
        "redlatch: \"/nowhere\" cannot be read: No such file or directory (os error 2)\n",
    );
    for (option, needs) in [
        (["--sentinel", "a"], "--master <NAME>"),
        (["--tls-cert", "a"], "--tls-key <FILE>"),
        (["--metrics-addr", "127.0.0.1:0"], "--watch[=<INTERVAL>]"),
    ] {
        let told = Cli::new(&[&["load", "--format", "json"], &option[..]].concat()).answer();
        let object: Value = serde_json::from_str(&told.stdout).unwrap();
        let message = format!("the following required arguments were not provided: {needs}");
        assert_eq!((told.status, &object["errors"][0]["message"]), (2, &json!(message)), "{told:?}");
    }
    let server = Member::start(&[]);
    let told = on(&server.url(), &["load", "--watch", "--metrics-addr", "nowhere"]).answer();
    assert_eq!(told.status, 78, "{told:?}");
    assert!(told.stderr.starts_with("redlatch: --metrics-addr nowhere cannot be used: "), "{told:?}");
}
