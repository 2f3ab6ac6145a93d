//! The way of the command to its end: in time, whatever it does.

use std::{io::Read, time::Duration};

use rustix::process::Signal;

use super::{
    Guard, family,
    words::{Reason, Report, now_us, us},
};

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
pub(super) enum Phase {
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

impl Guard {
    /// Looks at what has changed and at the time. Returns whether all is over.
    pub(super) fn step(&mut self) -> bool {
        let gone = self.reap();
        let now = now_us();
        // Whoever was stopped cannot know since when all has been gone.
        self.ended.late |= self.plan.ends_with_lease && now >= self.plan.until_us;
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
                self.ended.left = family::left();
                return true;
            }
            Phase::Working | Phase::Lingering { .. } | Phase::Asked { .. } | Phase::Killing { .. } => {}
        }
        if matches!(self.phase, Phase::Killing { .. }) {
            family::signal(Some(self.command), &[Signal::KILL]);
        } else {
            self.terminal.look();
        }
        false
    }

    /// Asks everything to end.
    fn ask(&mut self, now: u64) {
        let group = Some(self.command).filter(|_| !self.has_ended);
        let signal = family::numbered(self.plan.signal).unwrap_or(Signal::TERM);
        family::signal(group, &[signal, Signal::CONT]);
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
    pub(super) fn patience(&self) -> Duration {
        let until_us = match self.phase {
            Phase::Working if self.terminal.is_waited_for() => return TERMINAL,
            Phase::Working => self.turning_point(),
            Phase::Lingering { until_us } => until_us.min(self.turning_point()),
            Phase::Asked { until_us } => until_us,
            Phase::Killing { .. } => return AGAIN,
        };
        Duration::from_micros(until_us.saturating_sub(now_us())).min(LOOK)
    }

    /// Gives the terminal back and says the last word.
    pub(super) fn report_end(&mut self) {
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
