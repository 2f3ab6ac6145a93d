//! Answers and failures as text for people or as JSON. Data goes to stdout, everything else to stderr.

use std::io::{self, IsTerminal, Write};

use console::{Alignment, Style, measure_text_width, pad_str};
use serde_json::{Value, json};

use crate::{
    opt::{Color, Format, Global},
    outcome::{Failure, Outcome, Problem},
};

/// Decides about colour and about the log on stderr.
pub fn prepare(global: &Global) {
    let wanted = |terminal: bool| match global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    console::set_colors_enabled(wanted(io::stdout().is_terminal()));
    console::set_colors_enabled_stderr(wanted(io::stderr().is_terminal()));
    let level = match global.verbose {
        0 => return,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(console::colors_enabled_stderr())
        .init();
}

/// Where data goes: the stdout of `run` belongs to its command, so its JSON object goes to stderr.
pub fn data_stream(command: &str) -> Box<dyn Write> {
    if command == "run" { Box::new(io::stderr().lock()) } else { Box::new(io::stdout().lock()) }
}

/// Prints what `command` answered.
pub fn print(
    global: &Global,
    command: &str,
    result: &Result<Outcome, Failure>,
    exit_code: u8,
    out: &mut dyn Write,
) -> io::Result<()> {
    match (global.format, result) {
        (Format::Human, Ok(outcome)) => {
            out.write_all(&outcome.text)?;
            if !global.quiet {
                outcome.notes.iter().for_each(|note| say(note));
            }
            if !outcome.problems_shown {
                outcome.problems.iter().for_each(complain);
            }
        }
        (Format::Human, Err(failure)) => complain(&failure.problem),
        (Format::Jsonl, Ok(outcome)) if outcome.problems.is_empty() => {
            if outcome.data.is_null() {
                return out.flush();
            }
            let rows = outcome.rows.and_then(|rows| outcome.data.get(rows)?.as_array());
            for row in rows.map_or(std::slice::from_ref(&outcome.data), Vec::as_slice) {
                writeln!(out, "{row}")?;
            }
        }
        (Format::Jsonl, _) => writeln!(out, "{}", object(Some(command), result, exit_code))?,
        (Format::Json, _) => writeln!(out, "{:#}", object(Some(command), result, exit_code))?,
    }
    out.flush()
}

/// The one object, of a command or of words that name none. Fields are only ever added within a `format_version`.
pub fn object(command: Option<&str>, result: &Result<Outcome, Failure>, exit_code: u8) -> Value {
    let (data, problems) = match result {
        Ok(outcome) => (&outcome.data, outcome.problems.as_slice()),
        Err(failure) => (&Value::Null, std::slice::from_ref(&failure.problem)),
    };
    json!({
        "format_version": 1,
        "command": command,
        "ok": exit_code == 0,
        "exit_code": exit_code,
        "data": data,
        "errors": problems,
    })
}

/// Tells on stdout what happened, at once: for verbs that stay. One JSON object alone is for their end. Whoever reads may
/// have seen enough.
pub fn tell(global: &Global, text: &str, event: &Value) {
    let line = match global.format {
        Format::Human => text.to_owned(),
        Format::Jsonl => event.to_string(),
        Format::Json => return,
    };
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Tells people something on stderr. A stderr that is closed is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "redlatch: {text}");
}

fn complain(problem: &Problem) {
    let error = Style::new().for_stderr().red().apply_to(&problem.message);
    say(&error.to_string());
    if let Some(hint) = &problem.hint {
        let _ = writeln!(io::stderr(), "  hint: {hint}");
    }
}

/// A table without lines, so that `grep`, `awk` and people can read it.
pub fn table<H: AsRef<str>, R: AsRef<[String]>>(head: &[H], rows: &[R]) -> String {
    let cell = |row: &R, column: usize| row.as_ref().get(column).cloned().unwrap_or_default();
    let widths: Vec<_> = head
        .iter()
        .enumerate()
        .map(|(column, word)| {
            let cells = rows.iter().map(|row| measure_text_width(&cell(row, column)));
            cells.max().unwrap_or(0).max(measure_text_width(word.as_ref()))
        })
        .collect();
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells = widths
            .iter()
            .enumerate()
            .map(|(column, width)| pad_str(&cell(column), *width, Alignment::Left, None).into_owned());
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let body = rows.iter().map(|row| line(&|column| cell(row, column)));
    std::iter::once(line(&|column| head[column].as_ref().to_owned())).chain(body).collect()
}

/// A word that is good news.
pub fn good(word: &str) -> String {
    console::style(word).green().to_string()
}

/// A word that is bad news.
pub fn bad(word: &str) -> String {
    console::style(word).red().to_string()
}

/// Text that somebody else chose: everything but printable characters is escaped, so no terminal obeys it.
pub fn escaped(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let quoted = format!("{text:?}");
            quoted[1..quoted.len() - 1].to_owned()
        }
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// A pattern that matches `bytes` and nothing else, as Redis writes patterns.
pub fn pattern_of(bytes: &[u8]) -> String {
    let mut pattern = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        if "*?[]\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
