//! `redlatch status`: which scripts each server has, its version and its role; which callers are connected.

use std::collections::BTreeMap;

use clap::Args;
use redlatch::{
    Error,
    bundle::{self, Script},
    call::Caller,
};
use serde_json::{Value, json};

use crate::{
    fleet::{Answer, failure_of_all},
    load::matrix,
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{bad, escaped, good, table},
};

/// Options of `status`.
#[derive(Args)]
pub struct StatusOptions {
    /// Exit with 1 when a script is missing on a server, or a server does not answer
    #[arg(long)]
    pub check: bool,
    /// Also show which versions of redlatch the connected callers are of
    #[arg(long)]
    pub callers: bool,
}

/// What a server has and says of itself. A user without the right to INFO does not hear the latter.
struct Report {
    present: Vec<bool>,
    product: &'static str,
    version: String,
    role: &'static str,
    evicted: Option<u64>,
    /// How many callers of each version are connected, when that was asked for and may be known.
    callers: Option<BTreeMap<String, u64>>,
}

/// Asks only, changes nothing.
pub async fn status(options: &StatusOptions, global: &Global) -> Result<Outcome, Failure> {
    let scripts = bundle::embedded().map_err(Error::from)?.scripts();
    let callers = options.callers;
    let servers = global.servers().await?;
    let mut answers = global.on_each(servers, move |caller| Report::of(caller, scripts, callers)).await;
    if let Some(failure) = failure_of_all(&mut answers) {
        return Err(failure);
    }
    let mut text = heads(&answers) + "\n";
    text += &matrix_of(scripts, &answers);
    if callers {
        text += &callers_of(&answers);
    }
    let outcome = Outcome::new(text, data(scripts, &answers)).rows("scripts");
    let problems: Vec<_> = answers.iter().filter_map(Answer::problem).collect();
    let different = options.check && !problems.is_empty();
    let outcome = problems.into_iter().fold(outcome, Outcome::problem);
    let outcome = if different { outcome.verdict(Verdict::Different) } else { outcome };
    let lacking = lacking(&answers);
    Ok(if options.check && !lacking.is_empty() { scripts_missing(outcome, &lacking) } else { outcome })
}

/// Servers that lack scripts, with how many.
fn lacking(answers: &[Answer<Report>]) -> Vec<(String, usize)> {
    let missing = |report: &Report| report.present.iter().filter(|present| !**present).count();
    answers
        .iter()
        .filter_map(|answer| Some((answer.server.address.clone(), missing(answer.outcome.as_ref().ok()?))))
        .filter(|(_, missing)| *missing > 0)
        .collect()
}

/// The same outcome, now saying on which servers how many scripts are missing.
pub fn scripts_missing(outcome: Outcome, lacking: &[(String, usize)]) -> Outcome {
    lacking.iter().fold(outcome.verdict(Verdict::Different), |outcome, (node, missing)| {
        let problem = Problem::new("missing", format!("{missing} of the bundle's scripts are missing on {node}"));
        outcome.problem(Problem { node: Some(node.clone()), ..problem.hint("load them with `redlatch load`") })
    })
}

/// One line for one server, a table for more.
fn heads(answers: &[Answer<Report>]) -> String {
    if let [Answer { server, outcome: Ok(report) }] = answers {
        let evicted = report.evicted.map_or_else(String::new, |evicted| format!("  evicted scripts: {evicted}"));
        return format!("{}  {} {}  {}{evicted}\n", server.address, report.product, report.version, report.role);
    }
    let rows: Vec<_> = answers
        .iter()
        .enumerate()
        .map(|(number, answer)| {
            let (version, role, evicted) = match &answer.outcome {
                Ok(report) => (
                    format!("{} {}", report.product, report.version),
                    report.role.to_owned(),
                    report.evicted.map_or_else(|| "-".to_owned(), |evicted| evicted.to_string()),
                ),
                Err(_) => (bad("no answer"), answer.server.role.as_str().to_owned(), "-".to_owned()),
            };
            [format!("[{}]", number + 1), answer.server.address.clone(), role, version, evicted]
        })
        .collect();
    table(&["", "SERVER", "ROLE", "VERSION", "EVICTED SCRIPTS"], &rows)
}

