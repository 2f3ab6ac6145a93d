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

pub mod family;
mod terminal;
pub mod words;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, PipeReader, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    time::Duration,
};

use clap::Args;
use filedescriptor::FileDescriptor;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
    unistd::close,
};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitStatus, kill_process_group},
};
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
use terminal::Terminal;
use words::{Ended, Order, Plan, Reason, Report, line, now_us, us};

/// Options of `guard`.
#[derive(Args)]
pub struct GuardOptions {
    /// The socket to `run`
    pub channel: i32,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// The longest sleep: a timer of the runtime stands still while the machine is suspended, a lease does not.
const LOOK: Duration = Duration::from_millis(500);
/// How soon a terminal is given that a shell put at the job's disposal.
const TERMINAL: Duration = Duration::from_millis(50);
/// How often what does not die is killed again: it may have started something in the meantime.
const AGAIN: Duration = Duration::from_millis(20);
/// How long what the command left running has to end by itself: the last reader of a pipe, for instance.
const MOMENT: Duration = Duration::from_millis(500);
/// After that long what was killed counts as not stopped: it belongs to another user, or hangs in the kernel.
const UNKILLABLE: Duration = Duration::from_secs(3);

/// Where the command is on its way to its end. Times are those of [`now_us`].
enum Phase {
    Working,
    /// The command has ended, something of it has not.
    Lingering {
        until_us: u64,
    },
    /// It was asked to end.
    Asked {
        until_us: u64,
    },
    Killing {
        until_us: u64,
    },
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

/// What happened to the command.
enum Change {
    Stopped(i32),
    Resumed,
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
    /// Starts the command by way of [`exec`](crate::exec), from the thread that lives as long as this program.
    fn start(plan: Plan, command: &[OsString], reports: OwnedWriteHalf) -> Result<Self, (io::Error, OwnedWriteHalf)> {
        let spawn = || -> io::Result<(Pid, PipeReader)> {
            if plan.ends_with_lease && now_us() >= plan.until_us {
                return Err(Errno::TIMEDOUT.into());
            }
            let (not_started, theirs) = io::pipe()?;
            fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
            let process = Command::new("/proc/self/exe")
                .args(["exec", &std::process::id().to_string()])
                .args(plan.close.map(|descriptor| format!("--close={descriptor}")))
                .arg(format!("--report={}", theirs.as_raw_fd()))
                .arg("--")
                .args(command)
                .process_group(0)
                .spawn()?;
            let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
            Ok((pid.ok_or(Errno::SRCH)?, not_started))
        };
        let (command, not_started) = match spawn() {
            Ok(started) => started,
            Err(error) => return Err((error, reports)),
        };
        let terminal = Terminal::open(plan.job, command);
        let guard = Self {
            plan,
            command,
            not_started,
            terminal,
            phase: Phase::Working,
            waits_until_us: None,
            fate: None,
            has_ended: false,
            ended: Ended::default(),
            reports,
        };
        guard.report(&Report::Started(command.as_raw_nonzero().get()));
        Ok(guard)
    }

    fn report(&self, report: &Report) {
        // Whoever does not listen any more is gone, which is noticed elsewhere.
        let _ = self.reports.try_write(line(report).as_bytes());
    }

    /// Does what `run` says; its silence, `None`, means that it is gone.
    fn obey(&mut self, order: Option<String>) {
        match order.and_then(|line| serde_json::from_str(&line).ok()) {
            None => self.fate = Some(Reason::Orphaned),
            Some(Order::Until(until_us)) => self.plan.until_us = until_us,
            Some(Order::Lost) => {
                if self.plan.ends_with_lease {
                    self.fate = self.fate.or(Some(Reason::Lease));
                }
            }
            Some(Order::JobWantsTerminal) => self.terminal.job_asks(),
            Some(Order::Signal(number)) => self.pass_on(number),
        }
    }

    fn pass_on(&self, number: i32) {
        let Some(signal) = family::numbered(number) else { return };
        if self.has_ended {
            family::signal(None, signal);
            return;
        }
        if let Err(error) = kill_process_group(self.command, signal)
            && error != Errno::SRCH
        {
            self.report(&Report::Refused { signal: number, why: io::Error::from(error).to_string() });
        }
        // A stopped process takes no notice of a signal until it goes on.
        if [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT].contains(&signal) {
            let _ = kill_process_group(self.command, Signal::CONT);
        }
    }

