//! Bad input and bad servers: the exact exit code and message of each.

use std::{fs, io::Write, net::TcpListener};

use super::{Cli, answer, assert_fails, behind, folder, until};
use crate::support::{Raw, Server, topology::Member};

/// Must never be seen anywhere.
const CANARY: &str = "canary-9f3";
const PASSWORD_HINT: &str = "  hint: a password comes from --password-file, REDLATCH_PASSWORD or the URL in \
                             REDLATCH_URL; the user from the URL\n";

#[test]
fn durations_need_a_unit_and_a_range() {
    let unit = "a duration is a number with a unit, write 500ms, 30s, 5m or 2h";
    let range = "a duration must be 1ms to 31days";
    for (text, reason) in [
        ("30", unit),
        ("0", unit),
        ("1e3", unit),
        ("-1s", unit),
        ("soon", unit),
        ("999999999999999999999s", unit),
        ("0s", range),
        ("0.5ms", range),
        ("32days", range),
        ("1500us", "a duration must be whole milliseconds, write 1ms or more of them"),
    ] {
        let expected = format!(
            "error: invalid value '{text}' for '--ttl <DURATION>': {reason}\n\n\
             For more information, try '--help'.\n"
        );
        let words = ["run", "stock", "--ttl", text, "--", "true"];
        assert_fails("unix:///nowhere", &words, &answer(2, "", &expected), &[("usage", "")]);
    }
}

#[test]
fn names_and_namespaces_have_rules() {
    let long = "x".repeat(600);
    for (name, reason) in [
        ("", "a lock name must be 1 to 512 bytes, this one has 0"),
        (&long, "a lock name must be 1 to 512 bytes, this one has 600"),
        ("a\nb", "a lock name must not contain NUL, CR or LF, this one does at byte 1"),
    ] {
        let expected = answer(2, "", &format!("redlatch: {reason}\n"));
        for words in [
            &["inspect", name][..],
            &["run", name, "--", "true"],
            &["acquire", name, "--owner-file", "/nowhere"],
            &["extend", name, "--owner-file", "/nowhere"],
            &["release", name, "--owner-file", "/nowhere"],
        ] {
            assert_fails("unix:///nowhere", words, &expected, &[("usage", "")]);
        }
    }
    assert_fails(
        "unix:///nowhere",
        &["inspect", "stock", "--namespace", "a b"],
        &answer(2, "", "redlatch: a namespace must be 1 to 64 printable ASCII characters without spaces\n"),
        &[("usage", "")],
    );
}

#[test]
fn a_lease_that_leaves_no_time_for_the_stop_is_refused() {
    let hint = "  hint: write a longer --ttl or a shorter --grace\n";
    for (extra, part) in [(None, "half of the TTL"), (Some("--no-renew"), "the TTL")] {
        let grace = if extra.is_some() { "2s" } else { "1s" };
        let mut words = vec!["run", "stock", "--ttl", "2s", "--grace", grace];
        words.extend(extra);
        words.extend(["--", "true"]);
        let expected = format!(
            "redlatch: --grace {grace} and a margin of 200ms do not fit into {part} of 2s: \
             the command could not be stopped in time\n{hint}"
        );
        assert_fails("unix:///nowhere", &words, &answer(2, "", &expected), &[("usage", "")]);
    }
}

#[test]
fn a_password_in_the_arguments_is_refused_and_not_repeated() {
    for url in [format!("redis://:{CANARY}@localhost"), format!("unix:///nowhere?pass={CANARY}")] {
        let expected = "redlatch: --url has a password, which every user of this machine can read\n  \
                        hint: put the URL into REDLATCH_URL, or the password into REDLATCH_PASSWORD or a \
                        --password-file\n";
        assert_fails("", &["inspect", "stock", "--url", &url], &answer(78, "", expected), &[("configuration", "")]);
    }
}

