//! Acquiring: one try, or a place in the queue until the lease is granted.

use std::{marker::PhantomData, time::Duration};

use super::{
    Client, MAX_TTL,
    abandon::Guard,
    check_range,
    inbox::{Listener, Wake},
    lease::Lease,
    target::{Family, RETRY_PAUSE, Target},
};
use crate::{
    Error, ErrorKind, Fence, Name,
    call::{Acquire, AcquireArgs, Caller, PlainAcquire},
    clock,
    protocol::{Moment, Tenure, Waiter},
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
#[derive(Clone)]
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
        self.attempt(None, Some(clock::now())).await
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

    async fn attempt_in_queue(&self, limit: Option<Moment>) -> Result<Attempt<F>, Error> {
        let inbox = &self.client.shared.inbox;
        let channel = match self.target.family {
            Family::Mutex => inbox.channel(self.caller()).await?,
            Family::Plain => None,
        };
        self.attempt(Some(Waiter::new(self.client.shared.settings.claim, self.ttl, channel.is_some())), limit).await
    }

    fn caller(&self) -> &Caller {
        &self.client.shared.caller
    }

    /// The loop of one owner token. Without a `waiter` it asks once; `limit` ends the wait.
    async fn attempt(&self, mut waiter: Option<Waiter>, limit: Option<Moment>) -> Result<Attempt<F>, Error> {
        let owner = self.client.owner();
        let guard = Guard::new(&self.client, &self.target, &owner, self.ttl);
        let mut listener = waiter.is_some().then(|| self.client.shared.inbox.listen(&owner));
        let patience = if waiter.is_some() { OUTAGE } else { self.caller().timeout() };
        // Since when no reply has come that was of use.
        let mut silent_since = None;
        loop {
            let sent = clock::now();
            let mut remaining = Duration::ZERO;
            match self.ask(&owner, waiter.as_ref(), limit).await {
                Ok(Acquire::Granted { fence, .. }) => {
                    if let Some(tenure) = self.tenure(sent, self.ttl) {
                        return Ok(Attempt::Granted(self.lease(owner, fence, tenure, guard)));
                    }
                    // The reply took longer than the lease lasts.
                    if clock::now().since(*silent_since.get_or_insert(sent)) >= patience {
                        return Err(Error::lost(&self.target.name));
                    }
                    tokio::time::sleep(RETRY_PAUSE.mul_f64(fastrand::f64())).await;
                }
                Ok(Acquire::Queued { remaining: rest, position, .. }) => {
                    silent_since = None;
                    if let Some(waiter) = &mut waiter {
                        waiter.answered(sent, position, rest);
                    }
                    if let (Some(waiter), Some(listener)) = (&waiter, &mut listener) {
                        match self.wait(waiter, listener, rest, limit).await {
                            Some(Wake::Granted { fence, lease }) => {
                                // Without renewals a claim lease would stay that short: ask for the whole TTL.
                                let since = waiter.proven_since(lease, clock::now()).filter(|_| self.renew);
                                if let Some(tenure) = since.and_then(|since| self.tenure(since, lease)) {
                                    return Ok(Attempt::Granted(self.lease(owner, fence, tenure, guard)));
                                }
                            }
                            Some(Wake::Ask) => tokio::time::sleep(RETRY_PAUSE.mul_f64(fastrand::f64())).await,
                            None => {}
                        }
                    }
                    remaining = rest;
                }
                Ok(Acquire::Held { remaining: rest, .. }) => {
                    silent_since = None;
                    remaining = rest;
                    if waiter.is_none() {
                        guard.disarm();
                        return Ok(Attempt::Held(Held { remaining }));
                    }
                    self.pause(rest, limit).await;
                }
                Ok(Acquire::TooLate { remaining: rest, .. }) => {
                    remaining = rest;
                    silent_since = None;
                }
                Ok(Acquire::Spent { .. }) => return Err(Error::lost(&self.target.name)),
                Err(error) if matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable) => {
                    let silence = clock::now().since(*silent_since.get_or_insert(sent));
                    if silence >= patience || (waiter.is_some() && is_over(limit)) {
                        return Err(error);
                    }
                    tokio::time::sleep(RETRY_PAUSE.mul_f64(0.5 + fastrand::f64())).await;
                }
                Err(error) => return Err(error),
            }
            if waiter.is_some() && is_over(limit) {
                return Ok(Attempt::Held(Held { remaining }));
            }
        }
    }

    /// Waits for a message until the next heartbeat is due or the limit is over.
    async fn wait(
        &self,
        waiter: &Waiter,
        listener: &mut Listener,
        remaining: Duration,
        limit: Option<Moment>,
    ) -> Option<Wake> {
        let now = clock::now();
        // A message that is here already may speak of a grant from before this answer.
        if listener.drain() || remaining.is_zero() {
            return None;
        }
        let heartbeat = waiter.next_heartbeat(now, fastrand::f64());
        let until = limit.map_or(heartbeat, |limit| limit.min(heartbeat));
        tokio::select! {
            wake = listener.next() => Some(wake),
            () = clock::sleep_until(until) => None,
        }
    }

    /// The plain family has no queue: poll with growing, jittered pauses within the holder's lease.
    async fn pause(&self, remaining: Duration, limit: Option<Moment>) {
        let pause = (remaining / 8).clamp(Duration::from_millis(2), Duration::from_millis(100));
        let until = clock::now() + pause.mul_f64(0.5 + fastrand::f64());
        clock::sleep_until(limit.map_or(until, |limit| limit.min(until))).await;
    }

    async fn ask(&self, owner: &str, waiter: Option<&Waiter>, limit: Option<Moment>) -> Result<Acquire, Error> {
        let settings = &self.client.shared.settings;
        if self.target.family == Family::Plain {
            return Ok(match self.caller().plain_acquire(&self.target.key, owner.as_bytes(), self.ttl).await? {
                PlainAcquire::Granted { remaining } => Acquire::Granted { remaining, now_us: 0, fence: Fence::NONE },
                PlainAcquire::Held { remaining } => Acquire::Held { remaining, now_us: 0 },
                PlainAcquire::HeldWithoutTtl => Acquire::Held { remaining: Duration::ZERO, now_us: 0 },
            });
        }
        let give_up = clock::now() + settings.timeout;
        let give_up = match (waiter, limit) {
            (Some(_), Some(limit)) => limit.min(give_up),
            _ => give_up,
        };
        let inbox = match waiter {
            Some(_) => self.client.shared.inbox.channel(self.caller()).await?,
            None => None,
        };
        let reply = self
            .caller()
            .acquire(
                &self.target.key,
                &AcquireArgs {
                    owner,
                    ttl: self.ttl,
                    queue: waiter.map_or(Duration::ZERO, Waiter::window),
                    claim: settings.claim,
                    not_after_us: self.client.server_us_at(give_up),
                    fence_floor: self.fence_floor,
                    retention: settings.retention,
                    label: &settings.label,
                    inbox: inbox.unwrap_or_default(),
                    inbox_here: inbox.is_some(),
                },
            )
            .await?;
        self.client.learn_server_time(reply.now_us());
        Ok(reply)
    }

    /// A lease of `length` that was asked for at `sent`; `None` when it is over already.
    fn tenure(&self, sent: Moment, length: Duration) -> Option<Tenure> {
        let tenure = Tenure::granted(sent, length, self.ttl, self.renew, self.max_hold);
        (clock::now() < tenure.deadline()).then_some(tenure)
    }

    fn lease(&self, owner: String, fence: Fence, tenure: Tenure, guard: Guard) -> Lease<F> {
        Lease::start(self.client.clone(), self.target.clone(), owner, fence, tenure, guard)
    }
}

fn is_over(limit: Option<Moment>) -> bool {
    limit.is_some_and(|limit| clock::now() >= limit)
}
