//! Acquiring: one try, or a place in the queue until the lease is granted.

use std::{marker::PhantomData, time::Duration};

use super::{Client, MAX_TTL, check_range, lease::Lease, target::Target};
use crate::{Error, Fence, Name, clock, protocol::Acquiring};

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
    pub(super) client: Client,
    pub(super) target: Target,
    pub(super) ttl: Duration,
    pub(super) renew: bool,
    pub(super) max_hold: Option<Duration>,
    pub(super) fence_floor: Option<Fence>,
    pub(super) family: PhantomData<F>,
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
    /// [`Invalid`](crate::ErrorKind::Invalid) outside 1 ms to 31 days.
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

    /// Asks once and does not wait for the lease. The answer comes within the client's timeout, whatever has to be done
    /// for it: connecting, loading a script, asking again.
    ///
    /// # Errors
    ///
    /// Never for "held". [`Unknown`](crate::ErrorKind::Unknown) when no reply came although the question was repeated; the
    /// lease, if there is one, is given back in the background. [`Lost`](crate::ErrorKind::Lost) when every reply took longer
    /// than the TTL. Otherwise as the server refused.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, what it may have acquired is given back in the background.
    pub async fn try_acquire(&self) -> Result<Attempt<F>, Error> {
        let patience = self.caller().timeout();
        self.attempt(Acquiring::once(self.terms(patience), clock::now()), false).await
    }

    /// Waits in the queue for at most `limit`. The answer may come later by the client's timeout, whatever has to be
    /// done for it.
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
    /// As [`acquire`](Self::acquire). [`Lost`](crate::ErrorKind::Lost) when the lease was lost before `work` had ended.
    /// [`Unknown`](crate::ErrorKind::Unknown) when `work` had ended in time and only the reply to the release is missing.
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
}
