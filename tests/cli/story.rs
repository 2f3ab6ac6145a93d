//! What the lock verbs tell on stderr while they work: with -v, and by default where a lease is in danger.

use std::{
    fs,
    io::Write,
    os::unix::io::AsFd,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{Cli, HOLDER, answer, blurred, folder, hold, product, until, waiters};
use crate::support::{Fault, Proxy, Raw, Server};

#[test]
fn v_tells_the_story_of_a_run() {
    let server = Server::start(&[]).unwrap();
    let product = product(&mut Raw::connect(&server));
    let place = server.socket().display().to_string();
    let ended = Cli::on(&server, &["run", "-v", "stock", "--", "sh", "-c", "exit 3"]).answer();
    let fence = Raw::connect(&server).lock("redlatch:m1:stock").fence;
    let (before, after) = ended.stderr.split_once("the command has process id ").expect("it was started");
    assert_eq!(
        before,
        format!(
            "redlatch: connected to {product} at {place}\nredlatch: acquired \"stock\" for 10s, fence {fence}\nredlatch: "
        )
    );
    assert_eq!(
        blurred(after),
        "#\nredlatch: the command has ended with exit code #\nredlatch: released \"stock\"\n",
        "{ended:?}"
    );
    assert_eq!((ended.status, ended.stdout.as_str()), (3, ""));
    for words in [&["-q"][..], &[]] {
        let words = [&["run", "stock"], words, &["--", "sh", "-c", "exit 3"]].concat();
        assert_eq!(Cli::on(&server, &words).answer(), answer(3, "", ""));
    }
}

#[test]
fn v_tells_what_every_lock_verb_is_connected_to_and_as_whom_but_no_secret() {
    let server = Server::start(&[]).unwrap();
    Raw::connect(&server).must::<()>(&["ACL", "SETUSER", "app", "on", ">s3cret-canary", "+@all", "~*", "&*"]);
    let product = product(&mut Raw::connect(&server));
    let place = server.socket().display().to_string();
    let (url, folder) = (format!("unix://{place}?user=app&pass=s3cret-canary"), folder());
    let owner = folder.path().join("owner");
    let owner = owner.to_str().unwrap();
    let told = format!("redlatch: connected to {product} at {place} as \"app\"\n");
    for words in [
        &["acquire", "stock", "--owner-file", owner][..],
        &["extend", "stock", "--owner-file", owner],
        &["inspect", "stock"],
        &["ls"],
        &["release", "stock", "--owner-file", owner],
        &["acquire", "stock", "--owner-file", owner],
        &["force-release", "stock", "--yes", "--reason", "a test"],
    ] {
        let answered = Cli::at(&url, &[words, &["-v"]].concat()).answer();
        assert_eq!((answered.status, answered.stderr.as_str()), (0, told.as_str()), "{words:?}");
    }
}

#[test]
fn v_tells_of_each_place_in_the_queue_and_behind_whom_it_is() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = hold(&server, "stock", folder.path());
    let ahead = Cli::on(&server, &["run", "stock", "--label", "the one ahead", "--", "sleep", "1000"]).start();
    until("it waits", || waiters(&server, "stock") == 1);
    let out = folder.path().join("last");
    let words = ["acquire", "stock", "-v", "--wait", "1h", "--owner-file", out.to_str().unwrap()];
    let last = Cli::on(&server, &words).start();
    last.says("waiting for \"stock\": place 2, behind \"the one ahead\", held for ");
    last.says(&format!(" by \"{HOLDER}\" (since "));
    ahead.signal("TERM");
    ahead.answer();
    last.says("waiting for \"stock\": place 1, held for ");
    Cli::on(&server, &["release", "stock", "--owner-file", &file]).must();
    assert_eq!(last.answer().status, 0);
}

/// A proxy that does `fault` to the next `times` renewals.
fn renewals_fail(server: &Server, times: u64, fault: Fault) -> (Proxy, Arc<AtomicU64>) {
    let (proxy, left) = (Proxy::start(server), Arc::new(AtomicU64::new(times)));
    let rule = Arc::clone(&left);
    proxy.rule(move |command| {
        let bites = command.runs("mutex/extend")
            && rule.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        bites.then_some(fault)
    });
    (proxy, left)
}

