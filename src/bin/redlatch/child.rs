//! The command of `run`: a process group of its own, which can be signalled and stopped as a whole.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal, PipeReader, Read},
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    process::ExitStatus,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        signal::{SigSet, Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};
use tokio::{
    process::Command,
    signal::unix::{Signal as Stream, SignalKind, signal},
    time::sleep,
};

use crate::output::say;

/// How often a stopped group is looked at: no event tells that its last process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A started command and everything in its process group.
pub struct Child {
    process: tokio::process::Child,
    group: Pid,
    /// Tells the number of an error when the command cannot be started.
    report: PipeReader,
    /// Says when a command that has our terminal may have been suspended.
    stops: Option<Stream>,
}

impl Child {
    /// Starts `command`, by way of [`exec`](crate::exec) and from the thread that lives as long as this program, with
    /// `environment` set last and without the file descriptor `close`. It has our stdin, stdout and stderr; when we are
    /// in the foreground of a terminal, it is from now on.
    pub fn spawn(command: &[OsString], environment: [(&str, &OsStr); 2], close: Option<i32>) -> io::Result<Self> {
        let close = close.map(|descriptor| format!("--close={descriptor}"));
        let (report, theirs) = io::pipe()?;
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let process = Command::new("/proc/self/exe")
            .args(["exec", &std::process::id().to_string()])
            .args(close)
            .arg(format!("--report={}", theirs.as_raw_fd()))
            .arg("--")
            .args(command)
            .envs(environment)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let group = group.ok_or_else(|| io::Error::other("the command has no process id"))?;
        let mut child = Self { process, group, report, stops: None };
        child.give_terminal();
        Ok(child)
    }

    /// Process id of the command.
    pub fn pid(&self) -> i32 {
        self.group.as_raw()
    }

    /// Waits until the command itself has ended. Can be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = self.process.wait() => return status,
                () = next(&mut self.stops) => self.go_on(),
            }
        }
    }

    /// Why the command never started; `None` when it did. To be asked when it has ended.
    pub fn not_started(&mut self) -> Option<io::Error> {
        let mut number = String::new();
        self.report.read_to_string(&mut number).ok()?;
        number.parse().ok().map(io::Error::from_raw_os_error)
    }

    /// Sends `signal` to the group. A group that is gone needs none.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = killpg(self.group, signal)
            && error != Errno::ESRCH
        {
            tracing::warn!(%error, "{signal} could not be sent to the command");
        }
    }

    /// Asks the group to end with `signal`, waits for `grace` or until `hurry` completes, and kills what is left.
    pub async fn stop(&mut self, signal: Signal, grace: Duration, hurry: impl Future<Output = ()>) {
        self.signal(signal);
        // A stopped process takes no notice of a signal until it goes on.
        self.signal(Signal::SIGCONT);
        tokio::select! {
            () = self.gone() => {}
            () = sleep(grace) => {}
            () = hurry => {}
        }
        self.kill().await;
    }

    /// Kills the group and waits until the command has ended.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Err(error) = self.process.wait().await {
            tracing::warn!(%error, "the end of the command could not be seen");
        }
    }

    /// Completes when no process of the group is left.
    async fn gone(&mut self) {
        if self.process.wait().await.is_err() {
            return;
        }
        while killpg(self.group, None) != Err(Errno::ESRCH) {
            sleep(LOOK).await;
        }
    }

    /// A command that holds a lease is not suspended by the terminal: nobody would take the terminal back from it.
    fn go_on(&self) {
        let look = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if matches!(waitid(Id::Pid(self.group), look), Ok(WaitStatus::Stopped(..))) {
            say("the command holds a lease and is not suspended");
            self.signal(Signal::SIGCONT);
        }
    }

    /// Makes the group the foreground of our terminal, if we are: otherwise its first read would stop it.
    fn give_terminal(&mut self) {
        let stdin = io::stdin();
        if stdin.is_terminal() && tcgetpgrp(&stdin) == Ok(getpgrp()) && tcsetpgrp(&stdin, self.group).is_ok() {
            self.stops = signal(SignalKind::child()).ok();
            // It may have read before, and be stopped for it.
            self.signal(Signal::SIGCONT);
        }
    }
}

/// Takes the terminal back.
impl Drop for Child {
    fn drop(&mut self) {
        if self.stops.is_some() {
            let mut ttou = SigSet::empty();
            ttou.add(Signal::SIGTTOU);
            // From the background this signal would stop us.
            if ttou.thread_block().is_ok() {
                let _ = tcsetpgrp(io::stdin(), getpgrp());
                let _ = ttou.thread_unblock();
            }
        }
    }
}

async fn next(signals: &mut Option<Stream>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Its own exit code, or the signal that ended it.
pub fn ended(status: ExitStatus) -> Result<u8, u8> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match status.signal() {
        Some(signal) => Err(byte(signal)),
        None => Ok(byte(status.code().unwrap_or_default())),
    }
}
