//! One attempt from its first question to a lease or to "no".

use std::time::Duration;

use super::{Moment, RETRY_PAUSE, Tenure, Waiter, margin};
use crate::Fence;

/// What an attempt is made with.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Length of the lease.
    pub ttl: Duration,
    /// Length of the lease that a hand-off starts with.
    pub claim: Duration,
    /// Whether the lease will be renewed.
    pub renew: bool,
    /// How long it will be renewed, from its grant.
    pub max_hold: Option<Duration>,
    /// The longest that one question may take.
    pub timeout: Duration,
    /// For how long to ask on while no answer of use comes.
    pub patience: Duration,
}

/// The server's answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the script's header")]
pub enum Answer {
    /// The owner token has the lease.
    Granted { fence: Fence },
    /// It has a place in the queue.
    Queued { position: u64, remaining: Duration, server_us: u64 },
    /// Somebody else has the lease.
    Held { remaining: Duration },
    /// The question arrived too late to be granted.
    TooLate { remaining: Duration },
    /// The owner token has released before.
    Spent,
}

/// An acquire to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// How long the place in the queue is to stay alive; zero to try without waiting.
    pub window: Duration,
    /// When the asker has no use for a grant any more: nothing may be granted after it.
    pub give_up: Moment,
    /// Until when to wait for the answer, whatever has to be sent for it.
    pub until: Moment,
}

/// What to do next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send this question and report what became of it.
    Ask(Question),
    /// Report messages until this moment.
    Wait(Moment),
    /// The lease is granted.
    Granted {
        /// Its fencing token.
        fence: Fence,
        /// What is proven of it.
        tenure: Tenure,
    },
    /// Somebody else has the lease, and the time to wait is over.
    Held {
        /// What was left of the other's lease when it was last heard of; zero when that is unknown.
        remaining: Duration,
    },
    /// The lease was granted, and over before that was known here.
    Lost,
    /// No answer came for too long.
    Silent,
}

/// The decisions of one owner token's attempt. The driver asks for the next [`step`](Self::step) and reports events.
#[derive(Clone, Debug)]
pub struct Acquiring {
    terms: Terms,
    waiter: Option<Waiter>,
    limit: Option<Moment>,
    /// When the last answer is waited for no longer.
    ends: Option<Moment>,
    state: State,
    asked: bool,
    /// It has had a place in the queue.
    queued: bool,
    /// A grant was over when it was known here.
    came_late: bool,
    remaining: Duration,
    /// Since when no answer of use has come.
    silent_since: Option<Moment>,
    /// Until when a question without an answer may still take effect.
    late: Option<Moment>,
}

#[derive(Clone, Debug)]
enum State {
    Due(Moment),
    /// A question is on its way. `heard`: a message came meanwhile.
    Asked {
        give_up: Moment,
        heard: bool,
    },
    Over(Step),
}

impl Acquiring {
    /// An attempt that does not wait.
    pub fn once(terms: Terms, now: Moment) -> Self {
        let ends = now + terms.patience;
        Self { ends: Some(ends), ..Self::new(terms, None, None, now) }
    }

    /// An attempt that waits until `limit`. `pushed`: a hand-off reaches it as a message.
    pub fn in_queue(terms: Terms, pushed: bool, limit: Option<Moment>, now: Moment) -> Self {
        let waiter = Waiter::new(terms.claim, terms.ttl, pushed);
        Self::new(terms, Some(waiter), limit, now)
    }

    fn new(terms: Terms, waiter: Option<Waiter>, limit: Option<Moment>, now: Moment) -> Self {
        Self {
            terms,
            waiter,
            limit,
            ends: None,
            state: State::Due(now),
            asked: false,
            queued: false,
            came_late: false,
            remaining: Duration::ZERO,
            silent_since: None,
            late: None,
        }
    }

    /// Whether a message can reach this attempt from now on: if not, it has to ask more often.
    pub fn listens(&mut self, pushed: bool) {
        if let Some(waiter) = &mut self.waiter {
            waiter.listens(pushed);
        }
    }