/// A command that ends when the file is there.
fn until_there(file: &str) -> String {
    format!("while [ ! -e '{file}' ]; do sleep 0.02; done")
}

#[test]
fn trouble_with_renewals_is_told_by_default_with_the_time_that_is_left_and_so_is_its_end() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let go = folder.path().join("go");
    let script = until_there(go.to_str().unwrap());
    for (fault, trouble) in [
        (Fault::CutBefore, "Redis does not answer"),
        (Fault::Refuse("OOM command not allowed when used memory > 'maxmemory'."), "OOM"),
    ] {
        let (proxy, _) = renewals_fail(&server, 2, fault);
        let words = ["run", "stock", "--ttl", "9s", "--status-fd", "9", "--", "sh", "-c", &script];
        let program = env!("CARGO_BIN_EXE_redlatch");
        let log = folder.path().join("log");
        let shell = format!("exec '{program}' \"$@\" 9>'{}'", log.display());
        let running =
            Cli::program("sh", &[&["-c", &shell, "sh"][..], &words].concat()).env("REDLATCH_URL", &proxy.url()).start();
        running.says(" unless the lease of \"stock\" is renewed\n");
        running.says("the lease of \"stock\" is renewed again, ");
        fs::write(&go, "").unwrap();
        let ended = running.answer();
        fs::remove_file(&go).unwrap();
        assert_eq!(ended.status, 0, "{ended:?}");
        let (first, rest) = ended.stderr.split_once("; the command is stopped in ").expect("the time is told");
        assert!(first.starts_with("redlatch: ") && first.contains(trouble), "{ended:?}");
        assert!(blurred(rest).starts_with("#.# s unless "), "{ended:?}");
        let log = fs::read_to_string(log).unwrap();
        let events: Vec<_> = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(events, ["acquired", "not_renewed", "renewed", "exited", "released"]);
    }
}

#[test]
fn q_tells_of_no_trouble_and_vv_of_each_renewal_with_the_time_that_is_left() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let go = folder.path().join("go");
    let script = until_there(go.to_str().unwrap());
    let (proxy, left) = renewals_fail(&server, 1, Fault::CutBefore);
    let words = ["run", "-q", "stock", "--ttl", "6s", "--", "sh", "-c", &script];
    let running = Cli::at(&proxy.url(), &words).start();
    until("a renewal has failed", || left.load(Ordering::SeqCst) == 0);
    let fails = proxy.commands();
    until("another one was sent", || proxy.commands() > fails);
    fs::write(&go, "").unwrap();
    assert_eq!(running.answer(), answer(0, "", ""));
    fs::remove_file(&go).unwrap();

    let words = ["run", "-vv", "stock", "--ttl", "3s", "--", "sh", "-c", &script];
    let running = Cli::on(&server, &words).start();
    running.says("redlatch: renewed the lease of \"stock\", 2.");
    running.says(" s are left\n");
    fs::write(&go, "").unwrap();
    assert_eq!(running.answer().status, 0);
}

#[test]
fn a_run_that_must_not_stop_its_command_says_what_will_happen_instead() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let go = folder.path().join("go");
    let script = until_there(go.to_str().unwrap());
    let (proxy, _) = renewals_fail(&server, 1, Fault::CutBefore);
    let words = ["run", "stock", "--ttl", "6s", "--on-lost", "warn", "--", "sh", "-c", &script];
    let running = Cli::at(&proxy.url(), &words).start();
    running.says("redlatch: Redis does not answer; the command goes on without protection in ");
    fs::write(&go, "").unwrap();
    assert_eq!(running.answer().status, 0);
}

#[test]
fn a_stderr_that_nobody_reads_stops_neither_run_nor_its_renewals() {
    let server = Server::start(&[]).unwrap();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let mut cli = Cli::on(&server, &["run", "-vvv", "stock", "--ttl", "3s", "--", "sleep", "4"]);
    let mut process = cli.command.stdin(Stdio::null()).stderr(writer).spawn().unwrap();
    until("it ends", || process.try_wait().unwrap().is_some());
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_stderr_that_nobody_reads_any_more_ends_no_story_in_a_panic() {
    let server = Server::start(&[]).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut cli = Cli::on(&server, &["run", "-vvv", "stock", "--", "true"]);
    let status = cli.command.stdin(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}
