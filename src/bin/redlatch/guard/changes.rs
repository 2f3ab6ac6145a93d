//! What becomes of the processes below.

use nix::libc;
use rustix::process::{Signal, WaitStatus, kill_process_group};

use super::{Guard, end::Phase, family, words::Report};

/// What happened to the command.
enum Change {
    Stopped(i32),
    Resumed,
}

impl Guard {
    /// Takes note of what has become of the processes below. Returns whether none is left.
    pub(super) fn reap(&mut self) -> bool {
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
}
