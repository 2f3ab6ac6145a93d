//! `redlatch run`: a command never works without its lease, and the lease never outlives the command.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Answer, Cli, HOLDER, answer, assert_fails, folder, hold, is_alive, is_held, line_of, until, waiters};
use crate::support::{Raw, Server, say, setting, signal};

const KEY: &str = "redlatch:m1:stock";

fn force_release(server: &Server) {
    Cli::on(server, &["force-release", "stock", "--yes", "--reason", "a test"]).must();
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

#[test]
fn ends_as_its_command_ends_and_gives_the_lease_back() {
    let server = Server::start(&[]).unwrap();
    for (script, status) in [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", -9), ("kill -TERM $$", -15)] {
        assert_eq!(Cli::on(&server, &["run", "stock", "--", "sh", "-c", script]).answer(), answer(status, "", ""));
        assert!(!is_held(&server, "stock"), "after {script}");
    }
}

#[test]
fn a_command_that_cannot_start_is_126_or_127_and_gives_the_lease_back() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = folder.path().join("plain-file");
    fs::write(&file, "text").unwrap();
    let path = file.to_str().unwrap();
    let refused = format!("redlatch: \"{path}\" cannot be executed: Permission denied (os error 13)\n");
    assert_fails(&server.url(), &["run", "stock", "--", path], &answer(126, "", &refused), &[("not_executable", "")]);
    assert!(!is_held(&server, "stock"));
    let missing = "redlatch: \"/nowhere/command\" is not found: No such file or directory (os error 2)\n";
    let words = ["run", "stock", "--", "/nowhere/command"];
    assert_fails(&server.url(), &words, &answer(127, "", missing), &[("not_found", "")]);
    assert!(!is_held(&server, "stock"));
}

#[test]
fn the_command_has_no_pipe_but_stdin_stdout_and_stderr() {
    let server = Server::start(&[]).unwrap();
    let words = ["run", "stock", "--", "sh", "-c", "ls -l /proc/self/fd | grep -c pipe:"];
    assert_eq!(Cli::on(&server, &words).answer(), answer(0, "3\n", ""));
}

#[test]
fn the_command_has_our_stdin_and_our_output() {
    let server = Server::start(&[]).unwrap();
    let words = ["run", "stock", "--", "sh", "-c", "cat; echo done >&2"];
    assert_eq!(Cli::on(&server, &words).input(b"one\ntwo").answer(), answer(0, "one\ntwo", "done\n"));
}

#[test]
fn the_command_knows_the_name_and_the_fence_of_the_innermost_lease() {
    let server = Server::start(&[]).unwrap();
    let program = env!("CARGO_BIN_EXE_redlatch");
    let script = format!(
        "echo $REDLATCH_NAME $REDLATCH_FENCE; {program} run inner -- sh -c 'echo $REDLATCH_NAME $REDLATCH_FENCE'"
    );
    let seen = Cli::on(&server, &["run", "outer", "--", "sh", "-c", &script]).must();
    let mut raw = Raw::connect(&server);
    let mut fence = |name: &str| raw.lock(&format!("redlatch:m1:{name}")).fence;
    assert_eq!(seen, format!("outer {}\ninner {}\n", fence("outer"), fence("inner")));
}

#[test]
fn a_held_lock_is_75_or_what_was_asked_for_and_nothing_runs() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "stock", folder.path());
    for (words, status) in [
        (&["-n"][..], 75),
        (&["-w", "30ms"], 75),
        (&["-w", "0s"], 75),
        (&["-n", "-E", "1"], 1),
        (&["--wait", "30ms", "--conflict-exit-code", "0"], 0),
    ] {
        let words = [&["run", "stock"][..], words, &["--", "echo", "ran"]].concat();
        let expected = format!("redlatch: \"stock\" is held by \"{HOLDER}\", #m #s left of its lease\n");
        assert_fails(&server.url(), &words, &answer(status, "", &expected), &[("held", "")]);
    }
    assert_eq!(Raw::connect(&server).must::<u64>(&["HLEN", KEY]), held_fields(&server, folder.path()));
}

