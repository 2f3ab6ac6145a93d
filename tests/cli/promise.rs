//! The promise of `redlatch run`: no command of it works without a lease and nothing of it outlives the lease, whatever
//! happens to the processes in between. A test that repeats a public report of another tool bears its name and number.

use std::{fs, io::Read, os::fd::AsRawFd, os::unix::net::UnixStream, path::Path, process::Command};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{Cli, Running, answer, folder, hold, is_alive, is_held, line_of, until};
use crate::support::{Raw, Server, say, signal};

const KEY: &str = "redlatch:m1:stock";

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

/// Starts, in `folder`, a process in the command's group, one in a session of its own and a daemon that nobody is the
/// parent of, all deaf to polite signals, then runs `rest`. Their process ids are in files.
fn family(folder: &Path, rest: &str) -> String {
    let file = |name: &str| quoted(&folder.join(name));
    let deaf = |name: &str| {
        format!("trap \"\" TERM HUP INT; echo $$ >{}; while :; do sleep 0.05; done", file(name).replace('\'', ""))
    };
    format!(
        "sh -c '{}' & setsid sh -c '{}' & (setsid sh -c '{}' &) ; echo $$ >{}; {rest}",
        deaf("member"),
        deaf("session"),
        deaf("daemon"),
        file("command")
    )
}

const FAMILY: [&str; 4] = ["member", "session", "daemon", "command"];

fn pids(folder: &Path) -> Vec<String> {
    FAMILY.iter().map(|name| line_of(&folder.join(name))).collect()
}

/// The guard once it is itself: before that it is a copy of `run`, which waits for it to become something else.
fn guard_of(running: &Running) -> u32 {
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let mut pid = String::new();
    until("the guard is there", || {
        pid = fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with("lease-guard"))
    });
    pid.parse().unwrap()
}

#[test]
fn a_killed_run_takes_all_its_descendants_along() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let script = family(folder.path(), "wait");
    let running = Cli::on(&server, &["run", "stock", "--ttl", "1h", "--", "sh", "-c", &script]).start();
    let pids = pids(folder.path());
    let guard = guard_of(&running).to_string();
    running.signal("KILL");
    for pid in pids.iter().chain([&guard]) {
        until("it is gone", || !is_alive(pid));
    }
    assert!(is_held(&server, "stock"), "the lease ended before what worked under it");
}

#[test]
fn a_killed_guard_takes_all_descendants_along_and_the_lease_is_given_back() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let script = family(folder.path(), "wait");
    let running = Cli::on(&server, &["run", "stock", "--ttl", "1h", "--", "sh", "-c", &script]).start();
    let pids = pids(folder.path());
    signal(guard_of(&running), "KILL");
    let told = "redlatch: the process that guarded the command of \"stock\" was killed, and the command with it\n";
    assert_eq!(running.answer(), answer(76, "", told));
    assert!(pids.iter().all(|pid| !is_alive(pid)));
    assert!(!is_held(&server, "stock"));
}

/// Waits until all of `pids` are gone and says whether the lease of the command was still its own then.
fn gone_before_the_lease(server: &Server, pids: &[String]) {
    for pid in pids {
        until("it is gone", || !is_alive(pid));
    }
    let mut raw = Raw::connect(server);
    let [seconds, micros]: [u64; 2] = raw.must(&["TIME"]);
    let deadline_ms = raw.lock(KEY).deadline_ms.unsigned_abs();
    assert!(seconds * 1000 + micros / 1000 < deadline_ms, "{seconds}.{micros:06} and {deadline_ms} ms");
}

/// `run` in a session of its own: tests that stop processes are not to stop their own.
fn in_own_session(server: &Server, words: &[&str]) -> Running {
    Cli::program("setsid", &[&["--wait", env!("CARGO_BIN_EXE_redlatch")][..], words].concat())
        .env("REDLATCH_URL", &server.url())
        .start()
}

