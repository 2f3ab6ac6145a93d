//! `redlatch verify`: are the bytes those that were released, in this program, in a folder, on the server?

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use redlatch::bundle::{self, Bundle, Digest};
use serde_json::json;

use crate::{
    fleet::{Answer, failure_of_all, named},
    load::title,
    opt::Global,
    outcome::{Cause, Failure, Outcome, Problem, Verdict},
    output::{bad, good},
    rights::Role,
    status::scripts_missing,
    table::table,
    width::folded,
};

/// Options of `verify`.
#[derive(Args)]
pub struct VerifyOptions {
    /// Do not ask a server
    #[arg(long)]
    pub offline: bool,
    /// Also check this folder of scripts against the SHA1SUMS in it
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// Checks the embedded scripts, then what else was asked for.
pub async fn verify(options: &VerifyOptions, global: &Global) -> Result<Outcome, Failure> {
    let scripts = bundle::embedded().map_err(redlatch::Error::from)?.scripts();
    let mut text = folded(&format!(
        "{} embedded scripts agree with SHA1SUMS and their headers, every server takes them\n",
        scripts.len()
    ));
    let mut data = json!({ "embedded": scripts.len() });
    let mut problems = Vec::new();
    if let Some(folder) = &options.dir {
        let files = files(folder)?;
        let rows: Vec<_> = files
            .iter()
            .map(|(path, state)| [path.clone(), if *state == "ok" { good(state) } else { bad(state) }])
            .collect();
        text += &format!("\n{}", table(&["FILE", "STATE"], &rows));
        data["files"] = files.iter().map(|(path, state)| json!({ "file": path, "state": state })).collect();
        problems.extend(files.iter().filter(|(_, state)| *state != "ok").map(|(path, state)| {
            Problem::new(state, format!("{path} is {state}")).hint(match *state {
                "missing" => "restore it: a released script is never removed",
                _ => "restore it: a released script never changes, a change is a new version beside it",
            })
        }));
    }
    for script in scripts {
        let unportable = script.unportable();
        problems.extend(unportable.iter().map(|what| Problem::new("unportable", format!("{} {what}", title(script)))));
    }
    let different = !problems.is_empty();
    let mut outcome = Outcome { problems, ..Outcome::new(text, data) };
    if different {
        outcome = outcome.verdict(Verdict::Different);
    } else {
        outcome = outcome.report();
    }
    if options.offline {
        return Ok(outcome);
    }
    let servers = global.servers(Role::Deployer).await?;
    let mut answers = global.on_each(servers, move |caller| async move { caller.exists(scripts).await }).await;
    if let Some(failure) = failure_of_all(&mut answers) {
        return Err(failure);
    }
    let lacking: Vec<_> = answers
        .iter()
        .filter_map(|answer| Some((answer.server.address.clone(), answer.outcome.as_ref().ok()?)))
        .map(|(node, present)| (node, present.iter().filter(|present| !**present).count()))
        .filter(|(_, missing)| *missing > 0)
        .collect();
    outcome.data["missing_on_server"] = lacking.iter().map(|(_, missing)| missing).sum::<usize>().into();
    let silent: Vec<_> = answers.iter().filter_map(Answer::problem).collect();
    if !lacking.is_empty() || !silent.is_empty() {
        let outcome = silent.into_iter().fold(outcome, Outcome::problem);
        return Ok(scripts_missing(outcome, &lacking));
    }
    let nodes: Vec<_> = answers.iter().map(|answer| answer.server.address.as_str()).collect();
    outcome.text.extend(folded(&format!("all of them are on {}\n", named(&nodes))).bytes());
    Ok(outcome)
}

/// Every file that the folder's SHA1SUMS names: ok, missing or modified. When all are there, their headers are checked.
fn files(folder: &Path) -> Result<Vec<(String, &'static str)>, Failure> {
    let path = folder.join("SHA1SUMS");
    let sums = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", &error))?;
    let mut files = Vec::new();
    for line in sums.lines() {
        let Some((digest, file)) = line.split_once("  ") else {
            return Err(Failure::new(Cause::Bundle, format!("{path:?} has a line that is not `digest  path`")));
        };
        let state = match fs::read(folder.join(file)) {
            Ok(bytes) if Digest::of(&bytes).as_str() == digest => "ok",
            Ok(_) => "modified",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "missing",
            Err(error) => return Err(Failure::file(&folder.join(file), "read", &error)),
        };
        files.push((file.to_owned(), state));
    }
    if files.iter().all(|(_, state)| *state == "ok") {
        // A program that is about to end may keep the bytes.
        Bundle::parse(sums.as_bytes(), |file| Some(fs::read(folder.join(file)).ok()?.leak()))
            .map_err(redlatch::Error::from)?;
    }
    Ok(files)
}