/// How many fields a lock has that is held and for which nobody waits.
fn held_fields(server: &Server, folder: &Path) -> u64 {
    hold(server, "other", folder);
    // Tickets that were given up leave head and tail behind, but no place and no waiter.
    let fields: Vec<String> = Raw::connect(server).must(&["HKEYS", KEY]);
    assert!(!fields.iter().any(|field| field.starts_with("place:") || field.starts_with("waiter:")), "{fields:?}");
    fields.len() as u64
}

#[test]
fn commands_under_one_lock_run_one_after_the_other() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let log = folder.path().join("log");
    let script = format!("echo in >>{0}; sleep 0.01; echo out >>{0}", quoted(&log));
    let running: Vec<_> =
        (0..5).map(|_| Cli::on(&server, &["run", "stock", "--", "sh", "-c", &script]).start()).collect();
    for running in running {
        assert_eq!(running.answer(), answer(0, "", ""));
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "in\nout\n".repeat(5));
}

#[test]
fn signals_reach_the_command_and_its_exit_code_comes_back() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    for (name, status) in [("TERM", 41), ("INT", 42), ("HUP", 43), ("QUIT", 44)] {
        let ready = folder.path().join(name);
        let script = format!(
            "trap 'kill -KILL $! 2>/dev/null; echo {name}; exit {status}' {name}; sleep 1000 & echo ready >{}; wait",
            quoted(&ready)
        );
        let running = Cli::on(&server, &["run", "stock", "--", "sh", "-c", &script]).start();
        line_of(&ready);
        running.signal(name);
        assert_eq!(running.answer(), answer(status, &format!("{name}\n"), ""));
        assert!(!is_held(&server, "stock"));
    }
}

#[test]
fn a_signal_to_both_the_command_and_us_releases_the_lease() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    // A service manager signals every process of the service at once, in any order.
    for round in 0..10 {
        let pid = folder.path().join(round.to_string());
        let script = format!("echo $$ >{}; exec sleep 1000", quoted(&pid));
        let running = Cli::on(&server, &["run", "stock", "--ttl", "1h", "--", "sh", "-c", &script]).start();
        let child: u32 = line_of(&pid).parse().unwrap();
        let both = [child, running.pid()];
        both.into_iter().cycle().skip(round % 2).take(2).for_each(|pid| signal_if_there(pid, "TERM"));
        assert_eq!(running.answer(), answer(-15, "", ""), "round {round}");
        assert!(!is_held(&server, "stock"), "round {round}");
    }
}

fn signal_if_there(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).output();
    assert!(status.is_ok());
}

#[test]
fn a_signal_during_the_wait_gives_up_the_place_in_the_queue() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "stock", folder.path());
    let running = Cli::on(&server, &["run", "stock", "--", "echo", "ran"]).start();
    let waiters = || {
        let fields: Vec<String> = Raw::connect(&server).must(&["HKEYS", KEY]);
        fields.iter().filter(|field| field.starts_with("waiter:")).count()
    };
    until("it waits", || waiters() == 1);
    running.signal("TERM");
    assert_eq!(running.answer(), answer(-15, "", "redlatch: SIGTERM ended the wait for \"stock\"\n"));
    assert_eq!(waiters(), 0);
}

/// Writes its own pid and that of a process it started, and ends at no polite signal.
fn stubborn(folder: &Path) -> String {
    let (child, grandchild) = (quoted(&folder.join("child")), quoted(&folder.join("grandchild")));
    format!("trap '' TERM; sleep 1000 & echo $! >{grandchild}; echo $$ >{child}; while :; do sleep 0.01; done")
}

