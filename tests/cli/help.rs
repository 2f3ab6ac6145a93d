//! Help is of one screen, and a mistake is answered by what was meant.

use super::{Cli, answer, assert_fails};
use crate::support::Pty;

/// Every verb that is not hidden.
fn verbs() -> Vec<Vec<String>> {
    let help = Cli::new(&["help"]).must();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names =
        commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|it| !it.is_empty());
    let verbs = names.filter(|verb| *verb != "help").map(|verb| vec![verb.to_owned()]);
    verbs.chain(["print", "check"].map(|verb| vec!["acl".to_owned(), verb.to_owned()])).collect()
}

/// What a terminal of that width shows, without colour.
fn shown(columns: u16, words: &[&str]) -> String {
    let mut pty = Pty::of_width(columns, "redis://127.0.0.1:1", &[&["redlatch"], words].concat());
    assert_eq!(pty.status(), 0);
    console::strip_ansi_codes(&pty.text()).replace('\r', "")
}

#[test]
fn help_of_a_verb_is_one_screen_of_its_own_options_and_two_examples() {
    for verb in verbs() {
        let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
        for columns in [80, 100] {
            let text = shown(columns, &[&verb[..], &["-h"]].concat());
            assert!(text.lines().count() <= 30, "{verb:?} {columns}\n{text}");
            assert!(text.lines().all(|line| line.chars().count() <= columns.into()), "{verb:?} {columns}\n{text}");
            let examples = text.split("Examples:\n").nth(1).unwrap_or_else(|| panic!("{verb:?}\n{text}"));
            assert_eq!(examples.lines().take_while(|line| line.starts_with("  redlatch ")).count(), 2, "{text}");
            assert!(!text.contains("--tls-cert") && text.contains("Options of every verb: redlatch --help;"), "{text}");
        }
        let short = Cli::new(&[&verb[..], &["-h"]].concat()).must();
        assert_eq!(Cli::new(&[&verb[..], &["--help"]].concat()).must(), short);
        assert_eq!(Cli::new(&[&["help"], &verb[..]].concat()).must(), short);
    }
}

#[test]
fn options_of_every_verb_are_in_one_place_and_explained_in_the_manual() {
    let all = Cli::new(&["--help"]).must();
    for option in ["--url", "--cluster", "--sentinel", "--tls-ca", "--password-file", "--namespace", "--format", "-v, "]
    {
        assert!(all.contains(option), "{option}");
    }
    assert!(all.contains("redis+sentinel://HOST[:PORT],…/NAME") && all.contains("Exit codes:\n"), "{all}");
    assert!(shown(80, &["--help"]).lines().all(|line| line.chars().count() <= 80));
    assert!(
        Cli::new(&["man", "run"]).must().contains("the password in REDLATCH\\_URL")
            || Cli::new(&["man", "run"]).must().contains("the password in REDLATCH_URL")
    );
    // They are still understood after the verb.
    assert_eq!(Cli::new(&["scripts", "--format", "json", "-q"]).answer().status, 0);
}

#[test]
fn where_the_dashes_before_a_command_are_missing_they_are_guessed() {
    let fails = |words: &[&str], guess: &str| {
        let told = format!(
            "error: the command of `run` stands after --\n\n  did you mean: redlatch {guess}\n\nUsage: redlatch run [OPTIONS] \
             <NAME> -- <COMMAND>...\n\nFor more information, try '--help'.\n"
        );
        assert_eq!(Cli::new(words).answer(), answer(2, "", &told));
    };
    fails(&["run", "n", "ls"], "run n -- ls");
    fails(&["run", "n", "ls", "-la", "/tmp"], "run n -- ls -la /tmp");
    fails(&["run", "-w", "5s", "n", "sh", "-c", "echo \"it's\""], "run -w 5s n -- sh -c 'echo \"it'\\''s\"'");
    fails(&["--namespace", "run", "run", "a b", "env"], "--namespace run run 'a b' -- env");
    fails(&["run", "--url", "redis://:s3cret@h", "n", "ls"], "run --url URL n -- ls");
    let told = Cli::new(&["run", "n", "ls", "--format", "json"]).answer();
    assert!(told.stderr.contains("did you mean: redlatch run n -- ls --format json"), "{told:?}");
    // Not where something else is the matter.
    for words in
        [&["run", "n"][..], &["run", "n", "--tll", "3s", "ls"], &["run", "n", "--bogus", "--", "ls"], &["ls", "a", "b"]]
    {
        let told = Cli::new(words).answer();
        assert!(told.status == 2 && !told.stderr.contains("did you mean: redlatch"), "{told:?}");
    }
    let needs = "error: the following required arguments were not provided:\n  <COMMAND>...\n\nUsage: redlatch run <NAME> -- \
                 <COMMAND>...\n\nFor more information, try '--help'.\n";
    assert_fails("", &["run", "n"], &answer(2, "", needs), &[("usage", "")]);
}

#[test]
fn where_the_json_of_run_goes_is_said() {
    let page = Cli::new(&["man", "run"]).must();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ").replace('\\', "");
    assert!(page.contains("That of `run` goes to stderr"), "{page}");
}
