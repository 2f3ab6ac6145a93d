//! Giving back what an owner token holds, or its place in the queue.

use super::{Moment, RETRY_PAUSE};

/// Releases of one lock in a row that skip dead waiters: 100000 places, 64 looked at in each.
const ROUNDS: u32 = 1600;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Send a release now and report what became of it.
    Ask,
    /// Nothing before this moment.
    Wait(Moment),
    /// Over.
    Done(Given),
}

/// How a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The lease or the place was given back.
    Back,
    /// There was nothing to give back: the lease had ended before.
    Lost,
    /// There was nothing to give back at the second time of asking: the first may have done it.
    Unknown,
    /// No answer came in time.
    Silent,
}

/// The decisions of one release. The driver asks for the [`next`](Self::next) errand and reports events.
#[derive(Clone, Debug)]
pub struct Releasing {
    due: Moment,
    until: Moment,
    late: Option<Moment>,
    ours: Option<bool>,
    unanswered: bool,
    rounds: u32,
    over: Option<Given>,
}

impl Releasing {
    /// A release that is repeated until `until` while no answer comes. `late`: until when an acquire of this owner
    /// token may still take effect, after which it is released once more.
    pub fn new(now: Moment, until: Moment, late: Option<Moment>) -> Self {
        Self { due: now, until, late, ours: None, unanswered: false, rounds: 0, over: None }
    }

    /// What to do at `now`.
    pub fn next(&self, now: Moment) -> Errand {
        match self.over {
            Some(given) => Errand::Done(given),
            None if now < self.due => Errand::Wait(self.due),
            None => Errand::Ask,
        }
    }

    /// The server answered the release that was sent at `sent`: whether there was something to give back, and whether
    /// dead waiters are left to skip.
    pub fn answered(&mut self, sent: Moment, ours: bool, pending: bool, now: Moment) {
        let ours = *self.ours.get_or_insert(ours);
        self.rounds += 1;
        if pending && self.rounds < ROUNDS {
            self.due = now;
        } else if let Some(late) = self.late.filter(|late| sent < *late) {
            self.due = late;
        } else {
            self.over = Some(match (ours, self.unanswered) {
                (true, _) => Given::Back,
                (false, true) => Given::Unknown,
                (false, false) => Given::Lost,
            });
        }
    }

    /// No answer came. `unknown`: the release may have been obeyed.
    pub fn unanswered(&mut self, unknown: bool, now: Moment) {
        self.unanswered |= unknown && self.ours.is_none();
        if now < self.until {
            self.due = now + RETRY_PAUSE;
        } else {
            self.over = Some(Given::Silent);
        }
    }

    /// A message says that a hand-off granted to this owner token, which nobody waits for.
    pub fn pushed(&mut self, now: Moment) {
        self.due = self.due.min(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn at(ms: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(ms))
    }

    #[test]
    fn goes_on_while_dead_waiters_are_left_and_tells_what_the_first_answer_said() {
        let mut releasing = Releasing::new(at(0), at(1000), None);
        releasing.answered(at(0), true, true, at(1));
        assert_eq!(releasing.next(at(1)), Errand::Ask);
        releasing.answered(at(1), false, false, at(2));
        assert_eq!(releasing.next(at(2)), Errand::Done(Given::Back));
    }

    #[test]
    fn not_held_is_unknown_after_an_unanswered_release_and_lost_otherwise() {
        let mut releasing = Releasing::new(at(0), at(1000), None);
        releasing.answered(at(0), false, false, at(1));
        assert_eq!(releasing.next(at(1)), Errand::Done(Given::Lost));
        let mut releasing = Releasing::new(at(0), at(1000), None);
        releasing.unanswered(true, at(1));
        assert_eq!(releasing.next(at(1)), Errand::Wait(at(51)));
        releasing.answered(at(51), false, false, at(52));
        assert_eq!(releasing.next(at(52)), Errand::Done(Given::Unknown));
    }

    #[test]
    fn ends_when_no_answer_has_come_in_time() {
        let mut releasing = Releasing::new(at(0), at(1000), None);
        releasing.unanswered(true, at(1000));
        assert_eq!(releasing.next(at(1000)), Errand::Done(Given::Silent));
    }

    #[test]
    fn releases_once_more_when_no_late_acquire_can_take_effect_any_more() {
        let mut releasing = Releasing::new(at(0), at(5000), Some(at(2000)));
        releasing.answered(at(0), false, false, at(1));
        assert_eq!(releasing.next(at(1)), Errand::Wait(at(2000)));
        releasing.pushed(at(500));
        assert_eq!(releasing.next(at(500)), Errand::Ask);
        releasing.answered(at(500), true, false, at(501));
        assert_eq!(releasing.next(at(501)), Errand::Wait(at(2000)));
        releasing.answered(at(2000), false, false, at(2001));
        assert_eq!(releasing.next(at(2001)), Errand::Done(Given::Lost));
    }
}