#[test]
fn a_lease_that_was_taken_away_kills_the_command_and_its_children() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let script = stubborn(folder.path());
    let running = Cli::on(&server, &["run", "stock", "--ttl", "3s", "--", "sh", "-c", &script]).start();
    let (child, grandchild) = (line_of(&folder.path().join("child")), line_of(&folder.path().join("grandchild")));
    assert!(is_alive(&child) && is_alive(&grandchild));
    force_release(&server);
    assert_eq!(
        running.answer(),
        answer(76, "", "redlatch: lease of \"stock\" could not be kept, the command was stopped before it ended\n")
    );
    assert!(!is_alive(&child));
    until("the grandchild is gone", || !is_alive(&grandchild));
}

#[test]
fn on_lost_warn_lets_the_command_finish_and_says_76() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let (ready, go) = (folder.path().join("ready"), folder.path().join("go"));
    let script =
        format!("echo ready >{}; while [ ! -e {} ]; do sleep 0.01; done; echo finished", quoted(&ready), quoted(&go));
    let words = ["run", "stock", "--ttl", "2s", "--on-lost", "warn", "--", "sh", "-c", &script];
    let running = Cli::on(&server, &words).start();
    line_of(&ready);
    force_release(&server);
    running.says("goes on without protection");
    fs::write(&go, "").unwrap();
    assert_eq!(
        running.answer(),
        answer(
            76,
            "finished\n",
            "redlatch: lease of \"stock\" is lost, the command goes on without protection\n\
             redlatch: lease of \"stock\" was lost, the command went on without protection\n"
        )
    );
}

#[test]
fn a_lease_that_was_lost_before_the_command_ended_is_76() {
    let server = Server::start(&[]).unwrap();
    let script = format!("redis-cli -s '{}' DEL {KEY} >/dev/null", server.socket().display());
    assert_fails(
        &server.url(),
        &["run", "stock", "--", "sh", "-c", &script],
        &answer(76, "", "redlatch: lease of \"stock\" was lost before the command ended\n"),
        &[("lost", "")],
    );
}

#[test]
fn renewal_keeps_the_lease_for_a_command_that_outlasts_its_ttl() {
    let server = Server::start(&[]).unwrap();
    let words = ["run", "stock", "--ttl", "5s", "--grace", "0s", "--", "sleep", "7"];
    assert_eq!(Cli::on(&server, &words).answer(), answer(0, "", ""));
}

#[test]
fn without_renewal_the_command_is_stopped_within_its_ttl() {
    let server = Server::start(&[]).unwrap();
    assert_fails(
        &server.url(),
        &["run", "stock", "--ttl", "500ms", "--no-renew", "--", "sleep", "1000"],
        &answer(76, "", "redlatch: lease of \"stock\" could not be kept, the command was stopped before it ended\n"),
        &[("lost", "")],
    );
    assert!(!is_held(&server, "stock"));
}

/// A socket in front of the server's, which can stop to carry anything while the server goes on.
struct Line {
    url: String,
    cut: Arc<AtomicBool>,
}

impl Line {
    fn to(server: &Server, folder: &Path) -> Self {
        let path = folder.join("line.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (cut, target) = (Arc::new(AtomicBool::new(false)), server.socket());
        let line = Self { url: format!("unix://{}", path.display()), cut: Arc::clone(&cut) };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), UnixStream::connect(&target).unwrap());
                carry(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&cut));
                carry(server, client, Arc::clone(&cut));
            }
        });
        line
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, cut: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if cut.load(Ordering::SeqCst) {
                // Swallowed: whoever sent it waits for an answer.
                continue;
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
}

