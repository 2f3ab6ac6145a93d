//! `redlatch run`: a command that runs only while the lease is held.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::ExitStatus, time::Duration};

use redlatch::{Attempt, Error, ErrorKind, Lease, Lock, Mutex};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    acquire::{held_by_another, interrupted, settle},
    child::{Child, ended},
    duration::show,
    exec::not_started,
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
        Ok(Attempt::Granted(lease)) => hold(options, lease, reserve, &mut signals).await,
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
    if let Attempt::Granted(lease) = &attempt {
        // A hand-off gives a short lease, which may be less than what is kept back for stopping the command.
        lease.extend(options.ttl).await?;
    }
    Ok(attempt)
}

/// Runs the command under `lease` and gives the lease back, whatever happens.
async fn hold(options: &RunOptions, lease: Lease, reserve: Reserve, signals: &mut Signals) -> Result<Outcome, Failure> {
    let fence = lease.fence().to_string();
    let name = lease.name().clone();
    let environment =
        [("REDLATCH_NAME", OsStr::from_bytes(name.as_bytes())), ("REDLATCH_FENCE", OsStr::new(fence.as_str()))];
    let mut child = match Child::spawn(&options.command, environment) {
        Ok(child) => child,
        Err(error) => {
            give_back(lease, signals).await;
            return Err(not_started(&options.command[0], &error));
        }
    };
    let (end, warned) = supervise(options, &lease, reserve, &mut child, signals).await?;
    drop(child);
    let released = give_back(lease, signals).await;
    let lost = warned || matches!(end, End::Stopped) || released == Some(ErrorKind::Lost);
    let (code, signal) = match end {
        End::Exited(status) => (ended(status).ok(), ended(status).err()),
        End::Stopped => (None, None),
    };
    let data = json!({
        "name": escaped(name.as_bytes()),
        "fence": fence,
        "stopped": matches!(end, End::Stopped),
        "child_exit_code": code,
        "child_signal": signal,
    });
    let outcome = Outcome::new("", data);
    if lost {
        let message = match (&end, warned) {
            (End::Stopped, _) => format!("lease of {name} could not be kept, the command was stopped before it ended"),
            (End::Exited(_), true) => format!("lease of {name} was lost, the command went on without protection"),
            (End::Exited(_), false) => format!("lease of {name} was lost before the command ended"),
        };
        return Ok(outcome.verdict(Verdict::Lost).problem(Problem::new("lost", message)));
    }
    let outcome = match released {
        Some(_) => outcome.note(format!("{name} could not be given back, its lease ends within {}", show(options.ttl))),
        None => outcome,
    };
    Ok(match (code, signal) {
        (_, Some(signal)) => outcome.verdict(Verdict::Signalled(signal)),
        (code, None) => outcome.verdict(Verdict::Exited(code.unwrap_or_default())),
    })
}

/// Forwards signals until the command ends, or stops it when the lease cannot be kept. Also says whether a command that
/// may go on has been without protection.
async fn supervise(
    options: &RunOptions,
    lease: &Lease,
    reserve: Reserve,
    child: &mut Child,
    signals: &mut Signals,
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

/// Releases, unless a signal says not to wait for it. Returns what went wrong.
async fn give_back(lease: Lease, signals: &mut Signals) -> Option<ErrorKind> {
    tokio::select! {
        released = lease.release() => released.err().as_ref().map(Error::kind),
        () = sleep(PATIENCE) => Some(ErrorKind::Unknown),
        _ = signals.next() => Some(ErrorKind::Unknown),
    }
}