fn matrix_of(scripts: &[Script], answers: &[Answer<Report>]) -> String {
    let state = |number: usize| {
        answers.iter().map(move |answer| match &answer.outcome {
            Ok(report) if report.present[number] => good("present"),
            Ok(_) => bad("missing"),
            Err(_) => bad("?"),
        })
    };
    matrix(scripts, answers.len(), state)
}

fn callers_of(answers: &[Answer<Report>]) -> String {
    let mut rows = Vec::new();
    for answer in answers {
        match answer.outcome.as_ref().ok().map(|report| &report.callers) {
            Some(Some(callers)) => rows.extend(
                callers
                    .iter()
                    .map(|(version, count)| [answer.server.address.clone(), version.clone(), count.to_string()]),
            ),
            Some(None) => rows.push([answer.server.address.clone(), "unknown".to_owned(), "-".to_owned()]),
            None => {}
        }
    }
    if rows.is_empty() {
        return "\nno caller is connected\n".to_owned();
    }
    format!("\n{}", table(&["SERVER", "CALLERS OF VERSION", "CONNECTIONS"], &rows))
}

fn data(scripts: &[Script], answers: &[Answer<Report>]) -> Value {
    let nodes: Vec<_> = answers
        .iter()
        .map(|answer| match &answer.outcome {
            Ok(report) => json!({
                "node": answer.server.address, "ok": true, "product": report.product, "version": report.version,
                "role": report.role, "missing": report.present.iter().filter(|present| !**present).count(),
                "evicted_scripts": report.evicted, "callers": report.callers,
            }),
            Err(_) => json!({ "node": answer.server.address, "ok": false, "role": answer.server.role.as_str() }),
        })
        .collect();
    let rows: Vec<_> = answers
        .iter()
        .filter_map(|answer| Some((answer, answer.outcome.as_ref().ok()?)))
        .flat_map(|(answer, report)| {
            scripts.iter().zip(&report.present).map(|(script, present)| {
                json!({
                    "node": answer.server.address, "name": script.name(), "version": script.version(),
                    "digest": script.digest().as_str(), "state": if *present { "present" } else { "missing" },
                })
            })
        })
        .collect();
    let missing: usize = lacking(answers).iter().map(|(_, missing)| missing).sum();
    json!({ "nodes": nodes, "missing": missing, "scripts": rows })
}

impl Report {
    async fn of(caller: Caller, scripts: &[Script], with_callers: bool) -> Result<Self, Error> {
        let present = caller.exists(scripts).await?;
        let info = said(&caller, &["INFO"]).await?.unwrap_or_default();
        let callers =
            if with_callers { said(&caller, &["CLIENT", "LIST"]).await?.map(|list| versions(&list)) } else { None };
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let valkey = field("valkey_version");
        Ok(Self {
            present,
            product: if valkey.is_some() { "valkey" } else { "redis" },
            version: valkey.or(field("redis_version")).unwrap_or("unknown version").to_owned(),
            role: match field("role") {
                Some("master") => "primary",
                Some("slave") => "replica",
                Some(_) | None => "unknown role",
            },
            evicted: field("evicted_scripts").and_then(|count| count.parse().ok()),
            callers,
        })
    }
}

/// The text that a command replies with; `None` when the server's ACL denies it.
pub async fn said(caller: &Caller, words: &[&str]) -> Result<Option<String>, Error> {
    let mut command = redis::Cmd::new();
    words.iter().for_each(|word| {
        command.arg(*word);
    });
    match caller.command(&command, || words.join(" ")).await {
        Ok(reply) => Ok(redis::from_redis_value::<String>(reply).ok()),
        Err(error) if error.code() == Some("NOPERM") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Connections of redlatch's callers by version, from the reply of CLIENT LIST: since Redis 7.2 a connection tells the
/// library that it is of; before that our callers tell it by their name.
pub fn versions(list: &str) -> BTreeMap<String, u64> {
    let mut versions = BTreeMap::new();
    // But for the connection that asks.
    for line in list.lines().filter(|line| !line.contains(" cmd=client|list ")) {
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let by_library = field("lib-name").filter(|library| *library == "redlatch").and(field("lib-ver"));
        if let Some(version) = by_library.or_else(|| field("name")?.strip_prefix("redlatch/")) {
            *versions.entry(escaped(version.as_bytes())).or_default() += 1;
        }
    }
    versions
}
