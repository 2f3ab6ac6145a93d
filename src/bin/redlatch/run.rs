//! `redlatch run`: a command that runs only while the lease is held.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::ExitStatus, time::Duration};

use redlatch::{Attempt, Error, ErrorKind, Lease, Lock, Mutex, Name};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    acquire::{held_by_another, interrupted, settle},
    child::{Child, ended},
    duration::show,
    exec::not_started,
    journal::Journal,
    opt::{Global, OnLost, RunOptions},
    outcome::{Cause, Failure, Outcome, Problem, Verdict},
    output::{escaped, say},
    signals::Signals,
};

/// Time for the stop itself, at most: to be scheduled on a busy machine, to signal, to reap. A tenth of shorter leases.
const MARGIN: Duration = Duration::from_secs(1);
const MAX_DEFAULT_GRACE: Duration = Duration::from_secs(5);
/// The longest sleep: a timer of the runtime stands still while the machine is suspended, a lease does not.
const LOOK: Duration = Duration::from_millis(500);

/// How long a release is tried that gets no answer, however long the lease is.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of the lease is kept back for stopping the command.
#[derive(Clone, Copy)]
struct Reserve {
    grace: Duration,
    margin: Duration,
}

/// How the command ended.
enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was stopped, because the lease could not be kept.
    Stopped,
}

/// Acquires, runs the command, releases.
pub async fn run(options: &RunOptions, global: &Global) -> Result<Outcome, Failure> {
    let (name, _) = global.key_of(&options.name)?;
    let reserve = Reserve::of(options)?;
    let mut journal = Journal::open(options.status_fd)?;
    let mut signals = Signals::listen()?;
    let client = tokio::select! {
        client = global.client(options.ttl) => client?,
        signal = signals.next() => return Err(interrupted(&name, signal)),
    };
    let lock = client.mutex(name.as_bytes())?.renew(!options.no_renew);
    let attempt = tokio::select! {
        attempt = grant(&lock, options) => attempt,
        signal = signals.next() => Err(interrupted(&name, signal)),
    };
    let outcome = match attempt {
        Ok(Attempt::Granted(lease)) => hold(options, global, lease, reserve, &mut signals, &mut journal).await,
        Ok(Attempt::Held(held)) => Ok(held_by_another(&name, held.remaining, options.conflict_exit_code)),
        Err(failure) => Err(failure),
    };
    settle(&client).await;
    outcome
}

impl Reserve {
    /// Grace and margin, which must leave room for a renewal: it is due after a third of the TTL, and may be late.
    fn of(options: &RunOptions) -> Result<Self, Failure> {
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

async fn grant(lock: &Lock<Mutex>, options: &RunOptions) -> Result<Attempt<Mutex>, Failure> {
    let attempt = match options.wait {
        _ if options.no_wait => lock.try_acquire().await?,
        Some(limit) => lock.acquire_within(limit).await?,
        None => Attempt::Granted(lock.acquire().await?),
    };
    if let Attempt::Granted(lease) = &attempt
        && lease.remaining() < options.ttl / 2
    {
        // A hand-off gives a short lease, which may be less than what is kept back for stopping the command.
        lease.extend(options.ttl).await?;
    }
    Ok(attempt)
}

/// Runs the command under `lease` and gives the lease back, whatever happens.
async fn hold(
    options: &RunOptions,
    global: &Global,
    lease: Lease,
    reserve: Reserve,
    signals: &mut Signals,
    journal: &mut Journal,
) -> Result<Outcome, Failure> {
    let fence = lease.fence().to_string();
    let name = lease.name().clone();
    let environment =
        [("REDLATCH_NAME", OsStr::from_bytes(name.as_bytes())), ("REDLATCH_FENCE", OsStr::new(fence.as_str()))];
    let mut child = match Child::spawn(&options.command, environment, options.status_fd) {
        Ok(child) => child,
        Err(error) => {
            give_back(lease, signals, global.timeout).await;
            return Err(not_started(&options.command[0], &error));
        }
    };
    journal
        .write(&json!({ "event": "acquired", "name": escaped(name.as_bytes()), "fence": fence, "pid": child.pid() }));
    let (end, warned) = supervise(options, &lease, reserve, &mut child, signals, journal).await?;
    let refused = child.not_started();
    drop(child);
    journal.write(&end.event());
    let released = give_back(lease, signals, global.timeout).await;
    journal.write(&match released {
        None => json!({ "event": "released" }),
        Some(ErrorKind::Lost) => json!({ "event": "lost" }),
        Some(_) => json!({ "event": "not_released" }),
    });
    if let Some(error) = refused {
        return Err(not_started(&options.command[0], &error));
    }
    let outcome = Outcome::new("", end.data(&name, &fence));
    if let Some(message) = end.loss(&name, warned, released) {
        return Ok(outcome.verdict(Verdict::Lost).problem(Problem::new("lost", message)));
    }
    let outcome = outcome.verdict(end.verdict());
    Ok(match released {
        Some(_) => outcome.note(format!("{name} could not be given back, its lease ends within {}", show(options.ttl))),
        None => outcome,
    })
}

impl End {
    fn verdict(&self) -> Verdict {
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

    fn event(&self) -> Value {
        let (code, signal) = self.codes();
        match self {
            Self::Exited(_) => json!({ "event": "exited", "exit_code": code, "signal": signal }),
            Self::Stopped => json!({ "event": "stopped" }),
        }
    }

    fn data(&self, name: &Name, fence: &str) -> Value {
        let (code, signal) = self.codes();
        json!({
            "name": escaped(name.as_bytes()),
            "fence": fence,
            "stopped": matches!(self, Self::Stopped),
            "child_exit_code": code,
            "child_signal": signal,
        })
    }

    /// What to say when the command was not protected to its end.
    fn loss(&self, name: &Name, warned: bool, released: Option<ErrorKind>) -> Option<String> {
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
async fn supervise(
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

/// Releases. Returns what went wrong. A signal ends a wait that is longer than one command may take, and not before: it
/// may be the one that ended the command as well.
async fn give_back(lease: Lease, signals: &mut Signals, timeout: Duration) -> Option<ErrorKind> {
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