#[test]
fn a_url_that_is_not_understood_is_not_repeated() {
    for (url, message) in [
        (
            format!("http://:{CANARY}@localhost"),
            "the scheme of the URL is not known, write redis, rediss, unix, \
            redis+sentinel or redis+cluster",
        ),
        (CANARY.to_owned(), "the URL has no scheme, write redis://HOST[:PORT] or unix:///PATH"),
        (format!("redis://:{CANARY}/@localhost"), "the user or password in the URL has a '/', write %2F for it"),
    ] {
        let expected = answer(
            78,
            "",
            &format!("redlatch: {message}\n  hint: it comes from --url, REDLATCH_URL or REDIS_URL, in this order\n"),
        );
        assert_fails(&url, &["inspect", "stock"], &expected, &[("configuration", "")]);
        assert_eq!(Cli::new(&["inspect", "stock"]).env("REDIS_URL", &url).answer(), expected);
    }
}

/// Every verb that talks to a server, on one that is in trouble.
#[track_caller]
fn every_verb_says(url: &str, status: i32, stderr: &str, problem: (&str, &str)) {
    let folder = folder();
    let file = folder.path().join("owner");
    let lease = r#"{"name":"stock","name_base64":null,"namespace":"redlatch","ttl_ms":10000,"owner":"someone:1"}"#;
    fs::write(&file, lease).unwrap();
    let file = file.to_str().unwrap();
    for words in [
        &["load"][..],
        &["status"],
        &["verify"],
        &["inspect", "stock"],
        &["run", "stock", "-n", "--", "true"],
        &["acquire", "stock", "--owner-file", file],
        &["extend", "stock", "--owner-file", file],
        &["release", "stock", "--owner-file", file],
    ] {
        assert_fails(url, words, &answer(status, "", stderr), &[problem]);
    }
}

#[test]
fn no_server_is_69() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    every_verb_says(
        &format!("redis://:{CANARY}@{address}"),
        69,
        &format!(
            "redlatch: no server answers at {address}, is it running?\n  \
             hint: --url or REDLATCH_URL says which server is meant\n"
        ),
        ("unavailable", &address.to_string()),
    );
}

#[test]
fn a_server_that_is_not_redis_is_78() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    every_verb_says(
        &format!("redis://:{CANARY}@{address}"),
        78,
        &format!(
            "redlatch: connecting to {address} got an answer that is not Redis: \
             is the address that of a Redis server?\n"
        ),
        ("configuration", ""),
    );
}

#[test]
fn a_missing_and_a_wrong_password_are_78_and_the_right_one_works() {
    let server = Server::start(&["--requirepass", CANARY]).unwrap();
    let node = server.socket().display().to_string();
    let url = server.url();
    let needed = format!(
        "redlatch: connecting to {node} was refused (NOAUTH): the server needs a password, \
         put it into the URL: redis://:PASSWORD@HOST\n{PASSWORD_HINT}"
    );
    every_verb_says(&url, 78, &needed, ("configuration", ""));
    let wrong = format!(
        "redlatch: connecting to {node} was refused (WRONGPASS): the server did not accept the user or password, \
         check the URL\n{PASSWORD_HINT}"
    );
    every_verb_says(&format!("{url}?pass=wrong-{CANARY}"), 78, &wrong, ("configuration", ""));

    let folder = folder();
    let file = folder.path().join("password");
    fs::write(&file, format!("{CANARY}\n")).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    Cli::at(&format!("{url}?pass={CANARY}"), &["load"]).must();
    Cli::at(&url, &["status", "--check"]).env("REDLATCH_PASSWORD", CANARY).must();
    Cli::new(&["status", "--check", "--url", &url]).env("REDLATCH_PASSWORD", CANARY).must();
    Cli::at(&format!("{url}?pass=wrong"), &["status", "--check", "--password-file", file]).must();
    fs::write(file, "\n").unwrap();
    let expected = format!("redlatch: \"{file}\" has no password in its first line\n");
    let words = ["status", "--password-file", file];
    assert_fails(&url, &words, &answer(78, "", &expected), &[("configuration", "")]);
}