#[test]
fn a_stopped_run_does_not_keep_the_command_beyond_its_lease() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let script = family(folder.path(), "wait");
    let words = ["run", "stock", "--ttl", "10s", "--grace", "200ms", "--", "sh", "-c", &script];
    let running = in_own_session(&server, &words);
    let pids = pids(folder.path());
    running.signal("STOP");
    gone_before_the_lease(&server, &pids);
    running.signal("CONT");
    let told = "redlatch: lease of \"stock\" could not be kept, the command was stopped before it ended\n";
    assert_eq!(running.answer(), answer(76, "", told));
}

#[test]
fn a_run_that_was_stopped_with_its_guard_says_that_the_lease_was_lost() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let (pid, events) = (folder.path().join("pid"), folder.path().join("events"));
    let script = format!(
        "exec {} run stock --ttl 4s --status-fd 7 -- sh -c 'echo $$ >{}; exec sleep 1000' 7>{}",
        env!("CARGO_BIN_EXE_redlatch"),
        pid.display(),
        events.display()
    );
    let running = Cli::program("setsid", &["--wait", "sh", "-c", &script]).env("REDLATCH_URL", &server.url()).start();
    let (pid, guard) = (line_of(&pid), guard_of(&running));
    running.signal("STOP");
    signal(guard, "STOP");
    let owner = folder.path().join("owner");
    let next = ["acquire", "stock", "--wait", "1m", "--ttl", "1h", "--owner-file", owner.to_str().unwrap()];
    Cli::on(&server, &next).must();
    assert!(is_alive(&pid), "both were stopped");
    running.signal("CONT");
    let ended = running.answer();
    assert!(!is_alive(&pid));
    let told = "redlatch: lease of \"stock\" was lost while the command still ran: ";
    assert!(ended.status == 76 && ended.stderr.lines().last().unwrap().starts_with(told), "{ended:?}");
    let events = fs::read_to_string(events).unwrap();
    let words: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let words: Vec<_> = words.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let words: Vec<_> = words.into_iter().filter(|word| !word.ends_with("renewed")).collect();
    assert_eq!(words, ["acquired", "lost", "stopped"], "{events}");
    assert!(is_held(&server, "stock"), "the lease of the next one is its own");
}

#[test]
fn a_stopped_guard_goes_on_at_once() {
    let server = Server::start(&[]).unwrap();
    let running = in_own_session(&server, &["run", "stock", "--ttl", "1h", "--", "sleep", "1000"]);
    let guard = guard_of(&running);
    signal(guard, "STOP");
    running.signal("TERM");
    assert_eq!(running.answer().status, -15);
}

#[test]
fn what_the_command_leaves_running_ends_before_the_lease() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let wait = FAMILY[..3]
        .iter()
        .map(|name| format!("while [ ! -s {} ]; do sleep 0.01; done; ", quoted(&folder.path().join(name))));
    let script = family(folder.path(), &format!("{}exit 3", wait.collect::<String>()));
    let words = ["run", "stock", "--grace", "100ms", "--", "sh", "-c", &script];
    let ended = Cli::on(&server, &words).answer();
    let pids = pids(folder.path());
    assert_eq!(ended.status, 3, "{ended:?}");
    assert!(
        ended.stderr.starts_with("redlatch: the command has ended, what it left running is stopped: process "),
        "{ended:?}"
    );
    assert!(pids.iter().all(|pid| !is_alive(pid)));
}

#[test]
fn on_end_leave_lets_a_daemon_stay() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let pid = folder.path().join("pid");
    let script = format!("setsid sleep 1000 >/dev/null 2>&1 & echo $! >{}", quoted(&pid));
    Cli::on(&server, &["run", "stock", "--on-end", "leave", "--", "sh", "-c", &script]).must();
    let pid = line_of(&pid);
    assert!(is_alive(&pid) && !is_held(&server, "stock"));
    signal(pid.parse().unwrap(), "KILL");
}

