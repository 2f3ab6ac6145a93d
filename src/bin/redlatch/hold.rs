//! What `run` does with its lease: the command runs under it, and then it is given back, whatever happens.

use std::time::Duration;

use redlatch::{Error, ErrorKind, Event, Lease};
use serde_json::json;
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};

use crate::{
    child::{Child, Variable},
    duration::show,
    exec::not_started,
    io_failure,
    journal::Journal,
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{base64_of, text_of},
    renewals::Renewals,
    reserve::Reserve,
    run::RunOptions,
    signals::Signals,
    supervise::{Supervision, share_keys},
};

/// How long a release is tried that gets no answer, however long the lease is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `run` has while it holds a lease.
pub struct Holding<'a> {
    pub options: &'a RunOptions,
    pub global: &'a Global,
    pub reserve: Reserve,
    pub signals: Signals,
    pub journal: Journal,
    /// What becomes of the renewals.
    pub events: UnboundedReceiver<Event>,
}

impl Holding<'_> {
    /// Runs the command under `lease` and gives the lease back, whatever happens.
    pub async fn hold(mut self, lease: Lease, environment: &[Variable]) -> Result<Outcome, Failure> {
        let (options, global) = (self.options, self.global);
        let fence = lease.fence().to_string();
        let name = lease.name().clone();
        global.tell(|| format!("acquired {name} for {}, fence {fence}", show(options.ttl)));
        self.signals.listen_for_stops().map_err(|error| io_failure("listening for signals", &error))?;
        let plan = self.reserve.plan(options, &lease);
        let mut child = match Child::spawn(&options.command, environment, plan).await {
            Ok(child) => child,
            Err(error) => {
                self.give_back(lease).await;
                return Err(io_failure("starting the guard of the command", &error));
            }
        };
        let acquired = json!({ "event": "acquired", "name": text_of(name.as_bytes()), "name_base64": base64_of(name.as_bytes()),
            "fence": fence });
        let renewals = Renewals::of(global, options, self.reserve);
        let supervision = Supervision { holding: &mut self, lease: &lease, child: &mut child, renewals, acquired };
        let end = supervision.watch().await;
        end.events().iter().for_each(|event| self.journal.write(event));
        if let Some(story) = end.story() {
            global.tell(|| story);
        }
        let released = self.give_back(lease).await;
        match released {
            None => self.journal.write(&json!({ "event": "released" })),
            Some(ErrorKind::Lost) if end.ended.late => {}
            Some(ErrorKind::Lost) => self.journal.write(&json!({ "event": "lost" })),
            Some(_) => self.journal.write(&json!({ "event": "not_released" })),
        }
        if released.is_none() {
            global.tell(|| format!("released {name}"));
        }
        if let Some(number) = end.ended.not_started {
            return Err(not_started(&options.command[0], &std::io::Error::from_raw_os_error(number)));
        }
        if let Err(error) = share_keys(&end.ended) {
            tracing::warn!(%error, "the rest of the job was not told how the command ended");
        }
        let outcome = Outcome::new("", end.data(&name, &fence)).verdict(end.verdict());
        if let Some(message) = end.loss(&name, released) {
            return Ok(outcome.verdict(Verdict::Lost).problem(Problem::new("lost", message)));
        }
        Ok(match released {
            Some(_) => {
                outcome.note(format!("{name} could not be given back, its lease ends within {}", show(options.ttl)))
            }
            None => outcome,
        })
    }

    /// Releases. Returns what went wrong. A signal ends a wait that is longer than one command may take, and not before:
    /// it may be the one that ended the command as well.
    async fn give_back(&mut self, lease: Lease) -> Option<ErrorKind> {
        let (signals, timeout) = (&mut self.signals, self.global.timeout);
        let enough = async {
            sleep(timeout).await;
            tokio::select! {
                () = sleep(PATIENCE) => {}
                _ = signals.next() => {}
            }
        };
        tokio::select! {
            released = lease.release() => released.err().as_ref().map(Error::kind),
            () = enough => Some(ErrorKind::Unknown),
        }
    }
}