#[test]
fn passwords_with_special_characters_arrive_unchanged() {
    let password = "p@ss:/?#[]%40 ü&=+";
    let server = Server::start(&[]).unwrap();
    Raw::connect(&server).must::<()>(&["CONFIG", "SET", "requirepass", password]);
    Cli::on(&server, &["load"]).env("REDLATCH_PASSWORD", password).must();
    let server = Server::start(&["--port", "0"]).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    Raw::connect(&server).must::<()>(&["CONFIG", "SET", "port", &port]);
    Raw::connect(&server).must::<()>(&["CONFIG", "SET", "requirepass", password]);
    Cli::at(&format!("redis://127.0.0.1:{port}"), &["load"]).env("REDLATCH_PASSWORD", password).must();
}

#[test]
fn a_read_only_replica_is_78_where_something_is_to_be_written() {
    let server = Server::start(&["--replicaof", "127.0.0.1", "1"]).unwrap();
    let refused = |script: &str| {
        let advice = "this server is a read-only replica, connect to the primary";
        answer(78, "", &format!("redlatch: {script} of \"redlatch:m1:stock\" was refused (READONLY): {advice}\n"))
    };
    for words in [&["run", "stock", "--", "true"][..], &["acquire", "stock", "--owner-file", "/tmp/never-written"]] {
        assert_fails(&server.url(), words, &refused("mutex/acquire"), &[("configuration", "")]);
    }
    assert_eq!(Cli::on(&server, &["inspect", "stock"]).answer().status, 1);
}

#[test]
fn a_full_server_is_69_and_nothing_is_held() {
    let server = Server::start(&["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"]).unwrap();
    let mut raw = Raw::connect(&server);
    while raw.run(&[b"RPUSH", b"filler", &[0; 10_000]]).is_ok() {}
    let expected = "redlatch: mutex/acquire of \"redlatch:m1:stock\" was refused (OOM): \
                    the server is full, free memory or raise maxmemory; nothing was written\n";
    assert_fails(
        &server.url(),
        &["run", "stock", "-n", "--", "true"],
        &answer(69, "", expected),
        &[("unavailable", &server.socket().display().to_string())],
    );
    assert!(!raw.must::<bool>(&["EXISTS", "redlatch:m1:stock"]));
}

#[test]
fn an_acl_that_denies_scripting_is_77() {
    let server = Server::start(&[]).unwrap();
    let acl = ["ACL", "SETUSER", "clerk", "on", ">pass", "~*", "&*", "+@all", "-@scripting"];
    Raw::connect(&server).must::<()>(&acl);
    let url = format!("{}?user=clerk&pass=pass", server.url());
    let denied = |what: &str, rule: &str, role: &str| {
        let command = rule.replace('|', " ").to_uppercase();
        answer(
            77,
            "",
            &format!(
                "redlatch: {what} was refused (NOPERM): user clerk may not run {command}; grant +{rule}; role {role} has it: \
                 `redlatch acl print {role}`\n"
            ),
        )
    };
    let node = server.socket().display().to_string();
    for (words, what, rule, role) in [
        (&["load"][..], "SCRIPT EXISTS", "script|exists", "deployer"),
        (&["status"], "SCRIPT EXISTS", "script|exists", "observer"),
        (&["run", "stock", "--", "true"], "mutex/acquire of \"redlatch:m1:stock\"", "evalsha", "caller"),
        (&["inspect", "stock"], "mutex/inspect of \"redlatch:m1:stock\"", "evalsha", "observer"),
    ] {
        assert_fails(&url, words, &denied(what, rule, role), &[("denied", &node)]);
    }
}

#[test]
fn a_key_of_another_type_is_78_and_stays_as_it_is() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    raw.must::<()>(&["SET", "redlatch:m1:stock", "mine"]);
    let refused = |script: &str| {
        answer(
            78,
            "",
            &format!(
                "redlatch: {script} of \"redlatch:m1:stock\" was refused (WRONGTYPE): the key holds something that \
                 is not this lock, use another name or namespace; it was left as it is\n"
            ),
        )
    };
    let problem = [("configuration", "")];
    assert_fails(&server.url(), &["inspect", "stock"], &refused("mutex/inspect"), &problem);
    assert_fails(&server.url(), &["run", "stock", "--", "true"], &refused("mutex/acquire"), &problem);
    assert_eq!(raw.must::<String>(&["GET", "redlatch:m1:stock"]), "mine");
}

