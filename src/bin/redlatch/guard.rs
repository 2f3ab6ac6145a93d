//! The guard of the command of `run`: a process of its own between the two, which knows until when the lease lasts and
//! ends everything below it in time, also when `run` is stopped or killed. It writes nothing and talks to no server.
//!
//! ```text
//! run      the shell's job: its process group has the terminal first. Renews the lease, gets the signals, speaks.
//! └ guard  a process group of its own, which no key of the terminal stops. Holds the deadline, reaps.
//!   └ command  a process group of its own; tied to the guard by the death signal of Linux.
//! ```
//!
//! Both adopt the orphans below them, so that either finds all that is left when the other is killed. `docs/run.md` says
//! what follows from this and what Linux cannot give.

mod changes;
mod end;
pub mod family;
mod orders;
mod start;
mod terminal;
pub mod words;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, PipeReader},
    os::fd::OwnedFd,
};

use clap::Args;
use filedescriptor::FileDescriptor;
use nix::{libc, unistd::close};
use rustix::process::Pid;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::{
    io_failure,
    outcome::{Failure, Outcome},
    signals::Signals,
};
use end::Phase;
use terminal::Terminal;
use words::{Ended, Plan, Reason, Report, line};

/// Options of `guard`.
#[derive(Args)]
pub struct GuardOptions {
    /// The socket to `run`
    pub channel: i32,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

struct Guard {
    plan: Plan,
    command: Pid,
    /// Tells the number of an error when the command cannot be started.
    not_started: PipeReader,
    terminal: Terminal,
    phase: Phase,
    /// Until when a command that waits for the terminal is waited for.
    waits_until_us: Option<u64>,
    /// Why it has to end at once.
    fate: Option<Reason>,
    has_ended: bool,
    ended: Ended,
    reports: OwnedWriteHalf,
}

/// Starts the command and stays until nothing of it is left.
pub async fn guard(options: &GuardOptions) -> Result<Outcome, Failure> {
    let failure = |error: io::Error| io_failure("guarding the command", &error);
    let (mut orders, reports) = connect(options.channel).map_err(failure)?;
    family::adopt().map_err(|error| failure(error.into()))?;
    let mut signals = Signals::listen()?;
    signals.listen_for_stops().map_err(failure)?;
    let mut children = signal(SignalKind::child()).map_err(failure)?;
    let plan = orders.next_line().await.map_err(failure)?.unwrap_or_default();
    let plan = serde_json::from_str(&plan).map_err(|error| failure(error.into()))?;
    let mut guard = match Guard::start(plan, &options.command, reports) {
        Ok(guard) => guard,
        Err((error, reports)) => {
            let not_started = Some(error.raw_os_error().unwrap_or(libc::ENOEXEC));
            let _ = reports.try_write(line(&Report::Ended(Ended { not_started, ..Ended::default() })).as_bytes());
            return Ok(Outcome::new("", Value::Null));
        }
    };
    while !guard.step() {
        tokio::select! {
            order = orders.next_line(), if guard.fate != Some(Reason::Orphaned) => guard.obey(order.ok().flatten()),
            _ = children.recv() => {}
            () = sleep(guard.patience()) => {}
        }
    }
    guard.report_end();
    Ok(Outcome::new("", Value::Null))
}

/// The socket that was inherited, and from now on is inherited no further.
fn connect(channel: i32) -> io::Result<(Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf)> {
    let file: File = FileDescriptor::dup(&channel).and_then(|copy| copy.as_file()).map_err(io::Error::other)?;
    close(channel)?;
    let stream = std::os::unix::net::UnixStream::from(OwnedFd::from(file));
    stream.set_nonblocking(true)?;
    let (read, write) = UnixStream::from_std(stream)?.into_split();
    Ok((BufReader::new(read).lines(), write))
}

impl Guard {
    fn report(&self, report: &Report) {
        // Whoever does not listen any more is gone, which is noticed elsewhere.
        let _ = self.reports.try_write(line(report).as_bytes());
    }
}