#[test]
fn a_signal_reaches_a_stopped_command() {
    for name in ["TERM", "INT", "HUP", "QUIT"] {
        let server = Server::start(&[]).unwrap();
        let running = in_own_session(&server, &["run", "stock", "--", "sh", "-c", "kill -STOP $$; sleep 1000"]);
        running.says("the command of \"stock\" was stopped by SIGSTOP, its lease is renewed meanwhile\n");
        running.signal(name);
        assert!(running.answer().status < 0, "{name}");
        assert!(!is_held(&server, "stock"), "{name}");
    }
}

#[test]
fn fish_4007_hertz_441_what_was_ignored_at_start_stays_ignored() {
    let server = Server::start(&[]).unwrap();
    let program = env!("CARGO_BIN_EXE_redlatch");
    let inner = "echo ready; grep SigIgn /proc/self/status; exec sleep 1000";
    let script = format!("trap '' HUP INT USR1; exec {program} run stock -- sh -c '{inner}'");
    let running = Cli::program("sh", &["-c", &script]).env("REDLATCH_URL", &server.url()).start();
    until("the command runs", || running.stdout().contains("SigIgn"));
    for name in ["HUP", "INT", "USR1"] {
        running.signal(name);
    }
    let mask = running.stdout().split_whitespace().last().map(|mask| u64::from_str_radix(mask, 16).unwrap());
    assert_eq!(mask.map(|mask| mask & 0b10_0000_0011), Some(0b10_0000_0011), "HUP, INT and USR1");
    running.signal("TERM");
    assert_eq!(running.answer().status, -15);
}

#[test]
fn consul_2489_every_other_signal_is_forwarded() {
    let server = Server::start(&[]).unwrap();
    for (name, number) in [("USR1", 10), ("USR2", 12), ("ALRM", 14), ("PWR", 30), ("36", 36)] {
        // One that listens, and one that does not.
        let script = format!("trap 'exit 7' {name}; echo ready; while :; do :; done");
        for (script, status) in [(script.as_str(), 7), ("echo ready; exec sleep 1000", -number)] {
            let running = Cli::on(&server, &["run", "stock", "--", "sh", "-c", script]).start();
            until("the command listens", || running.stdout() == "ready\n");
            running.signal(name);
            let ended = running.answer();
            assert_eq!((ended.status, ended.stdout.as_str()), (status, "ready\n"), "{name} {script}");
            assert!(!is_held(&server, "stock"));
        }
    }
    let running = Cli::on(
        &server,
        &["run", "stock", "--", "sh", "-c", "trap 'echo w; exit 8' WINCH; echo ready; while :; do :; done"],
    )
    .start();
    until("the command listens", || running.stdout() == "ready\n");
    running.signal("WINCH");
    assert_eq!(running.answer(), answer(8, "ready\nw\n", ""));
}

#[test]
fn pikoci_681_dockerize_126_as_the_first_process_it_reaps_orphans() {
    let server = Server::start(&[]).unwrap();
    let program = env!("CARGO_BIN_EXE_redlatch");
    let script = "for i in 1 2 3; do (sh -c 'sleep .05' &); sleep .2; done; ps -eo pid,stat,comm";
    let words = ["--pid", "--fork", "--mount-proc", program, "run", "stock", "--", "sh", "-c", script];
    let ended = Cli::program("unshare", &words).env("REDLATCH_URL", &server.url()).answer();
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{ended:?}");
    assert!(ended.stdout.contains("redlatch") && !ended.stdout.contains("defunct"), "{ended:?}");
    // No signal of its own ends the first process: the exit code says it.
    let words = ["--pid", "--fork", "--mount-proc", program, "run", "stock", "--", "sh", "-c", "kill -TERM $$"];
    assert_eq!(Cli::program("unshare", &words).env("REDLATCH_URL", &server.url()).answer().status, 143);
}

