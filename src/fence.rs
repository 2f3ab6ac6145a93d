//! The fencing token.

use std::{fmt, str::FromStr};

/// A number that only grows: every grant of a lock has a higher one than all grants before, also after a restart or the
/// loss of all data, unless the server's clock steps back below what it has forgotten; see
/// [`Lock::fence_floor`](crate::Lock).
///
/// Send it along with every write; a resource that remembers the highest fence it has seen and refuses lower ones is
/// safe even from a holder that was stopped, lost its lease and woke up again. Always below 2^53, so it survives
/// JSON and JavaScript as well.
///
/// ```
/// use redlatch::Fence;
/// let fence: Fence = "1755200000123456".parse()?;
/// assert_eq!(fence.to_string(), "1755200000123456");
/// # Ok::<(), redlatch::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(u64);

impl Fence {
    const MAX: u64 = (1 << 53) - 1;
    /// Stands where a family has no fence.
    pub(crate) const NONE: Self = Self(0);

    /// None for a number that no fence can have.
    pub(crate) fn new(number: u64) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// The fence as a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Fence {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(number) if number <= Self::MAX && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self(number)),
            _ => Err(crate::Error::invalid("a fence is decimal digits, at most 2^53 - 1")),
        }
    }
}
