//! The command of `run`, seen from `run`: by way of its [`guard`](crate::guard), or directly when that is gone.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    unistd::getpgrp,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    signal::unix::{Signal as Stream, SignalKind, signal},
    time::{Instant, sleep},
};

use crate::{
    guard::{
        family,
        words::{Order, Plan, Report, line},
    },
    signals::without_leave,
};

/// How long it takes at most until what was killed is gone, or will not go.
const UNKILLABLE: Duration = Duration::from_secs(3);
/// How often what does not die is killed again.
const AGAIN: Duration = Duration::from_millis(20);

/// A variable of the command's environment; `None` means that the command does not have it.
pub type Variable = (&'static str, Option<OsString>);

/// The command, its guard, and everything that they start.
pub struct Child {
    guard: Pid,
    guard_ended: bool,
    /// Whether the guard has given up by itself.
    guard_failed: bool,
    command: Option<Pid>,
    orders: OwnedWriteHalf,
    reports: Lines<BufReader<OwnedReadHalf>>,
    /// Says when the guard, or an orphan that came to us, has changed.
    children: Stream,
}

impl Child {
    /// Starts the guard, which starts `command`. It has our stdin, stdout and stderr.
    pub async fn spawn(command: &[OsString], environment: &[Variable], mut plan: Plan) -> io::Result<Self> {
        family::adopt()?;
        plan.job = getpgrp().as_raw();
        let children = signal(SignalKind::child())?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut guard = Command::new("/proc/self/exe");
        guard.arg0("lease-guard").args(["guard", &theirs.as_raw_fd().to_string(), "--"]).args(command);
        for (name, value) in environment {
            match value {
                Some(value) => guard.env(name, value),
                None => guard.env_remove(OsStr::new(name)),
            };
        }
        let process = without_leave(|| guard.process_group(0).spawn())?;
        let guard = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let guard = guard.ok_or_else(|| io::Error::other("the guard has no process id"))?;
        let (reports, mut orders) = UnixStream::from_std(ours)?.into_split();
        // A guard that is gone already says so by its silence.
        let _ = orders.write_all(line(&plan).as_bytes()).await;
        let reports = BufReader::new(reports).lines();
        Ok(Self { guard, guard_ended: false, guard_failed: false, command: None, orders, reports, children })
    }

    /// Tells the guard. One that does not listen will be found out by its silence.
    pub fn order(&self, order: &Order) {
        let _ = self.orders.try_write(line(order).as_bytes());
    }

    /// The next word of the guard; `None` when it is gone without a last one. Can be dropped and called again.
    pub async fn next(&mut self) -> Option<Report> {
        loop {
            tokio::select! {
                line = self.reports.next_line() => {
                    let report = serde_json::from_str(&line.ok().flatten()?).ok()?;
                    if let Report::Started(command) = report {
                        self.command = Pid::from_raw(command);
                    }
                    return Some(report);
                }
                _ = self.children.recv() => { self.reap(); }
            }
        }
    }

    /// Waits until the guard has ended: it has our stdout, and whoever reads that waits for its end.
    pub async fn close(&mut self) {
        let until = Instant::now() + UNKILLABLE;
        while !self.reap() && !self.guard_ended && Instant::now() < until {
            tokio::select! {
                _ = self.children.recv() => {}
                () = sleep(AGAIN) => {}
            }
        }
    }

    /// Kills everything below this process and says what is left.
    pub async fn kill(&mut self) -> Vec<String> {
        let until = Instant::now() + UNKILLABLE;
        while !self.reap() {
            if Instant::now() >= until {
                return family::left();
            }
            family::signal(self.command, &[Signal::KILL]);
            tokio::select! {
                _ = self.children.recv() => {}
                () = sleep(AGAIN) => {}
            }
        }
        Vec::new()
    }

    /// Whether the guard gave up before it had started the command.
    pub fn was_never_started(&self) -> bool {
        self.guard_failed && self.command.is_none()
    }

    /// Returns whether no child is left.
    fn reap(&mut self) -> bool {
        let (guard, guard_ended, guard_failed) = (self.guard, &mut self.guard_ended, &mut self.guard_failed);
        family::reap(|pid, status| {
            if pid == guard && status.stopped() {
                // Nobody stops the one that keeps the time.
                let _ = kill_process(guard, Signal::CONT);
            } else if pid == guard {
                *guard_ended |= !status.continued();
                *guard_failed |= status.exit_status().is_some_and(|code| code != 0);
            }
        })
    }
}
