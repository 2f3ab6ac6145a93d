//! `redlatch completions`: what a shell needs to complete the command line.

use clap::{Args, CommandFactory};
use serde_json::json;

use crate::{opt::Options, outcome::Outcome};

/// Options of `completions`.
#[derive(Args)]
pub struct CompletionsOptions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Prints the completions.
pub fn completions(options: &CompletionsOptions) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut Options::command(), "redlatch", &mut text);
    let data = json!({ "content": String::from_utf8_lossy(&text) });
    Outcome::new(text, data)
}
