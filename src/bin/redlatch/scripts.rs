//! `redlatch scripts`: what is in the bundle.

use redlatch::bundle::{self, Script};
use serde_json::{Value, json};

use crate::{
    load::title,
    outcome::{Failure, Outcome},
    table::{DIGEST, table},
};

/// Lists every script in every version.
pub fn scripts() -> Result<Outcome, Failure> {
    let scripts = bundle::embedded().map_err(redlatch::Error::from)?.scripts();
    let rows: Vec<_> = scripts
        .iter()
        .map(|script| [title(script), script.digest().to_string(), script.header().summary.clone()])
        .collect();
    let list: Vec<_> = scripts.iter().map(contract).collect();
    let data = json!({ "bundle": env!("CARGO_PKG_VERSION"), "scripts": list });
    Ok(Outcome::new(table(&["SCRIPT", DIGEST, "SUMMARY"], &rows), data).rows("scripts"))
}

/// All that a script says of itself, without its bytes.
pub fn contract(script: &Script) -> Value {
    let header = script.header();
    json!({
        "name": script.name(),
        "version": script.version(),
        "digest": script.digest().as_str(),
        "bytes": script.source().len(),
        "summary": header.summary,
        "since": header.since,
        "redis": header.redis,
        "complexity": header.complexity,
        "key": header.key,
        "args": header.args.iter().map(|arg| json!({ "name": arg.name, "meaning": arg.meaning })).collect::<Vec<_>>(),
        "replies": header
            .replies
            .iter()
            .map(|reply| json!({ "code": reply.code, "word": reply.word, "fields": reply.fields }))
            .collect::<Vec<_>>(),
        "errors": header
            .errors
            .iter()
            .map(|(code, meaning)| json!({ "code": code, "meaning": meaning }))
            .collect::<Vec<_>>(),
        "effects": header.effects,
        "retry": header.retry,
    })
}
