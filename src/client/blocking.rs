//! The client for programs without tokio: the same locks, with calls that block their thread.
//!
//! A client has one background thread, which renews leases and gives back what was dropped. Its calls must not be made
//! from within an async runtime: they panic there, as they would block it. Everything not said here is as in the
//! [async client](crate::Client).
//!
//! ```
//! # redlatch::private_server::with_server_blocking(|url| {
//! use redlatch::{Client, blocking};
//! let client = blocking::Client::connect(Client::builder(), &url)?;
//! let sold = client.mutex("stock")?.with(|lease| {
//!     println!("selling under fence {}", lease.fence());
//!     17
//! })?;
//! assert_eq!(sold, 17);
//! # Ok(()) });
//! ```

use std::{sync::Arc, time::Duration};

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::{
    Attempt as AsyncAttempt, Client as AsyncClient, ClientBuilder, Error, ErrorKind, Fence, Held, Lease as AsyncLease,
    Lock as AsyncLock, Mutex, Name, Plain,
};

/// A runtime that may be dropped anywhere.
struct Background(Option<Runtime>);

impl Background {
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it is taken in drop only").block_on(work)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection to one Redis server; see [`redlatch::Client`](crate::Client). Cheap to clone.
#[derive(Clone)]
pub struct Client {
    background: Arc<Background>,
    client: AsyncClient,
}

/// A lock that can be acquired; see [`redlatch::Lock`](crate::Lock).
pub struct Lock<F = Mutex> {
    background: Arc<Background>,
    lock: AsyncLock<F>,
}

/// A lease, renewed in the background until it is released, dropped or lost; see [`redlatch::Lease`](crate::Lease).
#[must_use = "a lease is released when it is dropped"]
pub struct Lease<F = Mutex> {
    // Dropped before the runtime that gives it back.
    lease: AsyncLease<F>,
    background: Arc<Background>,
}

/// The answer to an attempt that does not wait for ever.
#[must_use = "a granted lease is released when it is dropped"]
pub enum Attempt<F = Mutex> {
    /// The caller has the lease.
    Granted(Lease<F>),
    /// Somebody else has it.
    Held(Held),
}

impl Client {
    /// Connects with `settings`.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`]; [`Unavailable`](ErrorKind::Unavailable) also when no thread can be started.
    pub fn connect(settings: ClientBuilder, url: &str) -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("redlatch").enable_all().build();
        let runtime = runtime.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("no thread could be started for the client: {error}"))
        })?;
        let background = Background(Some(runtime));
        let client = background.wait(settings.connect(url))?;
        Ok(Self { background: Arc::new(background), client })
    }

    /// The mutex called `name`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) when the name breaks the rules of [`Name`].
    pub fn mutex(&self, name: impl AsRef<[u8]>) -> Result<Lock<Mutex>, Error> {
        Ok(self.lock(self.client.mutex(name)?))
    }

    /// The classic lock on the raw key `key`; see [`redlatch::Client::plain`](crate::Client::plain).
    ///
    /// # Errors
    ///
    /// As [`mutex`](Self::mutex).
    pub fn plain(&self, key: impl AsRef<[u8]>) -> Result<Lock<Plain>, Error> {
        Ok(self.lock(self.client.plain(key)?))
    }

    /// A lock with settings of its own, made by the async client: `client.lock(client.inner().mutex("n")?.renew(false))`.
    pub fn lock<F>(&self, lock: AsyncLock<F>) -> Lock<F> {
        Lock { background: Arc::clone(&self.background), lock }
    }

    /// The async client, for what has no blocking call of its own.
    pub fn inner(&self) -> &AsyncClient {
        &self.client
    }

    /// Waits until everything that was dropped is given back. Call it before the program ends: what is left then ends
    /// by its TTL only.
    pub fn settle(&self) {
        self.background.wait(self.client.settle());
    }
}

impl<F> Lock<F> {
    /// Asks once and does not wait.
    ///
    /// # Errors
    ///
    /// As [`redlatch::Lock::try_acquire`](crate::Lock::try_acquire).
    pub fn try_acquire(&self) -> Result<Attempt<F>, Error> {
        self.background.wait(self.lock.try_acquire()).map(|attempt| self.attempt(attempt))
    }

    /// Waits for at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`redlatch::Lock::acquire_within`](crate::Lock::acquire_within).
    pub fn acquire_within(&self, limit: Duration) -> Result<Attempt<F>, Error> {
        self.background.wait(self.lock.acquire_within(limit)).map(|attempt| self.attempt(attempt))
    }

    /// Waits in the queue until the lease is granted.
    ///
    /// # Errors
    ///
    /// As [`redlatch::Lock::acquire`](crate::Lock::acquire).
    pub fn acquire(&self) -> Result<Lease<F>, Error> {
        self.background.wait(self.lock.acquire()).map(|lease| self.lease(lease))
    }

    /// Waits for the lease, does `work` and gives the lease back. Nothing can stop `work`: a long one looks at
    /// [`Lease::is_lost`] between its steps.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`Lease::release`]: the work is done then, but the lease may not have covered
    /// it to its end.
    pub fn with<T>(&self, work: impl FnOnce(&Lease<F>) -> T) -> Result<T, Error> {
        let lease = self.acquire()?;
        let outcome = work(&lease);
        lease.release()?;
        Ok(outcome)
    }

    fn lease(&self, lease: AsyncLease<F>) -> Lease<F> {
        Lease { lease, background: Arc::clone(&self.background) }
    }

    fn attempt(&self, attempt: AsyncAttempt<F>) -> Attempt<F> {
        match attempt {
            AsyncAttempt::Granted(lease) => Attempt::Granted(self.lease(lease)),
            AsyncAttempt::Held(held) => Attempt::Held(held),
        }
    }
}

impl Lease<Mutex> {
    /// The fencing token of this grant: send it along with every write.
    pub fn fence(&self) -> Fence {
        self.lease.fence()
    }
}

impl<F> Lease<F> {
    /// The name of the protected resource.
    pub fn name(&self) -> &Name {
        self.lease.name()
    }

    /// How long the lease may still be relied on; zero when it is lost.
    pub fn remaining(&self) -> Duration {
        self.lease.remaining()
    }

    /// Whether the lease is lost.
    pub fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    /// Blocks until the lease is lost.
    pub fn lost(&self) {
        self.background.wait(self.lease.lost());
    }

    /// A token that is cancelled when the lease is lost, for work that runs elsewhere.
    pub fn lost_token(&self) -> CancellationToken {
        self.lease.lost_token()
    }

    /// Makes the lease last at least `ttl` from now.
    ///
    /// # Errors
    ///
    /// As [`redlatch::Lease::extend`](crate::Lease::extend).
    pub fn extend(&self, ttl: Duration) -> Result<(), Error> {
        self.background.wait(self.lease.extend(ttl))
    }

    /// Gives the lease back and hands it to the next waiter.
    ///
    /// # Errors
    ///
    /// As [`redlatch::Lease::release`](crate::Lease::release).
    pub fn release(self) -> Result<(), Error> {
        let Self { lease, background } = self;
        background.wait(lease.release())
    }
}
