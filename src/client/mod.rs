//! The tokio client: one connection, one inbox, leases that renew themselves.

mod abandon;
mod all;
mod attempt;
pub mod blocking;
mod builder;
mod event;
mod heard;
mod inbox;
mod keeper;
mod lease;
mod lock;
mod reentrant;
mod target;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

use crate::{Error, Name, Namespace, call::Caller, clock, protocol::ServerClock};
use abandon::Cleanup;
use builder::{MAX_TTL, check_range};
use heard::Fences;
use inbox::Inbox;
use keeper::Keeper;
use target::{Family, Target};

pub use all::acquire_all;
pub use builder::ClientBuilder;
pub use event::Event;
pub use lease::Lease;
pub use lock::{Attempt, Held, Lock, Mutex, Plain};
pub use reentrant::{Reentrant, Share};

/// A connection to one Redis server, or to the nodes of a cluster, shared by any number of locks.
///
/// Cheap to clone. Must be made and used within a tokio runtime. Locks of one client share one connection, one
/// subscription and one client id. Do not use a client in both processes after a fork.
///
/// ```
/// # use std::time::Duration;
/// # redlatch::private_server::with_server(async |url| {
/// let client = redlatch::Client::builder().namespace("shop").ttl(Duration::from_secs(30)).connect(&url).await?;
/// assert!(client.mutex("stock")?.try_acquire().await?.granted().is_some());
/// # Ok(()) });
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    caller: Caller,
    inbox: Inbox,
    fences: Fences,
    keeper: Arc<Keeper>,
    /// Ends the keeper when the last clone of the client is dropped.
    _gone: DropGuard,
    cleanups: mpsc::UnboundedSender<Cleanup>,
    settings: ClientBuilder,
    namespace: Namespace,
    id: String,
    attempts: AtomicU64,
    leases: AtomicU64,
    /// Each server's, by its address; one server has none.
    server_clocks: StdMutex<HashMap<Option<String>, ServerClock>>,
}

impl Client {
    /// Connects to the server at `url` with default settings and loads the scripts that it lacks.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder().connect(url).await
    }

    /// Starts a client with other settings than the defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The mutex called `name`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when the name breaks the rules of [`Name`].
    pub fn mutex(&self, name: impl AsRef<[u8]>) -> Result<Lock<Mutex>, Error> {
        let name = Name::new(name)?;
        let key = self.shared.namespace.mutex_key(&name);
        let heard = self.shared.fences.of(&key);
        Ok(Lock::new(self.clone(), Target::new(Family::Mutex, name, key, heard)))
    }

    /// The classic lock on the raw key `key`: `SET key owner NX PX` and compare-and-delete.
    ///
    /// It shares the key with redis-py, redsync, node-redlock and hand-written locks, so that a fleet can move over
    /// step by step. It has no queue and no fence; waiting polls.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when the key breaks the rules of [`Name`].
    pub fn plain(&self, key: impl AsRef<[u8]>) -> Result<Lock<Plain>, Error> {
        let name = Name::new(key)?;
        let key = name.as_bytes().to_vec();
        let heard = self.shared.fences.of(&key);
        Ok(Lock::new(self.clone(), Target::new(Family::Plain, name, key, heard)))
    }

    /// The typed script calls on this client's connection.
    pub fn caller(&self) -> &Caller {
        &self.shared.caller
    }

    /// The prefix of this client's keys and channels.
    pub fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    /// Waits until every lease and every acquire that was dropped so far is given back.
    ///
    /// For programs that end: what is still to be released when the runtime stops ends by its TTL only.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time; the releases go on in the background.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.shared.cleanups.send(Cleanup::Settle(done)).is_ok() {
            let _ = settled.await;
        }
    }

    /// A fresh owner token: secret proof of one acquisition.
    fn owner(&self) -> String {
        format!("{}:{}", self.shared.id, self.shared.attempts.fetch_add(1, Ordering::Relaxed))
    }

    fn retention(&self) -> Duration {
        self.shared.settings.retention
    }

    fn next_lease_id(&self) -> u64 {
        self.shared.leases.fetch_add(1, Ordering::Relaxed)
    }

    /// The clock of the server that has `key`.
    fn server_clock(&self, key: &[u8]) -> ServerClock {
        self.server_clocks().get(&self.shared.caller.server_of(key)).copied().unwrap_or_default()
    }

    /// A reply of the server that has `key` says that it is `server_us`.
    fn learn_clock(&self, key: &[u8], server_us: u64) {
        let server = self.shared.caller.server_of(key);
        self.server_clocks().entry(server).or_default().learn(server_us, clock::now());
    }

    fn server_clocks(&self) -> MutexGuard<'_, HashMap<Option<String>, ServerClock>> {
        self.shared.server_clocks.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}
