//! `redlatch run` on a real terminal. A test that repeats a public report of another tool bears its name and number.

use super::{Cli, HOLDER, folder, hold, is_alive, is_held, line_of, until, waiters};
use crate::support::{Pty, Server, signal};

#[test]
fn dumb_init_25_run_is_not_stopped_while_it_holds() {
    let server = Server::start(&[]).unwrap();
    let mut shell = Pty::shell(&server);
    shell.types("redlatch run z --ttl 3s -- sh -c 'echo wor''king; exec sleep 1000' </dev/null &\n");
    shell.shows("working");
    for signal in ["TSTP", "TTIN", "TTOU"] {
        shell.types(&format!("kill -{signal} %1; sleep .2; jobs; echo sta''te\n"));
        shell.shows("Running");
        shell.shows("state");
    }
    assert!(!shell.screen().contains("Stopped"), "{}", shell.screen());
    shell.types("kill %1; wait %1; echo st''atus=$?\n");
    shell.shows("status=143");
}

#[test]
fn watchexec_386_ctrl_z_suspends_neither_run_nor_its_command() {
    let server = Server::start(&[]).unwrap();
    let mut shell = Pty::shell(&server);
    shell.types("redlatch run z -- sh -c 'echo wor''king; exec sleep 1000'\n");
    shell.shows("working");
    shell.ctrl(b'z');
    shell.shows("the command holds a lease and is not suspended");
    shell.ctrl(b'c');
    shell.shows("> ");
    // The same when the command has the terminal.
    shell.types("redlatch run z -- sh -c 'read x </dev/tty; echo g''ot-$x; read y </dev/tty; echo g''ot-$y'\n");
    shell.types("one\n");
    shell.shows("got-one");
    shell.ctrl(b'z');
    shell.shows("is not suspended");
    shell.types("two\n");
    shell.shows("got-two");
}

#[test]
fn sudo_rs_1260_a_pager_behind_run_gets_the_keys() {
    let server = Server::start(&[]).unwrap();
    let mut shell = Pty::shell(&server);
    shell.types("redlatch run p --ttl 4s -- sh -c 'for i in $(seq 60); do echo line-$i; sleep .05; done' | less\n");
    shell.shows("line-20");
    shell.types(" ");
    shell.shows("line-40");
    shell.types("q");
    shell.types("echo ba''ck\n");
    shell.shows("back");
    until("the lease is given back", || !is_held(&server, "p"));
}

#[test]
fn a_pager_behind_run_gets_the_terminal_back_from_the_command() {
    let server = Server::start(&[]).unwrap();
    let mut shell = Pty::shell(&server);
    shell.types(
        "redlatch run p -- sh -c 'read x </dev/tty; for i in $(seq 60); do echo line-$i; done; sleep 1000' | less\n",
    );
    shell.types("go\n");
    shell.shows("line-20");
    shell.types(" ");
    shell.shows("line-40");
    shell.ctrl(b'c');
    shell.types("q");
    shell.types("echo ba''ck\n");
    shell.shows("back");
}

#[test]
fn a_pager_under_run_gets_the_keys_although_stdin_is_a_pipe() {
    let server = Server::start(&[]).unwrap();
    let mut shell = Pty::shell(&server);
    shell.types("seq -f line-%g 500 | redlatch run t -- less\n");
    shell.shows("line-20");
    shell.types(" ");
    shell.shows("line-40");
    shell.types("q");
    shell.types("echo ba''ck\n");
    shell.shows("back");
    shell.types("stty -a\n");
    shell.shows(" icanon");
}

#[test]
fn aelix_226_a_command_that_asks_the_terminal_gets_it_whatever_stdin_is() {
    let server = Server::start(&[]).unwrap();
    for stdin in ["echo hi |", "</dev/null", ""] {
        let mut shell = Pty::shell(&server);
        shell.types(&format!("{stdin} redlatch run t -- sh -c 'read p </dev/tty; echo g''ot-$p'\n"));
        shell.types("word\n");
        shell.shows("got-word");
        shell.types("read x; echo sh''ell-$x\nmine\n");
        shell.shows("shell-mine");
    }
}

#[test]
fn sos_559_a_command_in_the_background_waits_for_the_foreground_and_says_so() {
    let server = Server::start(&[]).unwrap();
    let mut shell = Pty::shell(&server);
    shell.types("redlatch run t -- sh -c 'read p </dev/tty; echo g''ot-$p' &\n");
    shell.shows("waits for the terminal and is in the background");
    shell.types("fg\nword\n");
    shell.shows("got-word");
}

#[test]
fn a_lease_of_a_command_that_never_gets_the_terminal_ends() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let pid = folder.path().join("pid");
    let mut shell = Pty::shell(&server);
    shell.types(&format!("redlatch run t --ttl 3s -- sh -c 'echo $$ >{}; read p </dev/tty' &\n", pid.display()));
    shell.shows("waits for the terminal and is in the background");
    assert!(is_held(&server, "t"));
    shell.shows("got no terminal while its lease lasted, and was stopped");
    until("the lease is given back", || !is_held(&server, "t"));
    assert!(!is_alive(&line_of(&pid)));
}

#[test]
fn a_command_that_waits_for_the_terminal_ends_by_signals() {
    let server = Server::start(&[]).unwrap();
    for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let mut shell = Pty::shell(&server);
        shell.types("redlatch run t -- sh -c 'read p </dev/tty' &\n");
        shell.shows("waits for the terminal");
        shell.types(&format!("kill -{signal} %1; wait %1; echo st''atus=$?\n"));
        shell.shows(&format!("status={status}"));
    }
}

