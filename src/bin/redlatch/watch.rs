//! `redlatch load --watch`: stays, and puts scripts back wherever they are missing. It makes callers possible whose
//! users may run scripts by their digest and nothing else.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use redlatch::{Error, bundle, call::Role};
use serde_json::{Value, json};

use crate::{
    duration::{millis, rough, show},
    fleet::Answer,
    health::{Health, Node},
    load::{LoadOptions, State, load_missing},
    opt::Global,
    outcome::{Cause, Failure, Outcome},
    output::{say, tell},
    rights,
    signals::Signals,
};

/// The longest that one look at all servers may take, in timeouts of one command.
const LOOK: u32 = 20;

/// Looks at all servers every `interval` until TERM, INT, HUP or QUIT.
pub async fn watch(options: &LoadOptions, global: &Global, interval: Duration) -> Result<Outcome, Failure> {
    let mut signals = Signals::listen()?;
    let limit = global.timeout * LOOK;
    // A round has a limit and so has the pause after it: the loop turns twice before this is over.
    let health = Health::new((interval + limit) * 2);
    if let Some(address) = &options.metrics_addr {
        let address = health.serve(address).await?;
        if !global.quiet {
            say(&format!(
                "metrics at http://{address}/metrics, whether it is alive at http://{address}/live, whether all scripts \
                 are there at http://{address}/ready"
            ));
        }
    }
    let mut rounds = Rounds::default();
    loop {
        let started = Instant::now();
        health.turn();
        tokio::select! {
            look = tokio::time::timeout(limit, rounds.round(global, &health)) => if look.is_err() {
                rounds.lost(global, &health, &late(global, limit));
            },
            _ = signals.next() => break,
        }
        // Whoever started it restarts it, with somebody who reads.
        if UNREAD.load(Ordering::Relaxed) {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(interval.saturating_sub(started.elapsed())) => {}
            _ = signals.next() => break,
        }
    }
    Ok(Outcome::new("", json!({ "repairs": rounds.repairs })))
}

fn late(global: &Global, limit: Duration) -> Failure {
    let node = global.node().unwrap_or_default();
    Failure::new(Cause::Unavailable, format!("looking at the servers of {node} was not done within {}", show(limit)))
}

/// What earlier rounds saw.
#[derive(Default)]
struct Rounds {
    seen: BTreeMap<String, Seen>,
    /// The code of why the servers could not be asked for in the last round.
    lost: Option<&'static str>,
    repairs: u64,
}

/// A server as it was last seen.
#[derive(Clone, Copy)]
struct Seen {
    role: Role,
    /// When it was seen with all scripts; `None` since it was seen without an answer.
    complete: Option<Instant>,
    /// The code of what it did instead of an answer.
    trouble: Option<&'static str>,
}

impl Rounds {
    /// Looks at every server once and loads what is missing.
    async fn round(&mut self, global: &Global, health: &Health) {
        let started = Instant::now();
        let scripts = match bundle::embedded().map_err(Error::from) {
            Ok(bundle) => bundle.scripts(),
            Err(error) => return self.lost(global, health, &error.into()),
        };
        let servers = match global.servers(rights::Role::Deployer).await {
            Ok(servers) => servers,
            Err(failure) => return self.lost(global, health, &failure),
        };
        let answers = global.on_each(servers, move |caller| load_missing(caller, scripts, false)).await;
        self.found(global, &answers);
        let mut nodes = Vec::new();
        for answer in answers {
            let (address, role) = (answer.server.address, answer.server.role);
            let mut node = Node { address: address.clone(), role: role.as_str(), up: true, loaded: 0, gap: None };
            match answer.outcome {
                Ok(states) => {
                    node.loaded = states.iter().filter(|state| **state == State::Loaded).count();
                    node.gap = self.complete(global, &address, role, started, node.loaded);
                }
                Err(failure) => {
                    node.up = false;
                    self.silent(global, &address, role, &failure);
                }
            }
            nodes.push(node);
        }
        health.learn(nodes);
    }