#[test]
fn a_command_whose_lease_cannot_be_renewed_is_gone_before_another_can_hold_it() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let line = Line::to(&server, folder.path());
    let script = stubborn(folder.path());
    let words = ["run", "stock", "--ttl", "10s", "--grace", "300ms", "--", "sh", "-c", &script];
    let running = Cli::at(&line.url, &words).start();
    let (child, grandchild) = (line_of(&folder.path().join("child")), line_of(&folder.path().join("grandchild")));
    let mut raw = Raw::connect(&server);
    line.cut();
    until("the command is gone", || !is_alive(&child) && !is_alive(&grandchild));
    // Still ours on the server: it could not have been granted to anybody while the command was alive.
    let [seconds, micros]: [u64; 2] = raw.must(&["TIME"]);
    let lock = raw.lock(KEY);
    let deadline_ms = lock.deadline_ms.unsigned_abs();
    assert!(
        lock.fence > 0 && seconds * 1000 + micros / 1000 < deadline_ms,
        "{seconds}.{micros:06} and {deadline_ms} ms"
    );
    assert_stopped_in_time(&running.answer());
}

/// The command was stopped because no renewal got an answer, of which people were told before.
#[track_caller]
fn assert_stopped_in_time(ended: &Answer) {
    let trouble = "redlatch: Redis does not answer; the command is stopped ";
    let told = "redlatch: lease of \"stock\" could not be kept, the command was stopped before it ended";
    let mut lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!((ended.status, lines.pop()), (76, Some(told)), "{ended:?}");
    assert!(lines.iter().all(|line| line.starts_with(trouble)), "{ended:?}");
}

/// As many trials as REDLATCH_TRIALS says: each time a lease that cannot be renewed any more passes to a waiter, and the
/// command has to be gone by then. The commands ignore TERM. A lease that a busy machine could not even keep until its
/// command ran is no trial.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_is_gone_before_another_holder_starts_in_a_thousand_trials() {
    const AT_ONCE: u64 = 40;
    let trials = setting("REDLATCH_TRIALS", 1000);
    let server = Arc::new(Server::start(&[]).unwrap());
    let next = redlatch::Client::connect(&server.url()).await.unwrap();
    let (mut done, mut too_late) = (0, 0);
    while done < trials {
        let mut waits = tokio::task::JoinSet::new();
        for trial in 0..AT_ONCE.min(trials - done) {
            let name = format!("n{}", done + too_late + trial);
            let (server, lock) = (Arc::clone(&server), next.mutex(&name).unwrap());
            waits.spawn(async move {
                let folder = folder();
                let line = Line::to(&server, folder.path());
                let pid = folder.path().join("pid");
                let script = format!("trap '' TERM; echo $$ >{}; while :; do sleep 1000; done", quoted(&pid));
                let words = ["run", &name, "--ttl", "3s", "--grace", "200ms", "--timeout", "20s", "--", "sh", "-c"];
                let mut running = Cli::at(&line.url, &[&words[..], &[&script]].concat()).start();
                let (running, pid) = tokio::task::spawn_blocking(move || {
                    until("the command runs", || running.has_ended() || pid.metadata().is_ok_and(|it| it.len() > 0));
                    let pid = pid.exists().then(|| line_of(&pid));
                    (running, pid)
                })
                .await
                .unwrap();
                let Some(pid) = pid else {
                    assert_eq!(running.answer().status, 76);
                    return None;
                };
                line.cut();
                let lease = lock.acquire().await.unwrap();
                let alive = is_alive(&pid);
                lease.release().await.unwrap();
                drop(running);
                Some(alive)
            });
        }
        while let Some(alive) = waits.join_next().await {
            match alive.unwrap() {
                Some(alive) => {
                    assert!(!alive, "a command was alive under the next holder's lease");
                    done += 1;
                }
                None => too_late += 1,
            }
        }
        assert!(too_late <= trials, "this machine is too busy: {too_late} leases ended before their commands ran");
    }
    say(&format!("commands that were gone before the next holder: {done}"));
}

