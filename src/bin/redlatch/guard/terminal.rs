//! Who of the job has the terminal: the command gets it when it asks for it, while its job is in the foreground, and
//! loses it to the rest of the job when that asks, or when it ends.

use std::fs::{File, OpenOptions};

use nix::{
    sys::signal::{SigSet, Signal as Named},
    unistd::{self, tcgetpgrp},
};
use rustix::{
    process::{Pid, Signal, kill_process_group, test_kill_process_group},
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr, tcsetpgrp},
};

/// The controlling terminal and two process groups that share it.
pub struct Terminal {
    file: Option<File>,
    /// 0, as the terminal says it as well, when it is one of another PID namespace.
    job: i32,
    command: Pid,
    /// How the terminal was set when the command got it first.
    before: Option<Termios>,
    command_waits: bool,
    job_waits: bool,
}

impl Terminal {
    /// The terminal of this session, if there is one.
    pub fn open(job: i32, command: Pid) -> Self {
        let file = OpenOptions::new().read(true).write(true).open("/dev/tty").ok();
        Self { file, job, command, before: None, command_waits: false, job_waits: false }
    }

    /// The command was stopped because it is not in the foreground. Returns whether it goes on.
    pub fn command_asks(&mut self) -> bool {
        self.command_waits = true;
        self.look();
        !self.command_waits
    }

    /// Something else of the job was.
    pub fn job_asks(&mut self) {
        self.job_waits = true;
        self.look();
    }

    /// Somebody made the command go on without us.
    pub fn command_goes_on(&mut self) {
        self.command_waits = false;
    }

    /// Whether somebody waits for the terminal: no signal tells when a shell puts the job into the foreground.
    pub fn is_waited_for(&self) -> bool {
        self.file.is_some() && (self.command_waits || self.job_waits)
    }

    /// Whether the command ever had it.
    pub fn was_given(&self) -> bool {
        self.before.is_some()
    }

    /// Gives the terminal to who waits for it, unless it belongs to another job.
    pub fn look(&mut self) {
        let Some(file) = &self.file else { return };
        let Ok(holder) = tcgetpgrp(file).map(unistd::Pid::as_raw) else { return };
        if holder != self.job && Pid::from_raw(holder) != Some(self.command) {
            return;
        }
        if self.command_waits {
            if self.before.is_none() {
                self.before = tcgetattr(file).ok();
            }
            give(file, self.command);
            let _ = kill_process_group(self.command, Signal::CONT);
            self.command_waits = false;
        } else if self.job_waits {
            self.job_waits = false;
            if let Some(job) = Pid::from_raw(self.job) {
                give(file, job);
                let _ = kill_process_group(job, Signal::CONT);
            }
        }
    }

    /// Gives it back to the job when the command has ended, with its settings when the command was ended by force and
    /// could not do that itself.
    pub fn take_back(&self, by_force: bool) {
        let (Some(file), Some(before)) = (&self.file, &self.before) else { return };
        let holder = tcgetpgrp(file).ok().and_then(|holder| Pid::from_raw(holder.as_raw()));
        // A process group that the command made is gone as well.
        let is_free = |group| group == self.command || test_kill_process_group(group).is_err();
        if !holder.is_some_and(is_free) {
            return;
        }
        if let Some(job) = Pid::from_raw(self.job) {
            give(file, job);
        }
        if by_force {
            with_leave(|| tcsetattr(file, OptionalActions::Now, before));
        }
    }
}

fn give(file: &File, group: Pid) {
    with_leave(|| tcsetpgrp(file, group));
}

/// From the background this signal would stop us.
fn with_leave<T>(act: impl FnOnce() -> T) {
    let mut ttou = SigSet::empty();
    ttou.add(Named::SIGTTOU);
    if ttou.thread_block().is_ok() {
        act();
        let _ = ttou.thread_unblock();
    }
}
