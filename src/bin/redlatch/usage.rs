//! A command line that is not understood, told as JSON where that was asked for.

use std::{io::Write, process::ExitCode};

use clap::CommandFactory;

use crate::{
    exit_code, help,
    opt::{Options, Verb},
    outcome::{Cause, Failure},
    output::{data_stream, object},
};

/// Prints what clap has to say: help, a version, or why the command line cannot be.
pub fn answer(error: clap::Error) -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let error = if error.use_stderr() { guessed(&words).unwrap_or(error) } else { error };
    let Some(pretty) = json_wanted(&words).filter(|_| error.use_stderr()) else { error.exit() };
    let verbs = Options::command();
    let verb = words.iter().find_map(|word| verbs.find_subcommand(word)).map(clap::Command::get_name);
    let text = error.render().to_string();
    let (message, hint) = text.trim().split_once("\n\n").unwrap_or((&text, ""));
    let message = one_line(message.trim_start_matches("error: "));
    let result = Err(Failure::new(Cause::Usage, message).hint(one_line(hint)));
    let exit_code = exit_code(&result);
    let object = object(verb, &result, exit_code);
    let object = if pretty { format!("{object:#}") } else { object.to_string() };
    // Nothing is left to tell it by when that fails.
    let _ = writeln!(data_stream(verb.unwrap_or_default()), "{object}");
    ExitCode::from(exit_code)
}

/// What is said when `words` make sense with `--` before what may be the command of `run`: what is to be its own option
/// and what that of the command nobody can tell otherwise.
fn guessed(words: &[String]) -> Option<clap::Error> {
    let verb = words.iter().position(|word| word == "run")?;
    if words.contains(&"--".to_owned()) {
        return None;
    }
    let (own, command) = (verb + 2..words.len()).map(|at| words.split_at(at)).find(|(own, command)| {
        if command[0].starts_with('-') {
            return false;
        }
        let whole = [&["redlatch".to_owned()], *own, &["--".to_owned()], *command].concat();
        Options::parsed(whole.into_iter().map(Into::into)).is_ok_and(|options| matches!(options.verb, Verb::Run(_)))
    })?;
    let line: Vec<_> = own
        .iter()
        .map(|word| shown(word))
        .chain(["--".into()])
        .chain(command.iter().map(|word| quoted(word)))
        .collect();
    let message = format!("the command of `run` stands after --\n\n  did you mean: redlatch {}", line.join(" "));
    let mut all = help::command();
    Some(all.find_subcommand_mut("run")?.error(clap::error::ErrorKind::MissingRequiredArgument, message))
}

/// One of our own words. A password that is in the wrong place is not shown.
fn shown(word: &str) -> String {
    if word.contains("://") && word.contains('@') { "URL".to_owned() } else { quoted(word) }
}

/// As a shell needs it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "-_./:=,+%@".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let shown = |character: char| match character {
        '\'' => "'\\''".to_owned(),
        '"' | '\\' => character.to_string(),
        other => other.escape_debug().to_string(),
    };
    format!("'{}'", word.chars().map(shown).collect::<String>())
}

/// Whether `words` ask for JSON, and whether on several lines.
fn json_wanted(words: &[String]) -> Option<bool> {
    let mut own = words.iter().take_while(|word| *word != "--");
    let format = loop {
        match own.next()?.strip_prefix("--format") {
            Some("") => break own.next()?.as_str(),
            Some(value) if value.starts_with('=') => break &value[1..],
            _ => {}
        }
    };
    match format {
        "json" => Some(true),
        "jsonl" => Some(false),
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
