//! One lease that several parts of a program hold together.

use std::{
    ops::Deref,
    sync::{Arc, Weak},
};

use tokio::sync::Mutex as AsyncMutex;

use super::{
    lease::Lease,
    lock::{Lock, Mutex},
};
use crate::Error;

/// A lock that its holder can acquire again.
///
/// All clones of one handle are one owner: the first [`acquire`](Self::acquire) takes the lease, those that come while
/// it is held share it without asking the server, and the last one that ends gives it back. Two handles exclude each
/// other. There is no thread or task identity: pass the handle to the calls that belong together, and a fresh one to
/// those that do not.
///
/// ```
/// # redlatch::private_server::with_server(async |url| {
/// # let client = redlatch::Client::connect(&url).await?;
/// let stock = redlatch::Reentrant::new(client.mutex("stock")?);
/// let outer = stock.acquire().await?;
/// let inner = stock.acquire().await?;
/// assert_eq!(outer.fence(), inner.fence());
/// inner.release().await?;
/// assert!(!outer.is_lost());
/// outer.release().await?;
/// # Ok(()) });
/// ```
pub struct Reentrant<F = Mutex> {
    lock: Lock<F>,
    shared: Arc<AsyncMutex<Weak<Lease<F>>>>,
}

/// A share of the lease of a [`Reentrant`] lock. Dropping the last one gives the lease back in the background.
#[must_use = "a share ends when it is dropped"]
pub struct Share<F = Mutex>(Arc<Lease<F>>);

impl<F> Clone for Reentrant<F> {
    fn clone(&self) -> Self {
        Self { lock: self.lock.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<F> Reentrant<F> {
    /// A new owner of `lock`.
    pub fn new(lock: Lock<F>) -> Self {
        Self { lock, shared: Arc::default() }
    }

    /// A share of the lease, which is waited for if this owner has none.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`]. [`Lost`](crate::ErrorKind::Lost) while others still have shares of a lease that is lost:
    /// it is not acquired anew before they have ended.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the place in the queue is given up in the background.
    pub async fn acquire(&self) -> Result<Share<F>, Error> {
        let mut shared = self.shared.lock().await;
        if let Some(lease) = shared.upgrade() {
            return if lease.is_lost() { Err(Error::lost(lease.name())) } else { Ok(Share(lease)) };
        }
        let lease = Arc::new(self.lock.acquire().await?);
        *shared = Arc::downgrade(&lease);
        Ok(Share(lease))
    }
}

impl<F> Share<F> {
    /// Ends this share; the last one gives the lease back.
    ///
    /// # Errors
    ///
    /// As [`Lease::release`], for the last share; for the others [`Lost`](crate::ErrorKind::Lost) when the lease is.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped the release goes on in the background.
    pub async fn release(self) -> Result<(), Error> {
        let name = self.name().clone();
        let is_lost = self.is_lost();
        match Arc::into_inner(self.0) {
            Some(lease) => lease.release().await,
            None if is_lost => Err(Error::lost(&name)),
            None => Ok(()),
        }
    }
}

impl<F> Deref for Share<F> {
    type Target = Lease<F>;

    fn deref(&self) -> &Lease<F> {
        &self.0
    }
}
