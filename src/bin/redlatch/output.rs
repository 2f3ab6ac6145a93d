//! Answers and failures as text for people or as JSON. Data goes to stdout, everything else to stderr.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use console::Style;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::{
    line,
    opt::{Color, Format, Global},
    outcome::{Cause, Failure, Outcome, Problem},
    voice::{Log, put},
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
    let log = |level| {
        let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(console::colors_enabled_stderr());
        log.with_writer(move || Log { is_story: level < tracing::Level::TRACE })
    };
    match global.verbose {
        0 => {}
        // As everything else that is told.
        1 => log(tracing::Level::INFO).without_time().with_target(false).with_level(false).init(),
        2 => log(tracing::Level::DEBUG).without_time().with_target(false).with_level(false).init(),
        _ => log(tracing::Level::TRACE).init(),
    }
}

/// Where data goes: the stdout of `run` belongs to its command, so its JSON object goes to stderr.
pub fn data_stream(command: &str) -> Box<dyn Write> {
    if command == "run" { Box::new(io::stderr().lock()) } else { Box::new(io::stdout().lock()) }
}

/// What there is to say when stdout takes nothing.
pub fn unwritten(error: &io::Error) -> String {
    format!("stdout cannot be written: {error}")
}

/// Stdout itself: the runtime takes an error of a stdout that is not open for writing for a success.
pub fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Whether all that is written to stdout is thrown away, as where it was closed.
pub fn is_thrown_away() -> bool {
    let device = |file: io::Result<File>| file.and_then(|file| file.metadata()).map(|it| it.rdev());
    matches!((device(stdout()), device(File::open("/dev/null"))), (Ok(ours), Ok(null)) if ours == null)
}

/// Prints what `command` answered, unless that has been done.
pub fn print(
    global: &Global,
    command: &str,
    result: &Result<Outcome, Failure>,
    exit_code: u8,
    out: &mut dyn Write,
) -> io::Result<()> {
    match (global.format, result) {
        (_, Ok(outcome)) if outcome.is_printed => {}
        // There is no stdout for it.
        (_, Err(failure)) if failure.cause == Cause::Output => complain(&failure.problem),
        (Format::Human, Ok(outcome)) => {
            if !(global.quiet && outcome.is_report) {
                out.write_all(&outcome.text)?;
            }
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
                writeln!(out, "{}", printable(&row.to_string()))?;
            }
        }
        (Format::Jsonl, _) => {
            writeln!(out, "{}", printable(&object(Some(command), result, exit_code).to_string()))?;
        }
        (Format::Json, _) => {
            writeln!(out, "{}", printable(&format!("{:#}", object(Some(command), result, exit_code))))?
        }
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
pub fn tell(global: &Global, text: &str, event: &Value) -> io::Result<()> {
    let line = match global.format {
        Format::Human => text.to_owned(),
        Format::Jsonl => printable(&event.to_string()),
        Format::Json => return Ok(()),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

/// Whether nobody reads stdout any more. Verbs that stay and have nothing to tell would never hear of it.
pub fn is_unread() -> bool {
    let stdout = io::stdout();
    let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    poll(&mut asked, PollTimeout::ZERO).is_ok() && asked[0].revents().is_some_and(|revents| revents.intersects(gone))
}

/// JSON as `json`, with every character escaped that a terminal might obey.
fn printable(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // What stands between strings.
            '\n' | ' ' => text.push(character),
            // Only in strings, where an escape means the same.
            _ if escapes(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => text.push(character),
        }
    }
    text
}

/// Whether a terminal might do something else than show it.
fn escapes(character: char) -> bool {
    !character.is_ascii_graphic() && character.escape_debug().len() > 1
}

/// Tells people something on stderr.
pub fn say(text: &str) {
    line::clear();
    put(format!("redlatch: {text}\n"));
}

fn complain(problem: &Problem) {
    let error = Style::new().for_stderr().red().apply_to(&problem.message);
    say(&error.to_string());
    if let Some(hint) = &problem.hint {
        put(format!("  hint: {hint}\n"));
    }
}

/// `1 lock`, `2 locks`.
pub fn plural(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// Names and labels are bytes. The text for the JSON object: exact where it is UTF-8, which [`base64_of`] tells.
pub fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What stands beside [`text_of`] in the JSON object: the bytes where they are no text, else null.
pub fn base64_of(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| BASE64_STANDARD.encode(bytes))
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

/// The same in double quotes.
pub fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escaped(bytes))
}
