//! Decisions of a waiter and of a lease, as pure functions of what happened and what time it is.
//!
//! No I/O and no clock reads: callers pass a [`Moment`], so that the same code runs under a simulated clock.

mod tenure;
mod waiter;

use std::{ops::Add, time::Duration};

pub use tenure::{Next, Tenure};
pub use waiter::Waiter;

/// A reading of the boot-time clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `elapsed` after boot.
    pub const fn from_boot(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Time from `earlier` to this moment, zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// How much of a lease is not used, so that clocks which run at slightly different rates cannot make two holders:
/// one part in 128 and one millisecond.
pub fn margin(lease: Duration) -> Duration {
    lease / 128 + Duration::from_millis(1)
}
