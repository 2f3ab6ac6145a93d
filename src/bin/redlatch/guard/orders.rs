//! What `run` orders.

use std::io;

use rustix::{
    io::Errno,
    process::{Signal, kill_process_group},
};

use super::{
    Guard, family,
    words::{Order, Reason, Report},
};

impl Guard {
    /// Does what `run` says; its silence, `None`, means that it is gone.
    pub(super) fn obey(&mut self, order: Option<String>) {
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
            family::signal(None, &[signal]);
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
}