    /// Whether there is a place to lose, so that a fail-over is waited for.
    pub fn has_place(&self) -> bool {
        self.queued
    }

    /// Until when a question that has no answer may still take effect.
    pub fn late(&self) -> Option<Moment> {
        let open = match self.state {
            State::Asked { give_up, .. } => Some(give_up),
            State::Due(_) | State::Over(_) => None,
        };
        self.late.max(open).map(|late| late + margin(self.terms.timeout))
    }

    /// What to do at `now`. Not to be called between a question and the report of its fate.
    pub fn step(&mut self, now: Moment) -> Step {
        match &self.state {
            State::Over(outcome) => outcome.clone(),
            State::Asked { give_up, .. } => Step::Wait(*give_up),
            State::Due(_) if self.asked && self.is_over(now) => self.end(Step::Held { remaining: self.remaining }),
            State::Due(at) if now < *at => Step::Wait(self.limit.map_or(*at, |limit| limit.min(*at))),
            State::Due(_) => {
                let until = now + self.terms.timeout;
                let until = self.ends.map_or(until, |ends| ends.min(until));
                let give_up = self.limit.map_or(until, |limit| limit.min(until));
                self.asked = true;
                self.state = State::Asked { give_up, heard: false };
                let window = self.waiter.as_ref().map_or(Duration::ZERO, Waiter::window);
                Step::Ask(Question { window, give_up, until })
            }
        }
    }

    /// The question that was sent at `sent` is answered. `jitter` is between 0 and 1, here and below.
    pub fn answered(&mut self, sent: Moment, answer: Answer, now: Moment, jitter: f64) {
        let State::Asked { heard, .. } = self.state else { return };
        match answer {
            Answer::Granted { fence } => match self.tenure(sent, self.terms.ttl, now) {
                Some(tenure) => drop(self.end(Step::Granted { fence, tenure })),
                None => {
                    self.came_late = true;
                    self.useless(sent, now, now + RETRY_PAUSE.mul_f64(jitter), Step::Lost);
                }
            },
            Answer::Queued { position, remaining, server_us } => {
                self.useful(remaining);
                self.queued = true;
                let Some(waiter) = &mut self.waiter else { return self.state = State::Due(now) };
                waiter.answered(sent, server_us, position, remaining);
                // A message that has come may speak of a grant from before this answer.
                let soon = heard || remaining.is_zero();
                self.state = State::Due(if soon { now } else { waiter.next_heartbeat(now, jitter) });
            }
            Answer::Held { remaining } => {
                self.useful(remaining);
                if self.waiter.is_none() {
                    self.end(Step::Held { remaining });
                } else {
                    // A family without a queue: ask in growing pauses within the holder's lease.
                    let pause = (remaining / 8).clamp(Duration::from_millis(2), Duration::from_millis(100));
                    self.state = State::Due(now + pause.mul_f64(0.5 + jitter));
                }
            }
            Answer::TooLate { remaining } => {
                self.useful(remaining);
                if self.ends.is_some_and(|ends| now >= ends) {
                    // Whatever a try asked now would be too late again.
                    self.end(self.without_lease());
                } else {
                    self.state = State::Due(now);
                }
            }
            Answer::Spent => drop(self.end(Step::Lost)),
        }
    }

    /// No answer came to the question that was sent at `sent`: it may have been obeyed, or be obeyed yet.
    pub fn unanswered(&mut self, sent: Moment, now: Moment, jitter: f64) {
        let State::Asked { give_up, .. } = self.state else { return };
        self.late = self.late.max(Some(give_up));
        let outcome = self.without_lease();
        if self.waiter.is_some() && self.is_over(now) {
            self.end(outcome);
        } else {
            self.useless(sent, now, now + RETRY_PAUSE.mul_f64(0.5 + jitter), outcome);
        }
    }

