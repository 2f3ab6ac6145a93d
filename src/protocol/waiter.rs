//! When a waiter asks again, and whether a grant that was pushed to it can be used without asking.

use std::time::Duration;

use super::{Moment, RETRY_PAUSE, margin};
use crate::Fence;

/// How many waiters that died together cost one claim lease, even if the server still counts them as subscribed.
const NEAR: u64 = 1024;
/// The shortest time between two heartbeats.
const OFTEN: Duration = Duration::from_millis(25);

/// A heartbeat that was answered.
#[derive(Clone, Copy, Debug)]
struct Answered {
    sent: Moment,
    /// The server's time in the answer, in microseconds.
    server_us: u64,
}

/// One place in a queue as its waiter sees it.
#[derive(Clone, Debug)]
pub struct Waiter {
    claim: Duration,
    ttl: Duration,
    heartbeat: Duration,
    answered: Option<Answered>,
    position: u64,
    remaining: Duration,
}

impl Waiter {
    /// A waiter that asks for a claim lease of `claim` and then for `ttl`. `pushed`: a hand-off reaches its inbox, so
    /// that heartbeats keep the place alive and tell who is the head before a lease like its own can end; else they
    /// are how it learns of a hand-off.
    pub fn new(claim: Duration, ttl: Duration, pushed: bool) -> Self {
        let mut waiter = Self { claim, ttl, heartbeat: OFTEN, answered: None, position: 1, remaining: Duration::ZERO };
        waiter.listens(pushed);
        waiter
    }

    /// Whether a hand-off reaches the inbox from now on, which depends on the connection in use.
    pub fn listens(&mut self, pushed: bool) {
        self.heartbeat = (self.claim / 3).min(if pushed { (self.ttl / 3).max(OFTEN) } else { OFTEN });
    }

    /// How long the place is to stay alive after the next heartbeat: three intervals, so that two may be lost, and
    /// not beyond the claim lease for the first places, so that waiters which died together cost one claim lease.
    pub fn window(&self) -> Duration {
        (self.interval() * 3).clamp(self.claim, Duration::from_secs(60))
    }