    /// Tells what is new about which servers there are.
    fn found(&mut self, global: &Global, answers: &[Answer<Vec<State>>]) {
        let listed = |address: &str| answers.iter().any(|answer| answer.server.address == address);
        let asked = global.node().unwrap_or_default();
        // A server that is asked itself tells of its recovery like the others.
        if self.lost.take().is_some() && !listed(&asked) {
            report(global, &format!("{asked} answers again"), &json!({ "event": "recovered", "node": asked }));
        }
        for Answer { server, .. } in answers {
            let (address, role) = (&server.address, server.role.as_str());
            let Some(seen) = self.seen.get_mut(address).filter(|seen| seen.role != server.role) else { continue };
            let was = std::mem::replace(&mut seen.role, server.role).as_str();
            report(
                global,
                &format!("{address} is {role} now, it was {was}"),
                &json!({ "event": "switched", "node": address, "role": role, "was": was }),
            );
        }
        self.seen.retain(|address, seen| {
            let (known, role) = (listed(address), seen.role.as_str());
            if !known && *address != asked {
                report(
                    global,
                    &format!("{address} ({role}) is not one of the servers any more"),
                    &json!({ "event": "gone", "node": address, "role": role }),
                );
            }
            known
        });
    }

    /// A server has all scripts now, `loaded` of them since this round. Returns for how long they can have been missing.
    fn complete(
        &mut self,
        global: &Global,
        address: &str,
        role: Role,
        started: Instant,
        loaded: usize,
    ) -> Option<Duration> {
        let now = Seen { role, complete: Some(Instant::now()), trouble: None };
        let before = self.seen.insert(address.to_owned(), now);
        let recovered = before.is_some_and(|before| before.trouble.is_some());
        let complete = before.and_then(|before| before.complete).filter(|_| loaded > 0);
        let gap = complete.map(|at| started.elapsed() + started.duration_since(at));
        let server = format!("{address} ({})", role.as_str());
        let text = match (recovered, loaded, gap) {
            (false, 0, _) if before.is_some() => return None,
            (false, 0, _) => format!("{server} has all scripts"),
            (true, 0, _) => format!("{server} answers again, all scripts are there"),
            (true, loaded, _) => format!("{server} answers again: loaded {loaded}"),
            (false, loaded, Some(gap)) => format!("{server}: loaded {loaded}, missing for at most {}", rough(gap)),
            (false, loaded, None) => format!("{server}: loaded {loaded}"),
        };
        self.repairs += u64::from(loaded > 0);
        let event = if loaded > 0 { "loaded" } else { "present" };
        report(
            global,
            &text,
            &json!({
                "event": event, "node": address, "role": role.as_str(), "loaded": loaded, "recovered": recovered,
                "gap_ms": gap.map(millis),
            }),
        );
        gap
    }

    /// A server did not do its work.
    fn silent(&mut self, global: &Global, address: &str, role: Role, failure: &Failure) {
        let code = failure.problem.code;
        let now = Seen { role, complete: None, trouble: Some(code) };
        let before = self.seen.insert(address.to_owned(), now);
        // Said once, not every round.
        if before.is_none_or(|before| before.trouble != Some(code)) {
            unreachable(global, address, failure);
        }
    }

    /// The servers could not be asked for.
    fn lost(&mut self, global: &Global, health: &Health, failure: &Failure) {
        let asked = global.node().unwrap_or_default();
        if self.lost.replace(failure.problem.code) != Some(failure.problem.code) {
            unreachable(global, &asked, failure);
        }
        if let Some(seen) = self.seen.get_mut(&asked) {
            (seen.complete, seen.trouble) = (None, self.lost);
        }
        health.unreachable(&about(&asked, &failure.problem.message));
    }
}

fn unreachable(global: &Global, address: &str, failure: &Failure) {
    let message = &failure.problem.message;
    report(
        global,
        &about(address, message),
        &json!({ "event": "unreachable", "node": address, "code": failure.problem.code, "message": message }),
    );
}

/// The message, which says what it is about.
fn about(address: &str, message: &str) -> String {
    if message.contains(address) { message.to_owned() } else { format!("{address}: {message}") }
}

/// Whether something could not be told because nobody reads any more.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Tells what happened.
fn report(global: &Global, text: &str, event: &Value) {
    if tell(global, text, event).is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        UNREAD.store(true, Ordering::Relaxed);
    }
}
