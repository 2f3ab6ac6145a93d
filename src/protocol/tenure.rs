//! How long we may believe that we hold a lease, and when to renew it.

use std::time::Duration;

use super::{Moment, margin};

/// How much too early a renewal goes along with others, at most.
pub const EARLY: Duration = Duration::from_millis(100);

/// One lease as its holder sees it.
///
/// The deadline is the send time of the request that granted or renewed the lease, plus its TTL, minus the
/// [`margin`]: the server cannot have started the TTL before the request was sent.
#[derive(Clone, Debug)]
pub struct Tenure {
    ttl: Duration,
    deadline: Moment,
    renew_at: Option<Moment>,
    hold_until: Option<Moment>,
}

/// What the holder does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The lease is over.
    Lost,
    /// Send an extend now.
    Renew,
    /// Nothing to do before this moment.
    Wait(Moment),
}

impl Tenure {
    /// A lease of `lease` that was asked for at `sent`. `ttl` is what a renewal asks for; a handed-off lease is
    /// shorter. With `renew` false it just ends; with `max_hold` renewals stop that long after `sent`.
    pub fn granted(sent: Moment, lease: Duration, ttl: Duration, renew: bool, max_hold: Option<Duration>) -> Self {
        Self {
            ttl,
            deadline: sent + lease.saturating_sub(margin(lease)),
            renew_at: renew.then(|| sent + lease / 3),
            hold_until: max_hold.map(|hold| sent + hold),
        }
    }

    /// The server renewed the lease for at least `ttl`, asked for at `sent`, and said that `remaining` is left of it:
    /// more than `ttl` when it was longer before, and less than was believed here when the server's clock stepped ahead.
    pub fn extended(&mut self, sent: Moment, ttl: Duration, remaining: Duration) {
        self.ttl = ttl;
        self.deadline = sent + remaining.saturating_sub(margin(remaining));
        self.renew_at = self.renew_at.map(|_| sent + ttl / 3);
    }

    /// The reply to a renewal did not come: the lease stands until its deadline, ask again at `at`.
    pub fn unanswered(&mut self, at: Moment) {
        self.renew_at = self.renew_at.map(|_| at);
    }

    /// The server said that we no longer hold it, or we gave it back.
    pub fn end(&mut self, now: Moment) {
        self.deadline = self.deadline.min(now);
        self.renew_at = None;
    }

    /// Until when the lease may be relied on.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    /// What a renewal asks for.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether a renewal is due so soon after `now` that it can go along with others.
    pub fn is_nearly_due(&self, now: Moment) -> bool {
        self.next(now + (self.ttl / 32).min(EARLY)) == Next::Renew
    }

    /// What to do at `now`.
    pub fn next(&self, now: Moment) -> Next {
        if now >= self.deadline {
            return Next::Lost;
        }
        let stopped = self.hold_until.is_some_and(|end| now + self.ttl / 3 >= end);
        match self.renew_at {
            Some(at) if !stopped && at <= now => Next::Renew,
            Some(at) if !stopped => Next::Wait(at.min(self.deadline)),
            _ => Next::Wait(self.deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(ms))
    }

    const TTL: Duration = Duration::from_millis(1280);

    #[test]
    fn deadline_counts_from_before_the_request_and_leaves_a_margin() {
        let tenure = Tenure::granted(at(1000), TTL, TTL, true, None);
        assert_eq!(tenure.deadline(), at(1000 + 1280 - 11));
    }

    #[test]
    fn renews_after_a_third_and_is_lost_at_the_deadline() {
        let tenure = Tenure::granted(at(0), Duration::from_millis(3000), TTL, true, None);
        assert_eq!(tenure.next(at(999)), Next::Wait(at(1000)));
        assert_eq!(tenure.next(at(1000)), Next::Renew);
        let deadline = tenure.deadline();
        assert_eq!(tenure.next(deadline), Next::Lost);
    }

    #[test]
    fn an_unanswered_renewal_never_moves_the_deadline() {
        let mut tenure = Tenure::granted(at(0), TTL, TTL, true, None);
        let deadline = tenure.deadline();
        tenure.unanswered(at(600));
        assert_eq!(tenure.deadline(), deadline);
        assert_eq!(tenure.next(at(599)), Next::Wait(at(600)));
        assert_eq!(tenure.next(at(600)), Next::Renew);
    }

    #[test]
    fn an_extend_lasts_as_long_as_the_server_says() {
        let mut tenure = Tenure::granted(at(0), TTL, TTL, true, None);
        let short = Duration::from_millis(128);
        tenure.extended(at(100), short, TTL);
        assert_eq!((tenure.deadline(), tenure.ttl()), (at(100 + 1280 - 11), short));
        // The server's clock stepped ahead: what was believed before does not count any more.
        tenure.extended(at(200), short, short);
        assert_eq!(tenure.deadline(), at(200 + 128 - 2));
    }

    #[test]
    fn max_hold_stops_renewals_but_not_the_lease() {
        let tenure = Tenure::granted(at(0), TTL, TTL, true, Some(Duration::from_millis(500)));
        assert_eq!(tenure.next(at(450)), Next::Wait(tenure.deadline()));
    }

    #[test]
    fn an_ended_lease_is_lost_at_once() {
        let mut tenure = Tenure::granted(at(0), TTL, TTL, true, None);
        tenure.end(at(5));
        assert_eq!(tenure.next(at(5)), Next::Lost);
    }
}