#[test]
fn rmlint_342_ctrl_c_ends_the_script_around_run() {
    let server = Server::start(&[]).unwrap();
    for shell in ["bash", "dash"] {
        for command in ["echo rea''dy; exec sleep 1000", "echo rea''dy; read x </dev/tty"] {
            let script = format!("redlatch run z -- sh -c \"{command}\"; echo after");
            let mut pty = Pty::start(&server, &[shell, "-c", &script]);
            pty.shows("ready");
            until("the command sleeps or reads", || is_held(&server, "z"));
            pty.ctrl(b'c');
            assert_eq!(pty.status(), -2, "{shell} {command}");
            assert!(!pty.screen().contains("after"), "{}", pty.screen());
            assert!(!is_held(&server, "z"));
        }
    }
}

#[test]
fn concurrently_470_ctrl_c_ends_the_loop_around_run() {
    let server = Server::start(&[]).unwrap();
    let mut shell = Pty::shell(&server);
    shell.types("while :; do redlatch run z -- sh -c 'echo rou''nd; exec sleep 1000'; done\n");
    shell.shows("round");
    shell.ctrl(b'c');
    shell.types("echo ou''tside\n");
    shell.shows("outside");
}

#[test]
fn ctrl_c_ends_a_wait_and_the_script_around_it() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "z", folder.path());
    let mut pty = Pty::start(&server, &["bash", "-c", "echo rea''dy; redlatch run z -- echo ran; echo after"]);
    pty.shows("ready");
    until("it waits", || waiters(&server, "z") == 1);
    pty.ctrl(b'c');
    assert_eq!(pty.status(), -2);
    assert!(!pty.screen().contains("after"), "{}", pty.screen());
}

#[test]
fn a_wait_shows_one_live_line_that_is_gone_before_the_command_has_the_terminal() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = hold(&server, "z", folder.path());
    let mut shell = Pty::shell(&server);
    shell.types("redlatch run z -- sh -c 'read x </dev/tty; echo g''ot-$x'\n");
    shell.shows("\rwaiting ");
    shell.shows(" for \"z\": place 1, held for ");
    shell.shows(&format!(" by \"{HOLDER}\" (since "));
    shell.shows("\x1b[K\rwaiting ");
    Cli::on(&server, &["release", "z", "--owner-file", &file]).must();
    shell.shows("\x1b[K\r\x1b[K");
    shell.types("word\n");
    shell.shows("got-word");
    let screen = shell.screen();
    let (_, after) = screen.rsplit_once("\r\x1b[K").unwrap();
    assert!(!after.contains("waiting"), "{screen}");
}

#[test]
fn a_live_line_makes_way_for_what_ends_the_wait() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "z", folder.path());
    for verb in [&["run", "z", "-w", "2s", "--", "true"][..], &["acquire", "z", "--wait", "2s", "--owner-file", "o"]] {
        let mut pty =
            Pty::start(&server, &[&["env", "-C", folder.path().to_str().unwrap(), "redlatch"], verb].concat());
        pty.shows("waiting ");
        pty.shows("\r\x1b[Kredlatch: ");
        pty.shows(&format!("\"z\" is held by \"{HOLDER}\", "));
        assert_eq!(pty.status(), 75);
    }
}

#[test]
fn a_live_line_says_when_the_server_does_not_answer() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "z", folder.path());
    let mut pty = Pty::start(&server, &["redlatch", "run", "z", "--", "true"]);
    pty.shows(" held for ");
    signal(server.pid(), "STOP");
    pty.shows("place 1, Redis does not answer");
    signal(server.pid(), "CONT");
    pty.shows(" held for ");
}

#[test]
fn nobody_sees_a_live_line_who_wants_none_or_has_the_job_in_the_background() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    hold(&server, "z", folder.path());
    let mut shell = Pty::shell(&server);
    for (number, run) in [
        "redlatch run z -- true &",
        "redlatch run z -q -w 1s -- true",
        "redlatch run z --format json -w 1s -- true",
        "TERM=dumb redlatch run z -w 1s -- true",
        "redlatch run z -w 1s -- true 2>&1 | cat",
        "redlatch run z -n -- true",
    ]
    .into_iter()
    .enumerate()
    {
        shell.types(&format!("{run}\n"));
        until("it waits", || waiters(&server, "z") > 0);
        shell.types(&format!("sleep 1.2; echo en''d-{number}\n"));
        shell.shows(&format!("end-{number}"));
    }
    assert!(!shell.screen().contains("waiting"), "{}", shell.screen());
    shell.types("kill %1; wait; echo st''atus\n");
    shell.shows("status");
}

#[test]
fn v_on_a_terminal_tells_the_story_around_the_live_line() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = hold(&server, "z", folder.path());
    for v in ["-v", "-vvv"] {
        let mut pty = Pty::start(&server, &["redlatch", "run", v, "z", "-w", "1s", "--", "true"]);
        pty.shows("connected to ");
        pty.shows("redlatch: waiting for \"z\": place 1, held for ");
        assert_eq!(pty.status(), 75);
        assert!(!pty.screen().contains("panicked"), "{}", pty.screen());
    }
    Cli::on(&server, &["release", "z", "--owner-file", &file]).must();
    let mut pty = Pty::start(&server, &["redlatch", "run", "-vvv", "z", "--", "true"]);
    pty.shows("released \"z\"");
    assert_eq!(pty.status(), 0);
    assert!(!pty.screen().contains("panicked"), "{}", pty.screen());
}