    /// The server answered a heartbeat that was sent at `sent`, when its clock showed `server_us`.
    pub fn answered(&mut self, sent: Moment, server_us: u64, position: u64, remaining: Duration) {
        self.answered = Some(Answered { sent, server_us });
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

    /// The moment from which a grant of `lease` under `fence`, pushed now, surely counts: the server cannot have made it
    /// before it had answered our last heartbeat, and that was not before we sent it. `None` when too little would be
    /// left of the lease, nothing is proven, or the message is none that the scripts would send: then claim it first.
    pub fn proven_since(&self, fence: Fence, lease: Duration, now: Moment) -> Option<Moment> {
        let answered = self.answered?;
        let left = (answered.sent + lease.saturating_sub(margin(lease))).since(now);
        let is_believed = lease.as_millis() == self.claim.min(self.ttl).as_millis() && answered.allows(fence, now);
        (left >= lease / 3 && is_believed).then_some(answered.sent)
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

impl Answered {
    /// Whether the server's clock can have shown `fence` between this answer and `now`, as it does at nearly every grant.
    fn allows(self, fence: Fence, now: Moment) -> bool {
        let passed = now.since(self.sent);
        let passed_us = u64::try_from((passed + margin(passed)).as_micros()).unwrap_or(u64::MAX);
        (self.server_us..=self.server_us.saturating_add(passed_us)).contains(&fence.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Duration = Duration::from_millis(3000);
    const SERVER_US: u64 = 1_755_200_000_000_000;

    const fn at(ms: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(ms))
    }

    #[test]
    fn only_the_head_watches_the_end_of_the_lease() {
        let mut waiter = Waiter::new(CLAIM, 2 * CLAIM, true);
        waiter.answered(at(0), SERVER_US, 1, Duration::from_millis(100));
        assert_eq!(waiter.next_heartbeat(at(2), 1.0), at(103));
        waiter.answered(at(0), SERVER_US, 2, Duration::from_millis(100));
        assert_eq!(waiter.next_heartbeat(at(2), 1.0), at(1002));
    }

    #[test]
    fn asks_often_enough_to_be_the_head_before_a_short_lease_ends() {
        let mut waiter = Waiter::new(CLAIM, Duration::from_millis(300), true);
        waiter.answered(at(0), SERVER_US, 2, Duration::from_millis(100));
        assert_eq!(waiter.next_heartbeat(at(2), 1.0), at(102));
        assert_eq!(waiter.window(), CLAIM);
    }

    #[test]
    fn waiters_far_behind_ask_less_often() {
        let mut waiter = Waiter::new(CLAIM, Duration::from_millis(300), true);
        waiter.answered(at(0), SERVER_US, 65, Duration::ZERO);
        assert_eq!(waiter.interval(), Duration::from_millis(200));
        waiter.answered(at(0), SERVER_US, NEAR, Duration::ZERO);
        assert_eq!(waiter.interval(), Duration::from_millis(1000));
        waiter.answered(at(0), SERVER_US, 100_000, Duration::ZERO);
        assert_eq!(waiter.interval(), Duration::from_millis(6000));
    }

    #[test]
    fn windows_of_the_first_places_are_no_longer_than_the_claim_lease() {
        let mut waiter = Waiter::new(CLAIM, 2 * CLAIM, true);
        waiter.answered(at(0), SERVER_US, NEAR, Duration::ZERO);
        assert_eq!(waiter.window(), CLAIM);
        waiter.answered(at(0), SERVER_US, 10_000, Duration::ZERO);
        assert_eq!(waiter.window(), Duration::from_secs(18));
    }

    /// The fence of a grant so many microseconds after the server's answer.
    fn fence(after_us: i64) -> Fence {
        SERVER_US.saturating_add_signed(after_us).to_string().parse().unwrap()
    }

    fn answered_at(sent: u64) -> Waiter {
        let mut waiter = Waiter::new(CLAIM, 2 * CLAIM, true);
        waiter.answered(at(sent), SERVER_US, 1, Duration::ZERO);
        waiter
    }

    #[test]
    fn a_pushed_grant_counts_from_the_last_answered_heartbeat() {
        let waiter = Waiter::new(CLAIM, 2 * CLAIM, true);
        assert_eq!(waiter.proven_since(fence(0), CLAIM, at(0)), None);
        let waiter = answered_at(1000);
        assert_eq!(waiter.proven_since(fence(499_000), CLAIM, at(1500)), Some(at(1000)));
        assert_eq!(waiter.proven_since(fence(499_000), CLAIM, at(3500)), None);
    }

    #[test]
    fn a_fence_that_the_servers_clock_cannot_have_shown_is_not_believed() {
        let waiter = answered_at(1000);
        for (after_us, is_believed) in [
            (i64::MIN, false),
            (-1, false),
            (0, true),
            (500_000, true),
            (504_906, true),
            (504_907, false),
            (3_600_000_000, false),
            (9_007_199_254_740_991 - 1_755_200_000_000_000, false),
        ] {
            let fence = if after_us == i64::MIN { "1".parse().unwrap() } else { fence(after_us) };
            assert_eq!(waiter.proven_since(fence, CLAIM, at(1500)).is_some(), is_believed, "{after_us}");
        }
    }

    #[test]
    fn a_lease_of_another_length_than_was_asked_for_is_not_believed() {
        let waiter = answered_at(1000);
        for lease in [0, 1, 2999, 3001, 6000, 600_000, u64::MAX] {
            assert_eq!(waiter.proven_since(fence(1), Duration::from_millis(lease), at(1001)), None, "{lease}");
        }
        let mut short = Waiter::new(CLAIM, CLAIM / 2, true);
        short.answered(at(1000), SERVER_US, 1, Duration::ZERO);
        assert!(short.proven_since(fence(1), CLAIM / 2, at(1001)).is_some(), "no longer than the lease itself");
        assert_eq!(short.proven_since(fence(1), CLAIM, at(1001)), None);
    }

    #[test]
    fn asks_often_only_while_no_message_can_come() {
        let mut waiter = answered_at(1000);
        let regular = waiter.interval();
        waiter.listens(false);
        assert_eq!(waiter.interval(), OFTEN);
        waiter.listens(true);
        assert_eq!(waiter.interval(), regular);
    }
}
