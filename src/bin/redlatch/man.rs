//! `redlatch man`: the manual pages, made from the command line's own types.

use clap::{Args, Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use serde_json::json;

use crate::{
    help,
    opt::{EXIT_CODES, Options},
    outcome::{Cause, Failure, Outcome},
};

/// Options of `man`.
#[derive(Args)]
pub struct ManOptions {
    /// A verb, for instance run, or acl print
    #[arg(value_name = "VERB")]
    pub path: Vec<String>,
}

/// What the environment says, on every page.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("REDLATCH_URL", "The server, unless --url names it. May have a password, which --url may not."),
    ("REDIS_URL", "The server, when neither --url nor REDLATCH_URL names it."),
    (
        "REDLATCH_PASSWORD",
        "The password, unless there is a --password-file. Empty, as REDLATCH_URL and REDIS_URL, it is a mistake: exit code 78.",
    ),
    ("NO_COLOR", "No colour with --color auto, when it is set to anything."),
    ("REDLATCH_NAME, REDLATCH_FENCE", "Set by run for its command: the name of the lock and the fence of the lease."),
    ("REDLATCH_HELD", "Set by run for its command: what it holds, so that a run inside it does not wait for itself."),
];

/// Prints one page in troff.
pub fn man(options: &ManOptions) -> Result<Outcome, Failure> {
    let mut command = Options::command();
    command.build();
    let mut page = &command;
    for verb in &options.path {
        page = page.get_subcommands().find(|page| page.get_name() == verb && !page.is_hide_set()).ok_or_else(|| {
            Failure::new(Cause::Usage, format!("no verb is called {verb:?}")).hint("`redlatch help` lists them")
        })?;
    }
    let text = render(page.clone(), help::examples(&options.path.join(" ")))
        .map_err(|error| Failure::new(Cause::Usage, format!("the page cannot be made: {error}")))?;
    let data = json!({ "content": String::from_utf8_lossy(&text) });
    Ok(Outcome::new(text, data))
}

fn render(page: Command, examples: &[&str]) -> std::io::Result<Vec<u8>> {
    let has_verbs = page.has_subcommands();
    let man = Man::new(page.after_help("").after_long_help(""));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_verbs {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    verbatim(&mut roff, EXIT_CODES.lines().skip(1));
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, what) in ENVIRONMENT {
        roff.control("TP", []).text([bold(*name)]).text([roman(*what)]);
    }
    roff.control("SH", ["EXAMPLES"]);
    verbatim(&mut roff, examples.iter().copied());
    roff.to_writer(&mut text)?;
    Ok(ascii(&String::from_utf8_lossy(&text)).into_bytes())
}

/// What every formatter reads, whatever the encoding of its input is taken for.
fn ascii(text: &str) -> String {
    let escape = |character: char| match character {
        character if character.is_ascii() => character.to_string(),
        other => format!("\\[u{:04X}]", u32::from(other)),
    };
    text.chars().map(escape).collect()
}

/// Lines as they are.
fn verbatim<'a>(roff: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    roff.control("nf", []);
    for line in lines {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
}
