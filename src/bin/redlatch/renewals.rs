//! Renewals of the lease of `run`, as people hear of them: trouble and its end by default, each one with -v.

use std::time::Duration;

use redlatch::{ErrorKind, Event};
use serde_json::{Value, json};

use crate::{
    duration::{left, millis},
    opt::Global,
    output::say,
    reserve::Reserve,
    run::{OnLost, RunOptions},
};

/// Who is told that so little time is left has heard it all.
const SOON: Duration = Duration::from_secs(1);
/// Less than people can read.
const NOW: Duration = Duration::from_millis(100);

/// What has been said of the renewals of one lease.
pub struct Renewals<'a> {
    global: &'a Global,
    /// What will happen when none succeeds.
    fate: &'static str,
    /// How much earlier than the end of the lease that is.
    reserve: Duration,
    /// How much time was left when trouble was last told of; `None` while there is none.
    told: Option<Duration>,
}

impl<'a> Renewals<'a> {
    pub fn of(global: &'a Global, options: &RunOptions, reserve: Reserve) -> Self {
        let (fate, reserve) = match options.on_lost {
            OnLost::Kill => ("the command is stopped", reserve.whole()),
            OnLost::Warn => ("the command goes on without protection", Duration::ZERO),
        };
        Self { global, fate, reserve, told: None }
    }

    /// Tells what has to be told. Returns the event for `--status-fd`, where it is one.
    pub fn hear(&mut self, event: &Event) -> Option<Value> {
        match event {
            Event::Renewed { name, remaining } => {
                let had_trouble = self.told.take().is_some();
                if had_trouble && !self.global.quiet {
                    say(&format!("the lease of {name} is renewed again, {} are left", left(*remaining)));
                } else if self.global.verbose > 1 {
                    say(&format!("renewed the lease of {name}, {} are left", left(*remaining)));
                } else {
                    self.global.tell(|| format!("renewed the lease of {name}"));
                }
                had_trouble.then(|| json!({ "event": "renewed", "remaining_ms": millis(*remaining) }))
            }
            Event::NotRenewed { name, remaining, error } => {
                self.global.tell_more(|| format!("a renewal of the lease of {name} failed: {error}"));
                let time = remaining.saturating_sub(self.reserve);
                // Once, and again whenever half of the time is over.
                if self.told.is_some_and(|told| time > told / 2 || told < SOON) {
                    return None;
                }
                self.told = Some(time);
                if !self.global.quiet {
                    let trouble = match error.kind() {
                        ErrorKind::Unknown | ErrorKind::Unavailable => "Redis does not answer".to_owned(),
                        _ => error.to_string(),
                    };
                    let fate = self.fate;
                    let when = if time < NOW { "now".to_owned() } else { format!("in {}", left(time)) };
                    say(&format!("{trouble}; {fate} {when} unless the lease of {name} is renewed"));
                }
                Some(json!({ "event": "not_renewed", "remaining_ms": millis(*remaining), "left_ms": millis(time) }))
            }
            _ => None,
        }
    }
}
