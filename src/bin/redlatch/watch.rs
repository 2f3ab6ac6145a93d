//! `redlatch load --watch`: stays, and puts scripts back wherever they are missing. It makes callers possible whose
//! users may run scripts by their digest and nothing else.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use redlatch::{Error, bundle, call::Role};
use serde_json::json;

use crate::{
    duration::{millis, show},
    health::{Health, Node},
    load::LoadOptions,
    load::{State, load_missing},
    opt::Global,
    outcome::{Failure, Outcome},
    output::{self, say},
    signals::Signals,
};

/// Looks at all servers every `interval` until TERM, INT, HUP or QUIT.
pub async fn watch(options: &LoadOptions, global: &Global, interval: Duration) -> Result<Outcome, Failure> {
    let mut signals = Signals::listen()?;
    let health = Health::new(interval * 2 + global.timeout * 4);
    if let Some(address) = &options.metrics_addr {
        let address = health.serve(address)?;
        if !global.quiet {
            say(&format!("metrics at http://{address}/metrics, health at http://{address}/health"));
        }
    }
    let mut rounds = Rounds { seen: BTreeMap::new(), repairs: 0 };
    loop {
        let started = Instant::now();
        tokio::select! {
            () = rounds.round(global, &health) => {}
            _ = signals.next() => break,
        }
        tokio::select! {
            () = tokio::time::sleep(interval.saturating_sub(started.elapsed())) => {}
            _ = signals.next() => break,
        }
    }
    Ok(Outcome::new("", json!({ "repairs": rounds.repairs })))
}

/// What earlier rounds saw.
struct Rounds {
    /// When each server was last seen with all scripts; `None` while it does not answer.
    seen: BTreeMap<String, Option<Instant>>,
    repairs: u64,
}

impl Rounds {
    /// Looks at every server once and loads what is missing.
    async fn round(&mut self, global: &Global, health: &Health) {
        let started = Instant::now();
        let servers = match global.servers().await {
            Ok(servers) => servers,
            Err(failure) => {
                let node = global.node().unwrap_or_default();
                self.silent(global, &node, &failure);
                return health.unreachable(&node, &failure.problem.message);
            }
        };
        let scripts = match bundle::embedded().map_err(Error::from) {
            Ok(bundle) => bundle.scripts(),
            Err(error) => return health.unreachable("", &error.to_string()),
        };
        let answers = global.on_each(servers, move |caller| load_missing(caller, scripts, false)).await;
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
                    self.silent(global, &address, &failure);
                }
            }
            nodes.push(node);
        }
        self.seen.retain(|address, _| nodes.iter().any(|node| node.address == *address));
        health.learn(nodes);
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
        let before = self.seen.insert(address.to_owned(), Some(Instant::now()));
        let gap = before.flatten().filter(|_| loaded > 0).map(|at| started.elapsed() + started.duration_since(at));
        let role = role.as_str();
        let text = match (before, loaded) {
            (Some(Some(_)), 0) => return None,
            (Some(None), 0) => format!("{address} ({role}) answers again, all scripts are there"),
            (None, 0) => format!("{address} ({role}) has all scripts"),
            (_, loaded) => match gap {
                Some(gap) => format!("{address} ({role}): loaded {loaded}, missing for at most {}", show(gap)),
                None => format!("{address} ({role}): loaded {loaded}"),
            },
        };
        self.repairs += u64::from(loaded > 0);
        let event = if loaded > 0 { "loaded" } else { "present" };
        output::tell(
            global,
            &text,
            &json!({
                "event": event, "node": address, "role": role, "loaded": loaded, "gap_ms": gap.map(millis),
            }),
        );
        gap
    }

    fn silent(&mut self, global: &Global, address: &str, failure: &Failure) {
        // Said once, not every round.
        if self.seen.insert(address.to_owned(), None) != Some(None) {
            let message = &failure.problem.message;
            output::tell(
                global,
                &format!("{address}: {message}"),
                &json!({
                    "event": "unreachable", "node": address, "code": failure.problem.code, "message": message,
                }),
            );
        }
    }
}
