//! Acquiring: one try, or a place in the queue until the lease is granted.

use std::{marker::PhantomData, time::Duration};

use super::{
    Client, MAX_TTL,
    abandon::Guard,
    check_range,
    inbox::Wake,
    lease::Lease,
    target::{Family, Target},
};
use crate::{
    Error, ErrorKind, Fence, Name,
    call::{Acquire, AcquireArgs, Caller, PlainAcquire},
    clock, measure,
    protocol::{Acquiring, Answer, Moment, Question, Step, Terms},
};

/// How long a call goes on asking when the server does not answer, beyond its timeout: a fail-over takes seconds.
const OUTAGE: Duration = Duration::from_secs(10);

/// Family of locks with a FIFO queue and a fence.
#[derive(Clone, Copy, Debug)]
pub struct Mutex;

/// Family of locks on the user's own key, without queue and fence.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

/// A lock that can be acquired: a name, and how its leases are to be.
///
/// ```
/// # use std::time::Duration;
/// # redlatch::private_server::with_server(async |url| {
/// # let client = redlatch::Client::connect(&url).await?;
/// let nightly = client.mutex("nightly-report")?.ttl(Duration::from_secs(60))?;
/// match nightly.acquire_within(Duration::from_secs(5)).await? {
///     redlatch::Attempt::Granted(lease) => lease.release().await?,
///     redlatch::Attempt::Held(held) => println!("somebody else has it for {:?}", held.remaining),
/// }
/// # Ok(()) });
/// ```
#[must_use = "a lock is free until it is acquired"]
pub struct Lock<F> {
    client: Client,
    target: Target,
    ttl: Duration,
    renew: bool,
    max_hold: Option<Duration>,
    fence_floor: Option<Fence>,
    family: PhantomData<F>,
}

impl<F> Clone for Lock<F> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), target: self.target.clone(), ..*self }
    }
}

/// The answer to an attempt that does not wait for ever: a lease, or "no".
#[must_use = "a granted lease is released when it is dropped"]
pub enum Attempt<F> {
    /// The caller has the lease.
    Granted(Lease<F>),
    /// Somebody else has it.
    Held(Held),
}

/// Somebody else has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// What is left of the other's lease; it may be extended or released before. Zero when it is not known.
    pub remaining: Duration,
}

impl<F> Attempt<F> {
    /// The lease, if it was granted.
    pub fn granted(self) -> Option<Lease<F>> {
        match self {
            Self::Granted(lease) => Some(lease),
            Self::Held(_) => None,
        }
    }
}

impl Lock<Mutex> {
    /// The highest fence that the protected resource has seen: the next one will be above it, even if the server has
    /// lost its data and its clock.
    pub fn fence_floor(mut self, floor: Fence) -> Self {
        self.fence_floor = Some(floor);
        self
    }
}

impl<F> Lock<F> {
    pub(super) fn new(client: Client, target: Target) -> Self {
        let ttl = client.shared.settings.ttl;
        Self { client, target, ttl, renew: true, max_hold: None, fence_floor: None, family: PhantomData }
    }

