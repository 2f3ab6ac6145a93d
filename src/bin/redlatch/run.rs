//! `redlatch run`: a command that runs only while the lease is held.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    time::Duration,
};

use clap::{Args, ValueEnum};
use redlatch::{Attempt, Error, ErrorKind, Lease, Lock, Mutex};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    acquire::{held_by_another, interrupted, settle},
    child::Child,
    duration::{self, show},
    exec::not_started,
    journal::Journal,
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{base64_of, text_of},
    signals::Signals,
    supervise::{Reserve, supervise},
};

/// Options of `run`.
#[derive(Args)]
pub struct RunOptions {
    /// What is protected: 1 to 512 bytes
    pub name: OsString,
    /// Ask once and do not wait
    #[arg(short = 'n', long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// Wait at most that long; without -n and -w it waits for ever
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    pub wait: Option<Duration>,
    /// Exit code when the lease was not acquired
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 75)]
    pub conflict_exit_code: u8,
    /// Length of the lease, renewed after each third of it
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = duration::TTL)]
    pub ttl: Duration,
    /// Time between --signal and KILL when the lease cannot be kept [default: a quarter of the TTL, at most 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_or_zero, allow_hyphen_values = true)]
    pub grace: Option<Duration>,
    /// What the command is sent first when the lease cannot be kept
    #[arg(long, value_name = "SIGNAL", value_parser = crate::signals::parse, default_value = "TERM")]
    pub signal: nix::sys::signal::Signal,
    /// Do not renew: the command has one TTL
    #[arg(long)]
    pub no_renew: bool,
    /// What happens to the command when the lease cannot be kept
    #[arg(long, value_name = "WHAT", default_value = "kill")]
    pub on_lost: OnLost,
    /// Write what happens to this file descriptor, one JSON object a line: acquired, lost, stopped, exited, released
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(1..))]
    pub status_fd: Option<i32>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What happens to the command of `run` when the lease cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnLost {
    /// It is stopped before the lease ends.
    Kill,
    /// It goes on, unprotected; `run` says so and ends with 76.
    Warn,
}

/// How long a release is tried that gets no answer, however long the lease is.
const PATIENCE: Duration = Duration::from_secs(10);

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
    journal.write(&json!({
        "event": "acquired", "name": text_of(name.as_bytes()), "name_base64": base64_of(name.as_bytes()),
        "fence": fence, "pid": child.pid(),
    }));
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
