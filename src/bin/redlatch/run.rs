//! `redlatch run`: a command that runs only while the lease is held.

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueEnum};
use redlatch::{Attempt, Error, ErrorKind, Lease, Lock, Mutex};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    acquire::{held_by_another, interrupted, settle},
    child::{Child, Variable},
    duration::{self, show},
    environment,
    exec::not_started,
    io_failure,
    journal::Journal,
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{base64_of, text_of},
    signals::Signals,
    supervise::{Reserve, Supervision, share_keys},
};

/// Options of `run`.
#[derive(Args)]
pub struct RunOptions {
    /// What is protected: 1 to 512 bytes
    pub name: OsString,
    /// Ask once and do not wait
    #[arg(short = 'n', long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// Wait at most that long [default: for ever]
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    pub wait: Option<Duration>,
    /// Exit code if not acquired
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 75)]
    pub conflict_exit_code: u8,
    /// Length of the lease
    ///
    /// It is renewed after each third of it.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = duration::TTL)]
    pub ttl: Duration,
    /// Time from --signal to KILL [default: TTL/4]
    ///
    /// When the lease cannot be kept. By default a quarter of the TTL, at most 5s.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_or_zero, allow_hyphen_values = true)]
    pub grace: Option<Duration>,
    /// How the command is stopped
    ///
    /// It is sent this first when the lease cannot be kept, and KILL after --grace.
    #[arg(long, value_name = "SIGNAL", value_parser = crate::signals::parse, default_value = "TERM")]
    pub signal: nix::sys::signal::Signal,
    /// Do not renew: the command has one TTL
    #[arg(long)]
    pub no_renew: bool,
    /// When the lease cannot be kept
    ///
    /// What happens to the command then.
    #[arg(long, value_name = "WHAT", default_value = "kill")]
    pub on_lost: OnLost,
    /// What the command left running
    ///
    /// What happens to that when the command ends.
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    pub on_end: OnEnd,
    /// Let the command have the server's password
    ///
    /// REDLATCH_PASSWORD, and the password in REDLATCH_URL.
    #[arg(long)]
    pub pass_url: bool,
    /// Write what happens to this descriptor
    ///
    /// One JSON object a line: acquired, suspended, lost, exited, stopped, not_stopped, released, not_released.
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(3..))]
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

/// What happens to what the command of `run` left running when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnEnd {
    /// It is stopped, and then the lease is given back.
    Stop,
    /// It goes on, unprotected.
    Leave,
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
    if !options.no_wait
        && let Some(refusal) =
            environment::refuse_to_wait_for_ourselves(&client, &name, options.conflict_exit_code).await
    {
        return Ok(refusal);
    }
    let lock = client.mutex(name.as_bytes())?.renew(!options.no_renew);
    let attempt = tokio::select! {
        attempt = grant(&lock, options) => attempt,
        signal = signals.next() => Err(interrupted(&name, signal)),
    };
    let outcome = match attempt {
        Ok(Attempt::Granted(lease)) => {
            let environment = environment::of_command(&client, &lease, options.pass_url);
            hold(options, global, lease, &environment, reserve, &mut signals, &mut journal).await
        }
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
    environment: &[Variable],
    reserve: Reserve,
    signals: &mut Signals,
    journal: &mut Journal,
) -> Result<Outcome, Failure> {
    let fence = lease.fence().to_string();
    let name = lease.name().clone();
    signals.listen_for_stops().map_err(|error| io_failure("listening for signals", &error))?;
    let mut child = match Child::spawn(&options.command, environment, reserve.plan(options, &lease)).await {
        Ok(child) => child,
        Err(error) => {
            give_back(lease, signals, global.timeout).await;
            return Err(io_failure("starting the guard of the command", &error));
        }
    };
    let acquired = json!({ "event": "acquired", "name": text_of(name.as_bytes()), "name_base64": base64_of(name.as_bytes()),
        "fence": fence });
    let watch = Supervision { options, lease: &lease, reserve, child: &mut child, signals, journal, acquired };
    let end = watch.watch().await;
    end.events().iter().for_each(|event| journal.write(event));
    let released = give_back(lease, signals, global.timeout).await;
    journal.write(&match released {
        None => json!({ "event": "released" }),
        Some(ErrorKind::Lost) => json!({ "event": "lost" }),
        Some(_) => json!({ "event": "not_released" }),
    });
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
