//! Starting the command.

use std::{
    ffi::OsString,
    io::{self, PipeReader},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use rustix::{io::Errno, process::Pid};
use tokio::net::unix::OwnedWriteHalf;

use super::{
    Guard,
    end::Phase,
    terminal::Terminal,
    words::{Ended, Plan, Report, now_us},
};

impl Guard {
    /// Starts the command by way of [`exec`](crate::exec), from the thread that lives as long as this program.
    pub(super) fn start(
        plan: Plan,
        command: &[OsString],
        reports: OwnedWriteHalf,
    ) -> Result<Self, (io::Error, OwnedWriteHalf)> {
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
}
