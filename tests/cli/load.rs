//! What `load` says of servers where scripts can be loaded, and not run or not heard of.

use redlatch::bundle::embedded;

use super::{Cli, answer, assert_fails, product, version};
use crate::support::{Command, Fault, Proxy, Raw, Server};

/// A script that came by EVAL is evicted after 500 others, on servers that do so.
#[test]
fn load_makes_scripts_stay_and_status_says_where_it_cannot() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    let scripts = embedded().unwrap().scripts();
    for script in scripts {
        let _ = raw.run(&[b"EVAL", script.source(), b"1", b"n"]);
    }
    Cli::on(&server, &["load"]).must();
    for number in 0..600 {
        raw.must::<i64>(&["EVAL", &format!("return {number}"), "0"]);
    }
    let digests: Vec<_> = scripts.iter().map(|script| script.digest().to_string()).collect();
    let words: Vec<_> = ["SCRIPT", "EXISTS"].into_iter().chain(digests.iter().map(String::as_str)).collect();
    let there: Vec<bool> = raw.must(&words);
    let product = product(&mut raw);
    let forgets = !product.starts_with("Valkey") && version(&mut raw) >= (7, 4);
    assert!(there.iter().all(|there| *there != forgets), "{product} {there:?}");
    let status = Cli::on(&server, &["status"]).must();
    assert_eq!(status.contains("SCRIPT FLUSH followed by"), forgets, "{product} {status}");
    if forgets {
        raw.must::<()>(&["SCRIPT", "FLUSH"]);
    }
    Cli::on(&server, &["load"]).must();
    for number in 0..600 {
        raw.must::<i64>(&["EVAL", &format!("return {number} + 1"), "0"]);
    }
    assert!(raw.must::<Vec<bool>>(&words).iter().all(|there| *there), "{product}");
}

#[test]
fn load_says_at_once_that_a_server_without_time_runs_no_script() {
    let server = Server::start(&["--rename-command", "TIME", ""]).unwrap();
    let answer = Cli::on(&server, &["load"]).answer();
    assert_ne!(answer.status, 0);
    assert!(answer.stderr.contains("this server does not know TIME"), "{answer:?}");
}

/// The reply to HELLO without arguments of a Redis 6.2.
const HELLO: &str = "%4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$5\r\nproto\r\n:3\r\n\
                     $4\r\nmode\r\n$10\r\nstandalone\r\n";

/// Whether `command` asks whether scripts are replicated, which only 6.2 can be told to do.
fn asks(command: &Command) -> bool {
    command.words().iter().any(|word| word == b"lua-replicate-commands")
}

#[test]
fn load_says_at_once_that_a_server_replicates_scripts_and_not_what_they_do() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let play = |setting: &'static str| {
        proxy.rule(move |command| match command.is("HELLO") && command.len() == 1 {
            true => Some(Fault::Answer(HELLO)),
            false => asks(command).then_some(Fault::Answer(setting)),
        });
    };
    play("%1\r\n$22\r\nlua-replicate-commands\r\n$2\r\nno\r\n");
    let expected = "redlatch: the server replicates scripts and not what they do, which no script that reads the clock \
                    survives\n  hint: CONFIG SET lua-replicate-commands yes\n";
    let told = answer(78, "", expected);
    assert_fails(&proxy.url(), &["load"], &told, &[("configuration", proxy.address())]);
    play("%1\r\n$22\r\nlua-replicate-commands\r\n$3\r\nyes\r\n");
    Cli::at(&proxy.url(), &["load"]).must();
    // Later servers do not have the setting, and nobody has to be allowed to ask for it.
    let before = proxy.bites();
    proxy.rule(|command| asks(command).then_some(Fault::Refuse("NOPERM no")));
    Cli::at(&proxy.url(), &["load"]).must();
    assert_eq!(proxy.bites(), before);
}

#[test]
fn load_says_that_callers_of_a_server_without_resp3_poll() {
    let server = Server::start(&["--rename-command", "HELLO", ""]).unwrap();
    let told = Cli::on(&server, &["load"]).answer();
    let note = "has no RESP3 (HELLO 3), or a proxy hides it: no message reaches callers, so waiters poll\n";
    assert!(told.status == 0 && told.stderr.ends_with(note) && told.stderr.lines().count() == 1, "{told:?}");
    Cli::on(&server, &["load", "--quiet"]).must();
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    proxy.rule(|command| {
        (command.is("HELLO") && command.len() > 1).then_some(Fault::Refuse("NOPROTO unsupported protocol version"))
    });
    let told = Cli::at(&proxy.url(), &["load"]).answer();
    assert!(told.status == 0 && told.stderr.ends_with(note), "{told:?}");
}

#[test]
fn load_with_quiet_tells_nothing_but_trouble() {
    let server = Server::start(&[]).unwrap();
    for _ in 0..2 {
        assert_eq!(Cli::on(&server, &["load", "-q"]).must(), "");
    }
    assert!(Cli::on(&server, &["load"]).must().contains("nothing to do"));
}
