//! The decisions of an attempt, of a lease and of a release, as pure functions of what happened and what time it is.
//!
//! No I/O and no clock reads: callers pass a [`Moment`], so that the same code runs under a simulated clock. An
//! [`Acquiring`] ends in a [`Tenure`], and both end in a [`Releasing`].

mod acquiring;
mod releasing;
mod server_clock;
mod tenure;
mod waiter;

use std::{ops::Add, time::Duration};

pub use acquiring::{Acquiring, Answer, Question, Step, Terms};
pub use releasing::{Errand, Given, Releasing};
pub use server_clock::ServerClock;
pub use tenure::{EARLY, Next, Tenure};

use waiter::Waiter;

/// Pause before a question is repeated that got no answer of use.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

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
