//! `redlatch doctor`: what endangers locks on these servers, and what to do about it.
//!
//! Each server is asked once for [`Facts`]; the checks only look at those.

mod checks;
mod facts;

use std::time::Duration;

use clap::Args;
use redlatch::bundle;
use serde_json::json;

use crate::{
    acl::AclOptions,
    fleet::{Answer, failure_of_all},
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{bad, good},
    rights::Role,
    table::table,
};
use checks::{CHECKS, Finding, State};
use facts::{Facts, Look};

/// Options of `doctor`.
#[derive(Args)]
pub struct DoctorOptions {
    /// Also fail on what could be better
    #[arg(long)]
    pub strict: bool,
    /// Whose rights to check [default: the user that is logged in]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// What that user does [default: caller with --user, otherwise deployer]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<Role>,
}

/// How long a counter that has counted before is watched.
const LOOK: Duration = Duration::from_secs(1);

/// Asks every server, changes nothing.
pub async fn doctor(options: &DoctorOptions, global: &Global) -> Result<Outcome, Failure> {
    let scripts = bundle::embedded().map_err(redlatch::Error::from)?.scripts();
    let role = options.role.unwrap_or(if options.user.is_some() { Role::Caller } else { Role::Deployer });
    let wanted = AclOptions { role, plain: Vec::new() }.wanted(global)?;
    let look = Look { scripts, wanted, user: options.user.clone(), while_for: LOOK };
    let ask = move |caller| Facts::of(caller, look.clone());
    let mut answers = global.on_each(global.servers().await?, ask).await;
    if let Some(failure) = failure_of_all(&mut answers) {
        return Err(failure);
    }
    let findings: Vec<_> = CHECKS.iter().flat_map(|check| check.run(&answers)).collect();
    let worst = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Fine);
    let bad_from = if options.strict { State::Warning } else { State::Problem };
    let problems: Vec<_> = findings.iter().filter(|finding| finding.state >= bad_from).map(Finding::problem).collect();
    let outcome = Outcome::new(view(&findings), data(&findings, &answers)).rows("checks");
    Ok(if worst >= bad_from {
        // People have read all of it in the table.
        Outcome { problems_shown: true, problems, ..outcome.verdict(Verdict::Different) }
    } else {
        outcome
    })
}

fn view(findings: &[Finding]) -> String {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let state = match finding.state {
                State::Fine => good("ok"),
                State::Unknown => "unknown".to_owned(),
                State::Warning => console::style("warning").yellow().to_string(),
                State::Problem => bad("problem"),
            };
            [finding.id.to_owned(), finding.about.to_owned(), state, finding.text.clone()]
        })
        .collect();
    let mut text = table(&["", "CHECK", "STATE", "FINDING"], &rows);
    let fixes: Vec<_> = findings.iter().filter_map(|finding| Some((finding.id, finding.fix.as_ref()?))).collect();
    if !fixes.is_empty() {
        text += "\nWhat to do\n";
        let mut said = std::collections::BTreeSet::new();
        for (id, fix) in fixes {
            if said.insert((id, fix)) {
                text += &format!("{id}  {fix}\n");
            }
        }
    }
    text
}

fn data(findings: &[Finding], answers: &[Answer<Facts>]) -> serde_json::Value {
    let checks: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "id": finding.id, "check": finding.about, "state": finding.state.word(), "node": finding.node,
                "finding": finding.text, "fix": finding.fix,
            })
        })
        .collect();
    let nodes: Vec<_> = answers
        .iter()
        .map(|answer| {
            json!({
                "node": answer.server.address, "role": answer.server.role.as_str(), "ok": answer.outcome.is_ok(),
            })
        })
        .collect();
    json!({ "nodes": nodes, "checks": checks })
}

impl Finding {
    fn problem(&self) -> Problem {
        let problem = Problem::new(self.state.word(), format!("{} {}: {}", self.id, self.about, self.text));
        let problem = match &self.fix {
            Some(fix) => problem.hint(fix),
            None => problem,
        };
        Problem { node: self.node.clone(), ..problem }
    }
}
