//! The command of `run` under its lease: signals go through to it, and it is stopped in time when the lease cannot be
//! kept.

use std::{process::ExitStatus, time::Duration};

use redlatch::{ErrorKind, Lease, Name};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    child::{Child, ended},
    duration::show,
    journal::Journal,
    outcome::{Cause, Failure, Verdict},
    output::{base64_of, say, text_of},
    run::{OnLost, RunOptions},
    signals::Signals,
};

/// Time for the stop itself, at most: to be scheduled on a busy machine, to signal, to reap. A tenth of shorter leases.
const MARGIN: Duration = Duration::from_secs(1);
const MAX_DEFAULT_GRACE: Duration = Duration::from_secs(5);
/// The longest sleep: a timer of the runtime stands still while the machine is suspended, a lease does not.
const LOOK: Duration = Duration::from_millis(500);

/// How much of the lease is kept back for stopping the command.
#[derive(Clone, Copy)]
pub struct Reserve {
    grace: Duration,
    margin: Duration,
}

/// How the command ended.
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was stopped, because the lease could not be kept.
    Stopped,
}

impl Reserve {
    /// Grace and margin, which must leave room for a renewal: it is due after a third of the TTL, and may be late.
    pub fn of(options: &RunOptions) -> Result<Self, Failure> {
        let ttl = options.ttl;
        let margin = MARGIN.min(ttl / 10);
        let grace = options.grace.unwrap_or((ttl / 4).min(MAX_DEFAULT_GRACE));
        let room = if options.no_renew { ttl } else { ttl / 2 };
        if options.on_lost == OnLost::Warn || grace + margin < room {
            return Ok(Self { grace, margin });
        }
        let part = if options.no_renew { "the TTL" } else { "half of the TTL" };
        Err(Failure::new(
            Cause::Usage,
            format!(
                "--grace {} and a margin of {} do not fit into {part} of {}: the command could not be stopped in time",
                show(grace),
                show(margin),
                show(ttl)
            ),
        )
        .hint("write a longer --ttl or a shorter --grace"))
    }

    fn total(self) -> Duration {
        self.grace + self.margin
    }
}

impl End {
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Exited(status) => ended(*status).map_or_else(Verdict::Signalled, Verdict::Exited),
            Self::Stopped => Verdict::Lost,
        }
    }

    /// Exit code and signal of the command, when it ended by itself.
    fn codes(&self) -> (Option<u8>, Option<u8>) {
        match self.verdict() {
            Verdict::Exited(code) => (Some(code), None),
            Verdict::Signalled(signal) => (None, Some(signal)),
            _ => (None, None),
        }
    }

    pub fn event(&self) -> Value {
        let (code, signal) = self.codes();
        match self {
            Self::Exited(_) => json!({ "event": "exited", "exit_code": code, "signal": signal }),
            Self::Stopped => json!({ "event": "stopped" }),
        }
    }

    pub fn data(&self, name: &Name, fence: &str) -> Value {
        let (code, signal) = self.codes();
        json!({
            "name": text_of(name.as_bytes()),
            "name_base64": base64_of(name.as_bytes()),
            "fence": fence,
            "stopped": matches!(self, Self::Stopped),
            "child_exit_code": code,
            "child_signal": signal,
        })
    }

    /// What to say when the command was not protected to its end.
    pub fn loss(&self, name: &Name, warned: bool, released: Option<ErrorKind>) -> Option<String> {
        match self {
            Self::Stopped => {
                Some(format!("lease of {name} could not be kept, the command was stopped before it ended"))
            }
            Self::Exited(_) if warned => {
                Some(format!("lease of {name} was lost, the command went on without protection"))
            }
            Self::Exited(_) if released == Some(ErrorKind::Lost) => {
                Some(format!("lease of {name} was lost before the command ended"))
            }
            Self::Exited(_) => None,
        }
    }
}

/// Forwards signals until the command ends, or stops it when the lease cannot be kept. Also says whether a command that
/// may go on has been without protection.
pub async fn supervise(
    options: &RunOptions,
    lease: &Lease,
    reserve: Reserve,
    child: &mut Child,
    signals: &mut Signals,
    journal: &mut Journal,
) -> Result<(End, bool), Failure> {
    let mut warned = false;
    loop {
        let kill = options.on_lost == OnLost::Kill;
        tokio::select! {
            biased;
            () = threatened(lease, reserve), if kill => {
                if lease.is_lost() {
                    child.kill().await;
                } else {
                    // Nothing is said yet: a stderr that nobody reads must not delay the stop.
                    child.stop(options.signal, reserve.grace, lease.lost()).await;
                }
                return Ok((End::Stopped, false));
            }
            () = lease.lost(), if !kill && !warned => {
                say(&format!("lease of {} is lost, the command goes on without protection", lease.name()));
                journal.write(&json!({ "event": "lost" }));
                warned = true;
            }
            status = child.wait() => {
                let status = status.map_err(|error| crate::io_failure("waiting for the command", &error))?;
                return Ok((End::Exited(status), warned));
            }
            signal = signals.next() => child.signal(signal),
        }
    }
}

/// Completes when no more of the lease is left than is kept back, or when it is lost.
async fn threatened(lease: &Lease, reserve: Reserve) {
    loop {
        let left = lease.remaining().saturating_sub(reserve.total());
        if left.is_zero() || lease.is_lost() {
            return;
        }
        tokio::select! {
            () = lease.lost() => return,
            () = sleep(left.min(LOOK)) => {}
        }
    }
}
