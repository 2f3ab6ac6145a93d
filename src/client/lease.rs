//! A granted lease: its deadline, its renewal and its loss.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::{
    Client, MAX_TTL,
    abandon::Guard,
    check_range,
    lock::Mutex,
    target::{Extended, Target},
};
use crate::{
    Error, ErrorKind, Fence, Name, clock, measure,
    protocol::{Moment, Releasing, Tenure},
};

/// The right to use a resource for a time.
///
/// Renewed in the background until it is released, dropped or lost. Dropping it gives it back in the background,
/// without blocking; [`release`](Self::release) tells whether that was in time.
///
/// ```
/// # redlatch::private_server::with_server(async |url| {
/// # let client = redlatch::Client::connect(&url).await?;
/// # async fn work(_: redlatch::Fence) {}
/// let lease = client.mutex("orders/42")?.acquire().await?;
/// tokio::select! {
///     () = work(lease.fence()) => lease.release().await?,
///     () = lease.lost() => eprintln!("the work was stopped: {} is lost", lease.name()),
/// }
/// # Ok(()) });
/// ```
#[must_use = "a lease is released when it is dropped"]
pub struct Lease<F = Mutex> {
    core: Arc<Core>,
    guard: Option<Guard>,
    family: PhantomData<F>,
}

/// What the holder and the keeper share.
pub(super) struct Core {
    client: Client,
    target: Target,
    owner: String,
    fence: Fence,
    tenure: StdMutex<Tenure>,
    /// Held while an extend is under way: two at once could be answered in another order than they ran.
    extending: Arc<tokio::sync::Mutex<()>>,
    /// When the keeper looks at this lease next.
    due: StdMutex<Option<Moment>>,
    id: u64,
    granted: Moment,
    given_back: AtomicBool,
    lost: CancellationToken,
}

impl Lease<Mutex> {
    /// The fencing token of this grant: higher than that of every grant before. Send it along with every write.
    pub fn fence(&self) -> Fence {
        self.core.fence
    }
}

impl<F> Lease<F> {
    pub(super) fn start(client: Client, target: Target, fence: Fence, tenure: Tenure, guard: Guard) -> Self {
        let core = Arc::new(Core {
            id: client.next_lease_id(),
            granted: clock::now(),
            client,
            target,
            owner: guard.owner().to_owned(),
            fence,
            tenure: StdMutex::new(tenure),
            extending: Arc::default(),
            due: StdMutex::default(),
            given_back: AtomicBool::new(false),
            lost: CancellationToken::new(),
        });
        core.client.shared.keeper.add(&core);
        Self { core, guard: Some(guard), family: PhantomData }
    }

    /// The name of the protected resource.
    pub fn name(&self) -> &Name {
        &self.core.target.name
    }

    /// How long the lease may still be relied on, by this machine's boot-time clock; zero when it is lost.
    pub fn remaining(&self) -> Duration {
        self.core.tenure().deadline().since(clock::now())
    }

    /// Whether the lease is lost.
    pub fn is_lost(&self) -> bool {
        self.core.lost.is_cancelled() || self.remaining().is_zero()
    }

    /// Completes when the lease is lost: when the server says so, or at the local deadline without any reply.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again at any time.
    pub async fn lost(&self) {
        loop {
            let deadline = self.core.tenure().deadline();
            tokio::select! {
                () = self.core.lost.cancelled() => return,
                () = clock::sleep_until(deadline) => if self.is_lost() {
                    return;
                },
            }
        }
    }

    /// A token that is cancelled when the lease is lost, by a task of the client. A release does not cancel it.
    pub fn lost_token(&self) -> CancellationToken {
        self.core.lost.clone()
    }

