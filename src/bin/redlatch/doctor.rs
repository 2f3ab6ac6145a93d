//! `redlatch doctor`: what endangers locks on these servers, and what to do about it.
//!
//! Each server is asked once for [`Facts`]; the checks only look at those.

mod checks;
mod facts;
mod view;

use std::time::Duration;

use clap::Args;
use redlatch::bundle;
use serde_json::json;

use crate::{
    acl::AclOptions,
    fleet::{Answer, failure_of_all},
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    rights::Role,
};
use checks::{CHECKS, Finding, State};
use facts::{Facts, Look};
use view::view;

/// Options of `doctor`.
#[derive(Args)]
pub struct DoctorOptions {
    /// Also fail on what could be better
    #[arg(long)]
    pub strict: bool,
    /// Do not fail on checks that could not be made
    #[arg(long)]
    pub allow_unknown: bool,
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
    let mut answers = global.on_each(global.servers(Role::Deployer).await?, ask).await;
    if let Some(failure) = failure_of_all(&mut answers) {
        return Err(failure);
    }
    let mut findings: Vec<_> = CHECKS.iter().flat_map(|check| check.run(&answers)).collect();
    // The worst first; what is as bad stays in the order of the checks and servers.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.state));
    let bad = |finding: &&Finding| match finding.state {
        State::Fine => false,
        State::Unknown => !options.allow_unknown,
        State::Warning => options.strict,
        State::Problem => true,
    };
    let problems: Vec<_> = findings.iter().filter(bad).map(|finding| finding.problem(answers.len())).collect();
    let outcome = Outcome::new(view(&findings, answers.len()), data(&findings, &answers)).rows("checks");
    Ok(if problems.is_empty() {
        outcome
    } else {
        // People have read all of it in the table.
        Outcome { problems_shown: true, problems, ..outcome.verdict(Verdict::Different) }
    })
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
    fn problem(&self, servers: usize) -> Problem {
        let node = self.node.as_ref().filter(|_| servers > 1).map_or_else(String::new, |node| format!("{node}: "));
        let problem = Problem::new(self.state.word(), format!("{} {}: {node}{}", self.id, self.about, self.text));
        let problem = match &self.fix {
            Some(fix) => problem.hint(fix),
            None => problem,
        };
        Problem { node: self.node.clone(), ..problem }
    }
}
