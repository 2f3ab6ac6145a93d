//! `redlatch man`: the manual pages, made from the command line's own types.

use clap::{Args, CommandFactory};
use serde_json::json;

use crate::{
    opt::Options,
    outcome::{Cause, Failure, Outcome},
};

/// Options of `man`.
#[derive(Args)]
pub struct ManOptions {
    /// A verb, for instance run
    pub verb: Option<String>,
}

/// Prints one page in troff.
pub fn man(options: &ManOptions) -> Result<Outcome, Failure> {
    let mut command = Options::command();
    command.build();
    let page = match &options.verb {
        None => command,
        Some(verb) => command.find_subcommand(verb).cloned().ok_or_else(|| {
            Failure::new(Cause::Usage, format!("no verb is called {verb:?}")).hint("`redlatch help` lists them")
        })?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .map_err(|error| Failure::new(Cause::Usage, format!("the page cannot be made: {error}")))?;
    let data = json!({ "content": String::from_utf8_lossy(&text) });
    Ok(Outcome::new(text, data))
}
