//! `redlatch load`: preloads every script that the server lacks. Callers that find their scripts need no right to load.

use redlatch::bundle::{self, Script};
use serde_json::json;

use crate::{
    opt::{Global, LoadOptions},
    outcome::{Failure, Outcome},
    output::{good, table},
};

/// Loads what is missing; a second run finds nothing to do.
pub async fn load(options: &LoadOptions, global: &Global) -> Result<Outcome, Failure> {
    let scripts = bundle::embedded().map_err(redlatch::Error::from)?.scripts();
    let caller = global.caller().await?;
    let present = caller.exists(scripts).await?;
    let mut rows = Vec::new();
    let mut states = Vec::new();
    for (script, present) in scripts.iter().zip(present) {
        let state = match (present, options.dry_run) {
            (true, _) => "present",
            (false, true) => "missing",
            (false, false) => {
                caller.load(script).await?;
                "loaded"
            }
        };
        let word = if state == "loaded" { good(state) } else { state.to_owned() };
        rows.push([title(script), script.digest().to_string(), word]);
        states.push(json!({
            "name": script.name(), "version": script.version(), "digest": script.digest().as_str(), "state": state,
        }));
    }
    let count = |state: &str| states.iter().filter(|script| script["state"] == state).count();
    let (loaded, missing) = (count("loaded"), count("missing"));
    let node = global.node().unwrap_or_default();
    let text = match (loaded, missing) {
        (0, 0) => format!("nothing to do: all {} scripts are on {node}\n", scripts.len()),
        (0, _) => table(["SCRIPT", "DIGEST", "STATE"], &rows) + &format!("{missing} to load on {node}\n"),
        _ => table(["SCRIPT", "DIGEST", "STATE"], &rows) + &format!("{loaded} loaded on {node}\n"),
    };
    let data = json!({
        "node": node, "dry_run": options.dry_run, "loaded": loaded, "missing": missing, "scripts": states,
    });
    Ok(Outcome::new(text, data).rows("scripts"))
}

/// `mutex/acquire v1`.
pub fn title(script: &Script) -> String {
    format!("{} v{}", script.name(), script.version())
}
