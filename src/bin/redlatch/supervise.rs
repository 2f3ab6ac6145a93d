//! The command of `run` under its lease: signals go through to it, its guard is told of every renewal, and people are
//! told what they have to know.

use std::{io, time::Duration};

use nix::libc;
use redlatch::Lease;
use rustix::process::{Signal, kill_current_process_group};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    child::Child,
    duration::show,
    end::End,
    guard::words::{Ended, Order, Reason, Report, now_us, us},
    hold::Holding,
    output::say,
    renewals::Renewals,
    run::OnLost,
    signals,
};

/// How late the guard may hear of a renewal, at most.
const NEWS: Duration = Duration::from_millis(500);

/// Until when the lease lasts, by the clock that every process shares.
pub fn until_us(lease: &Lease) -> u64 {
    now_us() + us(lease.remaining())
}

/// `run` while its command works.
pub struct Supervision<'a, 'b> {
    pub holding: &'a mut Holding<'b>,
    pub lease: &'a Lease,
    pub child: &'a mut Child,
    pub renewals: Renewals<'a>,
    /// The first event, which lacks the process id of the command.
    pub acquired: Value,
}

impl Supervision<'_, '_> {
    /// Forwards signals until the command has ended, which its guard sees to when the lease cannot be kept.
    pub async fn watch(mut self) -> End {
        let kills = self.holding.options.on_lost == OnLost::Kill;
        let (mut told_us, mut lost_at) = (0, None);
        let news = NEWS.min(self.holding.options.ttl / 20).max(Duration::from_millis(1));
        loop {
            let until_us = until_us(self.lease);
            if lost_at.is_none() && until_us > told_us + 1000 {
                self.child.order(&Order::Until(until_us));
                told_us = until_us;
            }
            let alarm = self.alarm(lost_at);
            tokio::select! {
                biased;
                () = alarm, if kills => return self.end_without_guard(Reason::Lease, told_us).await,
                () = self.lease.lost(), if lost_at.is_none() => {
                    self.child.order(&Order::Lost);
                    lost_at = Some(Instant::now());
                    if !kills {
                        self.go_on_unprotected();
                    }
                }
                report = self.child.next() => match report {
                    Some(Report::Ended(ended)) => {
                        self.child.close().await;
                        return End { ended, unprotected: lost_at.is_some() && !kills };
                    }
                    Some(report) => self.tell(&report),
                    None => return self.end_without_guard(Reason::Orphaned, told_us).await,
                },
                number = self.holding.signals.any() => self.forward(number),
                Some(event) = self.holding.events.recv() => {
                    if let Some(event) = self.renewals.hear(&event) {
                        self.holding.journal.write(&event);
                    }
                }
                () = sleep(news) => {}
            }
        }
    }

    /// Completes when the guard should have killed everything and has not said so.
    fn alarm(&self, lost_at: Option<Instant>) -> tokio::time::Sleep {
        let spare = self.holding.reserve.margin / 2;
        let at = match lost_at {
            Some(at) => at + spare,
            None if self.lease.is_lost() => Instant::now() + spare,
            None => Instant::now() + self.lease.remaining().saturating_sub(spare),
        };
        sleep_until(at)
    }

    /// `until_us`: how long the lease was known to last.
    async fn end_without_guard(self, reason: Reason, until_us: u64) -> End {
        let left = self.child.kill().await;
        if left.is_empty() && self.child.was_never_started() {
            // It has said why on stderr; as a rule there is no room for another process.
            return End { ended: Ended { not_started: Some(libc::EAGAIN), ..Ended::default() }, unprotected: false };
        }
        let late = self.holding.options.on_lost == OnLost::Kill && now_us() >= until_us;
        End { ended: Ended { stopped: Some(reason), late, left, ..Ended::default() }, unprotected: false }
    }

    fn go_on_unprotected(&mut self) {
        say(&format!("lease of {} is lost, the command goes on without protection", self.lease.name()));
        self.holding.journal.write(&json!({ "event": "lost" }));
    }

    fn forward(&self, number: i32) {
        match Signal::from_named_raw(number) {
            Some(Signal::TSTP) => {
                not_suspended();
                // The others of our job have been stopped, and the shell would wait for us.
                let _ = kill_current_process_group(Signal::CONT);
            }
            // We ask nothing of the terminal: it is another one of our job.
            Some(Signal::TTIN | Signal::TTOU) => self.child.order(&Order::JobWantsTerminal),
            _ => self.child.order(&Order::Signal(number)),
        }
    }

    fn tell(&mut self, report: &Report) {
        let name = self.lease.name();
        match report {
            Report::Suspended { signal, stays: true }
                if [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(signal) =>
            {
                say(&format!(
                    "the command of {name} waits for the terminal and is in the background: bring it to the foreground \
                     within {}, or it is stopped",
                    show(self.lease.remaining())
                ));
            }
            Report::Suspended { stays: false, .. } => not_suspended(),
            Report::Suspended { signal, stays: true } => say(&format!(
                "the command of {name} was stopped by {}, its lease is renewed meanwhile",
                signals::name(*signal)
            )),
            Report::Refused { signal, why } => {
                say(&format!("{} could not be sent to the command: {why}", signals::name(*signal)));
            }
            Report::LeftBehind(processes) if processes.is_empty() => {}
            Report::LeftBehind(processes) => {
                say(&format!("the command has ended, what it left running is stopped: {}", processes.join(", ")));
            }
            Report::Started(pid) => {
                self.holding.global.tell(|| format!("the command has process id {pid}"));
                self.acquired["pid"] = (*pid).into();
                self.holding.journal.write(&self.acquired);
            }
            Report::Resumed | Report::Ended(_) => {}
        }
        if let Report::Suspended { signal, stays: true } = report {
            self.holding.journal.write(&json!({ "event": "suspended", "signal": signal }));
        }
    }
}

fn not_suspended() {
    say("the command holds a lease and is not suspended");
}

/// Passes on to the rest of our job what only the command got from the terminal, because it had that.
pub fn share_keys(ended: &Ended) -> io::Result<()> {
    let signal = ended.signal.and_then(Signal::from_named_raw);
    match signal.filter(|signal| ended.had_terminal && [Signal::INT, Signal::QUIT].contains(signal)) {
        Some(signal) => Ok(kill_current_process_group(signal)?),
        None => Ok(()),
    }
}
