//! One attempt at a lock: carries out what [`Acquiring`] decides.

use std::time::Duration;

use super::{
    Event,
    abandon::Guard,
    inbox::Wake,
    lease::Lease,
    lock::{Attempt, Held, Lock},
    target::Family,
};
use crate::{
    Error, ErrorKind, Fence,
    call::{Acquire, AcquireArgs, Caller, PlainAcquire},
    clock, measure,
    protocol::{Acquiring, Answer, Moment, Question, Step, Terms},
};

/// How long a call goes on asking when the server does not answer, beyond its timeout: a fail-over takes seconds.
const OUTAGE: Duration = Duration::from_secs(10);

/// Whether it is worth while to ask again. `in_queue`: a new connection may find the server that is the primary now, or
/// this one with enough replicas, and the place with it.
fn may_pass(error: &Error, in_queue: bool) -> bool {
    match error.kind() {
        ErrorKind::Unknown | ErrorKind::Unavailable => true,
        _ => in_queue && matches!(error.code(), Some("NOAUTH" | "NOREPLICAS" | "READONLY")),
    }
}

impl<F> Lock<F> {
    pub(super) fn caller(&self) -> &Caller {
        &self.client.shared.caller
    }

    pub(super) fn terms(&self, patience: Duration) -> Terms {
        let settings = &self.client.shared.settings;
        Terms {
            ttl: self.ttl,
            claim: settings.claim,
            renew: self.renew,
            max_hold: self.max_hold,
            timeout: settings.timeout,
            patience,
        }
    }

    pub(super) async fn attempt_in_queue(&self, limit: Option<Moment>) -> Result<Attempt<F>, Error> {
        let pushed = self.target.family == Family::Mutex;
        self.attempt(Acquiring::in_queue(self.terms(OUTAGE), pushed, limit, clock::now()), true).await
    }

    /// Does what `acquiring` decides, with an owner token of its own. `waits`: in the queue.
    #[tracing::instrument(name = "acquire", level = "debug", skip_all, fields(lock = %self.target.name, waits))]
    pub(super) async fn attempt(&self, mut acquiring: Acquiring, waits: bool) -> Result<Attempt<F>, Error> {
        let mut guard = Guard::new(&self.client, &self.target, self.ttl, waits);
        let mut trouble = None;
        let started = clock::now();
        loop {
            match acquiring.step(clock::now()) {
                Step::Ask(question) => {
                    guard.set_late(acquiring.late());
                    let sent = clock::now();
                    let answer = self.ask(guard.owner(), &question, &mut acquiring, waits).await;
                    let now = clock::now();
                    // Messages that came before the answer.
                    while let Some(wake) = guard.heard() {
                        self.hear(&mut acquiring, wake, now);
                    }
                    match answer {
                        Ok(answer) => acquiring.answered(sent, answer, now, fastrand::f64()),
                        Err(error) if may_pass(&error, acquiring.has_place()) => {
                            acquiring.unanswered(sent, now, fastrand::f64());
                            trouble = Some(error);
                        }
                        Err(error) => return Err(error),
                    }
                    guard.set_late(acquiring.late());
                }
                Step::Wait(until) => tokio::select! {
                    wake = guard.hears() => self.hear(&mut acquiring, wake, clock::now()),
                    () = clock::sleep_until(until) => {}
                },
                Step::Granted { fence, tenure } => {
                    guard.stop_listening();
                    self.target.heard.note(fence);
                    measure::waited(clock::now().since(started));
                    let lease = Lease::start(self.client.clone(), self.target.clone(), fence, tenure, guard);
                    return Ok(Attempt::Granted(lease));
                }
                Step::Held { remaining } => {
                    if !waits {
                        guard.disarm();
                    }
                    return Ok(Attempt::Held(Held { remaining }));
                }
                Step::Lost => return Err(Error::lost(&self.target.name)),
                Step::Silent => {
                    return Err(trouble.unwrap_or_else(|| Error::unknown("acquire", self.caller().timeout())));
                }
            }
        }
    }

    /// A fence is the server's time of its grant, unless that clock had stepped back.
    fn measure_hand_off(&self, fence: Fence, now: Moment) {
        let Some(now_us) = self.client.server_clock(&self.target.key).at(now) else { return };
        if fence.get().abs_diff(now_us) < 60_000_000 {
            measure::handed_off(Duration::from_micros(now_us.saturating_sub(fence.get())));
        }
    }

    async fn ask(
        &self,
        owner: &str,
        question: &Question,
        acquiring: &mut Acquiring,
        waits: bool,
    ) -> Result<Answer, Error> {
        let settings = &self.client.shared.settings;
        if self.target.family == Family::Plain {
            let caller = self.caller().by(question.until);
            return Ok(match caller.plain_acquire(&self.target.key, owner.as_bytes(), self.ttl).await? {
                PlainAcquire::Granted { .. } => Answer::Granted { fence: Fence::NONE },
                PlainAcquire::Held { remaining } => Answer::Held { remaining },
                PlainAcquire::HeldWithoutTtl => Answer::Held { remaining: Duration::ZERO },
            });
        }
        let caller = &self.caller().by(question.until);
        let mut server_clock = self.client.server_clock(&self.target.key);
        if !server_clock.is_known()
            && let Some(server_us) = caller.server_us(&self.target.key).await?
        {
            self.client.learn_clock(&self.target.key, server_us);
            server_clock.learn(server_us, clock::now());
        }
        let not_after_us = server_clock.at(question.give_up);
        // Asked for last, because it holds for the connection in use.
        let inbox = if waits { self.client.shared.inbox.channel(caller).await? } else { None };
        acquiring.listens(inbox.is_some());
        let reply = caller
            .acquire(
                &self.target.key,
                &AcquireArgs {
                    owner,
                    ttl: self.ttl,
                    queue: question.window,
                    claim: settings.claim,
                    not_after_us,
                    fence_floor: self.fence_floor,
                    retention: settings.retention,
                    label: &settings.label,
                    inbox: inbox.unwrap_or_default(),
                    inbox_here: inbox.is_some() && !caller.endpoint().is_cluster(),
                },
            )
            .await?;
        let (answer, now_us) = match reply {
            Acquire::Granted { now_us, fence, .. } => (Answer::Granted { fence }, now_us),
            Acquire::Queued { remaining, now_us, position } => {
                let name = || self.target.name.clone();
                self.client.tell(|| Event::Queued { name: name(), place: position, remaining });
                (Answer::Queued { position, remaining, server_us: now_us }, now_us)
            }
            Acquire::Held { remaining, now_us } => (Answer::Held { remaining }, now_us),
            Acquire::TooLate { remaining, now_us } => (Answer::TooLate { remaining }, now_us),
            Acquire::Spent { now_us, .. } => (Answer::Spent, now_us),
        };
        self.client.learn_clock(&self.target.key, now_us);
        Ok(answer)
    }

    fn hear(&self, acquiring: &mut Acquiring, wake: Wake, now: Moment) {
        match wake {
            Wake::Granted { fence, lease } if self.target.heard.rises(fence) => {
                self.measure_hand_off(fence, now);
                acquiring.pushed(fence, lease, now);
            }
            Wake::Granted { .. } | Wake::Told | Wake::Head => acquiring.told(now),
            Wake::Ask => acquiring.disconnected(now, fastrand::f64()),
        }
    }
}
