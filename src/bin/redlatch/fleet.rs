//! All servers of the endpoint at once, each with a deadline of its own.

use std::{
    io::{self, IsTerminal},
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use redlatch::call::{Caller, Role, Server};
use tokio::task::JoinSet;

use crate::{
    duration::show,
    opt::{Format, Global},
    outcome::{Cause, Failure, Problem},
    rights,
};

/// How many times the timeout of one command the work on one server may take. One that does not answer is given up at
/// the first command.
const COMMANDS: u32 = 10;
/// From how many servers on progress is shown.
const MANY: usize = 4;

/// What one server answered.
pub struct Answer<T> {
    /// The server.
    pub server: Server,
    /// What it answered, or why it did not.
    pub outcome: Result<T, Failure>,
}

impl Global {
    /// Every server that is known now, primaries first, always in the same order; to be asked what takes the
    /// rights of `role`.
    pub async fn servers(&self, role: rights::Role) -> Result<Vec<Server>, Failure> {
        let mut servers = self.caller(role).await?.servers().await?;
        servers.sort_by_cached_key(|server| (server.role == Role::Replica, server.address.clone()));
        Ok(servers)
    }

    /// Does `work` on each of `servers`, all at the same time, each with a deadline of its own; answers are in the
    /// order of the servers.
    pub async fn on_each<T, E, F>(
        &self,
        servers: Vec<Server>,
        work: impl Fn(Caller) -> F + Send + Sync + 'static,
    ) -> Vec<Answer<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        Failure: From<E>,
    {
        let progress = self.progress(servers.len());
        let (timeout, work) = (self.timeout, Arc::new(work));
        let mut asked: JoinSet<_> = servers
            .into_iter()
            .enumerate()
            .map(|(number, server)| {
                let work = Arc::clone(&work);
                async move {
                    let asked = async {
                        let caller = Caller::connect(&server.endpoint, timeout, true, |_| {}).await?;
                        work(caller).await.map_err(Failure::from)
                    };
                    let outcome = match tokio::time::timeout(timeout * COMMANDS, asked).await {
                        Ok(outcome) => outcome,
                        Err(_) => Err(Failure::new(
                            Cause::Unavailable,
                            format!("{} was not done within {}", server.address, show(timeout * COMMANDS)),
                        )
                        .hint("it answers, but slowly; with a longer --timeout it has more time")),
                    };
                    (number, Answer { server, outcome })
                }
            })
            .collect();
        let mut answers = Vec::new();
        while let Some(answer) = asked.join_next().await {
            progress.inc(1);
            answers.extend(answer);
        }
        progress.finish_and_clear();
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// A bar on stderr, which is hidden unless people look at it there.
    pub fn bar(&self, length: u64) -> ProgressBar {
        if self.quiet || self.format != Format::Human || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr())
    }

    fn progress(&self, servers: usize) -> ProgressBar {
        if servers < MANY {
            return ProgressBar::hidden();
        }
        self.bar(servers as u64).with_style(
            ProgressStyle::with_template("{bar:20} {pos} of {len} servers").unwrap_or(ProgressStyle::default_bar()),
        )
    }
}

impl<T> Answer<T> {
    /// What went wrong, as a problem of this server.
    pub fn problem(&self) -> Option<Problem> {
        let Problem { code, message, hint, .. } = self.outcome.as_ref().err()?.problem.clone();
        let node = self.server.address.clone();
        let message = of_server(&node, message);
        // Which servers are meant is known: this one is one of several.
        let hint = hint.filter(|_| code != Cause::Unavailable.word());
        Some(Problem { code, node: Some(node), message, hint })
    }
}

/// The failure that stands for all: no server did its work, or one has other bytes under a script, which no other makes
/// good.
pub fn failure_of_all<T>(answers: &mut Vec<Answer<T>>) -> Option<Failure> {
    let falsified = |answer: &Answer<T>| answer.outcome.as_ref().is_err_and(|failure| failure.cause == Cause::Bundle);
    let one = match answers.iter().position(falsified) {
        Some(falsified) => falsified,
        None if answers.iter().any(|answer| answer.outcome.is_ok()) => return None,
        None => 0,
    };
    if answers.is_empty() {
        return None;
    }
    let several = answers.len() > 1;
    let Answer { server, outcome } = answers.swap_remove(one);
    let mut failure = outcome.err()?;
    if several {
        failure.problem.message = of_server(&server.address, failure.problem.message);
    }
    failure.problem.node = Some(server.address);
    Some(failure)
}

/// `message`, which says which server it is about.
fn of_server(address: &str, message: String) -> String {
    if message.contains(address) { message } else { format!("{address}: {message}") }
}

/// `all 8 scripts are on …`: one server by its address, more by their number.
pub fn named(servers: &[&str]) -> String {
    match servers {
        [one] => (*one).to_owned(),
        many => format!("{} servers", many.len()),
    }
}