    /// Looks at what has changed and at the time. Returns whether all is over.
    fn step(&mut self) -> bool {
        let gone = self.reap();
        let now = now_us();
        if self.fate.is_some() && !matches!(self.phase, Phase::Killing { .. }) {
            self.ended.stopped = self.fate.filter(|_| !self.has_ended);
            self.phase = Phase::Killing { until_us: now + us(UNKILLABLE) };
        }
        if gone {
            return true;
        }
        match self.phase {
            Phase::Working if self.has_ended && !self.plan.ends_left_behind => return true,
            Phase::Working if self.has_ended => {
                self.phase = Phase::Lingering { until_us: now + us(MOMENT).min(self.plan.grace_us) };
            }
            Phase::Working if self.is_threatened(now) => {
                self.ended.stopped = Some(self.waits_until_us.map_or(Reason::Lease, |_| Reason::Terminal));
                self.ask(now);
            }
            Phase::Lingering { until_us } if now >= until_us || self.is_threatened(now) => {
                self.report(&Report::LeftBehind(family::below().iter().map(family::Process::describe).collect()));
                self.ask(now);
            }
            Phase::Asked { until_us } if now >= until_us => {
                self.phase = Phase::Killing { until_us: now + us(UNKILLABLE) };
            }
            Phase::Killing { until_us } if now >= until_us => {
                self.ended.left = family::below().iter().map(family::Process::describe).collect();
                return true;
            }
            Phase::Working | Phase::Lingering { .. } | Phase::Asked { .. } | Phase::Killing { .. } => {}
        }
        if matches!(self.phase, Phase::Killing { .. }) {
            family::signal(Some(self.command), Signal::KILL);
        } else {
            self.terminal.look();
        }
        false
    }

    /// Asks everything to end.
    fn ask(&mut self, now: u64) {
        let group = Some(self.command).filter(|_| !self.has_ended);
        if let Some(signal) = family::numbered(self.plan.signal) {
            family::signal(group, signal);
        }
        family::signal(group, Signal::CONT);
        let mut until_us = now + self.plan.grace_us;
        if self.plan.ends_with_lease {
            until_us = until_us.min(self.plan.until_us.saturating_sub(self.plan.margin_us));
        }
        self.phase = Phase::Asked { until_us };
    }

    /// Whether no more of the lease is left than it takes to end the command.
    fn is_threatened(&self, now: u64) -> bool {
        now >= self.turning_point()
    }

    fn turning_point(&self) -> u64 {
        let lease = if self.plan.ends_with_lease { self.plan.until_us } else { u64::MAX };
        let until = self.waits_until_us.map_or(lease, |until| until.min(lease));
        until.saturating_sub(self.plan.grace_us + self.plan.margin_us)
    }

    /// How long nothing may happen until the next look.
    fn patience(&self) -> Duration {
        let until_us = match self.phase {
            Phase::Working if self.terminal.is_waited_for() => return TERMINAL,
            Phase::Working => self.turning_point(),
            Phase::Lingering { until_us } => until_us.min(self.turning_point()),
            Phase::Asked { until_us } => until_us,
            Phase::Killing { .. } => return AGAIN,
        };
        Duration::from_micros(until_us.saturating_sub(now_us())).min(LOOK)
    }

    /// Takes note of what has become of the processes below. Returns whether none is left.
    fn reap(&mut self) -> bool {
        let mut changes = Vec::new();
        let (command, ended, has_ended) = (self.command, &mut self.ended, &mut self.has_ended);
        let gone = family::reap(|pid, status: WaitStatus| {
            if pid != command {
            } else if let Some(signal) = status.stopping_signal() {
                changes.push(Change::Stopped(signal));
            } else if status.continued() {
                changes.push(Change::Resumed);
            } else {
                (ended.code, ended.signal, *has_ended) = (status.exit_status(), status.terminating_signal(), true);
            }
        });
        if matches!(self.phase, Phase::Working) && !self.has_ended {
            changes.into_iter().for_each(|change| self.changed(change));
        }
        gone
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::Stopped(libc::SIGTTIN | libc::SIGTTOU) if self.terminal.command_asks() => {}
            Change::Stopped(signal @ (libc::SIGTTIN | libc::SIGTTOU)) => {
                if self.waits_until_us.is_none() {
                    self.waits_until_us = Some(self.plan.until_us);
                    self.report(&Report::Suspended { signal, stays: true });
                }
            }
            Change::Stopped(signal @ libc::SIGTSTP) => {
                self.report(&Report::Suspended { signal, stays: false });
                let _ = kill_process_group(self.command, Signal::CONT);
            }
            Change::Stopped(signal) => self.report(&Report::Suspended { signal, stays: true }),
            Change::Resumed => {
                self.terminal.command_goes_on();
                self.waits_until_us = None;
                self.report(&Report::Resumed);
            }
        }
    }

    /// Gives the terminal back and says the last word.
    fn report_end(&mut self) {
        self.terminal.take_back(self.ended.signal.is_some());
        let mut number = String::new();
        if self.not_started.read_to_string(&mut number).is_ok() {
            self.ended.not_started = number.parse().ok();
        }
        self.ended.had_terminal = self.terminal.was_given();
        let ended = std::mem::take(&mut self.ended);
        self.report(&Report::Ended(ended));
    }
}
