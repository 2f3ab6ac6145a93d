//! The last fence that this process was granted, for each lock that it has a handle of.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::Fence;

/// How many locks are remembered before those without a handle are looked for.
const FEW: usize = 64;

/// All locks of a client.
#[derive(Default)]
pub(super) struct Fences(Mutex<Known>);

#[derive(Default)]
struct Known {
    locks: HashMap<Vec<u8>, Weak<AtomicU64>>,
    /// How many there may be before those without a handle are forgotten.
    most: usize,
}

/// One lock. Cheap to clone.
#[derive(Clone)]
pub(super) struct Heard(Arc<AtomicU64>);

impl Fences {
    /// What is known of the lock at `key`, shared by all its handles.
    pub(super) fn of(&self, key: &[u8]) -> Heard {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heard) = known.locks.get(key).and_then(Weak::upgrade) {
            return Heard(heard);
        }
        if known.locks.len() >= known.most {
            known.locks.retain(|_, heard| heard.strong_count() > 0);
            known.most = (2 * known.locks.len()).max(FEW);
        }
        let heard = Arc::default();
        known.locks.insert(key.to_vec(), Arc::downgrade(&heard));
        Heard(heard)
    }
}

impl Heard {
    /// Takes note of a grant.
    pub(super) fn note(&self, fence: Fence) {
        self.0.fetch_max(fence.get(), Ordering::AcqRel);
    }

    /// Whether a grant of `fence` can come after those that were heard of.
    pub(super) fn rises(&self, fence: Fence) -> bool {
        fence.get() > self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_one_lock_share_what_they_heard() {
        let fences = Fences::default();
        let (one, same, other) = (fences.of(b"n"), fences.of(b"n"), fences.of(b"m"));
        one.note("7".parse().unwrap());
        one.note("5".parse().unwrap());
        assert!(!same.rises("7".parse().unwrap()) && same.rises("8".parse().unwrap()));
        assert!(other.rises("7".parse().unwrap()));
    }

    #[test]
    fn a_lock_without_handles_is_forgotten() {
        let fences = Fences::default();
        for number in 0..10_000_u32 {
            fences.of(&number.to_be_bytes()).note("7".parse().unwrap());
        }
        assert!(fences.0.lock().unwrap().locks.len() <= FEW);
    }
}