    /// A message says that a hand-off granted `lease` to this owner token.
    ///
    /// It counts at once when that is proven to be still valid; else the lease is asked for, as it is without
    /// renewals, which would leave it as short as a claim lease. A message that nobody's release sent costs a question.
    pub fn pushed(&mut self, fence: Fence, lease: Duration, now: Moment) {
        self.told(now);
        if let State::Due(_) = self.state {
            let proven = self.waiter.as_ref().and_then(|waiter| waiter.proven_since(fence, lease, now));
            let tenure = proven.filter(|_| self.terms.renew).and_then(|since| self.tenure(since, lease, now));
            if let Some(tenure) = tenure {
                self.end(Step::Granted { fence, tenure });
            }
        }
    }

    /// A message says that there is something to ask for: a hand-off granted the lease to this owner token some time
    /// ago, or it is the head of the queue now.
    pub fn told(&mut self, now: Moment) {
        match &mut self.state {
            State::Asked { heard, .. } => *heard = true,
            State::Due(at) => *at = now,
            State::Over(_) => {}
        }
    }

    /// The connection broke, so that a message may be lost.
    pub fn disconnected(&mut self, now: Moment, jitter: f64) {
        match &mut self.state {
            State::Asked { heard, .. } => *heard = true,
            State::Due(at) => {
                let soon = self.waiter.as_ref().map_or(RETRY_PAUSE, Waiter::soon);
                *at = (*at).min(now + soon.mul_f64(jitter));
            }
            State::Over(_) => {}
        }
    }

    /// The end without an answer of use.
    fn without_lease(&self) -> Step {
        if self.came_late { Step::Lost } else { Step::Silent }
    }

    fn is_over(&self, now: Moment) -> bool {
        self.limit.is_some_and(|limit| now >= limit)
    }

    fn useful(&mut self, remaining: Duration) {
        self.silent_since = None;
        self.remaining = remaining;
    }

    /// Asks again at `at`, or ends with `outcome` when patience is over.
    fn useless(&mut self, sent: Moment, now: Moment, at: Moment, outcome: Step) {
        let is_late = self.ends.is_some_and(|ends| at >= ends);
        if is_late || now.since(*self.silent_since.get_or_insert(sent)) >= self.terms.patience {
            self.end(outcome);
        } else {
            self.state = State::Due(at);
        }
    }

    fn end(&mut self, outcome: Step) -> Step {
        self.state = State::Over(outcome.clone());
        outcome
    }