    /// Length of the lease, instead of the client's.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) outside 1 ms to 31 days.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self, Error> {
        self.ttl = check_range("ttl", ttl, Duration::from_millis(1), MAX_TTL)?;
        Ok(self)
    }

    /// Whether the lease is renewed in the background after each third of its TTL. Defaults to `true`.
    pub fn renew(mut self, renew: bool) -> Self {
        self.renew = renew;
        self
    }

    /// Stops renewals when the lease has been held that long, so that a stuck holder loses it. Defaults to no limit.
    pub fn max_hold(mut self, limit: Duration) -> Self {
        self.max_hold = Some(limit);
        self
    }

    /// The name of the protected resource.
    pub fn name(&self) -> &Name {
        &self.target.name
    }

    /// Asks once and does not wait.
    ///
    /// # Errors
    ///
    /// Never for "held". [`Unknown`](ErrorKind::Unknown) when no reply came although the question was repeated; the
    /// lease, if there is one, is given back in the background. [`Lost`](ErrorKind::Lost) when every reply took longer
    /// than the TTL. Otherwise as the server refused.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, what it may have acquired is given back in the background.
    pub async fn try_acquire(&self) -> Result<Attempt<F>, Error> {
        let patience = self.caller().timeout();
        self.attempt(Acquiring::once(self.terms(patience), clock::now()), false).await
    }

    /// Waits in the queue for at most `limit`. The answer may come later by the client's timeout for one command.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the place in the queue is given up in the background.
    pub async fn acquire_within(&self, limit: Duration) -> Result<Attempt<F>, Error> {
        if limit.is_zero() {
            return self.try_acquire().await;
        }
        self.attempt_in_queue(Some(clock::now() + limit)).await
    }

    /// Waits in the queue until the lease is granted.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire). A server that does not answer for more than ten seconds ends the wait.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the place in the queue is given up in the background.
    pub async fn acquire(&self) -> Result<Lease<F>, Error> {
        loop {
            if let Attempt::Granted(lease) = self.attempt_in_queue(None).await? {
                return Ok(lease);
            }
        }
    }

    /// Waits for the lease, runs `work` and gives the lease back. When the lease is lost, `work` is dropped where it is.
    ///
    /// ```
    /// # redlatch::private_server::with_server(async |url| {
    /// # let client = redlatch::Client::connect(&url).await?;
    /// let report = client.mutex("nightly-report")?.with(async |lease| format!("under fence {}", lease.fence())).await?;
    /// assert!(report.starts_with("under fence 1"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). [`Lost`](ErrorKind::Lost) when the lease was lost before `work` had ended.
    /// [`Unknown`](ErrorKind::Unknown) when `work` had ended in time and only the reply to the release is missing.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, so is `work`, and the lease is given back in the background.
    pub async fn with<T>(&self, work: impl AsyncFnOnce(&Lease<F>) -> T) -> Result<T, Error> {
        let lease = self.acquire().await?;
        let outcome = tokio::select! {
            biased;
            () = lease.lost() => None,
            outcome = work(&lease) => Some(outcome),
        };
        match outcome {
            Some(outcome) => lease.release().await.map(|()| outcome),
            None => Err(Error::lost(self.name())),
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.target.key
    }

    fn caller(&self) -> &Caller {
        &self.client.shared.caller
    }

    fn terms(&self, patience: Duration) -> Terms {
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

    async fn attempt_in_queue(&self, limit: Option<Moment>) -> Result<Attempt<F>, Error> {
        let pushed = self.target.family == Family::Mutex;
        self.attempt(Acquiring::in_queue(self.terms(OUTAGE), pushed, limit, clock::now()), true).await
    }

    /// Does what `acquiring` decides, with an owner token of its own. `waits`: in the queue.
    #[tracing::instrument(name = "acquire", level = "debug", skip_all, fields(lock = %self.target.name, waits))]
    async fn attempt(&self, mut acquiring: Acquiring, waits: bool) -> Result<Attempt<F>, Error> {
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
                        self.measure_hand_off(&wake);
                        hear(&mut acquiring, wake, now);
                    }
                    match answer {
                        Ok(answer) => acquiring.answered(sent, answer, now, fastrand::f64()),
                        Err(error) if matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable) => {
                            acquiring.unanswered(sent, now, fastrand::f64());
                            trouble = Some(error);
                        }
                        Err(error) => return Err(error),
                    }
                    guard.set_late(acquiring.late());
                }
                Step::Wait(until) => tokio::select! {
                    wake = guard.hears() => {
                        self.measure_hand_off(&wake);
                        hear(&mut acquiring, wake, clock::now());
                    }
                    () = clock::sleep_until(until) => {}
                },
                Step::Granted { fence, tenure } => {
                    guard.stop_listening();
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
    fn measure_hand_off(&self, wake: &Wake) {
        let (Wake::Granted { fence, .. }, Some(now_us)) = (wake, self.client.server_clock().at(clock::now())) else {
            return;
        };
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
            return Ok(match self.caller().plain_acquire(&self.target.key, owner.as_bytes(), self.ttl).await? {
                PlainAcquire::Granted { .. } => Answer::Granted { fence: Fence::NONE },
                PlainAcquire::Held { remaining } => Answer::Held { remaining },
                PlainAcquire::HeldWithoutTtl => Answer::Held { remaining: Duration::ZERO },
            });
        }
        let inbox = if waits { self.client.shared.inbox.channel(self.caller()).await? } else { None };
        if inbox.is_none() {
            acquiring.without_inbox();
        }
        let not_after_us = self.client.server_clock().at(question.give_up);
        let reply = self
            .caller()
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
                    inbox_here: inbox.is_some(),
                },
            )
            .await?;
        let (answer, now_us) = match reply {
            Acquire::Granted { now_us, fence, .. } => (Answer::Granted { fence }, now_us),
            Acquire::Queued { remaining, now_us, position } => (Answer::Queued { position, remaining }, now_us),
            Acquire::Held { remaining, now_us } => (Answer::Held { remaining }, now_us),
            Acquire::TooLate { remaining, now_us } => (Answer::TooLate { remaining }, now_us),
            Acquire::Spent { now_us, .. } => (Answer::Spent, now_us),
        };
        self.client.server_clock().learn(now_us, clock::now());
        Ok(answer)
    }
}

fn hear(acquiring: &mut Acquiring, wake: Wake, now: Moment) {
    match wake {
        Wake::Granted { fence, lease } => acquiring.pushed(fence, lease, now),
        Wake::Ask => acquiring.disconnected(now, fastrand::f64()),
    }
}
