//! `redlatch show`: one script, so that an operator can read what the server runs.

use clap::Args;
use redlatch::bundle::{self, Bundle, Script};
use serde_json::Value;

use crate::{
    load::title,
    outcome::{Cause, Failure, Outcome},
    scripts::contract,
    width::folded,
};

/// Options of `show`.
#[derive(Args)]
pub struct ShowOptions {
    /// The script, for instance mutex/acquire or mutex/acquire@v1; without a version the newest one
    #[arg(value_name = "NAME[@vN]")]
    pub script: String,
    /// Print the bytes of the script and nothing else
    #[arg(long, conflicts_with = "digest")]
    pub raw: bool,
    /// Print the digest and nothing else
    #[arg(long)]
    pub digest: bool,
}

/// The contract for people; `--raw` the bytes, `--digest` the digest.
pub fn show(options: &ShowOptions) -> Result<Outcome, Failure> {
    let bundle = bundle::embedded().map_err(redlatch::Error::from)?;
    let script = find(bundle, &options.script)?;
    let text = if options.raw {
        script.source().to_vec()
    } else if options.digest {
        format!("{}\n", script.digest()).into_bytes()
    } else {
        describe(script).into_bytes()
    };
    let mut data = contract(script);
    data["source"] = Value::from(String::from_utf8_lossy(script.source()));
    Ok(Outcome::new(text, data))
}

fn find<'a>(bundle: &'a Bundle, wanted: &str) -> Result<&'a Script, Failure> {
    let found = match wanted.rsplit_once("@v") {
        Some((name, version)) => {
            bundle.scripts().iter().find(|script| script.name() == name && script.version().to_string() == version)
        }
        None => bundle.get(wanted),
    };
    found.ok_or_else(|| {
        Failure::new(Cause::Usage, format!("no script is called {wanted:?}"))
            .hint("`redlatch scripts` lists them; a version is written as in mutex/acquire@v1")
    })
}

fn describe(script: &Script) -> String {
    let header = script.header();
    let mut lines = vec![
        title(script),
        format!("  {}", header.summary),
        format!("  digest      {}", script.digest()),
        format!("  since       redlatch {}, needs Redis {}", header.since, header.redis),
        format!("  complexity  {}", header.complexity),
        format!("  KEYS[1]     {}", header.key),
    ];
    for (number, arg) in header.args.iter().enumerate() {
        lines.push(format!("  {:<10}  {}: {}", format!("ARGV[{}]", number + 1), arg.name, arg.meaning));
    }
    for reply in &header.replies {
        let fields = if reply.fields.is_empty() { String::new() } else { format!(": {}", reply.fields.join(", ")) };
        lines.push(format!("  reply       {} {}{fields}", reply.code, reply.word));
    }
    for (code, meaning) in &header.errors {
        lines.push(format!("  error       {code}: {meaning}"));
    }
    lines.push(format!("  effects     {}", header.effects.join(" ")));
    lines.push(format!("  retry       {}", header.retry));
    folded(&(lines.join("\n") + "\n"))
}