#[test]
fn what_cannot_be_stopped_is_never_said_to_be_stopped() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    if !nix::unistd::geteuid().is_root() {
        say("not checked: only root can make a process that nobody else can stop");
        return;
    }
    // A program that becomes root, started by somebody who is not.
    let (root, pid, events) = (folder.path().join("root"), folder.path().join("pid"), folder.path().join("events"));
    let shell = format!(
        "cp $(command -v setpriv) {root} && chmod 4755 {root} && chmod 777 {folder} && chmod 711 $(dirname {socket}) && chmod 666 {socket} && \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups {program} run stock --ttl 2s --no-renew --status-fd 7 \
         --format json -- {root} --reuid 0 --regid 0 --clear-groups sh -c 'echo $$ >{pid}; exec sleep 1000 >/dev/null 2>&1' 7>{events}",
        root = root.display(),
        folder = folder.path().display(),
        socket = server.socket().display(),
        program = env!("CARGO_BIN_EXE_redlatch"),
        pid = pid.display(),
        events = events.display(),
    );
    let ended = Cli::program("sh", &["-c", &shell]).env("REDLATCH_URL", &server.url()).answer();
    let pid = line_of(&pid);
    assert!(is_alive(&pid));
    signal(pid.parse().unwrap(), "KILL");
    let object: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_eq!((ended.status, &object["data"]["stopped"]), (76, &false.into()));
    let left = format!("process {pid} (sleep)");
    assert_eq!(object["data"]["not_stopped"], serde_json::json!([left]));
    let message = object["errors"][0]["message"].as_str().unwrap();
    assert!(message.ends_with(&format!("could not be stopped, it goes on without protection: {left}")), "{message}");
    let events = fs::read_to_string(events).unwrap();
    assert!(events.contains("\"not_stopped\"") && !events.contains("\"stopped\""), "{events}");
}

#[test]
fn too_few_processes_are_said_and_are_a_matter_of_configuration() {
    let server = Server::start(&[]).unwrap();
    if !nix::unistd::geteuid().is_root() {
        say("not checked: only root can be a user who has no other processes");
        return;
    }
    let (socket, program) = (server.socket().display().to_string(), env!("CARGO_BIN_EXE_redlatch"));
    let mut refused = 0;
    for limit in 1..=12 {
        let shell = format!(
            "chmod 711 $(dirname {socket}) && chmod 666 {socket} && exec prlimit --nproc={limit} setpriv --reuid 54321 \
             --regid 54321 --clear-groups {program} run stock -n -- true"
        );
        let ended = Cli::program("sh", &["-c", &shell]).env("REDLATCH_URL", &server.url()).answer();
        assert!([0, 78].contains(&ended.status) && !ended.stderr.contains("panicked"), "{limit}: {ended:?}");
        if ended.status == 78 {
            assert!(ended.stderr.contains("raise the limit on processes and threads (ulimit -u"), "{limit}: {ended:?}");
            refused += 1;
        }
        assert!(!is_held(&server, "stock"), "{limit}");
    }
    assert!(refused > 3, "{refused}");
}

#[test]
fn status_fd_may_be_a_socket() {
    let server = Server::start(&[]).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let number = theirs.as_raw_fd().to_string();
    let running = Cli::on(&server, &["run", "stock", "--status-fd", &number, "--", "true"]).start();
    drop(theirs);
    assert_eq!(running.answer(), answer(0, "", ""));
    let mut told = String::new();
    ours.read_to_string(&mut told).unwrap();
    assert_eq!(told.lines().count(), 3, "{told}");
}

#[test]
fn status_fd_goes_on_where_the_file_of_the_shell_is() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let program = env!("CARGO_BIN_EXE_redlatch");
    let script = format!("{{ echo head >&7; {program} run stock --status-fd 7 -- true; echo tail >&7; }} 7>events");
    let status =
        Command::new("sh").args(["-c", &script]).env("REDLATCH_URL", server.url()).current_dir(folder.path()).status();
    assert!(status.unwrap().success());
    let text = fs::read_to_string(folder.path().join("events")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[4]), (5, "head", "tail"), "{text}");
}

