//! A command line that is not understood, told as JSON where that was asked for.

use std::{io::Write, process::ExitCode};

use clap::CommandFactory;

use crate::{
    exit_code,
    opt::Options,
    outcome::{Cause, Failure},
    output::{data_stream, object},
};

/// Prints what clap has to say: help, a version, or why the command line cannot be.
pub fn answer(error: clap::Error) -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
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
