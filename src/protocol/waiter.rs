//! When a waiter asks again, and whether a grant that was pushed to it can be used without asking.

use std::time::Duration;

use super::{Moment, RETRY_PAUSE, margin};

/// How many waiters that died together cost one claim lease, even if the server still counts them as subscribed.
const NEAR: u64 = 1024;
/// The shortest time between two heartbeats.
const OFTEN: Duration = Duration::from_millis(25);

/// One place in a queue as its waiter sees it.
#[derive(Clone, Debug)]
pub struct Waiter {
    claim: Duration,
    heartbeat: Duration,
    answered: Option<Moment>,
    position: u64,
    remaining: Duration,
}

impl Waiter {
    /// A waiter that asks for a claim lease of `claim` and then for `ttl`. `pushed`: a hand-off reaches its inbox, so
    /// that heartbeats keep the place alive and tell who is the head before a lease like its own can end; else they
    /// are how it learns of a hand-off.
    pub fn new(claim: Duration, ttl: Duration, pushed: bool) -> Self {
        let heartbeat = (claim / 3).min(if pushed { (ttl / 3).max(OFTEN) } else { OFTEN });
        Self { claim, heartbeat, answered: None, position: 1, remaining: Duration::ZERO }
    }

    /// How long the place is to stay alive after the next heartbeat: three intervals, so that two may be lost, and
    /// not beyond the claim lease for the first places, so that waiters which died together cost one claim lease.
    pub fn window(&self) -> Duration {
        (self.interval() * 3).clamp(self.claim, Duration::from_secs(60))
    }

    /// The server answered a heartbeat that was sent at `sent`.
    pub fn answered(&mut self, sent: Moment, position: u64, remaining: Duration) {
        self.answered = Some(sent);
        self.position = position;
        self.remaining = remaining;
    }

    /// When to ask again, when the last answer came at `now`. Only the head of the queue watches the end of the
    /// holder's lease; `jitter` is between 0 and 1.
    pub fn next_heartbeat(&self, now: Moment, jitter: f64) -> Moment {
        let regular = now + self.interval().mul_f64(0.75 + jitter / 4.0);
        if self.position > 1 {
            return regular;
        }
        regular.min(now + self.remaining + Duration::from_millis(1))
    }

    /// Within which time to ask when a message may be lost. A long queue does not ask all at once.
    pub fn soon(&self) -> Duration {
        RETRY_PAUSE.saturating_mul(self.times(64)).min(Duration::from_secs(1))
    }

    /// The moment from which a grant of `lease` pushed now surely counts: the server cannot have made it before it
    /// had answered our last heartbeat, and that was not before we sent it. `None` when too little would be left of
    /// the lease, or nothing is proven: then claim it first.
    pub fn proven_since(&self, lease: Duration, now: Moment) -> Option<Moment> {
        let since = self.answered?;
        let left = (since + lease.saturating_sub(margin(lease))).since(now);
        (left >= lease / 3).then_some(since)
    }

    /// Time between two heartbeats. It grows with the position, so that a long queue does not keep the server busy; the
    /// [`NEAR`] first places ask in each third of a claim lease, which is what their windows follow from.
    fn interval(&self) -> Duration {
        let most = self.claim / 3 * self.times(NEAR).min(6);
        self.heartbeat.saturating_mul(self.times(64)).min(most)
    }

    /// How many times `places` the position is, at least one.
    fn times(&self, places: u64) -> u32 {
        u32::try_from(self.position.div_ceil(places)).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Duration = Duration::from_millis(3000);

    const fn at(ms: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(ms))
    }

    #[test]
    fn only_the_head_watches_the_end_of_the_lease() {
        let mut waiter = Waiter::new(CLAIM, 2 * CLAIM, true);
        waiter.answered(at(0), 1, Duration::from_millis(100));
        assert_eq!(waiter.next_heartbeat(at(2), 1.0), at(103));
        waiter.answered(at(0), 2, Duration::from_millis(100));
        assert_eq!(waiter.next_heartbeat(at(2), 1.0), at(1002));
    }

    #[test]
    fn asks_often_enough_to_be_the_head_before_a_short_lease_ends() {
        let mut waiter = Waiter::new(CLAIM, Duration::from_millis(300), true);
        waiter.answered(at(0), 2, Duration::from_millis(100));
        assert_eq!(waiter.next_heartbeat(at(2), 1.0), at(102));
        assert_eq!(waiter.window(), CLAIM);
    }

    #[test]
    fn waiters_far_behind_ask_less_often() {
        let mut waiter = Waiter::new(CLAIM, Duration::from_millis(300), true);
        waiter.answered(at(0), 65, Duration::ZERO);
        assert_eq!(waiter.interval(), Duration::from_millis(200));
        waiter.answered(at(0), NEAR, Duration::ZERO);
        assert_eq!(waiter.interval(), Duration::from_millis(1000));
        waiter.answered(at(0), 100_000, Duration::ZERO);
        assert_eq!(waiter.interval(), Duration::from_millis(6000));
    }

    #[test]
    fn windows_of_the_first_places_are_no_longer_than_the_claim_lease() {
        let mut waiter = Waiter::new(CLAIM, 2 * CLAIM, true);
        waiter.answered(at(0), NEAR, Duration::ZERO);
        assert_eq!(waiter.window(), CLAIM);
        waiter.answered(at(0), 10_000, Duration::ZERO);
        assert_eq!(waiter.window(), Duration::from_secs(18));
    }

    #[test]
    fn a_pushed_grant_counts_from_the_last_answered_heartbeat() {
        let mut waiter = Waiter::new(CLAIM, 2 * CLAIM, true);
        assert_eq!(waiter.proven_since(CLAIM, at(0)), None);
        waiter.answered(at(1000), 1, Duration::ZERO);
        assert_eq!(waiter.proven_since(CLAIM, at(1500)), Some(at(1000)));
        assert_eq!(waiter.proven_since(CLAIM, at(3500)), None);
    }
}