#[test]
fn status_fd_that_nobody_reads_holds_nothing_up() {
    let server = Server::start(&[]).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    // Filled to the brim.
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
    while nix::unistd::write(&writer, &[b' '; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let number = writer.as_raw_fd().to_string();
    assert_eq!(Cli::on(&server, &["run", "stock", "--status-fd", &number, "--", "true"]).answer(), answer(0, "", ""));
    assert!(!is_held(&server, "stock"));
    drop(reader);
}

#[test]
fn status_fd_is_not_stdin_stdout_or_stderr_and_can_be_written() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    for descriptor in ["0", "1", "2"] {
        assert_eq!(Cli::on(&server, &["run", "stock", "--status-fd", descriptor, "--", "true"]).answer().status, 2);
    }
    fs::write(folder.path().join("file"), "").unwrap();
    let program = env!("CARGO_BIN_EXE_redlatch");
    let script = format!("{program} run stock --status-fd 7 -- true 7<{}", folder.path().join("file").display());
    let refused = Cli::program("sh", &["-c", &script]).env("REDLATCH_URL", &server.url()).answer();
    assert_eq!(refused, answer(78, "", "redlatch: --status-fd 7 cannot be written: it is open for reading\n"));
}

#[test]
fn a_run_that_asks_for_the_name_of_a_run_around_it_is_refused_at_once() {
    let (server, other) = (Server::start(&[]).unwrap(), Server::start(&[]).unwrap());
    let program = env!("CARGO_BIN_EXE_redlatch");
    let words = |inner: &str| format!("{program} run between -- {program} run {inner}");
    let within = |inner: &str| Cli::on(&server, &["run", "stock", "--", "sh", "-c", &words(inner)]).answer();
    let told =
        "redlatch: \"stock\" is held by the `redlatch run` that this command runs under: the wait would never end\n";
    assert_eq!(within("stock -- echo ran"), answer(75, "", told));
    assert_eq!(within("stock -w 1h -E 9 -- echo ran"), answer(9, "", told));
    // Another name, another namespace or another server is another lock.
    assert_eq!(within("stock2 -- echo ran"), answer(0, "ran\n", ""));
    assert_eq!(within("--namespace other stock -- echo ran"), answer(0, "ran\n", ""));
    assert_eq!(within(&format!("--url {} stock -- echo ran", other.url())), answer(0, "ran\n", ""));
}

#[test]
fn a_lock_that_was_taken_from_the_run_around_is_waited_for() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = hold(&server, "stock", folder.path());
    let old = format!("{} {KEY}\n", Raw::connect(&server).lock(KEY).fence - 1);
    let running = Cli::on(&server, &["run", "stock", "--", "echo", "ran"]).env("REDLATCH_HELD", &old).start();
    until("it waits", || {
        let fields: Vec<String> = Raw::connect(&server).must(&["HKEYS", KEY]);
        fields.iter().any(|field| field.starts_with("waiter:"))
    });
    Cli::on(&server, &["release", "stock", "--owner-file", &file]).must();
    assert_eq!(running.answer(), answer(0, "ran\n", ""));
}

#[test]
fn the_command_inherits_no_password_unless_it_is_asked_for() {
    let server = Server::start(&["--requirepass", "s3cret"]).unwrap();
    let show = "echo ${REDLATCH_URL-none} ${REDLATCH_PASSWORD-none}";
    let address = super::behind(&server, |_| {});
    let url = address.replace("://", "://:s3cret@");
    for (url, password, inherited, passed) in [
        (address.as_str(), "s3cret", format!("{address} none\n"), format!("{address} s3cret\n")),
        (url.as_str(), "", format!("{address} none\n"), format!("{url} none\n")),
    ] {
        for (options, expected) in [(&[][..], &inherited), (&["--pass-url"][..], &passed)] {
            let words = [&["run", "stock"][..], options, &["--", "sh", "-c", show]].concat();
            let call = Cli::at(url, &words);
            let ended = if password.is_empty() { call } else { call.env("REDLATCH_PASSWORD", password) }.answer();
            assert_eq!(
                (ended.status, ended.stdout.split_whitespace().collect::<Vec<_>>()),
                (0, expected.split_whitespace().collect()),
                "{ended:?}"
            );
        }
    }
}