    /// Makes the lease last at least `ttl` from now; renewals ask for the same from then on. A lease never gets shorter.
    ///
    /// # Errors
    ///
    /// - [`Lost`](ErrorKind::Lost): the lease was over. It is never granted anew.
    /// - [`Unknown`](ErrorKind::Unknown): no reply came before the local deadline.
    /// - [`Invalid`](ErrorKind::Invalid): outside 1 ms to 31 days.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped the server may have set the lease; the local deadline stays.
    #[tracing::instrument(level = "debug", skip_all, fields(lock = %self.name(), ?ttl))]
    pub async fn extend(&self, ttl: Duration) -> Result<(), Error> {
        let ttl = check_range("ttl", ttl, Duration::from_millis(1), MAX_TTL)?;
        loop {
            match self.core.extend(ttl).await {
                Ok(()) if self.is_lost() => return Err(Error::lost(self.name())),
                Ok(()) => return Ok(()),
                Err(error) if error.is_retryable() && !self.is_lost() => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the lease back and hands it to the next waiter. A release that gets no answer is repeated.
    ///
    /// # Errors
    ///
    /// - [`Lost`](ErrorKind::Lost): the lease had ended before; the work may not have been protected to its end.
    /// - [`Unknown`](ErrorKind::Unknown): no reply came; the lease ends by its TTL.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped the release goes on in the background.
    #[tracing::instrument(level = "debug", skip_all, fields(lock = %self.name()))]
    pub async fn release(mut self) -> Result<(), Error> {
        self.core.give_back();
        let timeout = self.core.client.shared.caller.timeout();
        let until = self.core.tenure().deadline().max(clock::now() + timeout);
        let releasing = Releasing::new(clock::now(), until, None);
        let outcome = self.core.target.release(self.core.client.caller(), &self.core.owner, releasing, None).await;
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
        outcome
    }

    /// Leaves the lease on the server, to be extended and released by whoever has the owner token: it is not renewed
    /// any more and not given back by this process.
    pub fn into_owner_token(mut self) -> String {
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
        self.core.owner.clone()
    }

    /// The owner token: for programs that must carry the lease to another process. Whoever has it can release.
    pub fn owner_token(&self) -> &str {
        &self.core.owner
    }
}

impl<F> Drop for Lease<F> {
    fn drop(&mut self) {
        self.core.give_back();
    }
}

impl<F> fmt::Debug for Lease<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("name", &self.name())
            .field("fence", &self.core.fence)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// An extend that is under way. Dropping it puts the lease back on the keeper's agenda, also when nobody waits for the
/// reply any more: else a dropped extend would stop the renewals.
pub(super) struct Extending {
    core: Arc<Core>,
    ttl: Duration,
    sent: Moment,
    _alone: OwnedMutexGuard<()>,
}

impl Extending {
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// Takes note of the outcome. A lease that is over locally stays over, whatever a
    /// late reply says. Another fence than ours is a later grant to a late copy of our acquire, after the loss of all
    /// data; others may have held the lock in between.
    pub(super) fn end(self, outcome: Result<Option<Extended>, Error>) -> Result<(), Error> {
        let core = &self.core;
        match outcome {
            Ok(Some(lease)) if lease.fence == core.fence && !core.is_over() => {
                core.tenure().extended(self.sent, self.ttl, lease.remaining);
                Ok(())
            }
            Ok(_) => {
                if !core.is_given_back() {
                    core.end();
                }
                Err(Error::lost(&core.target.name))
            }
            Err(error) => {
                core.tenure().unanswered(clock::now() + (self.ttl / 20).min(Duration::from_secs(1)));
                Err(error)
            }
        }
    }

    /// As [`end`](Self::end), for a renewal: nobody waits for it but the log.
    pub(super) fn end_renewal(self, outcome: Result<Option<Extended>, Error>) {
        let core = Arc::clone(&self.core);
        match self.end(outcome) {
            Ok(()) => {}
            Err(_) if core.is_given_back() => {}
            Err(error) if error.kind() == ErrorKind::Lost => tracing::warn!(%error, "a renewal came too late"),
            Err(error) => tracing::warn!(%error, "a renewal got no answer, trying again"),
        }
    }
}

impl Drop for Extending {
    fn drop(&mut self) {
        if !self.core.is_given_back() {
            self.core.client.shared.keeper.add(&self.core);
        }
    }
}

impl Core {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn tenure(&self) -> MutexGuard<'_, Tenure> {
        self.tenure.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn due(&self) -> MutexGuard<'_, Option<Moment>> {
        self.due.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    pub(super) fn replace_due(&self, at: Moment) -> Option<Moment> {
        self.due().replace(at)
    }

    pub(super) fn take_due(&self) -> Option<Moment> {
        self.due().take()
    }

    /// The lease is lost: tell the holder.
    pub(super) fn end(&self) {
        self.tenure().end(clock::now());
        if !self.lost.is_cancelled() {
            measure::lost();
            measure::held(clock::now().since(self.granted));
        }
        self.lost.cancel();
    }

    pub(super) fn is_given_back(&self) -> bool {
        self.given_back.load(Ordering::Acquire)
    }

    fn give_back(&self) {
        if !self.given_back.swap(true, Ordering::AcqRel) && !self.lost.is_cancelled() {
            measure::held(clock::now().since(self.granted));
        }
        self.client.shared.keeper.remove(self);
    }

    pub(super) fn deadline(&self) -> Moment {
        self.tenure().deadline()
    }

    fn is_over(&self) -> bool {
        clock::now() >= self.deadline()
    }

    /// Asks once for the lease to last `ttl` from now.
    async fn extend(self: &Arc<Self>, ttl: Duration) -> Result<(), Error> {
        let alone = Arc::clone(&self.extending).lock_owned().await;
        let extending = self.begin(ttl, alone).ok_or_else(|| Error::lost(&self.target.name))?;
        let client = &self.client;
        let outcome = self.target.extend(client.caller(), &self.owner, ttl, client.shared.settings.retention).await;
        extending.end(outcome)
    }

    /// Begins a renewal, unless the lease is over or the holder is extending it right now.
    pub(super) fn begin_renewal(self: &Arc<Self>) -> Option<Extending> {
        let alone = Arc::clone(&self.extending).try_lock_owned().ok()?;
        let ttl = self.tenure().ttl();
        self.begin(ttl, alone)
    }

    fn begin(self: &Arc<Self>, ttl: Duration, alone: OwnedMutexGuard<()>) -> Option<Extending> {
        let extending = Extending { core: Arc::clone(self), ttl, sent: clock::now(), _alone: alone };
        if self.is_over() || self.is_given_back() {
            return None;
        }
        // The deadline stays on the agenda: an extend that gets no answer never delays the signal.
        let deadline = self.tenure().deadline();
        self.client.shared.keeper.put(self, deadline);
        Some(extending)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }
}
