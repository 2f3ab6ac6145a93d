//! What was found, for people: once what is the same on several servers.

use console::style;

use super::checks::{Finding, State};
use crate::{
    output::{bad, good, plural},
    width::{columns, wrapped},
};

/// A finding with all servers that it was made on.
struct Row<'a> {
    finding: &'a Finding,
    nodes: Vec<&'a str>,
    /// Whether the servers do not differ in their words.
    same: bool,
}

/// What stands below the number of a check.
const FIX: &str = "     ";
/// Sentences of fewer columns are of single words.
const LEAST: usize = 24;

/// The findings in their order, their count, and what to do.
pub fn view(findings: &[Finding], servers: usize) -> String {
    let rows = folded(findings);
    let columns = columns().unwrap_or(usize::MAX);
    let about = rows.iter().map(|row| row.finding.about.len()).max().unwrap_or(0).max("CHECK".len());
    let indent = "D01".len() + 2 + about + 2 + "problem".len() + 2;
    let mut text = format!("{FIX}{:<about$}  {:<7}  FINDING\n", "CHECK", "STATE");
    for row in &rows {
        let Finding { id, about: what, state, .. } = row.finding;
        // A colour has no width.
        let gap = " ".repeat("problem".len() - state.word().len());
        let (head, text_of) = (format!("{id}  {what:<about$}  {}{gap}", state.shown()), row.text(servers));
        // Beside the state, or below all of it where that is too narrow.
        let (head, indent) = if columns < indent + LEAST {
            (format!("{}\n{FIX}", head.trim_end()), FIX.len())
        } else {
            (head + "  ", indent)
        };
        let lines = wrapped(&text_of, columns.saturating_sub(indent));
        text += &format!("{head}{}\n", lines.join(&format!("\n{}", " ".repeat(indent))));
    }
    text += &format!("\n{}\n", wrapped(&summary(&rows), columns).join("\n"));
    text + &fixes(&rows, columns)
}

fn folded(findings: &[Finding]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for finding in findings {
        let node = finding.node.as_deref();
        let same_kind = |row: &&mut Row| {
            let other = row.finding;
            let as_good =
                (other.id, other.state) == (finding.id, finding.state) && !row.nodes.is_empty() && node.is_some();
            as_good && (finding.state == State::Fine || (&other.text, &other.fix) == (&finding.text, &finding.fix))
        };
        match rows.iter_mut().find(same_kind) {
            Some(row) => {
                row.same &= row.finding.text == finding.text;
                row.nodes.extend(node);
            }
            None => rows.push(Row { finding, nodes: node.into_iter().collect(), same: true }),
        }
    }
    rows
}

impl Row<'_> {
    fn text(&self, servers: usize) -> String {
        let text = &self.finding.text;
        match (self.finding.state, self.nodes.as_slice()) {
            (_, []) => text.clone(),
            (_, _) if servers < 2 => text.clone(),
            (State::Fine, nodes) if !self.same => format!("ok on {}", plural(nodes.len() as u64, "server")),
            (_, [node]) => format!("{node}: {text}"),
            (State::Fine, nodes) => format!("{}: {text}", plural(nodes.len() as u64, "server")),
            (_, nodes) => format!("{}: {text}", nodes.join(", ")),
        }
    }
}

fn summary(rows: &[Row]) -> String {
    let count = |state| rows.iter().filter(|row| row.finding.state == state).count();
    let parts = [
        (count(State::Problem), plural(count(State::Problem) as u64, "problem")),
        (count(State::Warning), plural(count(State::Warning) as u64, "warning")),
        (count(State::Unknown), format!("{} unknown", count(State::Unknown))),
        (count(State::Fine), format!("{} ok", count(State::Fine))),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words).collect();
    parts.join(", ")
}

fn fixes(rows: &[Row], columns: usize) -> String {
    let mut fixes: Vec<(Vec<&str>, &str)> = Vec::new();
    for finding in rows.iter().map(|row| row.finding) {
        let Some(fix) = finding.fix.as_deref() else { continue };
        match fixes.iter_mut().find(|(_, other)| *other == fix) {
            Some((ids, _)) if ids.contains(&finding.id) => {}
            Some((ids, _)) => ids.push(finding.id),
            None => fixes.push((vec![finding.id], fix)),
        }
    }
    let shown = |(ids, fix): &(Vec<&str>, &str)| {
        let body = wrapped(fix, columns.saturating_sub(FIX.len())).join(&format!("\n{FIX}"));
        let gap = if ids.len() == 1 { "  ".to_owned() } else { format!("\n{FIX}") };
        format!("{}{gap}{body}\n", ids.join(" "))
    };
    let text: String = fixes.iter().map(shown).collect();
    if text.is_empty() { text } else { format!("\nWhat to do\n{text}") }
}

impl State {
    fn shown(self) -> String {
        match self {
            Self::Fine => good(self.word()),
            Self::Unknown => self.word().to_owned(),
            Self::Warning => style(self.word()).yellow().to_string(),
            Self::Problem => bad(self.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &'static str, state: State, node: &str, text: &str) -> Finding {
        let fix = (state >= State::Warning).then(|| format!("mend {text}"));
        Finding { id, about: "x", state, node: Some(node.to_owned()), text: text.to_owned(), fix }
    }

    #[test]
    fn what_is_the_same_on_several_servers_is_said_once() {
        let findings = [
            finding("D04", State::Problem, "a", "wrong"),
            finding("D04", State::Problem, "b", "wrong"),
            finding("D04", State::Problem, "b", "also wrong"),
            finding("D03", State::Warning, "b", "odd"),
            finding("D05", State::Unknown, "a", "no INFO"),
            finding("D06", State::Warning, "b", "odd"),
            finding("D01", State::Fine, "a", "fine"),
            finding("D01", State::Fine, "b", "fine"),
            finding("D02", State::Fine, "a", "1 of them"),
            finding("D02", State::Fine, "b", "2 of them"),
        ];
        let expected = "     CHECK  STATE    FINDING\n\
                        D04  x      problem  a, b: wrong\n\
                        D04  x      problem  b: also wrong\n\
                        D03  x      warning  b: odd\n\
                        D05  x      unknown  a: no INFO\n\
                        D06  x      warning  b: odd\n\
                        D01  x      ok       2 servers: fine\n\
                        D02  x      ok       ok on 2 servers\n\
                        \n\
                        2 problems, 2 warnings, 1 unknown, 2 ok\n\
                        \n\
                        What to do\n\
                        D04  mend wrong\n\
                        D04  mend also wrong\n\
                        D03 D06\n\
                        \x20    mend odd\n";
        assert_eq!(view(&findings, 2), expected);
    }
}
