//! What is shown fits the terminal, whatever its width; who is no terminal gets everything.

use super::{Cli, hold, until};
use crate::support::{
    Pty, Server,
    topology::{Member, Replicated},
};

/// The lines that a terminal of so many columns shows, without colour. What was drawn and wiped away is a line too.
fn lines(columns: u16, url: &str, words: &[&str]) -> Vec<String> {
    let mut pty = Pty::of_width(columns, url, &[&["redlatch"], words].concat());
    assert!(pty.status() <= 1, "{words:?} {}", pty.screen());
    let text = pty.text();
    console::strip_ansi_codes(&text).split(['\n', '\r']).map(|line| line.trim_end().to_owned()).collect()
}

/// Waits until all has the place that it needs, and says what does not.
#[track_caller]
fn assert_fits(columns: u16, url: &str, words: &[&str]) -> String {
    let lines = lines(columns, url, words);
    for line in &lines {
        let width = console::measure_text_width(line);
        assert!(width <= columns.into(), "{words:?}: {width} of {columns} columns: {line}\n{}", lines.join("\n"));
    }
    lines.join("\n")
}

const LONG: &str =
    "tenant-with-a-very-long-name/warehouse-with-a-long-name-too/orders/of-the-day/and-of-every-other-day/4711";

#[test]
fn every_verb_fits_terminals_of_40_80_and_120_columns_on_several_servers() {
    let (servers, folder) = (Replicated::start(2, &[]), super::folder());
    let url = servers.primary.url();
    // Present on one, missing on others.
    servers.replicas[0].raw().must::<()>(&["SCRIPT", "FLUSH"]);
    Cli::at(&url, &["load"]).must();
    servers.replicas[1].raw().must::<()>(&["SCRIPT", "FLUSH"]);
    for name in [LONG, "short"] {
        let file = folder.path().join(name.len().to_string());
        let file = file.to_str().unwrap();
        Cli::at(&url, &["acquire", name, "--ttl", "59m", "--owner-file", file]).must();
    }
    let waiter = Cli::at(&url, &["run", LONG, "--", "true"]).start();
    until("somebody waits", || Cli::at(&url, &["inspect", LONG]).answer().stdout.contains("WAITER"));
    for columns in [40, 80, 120] {
        for words in [
            &["status"][..],
            &["status", "--callers"],
            &["load", "--dry-run"],
            &["scripts"],
            &["verify", "--offline"],
            &["show", "mutex/acquire"],
            &["ls"],
            &["inspect", LONG],
            &["doctor"],
            &["acl", "check", "default", "deployer"],
            &["bench", "--clients", "2", "--duration", "50ms"],
        ] {
            assert_fits(columns, &url, words);
        }
    }
    drop(waiter);
}

#[test]
fn long_names_lose_their_middle_or_go_on_in_the_next_line() {
    let (server, folder) = (Server::start(&[]).unwrap(), super::folder());
    for name in ["a-1", "b-2"] {
        let name = format!("{}{name}", LONG.replace('/', "-"));
        hold(&server, &name, folder.path());
    }
    let text = assert_fits(80, &server.url(), &["ls"]);
    assert!(text.contains("\ntenant-wi") && text.contains("4711a-1 ") && text.contains("4711b-2 "), "{text}");
    assert!(text.contains("…") && text.contains("  59m 59s  "), "{text}");
    // A narrow one has a list, with all of each name.
    let text = assert_fits(40, &server.url(), &["ls"]);
    let joined: String = text.split_whitespace().collect();
    assert!(joined.contains(&format!("NAME{}a-1STATEheld", LONG.replace('/', "-"))), "{text}");
    let plain = Cli::on(&server, &["ls"]).must();
    assert!(plain.contains(&format!("{}b-2  held", LONG.replace('/', "-"))), "{plain}");
}

#[test]
fn what_is_on_many_servers_is_said_in_one_column_where_there_is_no_room_for_more() {
    let servers = Replicated::start(2, &[]);
    let url = servers.primary.url();
    Cli::at(&url, &["load"]).must();
    servers.replicas[1].raw().must::<()>(&["SCRIPT", "FLUSH"]);
    let wide = assert_fits(80, &url, &["status"]);
    assert!(wide.contains("  [1]      [2]      [3]\n"), "{wide}");
    let narrow = assert_fits(50, &url, &["status"]);
    let joined = narrow.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        joined.contains("present [1]") && joined.contains("missing [") && !narrow.contains("[1]      [2]"),
        "{narrow}"
    );
}

#[test]
fn hints_go_on_under_themselves() {
    let server = Member::start(&[]);
    let text = assert_fits(60, &server.url(), &["doctor"]);
    let (_, fixes) = text.split_once("What to do\n").unwrap_or_else(|| panic!("{text}"));
    let fixes: Vec<_> = fixes.lines().filter(|line| !line.is_empty()).collect();
    assert!(fixes.iter().any(|line| line.starts_with("     ")), "{text}");
    assert!(fixes.iter().all(|line| line.starts_with("     ") || line.starts_with('D')), "{text}");
}