#[test]
fn status_fd_tells_what_happens_and_is_not_the_commands() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let program = env!("CARGO_BIN_EXE_redlatch");
    let events = |script: &str, options: &str| -> Vec<serde_json::Value> {
        let line = format!("{program} run stock --status-fd 7 {options} -- sh -c '{script}' 7>events");
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &line]).env("REDLATCH_URL", server.url()).current_dir(folder.path());
        assert!(shell.output().unwrap().stdout.is_empty());
        let text = fs::read_to_string(folder.path().join("events")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let words = |events: &[serde_json::Value]| -> Vec<String> {
        events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    };
    let told = events("[ -e /proc/self/fd/7 ] && echo inherited; exit 5", "");
    assert_eq!(words(&told), ["acquired", "exited", "released"]);
    assert_eq!((&told[0]["name"], &told[1]["exit_code"]), (&"stock".into(), &5.into()));
    assert!(told[0]["fence"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    // A tenth of the TTL is there to stop and release.
    let told = events("sleep 1000", "--ttl 5s --no-renew");
    assert_eq!(words(&told), ["acquired", "stopped", "released"]);
    let refused = Cli::on(&server, &["run", "stock", "--status-fd", "99", "--", "true"]).answer();
    assert_eq!(refused, answer(78, "", "redlatch: --status-fd 99 cannot be written: it is not open\n"));
}

#[test]
fn a_server_that_stands_still_or_dies_stops_the_command() {
    for fate in ["STOP", "KILL"] {
        let (server, folder) = (Server::start(&[]).unwrap(), folder());
        let script = stubborn(folder.path());
        let words = ["run", "stock", "--ttl", "1s", "--timeout", "2s", "--", "sh", "-c", &script];
        let running = Cli::on(&server, &words).start();
        let (child, grandchild) = (line_of(&folder.path().join("child")), line_of(&folder.path().join("grandchild")));
        signal(server.pid(), fate);
        assert_stopped_in_time(&running.answer());
        assert!(!is_alive(&child), "{fate}");
        until("the grandchild is gone", || !is_alive(&grandchild));
    }
}

#[test]
fn a_run_that_waits_starts_also_while_its_server_does_not_answer_yet() {
    let folder = folder();
    let path = folder.path().join("server.sock");
    let url = format!("unix://{}", path.display());
    for wait in [&[][..], &["-w", "1h"]] {
        let running = Cli::at(&url, &[&["run", "stock"][..], wait, &["--", "echo", "ran"]].concat()).start();
        running.says("redlatch: Redis cannot be reached, trying again: ");
        let server = Server::start(&[]).unwrap();
        std::os::unix::fs::symlink(server.socket(), &path).unwrap();
        let ended = running.answer();
        assert_eq!((ended.status, ended.stdout.as_str()), (0, "ran\n"), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        fs::remove_file(&path).unwrap();
    }
    // A wait that is over, none, and what waiting does not mend.
    assert_eq!(Cli::at(&url, &["run", "stock", "-w", "50ms", "--", "true"]).answer().status, 69);
    for (url, words) in [(url.as_str(), &["-n"][..]), ("redis://no-such-host.invalid", &[])] {
        let ended = Cli::at(url, &[&["run", "stock"][..], words, &["--", "true"]].concat()).answer();
        assert!(ended.status == 69 && !ended.stderr.contains("trying again"), "{ended:?}");
    }
}

#[test]
fn a_wait_is_late_by_one_timeout_at_most() {
    let server = Server::start(&[]).unwrap();
    let folder = folder();
    hold(&server, "stock", folder.path());
    let started = std::time::Instant::now();
    let running = Cli::on(&server, &["run", "stock", "-w", "3s", "--timeout", "6s", "--", "true"]).start();
    until("it waits", || waiters(&server, "stock") > 0);
    signal(server.pid(), "STOP");
    assert_eq!(running.answer().status, 69);
    let took = started.elapsed();
    signal(server.pid(), "CONT");
    // Not the second timeout, for the undo: half of it is there for a busy machine.
    assert!(took.as_secs() < 13, "{took:?}");
}

#[test]
fn a_killed_run_leaves_no_command_behind() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let pid = folder.path().join("pid");
    let script = format!("echo $$ >{}; exec sleep 1000 >/dev/null 2>&1", quoted(&pid));
    let running = Cli::on(&server, &["run", "stock", "--ttl", "1h", "--", "sh", "-c", &script]).start();
    let pid = line_of(&pid);
    running.signal("KILL");
    until("the command is gone", || !is_alive(&pid));
    assert!(is_held(&server, "stock"));
}

#[test]
fn the_command_has_the_terminal_and_cannot_be_suspended_and_the_terminal_comes_back() {
    let server = Server::start(&[]).unwrap();
    let program = env!("CARGO_BIN_EXE_redlatch");
    // `script` gives a terminal; the first line goes to the command under the lock, the second to the shell after it.
    let shell = format!("{program} run stock -- sh -c 'kill -TSTP $$; read x; echo first $x'; read y; echo second $y");
    let mut script = std::process::Command::new("timeout")
        .args(["60", "script", "-qec", &shell, "/dev/null"])
        .env("REDLATCH_URL", server.url())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("script starts");
    script.stdin.take().unwrap().write_all(b"one\ntwo\n").unwrap();
    let seen = String::from_utf8(script.wait_with_output().unwrap().stdout).unwrap();
    let mut lines: Vec<_> = seen.lines().filter(|line| !["one", "two"].contains(line)).collect();
    // The command goes on while that is said.
    lines.sort_unstable();
    assert_eq!(lines, ["first one", "redlatch: the command holds a lease and is not suspended", "second two"]);
}

#[test]
fn a_polite_command_ends_itself_within_the_grace() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let line = Line::to(&server, folder.path());
    let ready = folder.path().join("ready");
    let script = format!("trap 'echo bye; exit 0' USR1; echo r >{}; while :; do sleep 0.01; done", quoted(&ready));
    let words = [
        "run",
        "stock",
        "--ttl",
        "4s",
        "--grace",
        "1s",
        "--signal",
        "USR1",
        "--timeout",
        "1s",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let running = Cli::at(&line.url, &words).start();
    line_of(&ready);
    line.cut();
    let ended = running.answer();
    assert_eq!((ended.status, ended.stdout.as_str()), (76, "bye\n"), "{ended:?}");
}

#[test]
fn what_the_command_started_has_the_grace_too_when_the_command_ends_at_once() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let line = Line::to(&server, folder.path());
    let (ready, late) = (folder.path().join("ready"), folder.path().join("late"));
    let script = format!(
        "(trap 'sleep 0.2; echo bye >{}; exit 0' TERM; echo r >{}; while :; do sleep 0.01; done) & wait",
        quoted(&late).replace('\'', ""),
        quoted(&ready)
    );
    let words = ["run", "stock", "--ttl", "10s", "--grace", "3s", "--timeout", "1s", "--", "sh", "-c", &script];
    let running = Cli::at(&line.url, &words).start();
    line_of(&ready);
    line.cut();
    assert_eq!(running.answer().status, 76);
    assert_eq!(fs::read_to_string(&late).unwrap_or_default(), "bye\n");
}

#[test]
fn json_goes_to_stderr_because_stdout_is_the_commands() {
    let server = Server::start(&[]).unwrap();
    let ended = Cli::on(&server, &["run", "stock", "--format", "json", "--", "sh", "-c", "echo data; exit 3"]).answer();
    assert_eq!((ended.status, ended.stdout.as_str()), (3, "data\n"));
    let fence = Raw::connect(&server).lock(KEY).fence.to_string();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&ended.stderr).unwrap(),
        serde_json::json!({
            "format_version": 1, "command": "run", "ok": false, "exit_code": 3, "errors": [],
            "data": {
                "name": "stock", "name_base64": null, "fence": fence, "stopped": false, "not_stopped": [], "child_exit_code": 3, "child_signal": null,
            },
        })
    );
}
