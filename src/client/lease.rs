//! A granted lease: its deadline, its renewal and its loss.

mod core;

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex as StdMutex, atomic::AtomicBool},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Client, MAX_TTL, abandon::Guard, check_range, lock::Mutex, target::Target};
use crate::{
    Error, Fence, Name, clock,
    protocol::{Releasing, Tenure},
};

pub(super) use self::core::{Core, Extending};

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
    /// - [`Lost`](crate::ErrorKind::Lost): the lease was over. It is never granted anew.
    /// - [`Unknown`](crate::ErrorKind::Unknown): no reply came before the local deadline.
    /// - [`Invalid`](crate::ErrorKind::Invalid): outside 1 ms to 31 days.
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

    /// Gives the lease back and hands it to the next waiter. A release that gets no answer is repeated until the lease
    /// would be over, for one more timeout of the client at the longest.
    ///
    /// # Errors
    ///
    /// - [`Lost`](crate::ErrorKind::Lost): the lease had ended before; the work may not have been protected to its end.
    /// - [`Unknown`](crate::ErrorKind::Unknown): no reply came; the lease ends by its TTL.
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