#[test]
fn a_server_that_stands_still_is_69() {
    let server = Server::start(&[]).unwrap();
    let node = server.socket().display().to_string();
    let expected = format!(
        "redlatch: connecting to {node} took longer than 200ms\n  \
         hint: --url or REDLATCH_URL says which server is meant\n"
    );
    crate::support::signal(server.pid(), "STOP");
    let words = ["status", "--timeout", "200ms"];
    assert_fails(&server.url(), &words, &answer(69, "", &expected), &[("unavailable", &node)]);
    crate::support::signal(server.pid(), "CONT");
}

#[test]
fn no_log_level_shows_a_password() {
    let server = Server::start(&["--requirepass", CANARY]).unwrap();
    let folder = folder();
    let file = folder.path().join("password");
    fs::write(&file, CANARY).unwrap();
    let file = file.to_str().unwrap();
    for words in [&["load"][..], &["run", "stock", "--", "true"], &["inspect", "stock"], &["show", "plain/release"]] {
        for format in ["human", "json", "jsonl"] {
            let words =
                [words_before(words), &["-vvv", "--format", format, "--password-file", file], words_after(words)];
            let told = Cli::at(&server.url(), &words.concat()).answer();
            assert!(!told.stdout.contains(CANARY) && !told.stderr.contains(CANARY), "{told:?}");
            assert!(told.status < 2, "{told:?}");
        }
    }
}

/// Every verb, with a password in each place where one can be, against servers that take it, refuse it, or are not there.
#[test]
fn a_password_is_in_no_output_no_argument_and_no_environment_of_a_command() {
    let server = Server::start(&["--requirepass", CANARY]).unwrap();
    let other = Server::start(&["--requirepass", "another"]).unwrap();
    let with_password = |server: &Server| format!("unix://{}?pass={CANARY}", server.socket().display());
    let urls = [
        with_password(&server),
        with_password(&other),
        format!("redis://:{CANARY}@127.0.0.1:1"),
        format!("redis+cluster://:{CANARY}@127.0.0.1:1"),
        format!("redis+sentinel://:{CANARY}@127.0.0.1:1/n?sentinel_password={CANARY}"),
        format!("rediss://:{CANARY}@127.0.0.1:1"),
        format!("nonsense://{CANARY}"),
    ];
    let verbs: &[&[&str]] = &[
        &["load"],
        &["status", "--callers"],
        &["verify"],
        &["acl", "check", "default"],
        &["doctor"],
        &["inspect", "stock"],
        &["ls"],
        &["acquire", "stock"],
        &["force-release", "stock", "--reason", "a test"],
        &["bench", "--duration", "10ms", "--clients", "1"],
        &["run", "stock", "-n", "--", "sh", "-c", "cat /proc/$PPID/cmdline | tr '\\0' ' '"],
    ];
    let mut told = 0;
    for url in &urls {
        for verb in verbs {
            let words = [&["-vvv", "--timeout", "200ms", "--format", "jsonl"][..], verb].concat();
            let answer = Cli::at(url, &words).answer();
            assert!(!answer.stdout.contains(CANARY) && !answer.stderr.contains(CANARY), "{verb:?} {answer:?}");
            told += answer.stdout.len() + answer.stderr.len();
        }
    }
    println!("searched {told} bytes for a password");
    assert!(told > 10_000);
}

#[test]
fn names_labels_and_errors_of_others_cannot_speak_to_a_terminal() {
    let server = Server::start(&[]).unwrap();
    let folder = folder();
    let evil = "a\u{1b}]0;title\u{7}\u{202e}b";
    let file = folder.path().join("owner");
    let file = file.to_str().unwrap();
    for words in [
        &["acquire", evil, "--ttl", "1h", "--owner-file", file][..],
        &["inspect", evil],
        &["ls"],
        &["ls", evil],
        &["acquire", evil, "--owner-file", file],
        &["force-release", evil, "--reason", evil],
        &["force-release", evil, "--yes", "--reason", evil],
        &["acl", "check", evil],
        &["acl", "print", "--namespace", evil],
        &["run", evil, "--", "true"],
        &["show", evil],
        &["man", evil],
        &["doctor", "--user", evil],
    ] {
        let told = Cli::on(&server, words).answer();
        for text in [&told.stdout, &told.stderr] {
            assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{words:?} {text:?}");
        }
    }
}

