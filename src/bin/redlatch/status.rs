//! `redlatch status`: which scripts each server has, its version and its role; which callers are connected.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use redlatch::{
    Error,
    bundle::{self, Script},
    call::{Caller, Role},
};
use serde_json::{Value, json};

use crate::{
    ask::{Told, Withheld, ask_text, fields},
    fleet::{Answer, failure_of_all},
    load::matrix,
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{bad, escaped, good},
    product::{Hello, Product},
    rights::{self, grant_to_ask},
    table::table,
    width::folded,
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

/// What a server has and says of itself, as far as it tells.
struct Report {
    present: Vec<bool>,
    product: Option<Product>,
    role: Option<&'static str>,
    evicted: Option<u64>,
    /// How many callers of each version are connected, when that was asked for.
    callers: Option<Told<BTreeMap<String, u64>>>,
}

/// Asks only, changes nothing.
pub async fn status(options: &StatusOptions, global: &Global) -> Result<Outcome, Failure> {
    let scripts = bundle::embedded().map_err(Error::from)?.scripts();
    let callers = options.callers;
    let servers = global.servers(rights::Role::Observer).await?;
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
    let outcome = if answers.iter().any(|answer| answer.outcome.as_ref().is_ok_and(Report::hides_callers)) {
        outcome.note(format!("callers are unknown: {}", grant_to_ask("CLIENT LIST", rights::Role::Observer)))
    } else {
        outcome
    };
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
        let are = if *missing == 1 { "is" } else { "are" };
        let problem = Problem::new("missing", format!("{missing} of the bundle's scripts {are} missing on {node}"));
        outcome.problem(Problem { node: Some(node.clone()), ..problem.hint("load them with `redlatch load`") })
    })
}

/// One line for one server, a table for more; then what is true of scripts there, if some were evicted.
fn heads(answers: &[Answer<Report>]) -> String {
    let reports = || answers.iter().filter_map(|answer| answer.outcome.as_ref().ok());
    let said: BTreeSet<_> = reports().filter_map(Report::on_evictions).collect();
    let said: String = said.iter().map(|text| format!("{text}\n")).collect();
    let some_evicted = reports().any(|report| report.evicted > Some(0));
    if let [Answer { server, outcome: Ok(report) }] = answers {
        let evicted = report.evicted.filter(|_| some_evicted);
        let evicted = evicted.map_or_else(String::new, |evicted| format!("  evicted scripts: {evicted}"));
        let server = format!("{}  {}  {}{evicted}", server.address, report.version(), report.role(server.role));
        return folded(&format!("{server}\n{said}"));
    }
    let row = |(number, Answer { server, outcome }): (usize, &Answer<Report>)| {
        let (version, role, evicted) = match outcome {
            Ok(report) => (report.version(), report.role(server.role), report.evicted),
            Err(_) => (bad("no answer"), server.role.as_str(), None),
        };
        let evicted = evicted.map_or_else(|| "-".to_owned(), |evicted| evicted.to_string());
        [format!("[{}]", number + 1), server.address.clone(), role.to_owned(), version, evicted]
    };
    let rows: Vec<_> = answers.iter().enumerate().map(row).collect();
    let head = ["", "SERVER", "ROLE", "VERSION", "EVICTED SCRIPTS"];
    table(&head[..if some_evicted { 5 } else { 4 }], &rows) + &folded(&said)
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
            Some(Some(Ok(callers))) => rows.extend(
                callers
                    .iter()
                    .map(|(version, count)| [answer.server.address.clone(), version.clone(), count.to_string()]),
            ),
            Some(Some(Err(_))) => rows.push([answer.server.address.clone(), "unknown".to_owned(), "-".to_owned()]),
            Some(None) | None => {}
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
                "node": answer.server.address, "ok": true,
                "product": report.product.as_ref().map(|product| product.name.to_lowercase()),
                "version": report.product.as_ref().map(|product| product.version.to_string()),
                "role": report.role(answer.server.role), "missing": report.present.iter().filter(|present| !**present).count(),
                "evicted_scripts": report.evicted,
                "callers": report.callers.as_ref().and_then(|callers| callers.as_ref().ok()),
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
    fn version(&self) -> String {
        self.product.as_ref().map_or_else(|| "unknown version".to_owned(), Product::to_string)
    }

    /// What it says that it is, otherwise what the others take it for.
    fn role(&self, seen: Role) -> &'static str {
        self.role.unwrap_or(seen.as_str())
    }

    fn hides_callers(&self) -> bool {
        matches!(self.callers, Some(Err(Withheld::Denied)))
    }

    /// What the evictions that it counts mean for the scripts of the bundle.
    fn on_evictions(&self) -> Option<&'static str> {
        let product = self.product.as_ref().filter(|_| self.evicted.is_some_and(|evicted| evicted > 0))?;
        Some(match (product.forgets_evals(), product.pins_what_is_there()) {
            (false, _) => return None,
            (true, true) => "scripts that came by EVAL were evicted; `redlatch load` makes those of the bundle stay",
            (true, false) => {
                "scripts that came by EVAL were evicted. Those of the bundle stay if they came by `redlatch load`; one \
                 that came by EVAL first is present only until it is evicted too, and SCRIPT FLUSH followed by \
                 `redlatch load` makes it stay"
            }
        })
    }

    async fn of(caller: Caller, scripts: &[Script], with_callers: bool) -> Result<Self, Error> {
        let present = caller.exists(scripts).await?;
        let info = ask_text(&caller, &["INFO"]).await?.map(|text| fields(&text));
        let callers = if with_callers {
            Some(ask_text(&caller, &["CLIENT", "LIST"]).await?.map(|list| versions(&list)))
        } else {
            None
        };
        let info = info.unwrap_or_default();
        let product = match Product::of_info(&info) {
            Some(product) => Some(product),
            None => Hello::of(&caller).await?.product,
        };
        Ok(Self {
            present,
            product,
            role: match info.get("role").map(String::as_str) {
                Some("master") => Some("primary"),
                Some("slave") => Some("replica"),
                Some(_) | None => None,
            },
            evicted: info.get("evicted_scripts").and_then(|count| count.parse().ok()),
            callers,
        })
    }
}

/// Connections of redlatch's callers by version, from the reply of CLIENT LIST: since Redis 7.2 a connection tells the
/// library that it is of; before that our callers tell it by their name.
pub fn versions(list: &str) -> BTreeMap<String, u64> {
    let mut versions = BTreeMap::new();
    for line in list.lines() {
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let by_library = field("lib-name").filter(|library| *library == "redlatch").and(field("lib-ver"));
        if let Some(version) = by_library.or_else(|| field("name")?.strip_prefix("redlatch/")) {
            *versions.entry(escaped(version.as_bytes())).or_default() += 1;
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_known_by_their_library_or_by_their_name() {
        let list = "id=3 name= db=0 lib-name=redlatch lib-ver=1.2.3\n\
                    id=4 name=app lib-name=redlatch lib-ver=1.2.3\n\
                    id=5 name=redlatch/1.2.0 db=0\n\
                    id=6 name=redlatch-cli/1.2.3 lib-name=redlatch-cli lib-ver=1.2.3\n\
                    id=7 name=other lib-name=redis-py lib-ver=5.0\n";
        let expected = BTreeMap::from([("1.2.0".to_owned(), 1), ("1.2.3".to_owned(), 2)]);
        assert_eq!(versions(list), expected);
    }
}
