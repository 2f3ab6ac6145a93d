//! `redlatch run`: a command that runs only while the lease is held.

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueEnum};
use redlatch::{Attempt, Lock, Mutex};

use crate::{
    acquire::interrupted,
    duration, environment, held,
    hold::Holding,
    journal::Journal,
    label,
    opt::Global,
    outcome::{Failure, Outcome},
    patience::Patience,
    reserve::Reserve,
    signals::Signals,
    voice::Voice,
    wait::Wait,
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
    ///
    /// 0s is the same as -n. The answer may be late by one --timeout. A server that cannot be reached is waited for as
    /// well, which is said; an address that cannot be right, or a refused password, is not.
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = duration::parse_or_zero,
        allow_hyphen_values = true)]
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
    /// Who holds it [default: USER@HOST COMMAND]
    ///
    /// For people who inspect the lock or wait for it; at most 128 bytes. By default the user, the host, and the name of
    /// the command without its arguments.
    #[arg(long, value_name = "TEXT", value_parser = label::parse)]
    pub label: Option<String>,
    /// Time from --signal to KILL [default: TTL/4]
    ///
    /// When the lease cannot be kept. By default a quarter of the TTL, at most 5s.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_or_zero, allow_hyphen_values = true)]
    pub grace: Option<Duration>,
    /// How the command is stopped
    ///
    /// It is sent this first when the lease cannot be kept, and KILL after --grace. A lease that was taken away leaves no
    /// time for that: KILL at once, as somebody else may hold it already.
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
    /// One JSON object a line: acquired, not_renewed, renewed (after not_renewed), suspended, lost, exited, stopped,
    /// not_stopped, released, not_released.
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

/// Acquires, runs the command, releases.
pub async fn run(options: &RunOptions, global: &Global) -> Result<Outcome, Failure> {
    let (name, _) = global.key_of(&options.name)?;
    let reserve = Reserve::of(options)?;
    let journal = Journal::open(options.status_fd)?;
    let mut signals = Signals::listen()?;
    let _voice = Voice::without_waiting();
    let mut patience = Patience::new(global, if options.no_wait { Some(Duration::ZERO) } else { options.wait });
    let label = options.label.clone().unwrap_or_else(|| label::of(&options.command[0]));
    let (client, mut events) = tokio::select! {
        client = patience.connect(options.ttl, &label) => client?,
        signal = signals.next() => return Err(interrupted(&name, signal)),
    };
    if options.waits()
        && let Some(refusal) =
            environment::refuse_to_wait_for_ourselves(&client, &name, options.conflict_exit_code).await
    {
        return Ok(refusal);
    }
    let lock = client.mutex(name.as_bytes())?.renew(!options.no_renew);
    let wait = Wait { global, client: &client, name: &name, label: &label };
    let attempt = tokio::select! {
        attempt = wait.watch(grant(&lock, options, &mut patience), &mut events) => attempt,
        signal = signals.next() => Err(interrupted(&name, signal)),
    };
    let is_granted = matches!(attempt, Ok(Attempt::Granted(_)));
    let outcome = match attempt {
        Ok(Attempt::Granted(lease)) => {
            let environment = environment::of_command(&client, &lease, options.pass_url);
            Holding { options, global, reserve, signals, journal, events }.hold(lease, &environment).await
        }
        Ok(Attempt::Held(held)) => Ok(held::by_another(&client, &name, held, options.conflict_exit_code).await),
        Err(failure) => Err(failure),
    };
    if is_granted {
        patience = Patience::new(global, Some(Duration::ZERO));
    }
    patience.settle(&client).await;
    outcome
}

impl RunOptions {
    /// Whether it stands in the queue when another has the lease.
    fn waits(&self) -> bool {
        !self.no_wait && self.wait != Some(Duration::ZERO)
    }
}

async fn grant(
    lock: &Lock<Mutex>,
    options: &RunOptions,
    patience: &mut Patience<'_>,
) -> Result<Attempt<Mutex>, Failure> {
    let attempt = patience.acquire(lock).await?;
    if let Attempt::Granted(lease) = &attempt
        && lease.remaining() < options.ttl / 2
    {
        // A hand-off gives a short lease, which may be less than what is kept back for stopping the command.
        lease.extend(options.ttl).await?;
    }
    Ok(attempt)
}