/// Changes a digit of every digest.
fn falsify(bytes: &mut [u8]) {
    if let Some(at) = bytes.windows(5).position(|window| window == b"$40\r\n") {
        bytes[at + 5] = if bytes[at + 5] == b'0' { b'1' } else { b'0' };
    }
}

#[test]
fn a_server_that_has_other_bytes_under_a_script_is_65() {
    let server = Server::start(&[]).unwrap();
    let url = behind(&server, falsify);
    let expected = "redlatch: the server has another digest for mutex/acquire than this program: something changed its \
                    bytes on the way\n";
    assert_eq!(Cli::at(&url, &["load"]).answer(), answer(65, "", expected));
    server_is_left_alone(&server);
    // What was loaded is there under its own digest; the next one is not believed either.
    let told = Cli::at(&url, &["run", "stock", "--", "true"]).answer();
    assert_eq!(told, answer(65, "", &expected.replace("acquire", "extend")));
}

#[test]
fn one_server_of_several_with_other_bytes_under_a_script_is_65() {
    let (primary, replica) = (Member::start(&[]), Server::start(&[]).unwrap());
    let false_url = behind(&replica, falsify);
    let address = false_url.trim_start_matches("redis://");
    let mut raw = Raw::connect(&replica);
    raw.must::<()>(&["CONFIG", "SET", "replica-announce-port", address.rsplit(':').next().unwrap()]);
    raw.must::<()>(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    until("the replica is known by the false address", || {
        Cli::at(&primary.url(), &["status"]).answer().stdout.contains(address)
    });
    let expected = format!(
        "redlatch: {address}: the server has another digest for mutex/acquire than this program: something changed its \
         bytes on the way\n"
    );
    assert_eq!(Cli::at(&primary.url(), &["load"]).answer(), answer(65, "", &expected));
}

fn server_is_left_alone(server: &Server) {
    assert_eq!(Raw::connect(server).must::<usize>(&["DBSIZE"]), 0);
}

/// The verb and its name, without the command of `run`.
fn words_before<'a>(words: &'a [&'a str]) -> &'a [&'a str] {
    &words[..words.iter().position(|word| *word == "--").unwrap_or(words.len())]
}

fn words_after<'a>(words: &'a [&'a str]) -> &'a [&'a str] {
    &words[words_before(words).len()..]
}

#[test]
fn every_verb_answers_with_the_same_json_object() {
    let server = Server::start(&[]).unwrap();
    let fields = ["command", "data", "errors", "exit_code", "format_version", "ok"];
    for words in [
        &["status", "--check"][..],
        &["load"],
        &["verify"],
        &["scripts"],
        &["show", "mutex/acquire"],
        &["show", "nothing"],
        &["export", "--as", "lua"],
        &["acquire", "stock"],
        &["inspect", "stock"],
        &["inspect", "free"],
        &["ls"],
        &["extend", "stock", "--owner-file", "/nowhere"],
        &["release", "stock", "--owner-file", "/nowhere"],
        &["force-release", "stock", "--reason", "a test"],
        &["completions", "zsh"],
        &["man"],
    ] {
        let told = Cli::on(&server, &[words, &["--format", "json"]].concat()).answer();
        let object: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!(object.as_object().unwrap().keys().collect::<Vec<_>>(), fields, "{words:?}");
        assert_eq!(object["command"], words[0]);
        assert_eq!(
            (object["exit_code"].as_i64(), object["ok"].as_bool()),
            (Some(told.status.into()), Some(told.status == 0))
        );
        assert_eq!(told.stderr, "", "{words:?}");
        for error in object["errors"].as_array().unwrap() {
            assert_eq!(error.as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "hint", "message", "node"]);
        }
    }
}
