//! How much of the lease of `run` is kept back for stopping its command.

use std::time::Duration;

use redlatch::Lease;

use crate::{
    duration::show,
    guard::words::{Plan, us},
    outcome::{Cause, Failure},
    run::{OnEnd, OnLost, RunOptions},
    supervise::until_us,
};

/// Time for the stop itself, at most: to be scheduled on a busy machine, to signal, to reap. A tenth of shorter leases.
const MARGIN: Duration = Duration::from_secs(1);
const MAX_DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// How much of the lease is kept back for stopping the command.
#[derive(Clone, Copy)]
pub struct Reserve {
    grace: Duration,
    pub margin: Duration,
}

impl Reserve {
    /// Grace and margin, which must leave room for a renewal: it is due after a third of the TTL, and may be late.
    pub fn of(options: &RunOptions) -> Result<Self, Failure> {
        let ttl = options.ttl;
        let margin = MARGIN.min(ttl / 10);
        let grace = options.grace.unwrap_or((ttl / 4).min(MAX_DEFAULT_GRACE));
        let room = if options.no_renew { ttl } else { ttl / 2 };
        if options.on_lost == OnLost::Warn || grace + margin < room {
            return Ok(Self { grace, margin });
        }
        let part = if options.no_renew { "the TTL" } else { "half of the TTL" };
        Err(Failure::new(
            Cause::Usage,
            format!(
                "--grace {} and a margin of {} do not fit into {part} of {}: the command could not be stopped in time",
                show(grace),
                show(margin),
                show(ttl)
            ),
        )
        .hint("write a longer --ttl or a shorter --grace"))
    }

    /// How much earlier than the end of the lease the command is asked to end.
    pub fn whole(self) -> Duration {
        self.grace + self.margin
    }

    /// What the guard has to know.
    pub fn plan(self, options: &RunOptions, lease: &Lease) -> Plan {
        Plan {
            job: 0,
            close: options.status_fd,
            signal: options.signal as i32,
            grace_us: us(self.grace),
            margin_us: us(self.margin),
            ends_with_lease: options.on_lost == OnLost::Kill,
            ends_left_behind: options.on_end == OnEnd::Stop,
            until_us: until_us(lease),
        }
    }
}
