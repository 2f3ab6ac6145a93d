//! `redlatch completions`: what a shell needs to complete the command line.

use clap::{Args, Command, CommandFactory};
use serde_json::json;

use crate::{opt::Options, outcome::Outcome};

/// Options of `completions`.
#[derive(Args)]
pub struct CompletionsOptions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// The command line without what nobody is to type: the generators offer hidden verbs too.
fn shown() -> Command {
    let all = Options::command();
    let verbs: Vec<_> = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let global: Vec<_> = all.get_arguments().cloned().collect();
    Command::new("redlatch").args(global).subcommands(verbs)
}

/// Prints the completions.
pub fn completions(options: &CompletionsOptions) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut shown(), "redlatch", &mut text);
    let data = json!({ "content": String::from_utf8_lossy(&text) });
    Outcome::new(text, data)
}