    /// A lease of `length` that was asked for at `sent`; `None` when it is over already.
    fn tenure(&self, sent: Moment, length: Duration, now: Moment) -> Option<Tenure> {
        let tenure = Tenure::granted(sent, length, self.terms.ttl, self.terms.renew, self.terms.max_hold);
        (now < tenure.deadline()).then_some(tenure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_millis(1280);
    const SERVER_US: u64 = 1_755_200_000_000_000;

    const fn at(ms: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(ms))
    }

    fn terms() -> Terms {
        Terms {
            ttl: TTL,
            claim: TTL,
            renew: true,
            max_hold: None,
            timeout: Duration::from_millis(1000),
            patience: Duration::from_millis(3000),
        }
    }

    fn fence() -> Fence {
        SERVER_US.to_string().parse().unwrap()
    }

    fn queued(position: u64, remaining: u64) -> Answer {
        Answer::Queued { position, remaining: Duration::from_millis(remaining), server_us: SERVER_US }
    }

    #[test]
    fn a_try_asks_nothing_whose_answer_would_come_after_its_end() {
        let mut acquiring = Acquiring::once(terms(), at(0));
        assert!(matches!(acquiring.step(at(2990)), Step::Ask(Question { until, .. }) if until == at(3000)));
        acquiring.unanswered(at(2990), at(2995), 1.0);
        assert!(matches!(acquiring.step(at(2995)), Step::Silent));
    }

    #[test]
    fn a_try_whose_answer_was_too_late_after_its_end_asks_no_more() {
        let mut acquiring = Acquiring::once(terms(), at(0));
        assert!(matches!(acquiring.step(at(0)), Step::Ask(_)));
        acquiring.answered(at(0), Answer::TooLate { remaining: Duration::ZERO }, at(2999), 1.0);
        assert!(matches!(acquiring.step(at(2999)), Step::Ask(_)));
        acquiring.answered(at(2999), Answer::TooLate { remaining: Duration::ZERO }, at(3000), 1.0);
        assert!(matches!(acquiring.step(at(3000)), Step::Silent));
    }

    /// A waiter whose question from `sent` was answered at `now`.
    fn waiting(sent: u64, now: u64, limit: Option<Moment>) -> Acquiring {
        let mut acquiring = Acquiring::in_queue(terms(), true, limit, at(sent));
        assert!(matches!(acquiring.step(at(sent)), Step::Ask(_)));
        acquiring.answered(at(sent), queued(2, 900), at(now), 1.0);
        acquiring
    }

    #[track_caller]
    fn deadline(acquiring: &mut Acquiring, now: u64) -> Moment {
        match acquiring.step(at(now)) {
            Step::Granted { tenure, .. } => tenure.deadline(),
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn a_grant_counts_from_before_its_question() {
        let mut acquiring = Acquiring::once(terms(), at(0));
        acquiring.step(at(100));
        acquiring.answered(at(100), Answer::Granted { fence: fence() }, at(300), 0.0);
        assert_eq!(deadline(&mut acquiring, 300), at(100 + 1280 - 11));
    }

    #[test]
    fn a_grant_that_is_over_when_it_arrives_is_asked_for_again() {
        let mut acquiring = Acquiring::once(terms(), at(0));
        acquiring.step(at(0));
        acquiring.answered(at(0), Answer::Granted { fence: fence() }, at(1269), 0.0);
        assert!(matches!(acquiring.step(at(1269)), Step::Ask(_)));
        acquiring.answered(at(1269), Answer::Granted { fence: fence() }, at(3000), 0.0);
        assert!(matches!(acquiring.step(at(3000)), Step::Lost));
    }

    #[test]
    fn a_grant_that_came_too_late_is_lost_also_when_the_last_answer_is_of_no_use() {
        let mut acquiring = Acquiring::once(terms(), at(0));
        acquiring.step(at(0));
        acquiring.answered(at(0), Answer::Granted { fence: fence() }, at(1269), 0.0);
        acquiring.step(at(2500));
        let mut too_late = acquiring.clone();
        acquiring.unanswered(at(2500), at(3000), 0.0);
        assert!(matches!(acquiring.step(at(3000)), Step::Lost));
        too_late.answered(at(2500), Answer::TooLate { remaining: Duration::ZERO }, at(3000), 0.0);
        assert!(matches!(too_late.step(at(3000)), Step::Lost));
    }

    #[test]
    fn a_grant_that_is_only_told_of_is_asked_for() {
        let mut acquiring = waiting(0, 5, None);
        acquiring.told(at(10));
        assert!(matches!(acquiring.step(at(10)), Step::Ask(_)));
        acquiring.told(at(12));
        acquiring.answered(at(10), queued(1, 900), at(15), 1.0);
        assert!(matches!(acquiring.step(at(15)), Step::Ask(_)), "the message may be newer than the answer");
    }

    #[test]
    fn a_pushed_grant_counts_from_the_last_answered_question() {
        let mut acquiring = waiting(0, 5, None);
        acquiring.pushed(fence(), TTL, at(300));
        assert_eq!(deadline(&mut acquiring, 300), at(1280 - 11));
    }

    #[test]
    fn a_message_that_crosses_a_question_is_not_believed() {
        let mut acquiring = waiting(0, 5, None);
        assert!(matches!(acquiring.step(at(500)), Step::Ask(_)));
        acquiring.pushed(fence(), TTL, at(501));
        acquiring.answered(at(500), queued(1, 900), at(502), 1.0);
        assert!(matches!(acquiring.step(at(502)), Step::Ask(_)));
    }

    #[test]
    fn without_renewals_a_pushed_grant_is_asked_for() {
        let mut acquiring = Acquiring::in_queue(Terms { renew: false, ..terms() }, true, None, at(0));
        acquiring.step(at(0));
        acquiring.answered(at(0), queued(1, 900), at(1), 1.0);
        acquiring.pushed(fence(), TTL, at(2));
        assert!(matches!(acquiring.step(at(2)), Step::Ask(_)));
    }

    #[test]
    fn the_limit_ends_the_wait_but_not_the_first_question() {
        let mut acquiring = Acquiring::in_queue(terms(), true, Some(at(0)), at(0));
        assert!(matches!(acquiring.step(at(0)), Step::Ask(Question { give_up, .. }) if give_up == at(0)));
        let mut acquiring = waiting(0, 5, Some(at(50)));
        assert!(matches!(acquiring.step(at(5)), Step::Wait(until) if until == at(50)));
        assert!(matches!(acquiring.step(at(50)), Step::Held { remaining } if remaining == Duration::from_millis(900)));
    }

    #[test]
    fn a_broken_connection_makes_every_waiter_ask_soon_but_not_all_at_once() {
        let mut acquiring = waiting(0, 5, None);
        acquiring.disconnected(at(10), 0.5);
        assert!(matches!(acquiring.step(at(10)), Step::Wait(until) if until == at(35)));
        acquiring.step(at(35));
        acquiring.answered(at(35), queued(640, 900), at(40), 1.0);
        acquiring.disconnected(at(50), 0.5);
        assert!(matches!(acquiring.step(at(50)), Step::Wait(until) if until == at(300)));
    }

    #[test]
    fn a_message_that_no_release_sent_is_asked_about_and_the_wait_goes_on() {
        for (said, lease) in [("0", 0), ("1", 1280), ("9007199254740991", 1280), ("1755200000000000", 600_000)] {
            let mut acquiring = waiting(0, 5, None);
            acquiring.pushed(said.parse().unwrap(), Duration::from_millis(lease), at(10));
            assert!(
                matches!(acquiring.step(at(10)), Step::Ask(Question { window, .. }) if !window.is_zero()),
                "{said}"
            );
            acquiring.answered(at(10), queued(2, 900), at(12), 1.0);
            assert!(matches!(acquiring.step(at(12)), Step::Wait(_)), "{said}");
            acquiring.pushed(fence(), TTL, at(14));
            assert_eq!(deadline(&mut acquiring, 14), at(10 + 1280 - 11));
        }
    }

    #[test]
    fn an_attempt_that_does_not_wait_is_over_after_its_patience_whatever_goes_wrong() {
        let mut acquiring = Acquiring::once(terms(), at(0));
        let mut now = 0;
        while let Step::Ask(Question { give_up, until, .. }) = acquiring.step(at(now)) {
            assert!(until <= at(3000) && give_up <= until, "{until:?}");
            // The last question gets all the time that it may have.
            let ends = if now < 2500 { now + 700 } else { 3000 };
            acquiring.unanswered(at(now), at(ends), 0.5);
            now = ends + 50;
        }
        assert!(matches!(acquiring.step(at(now)), Step::Silent));
        assert!(now <= 3050, "{now}");
    }

    #[test]
    fn patience_counts_from_the_first_question_without_a_useful_answer() {
        let mut acquiring = waiting(0, 5, None);
        for sent in [1000, 2000, 3000] {
            assert!(matches!(acquiring.step(at(sent)), Step::Ask(_)));
            acquiring.unanswered(at(sent), at(sent + 500), 0.0);
        }
        assert!(matches!(acquiring.step(at(4000)), Step::Ask(_)));
        acquiring.unanswered(at(4000), at(4001), 0.0);
        assert!(matches!(acquiring.step(at(4001)), Step::Silent));
    }

    #[test]
    fn a_question_without_answer_may_take_effect_until_it_was_given_up() {
        let mut acquiring = Acquiring::once(terms(), at(0));
        assert_eq!(acquiring.late(), None);
        acquiring.step(at(0));
        let late = at(1000) + margin(Duration::from_millis(1000));
        assert_eq!(acquiring.late(), Some(late));
        acquiring.unanswered(at(0), at(10), 0.0);
        assert_eq!(acquiring.late(), Some(late));
        acquiring.step(at(100));
        acquiring.answered(at(100), Answer::Granted { fence: fence() }, at(101), 0.0);
        assert_eq!(acquiring.late(), Some(late));
    }
}
