//! The tokio client: one connection, one inbox, leases that renew themselves.

mod abandon;
mod all;
mod inbox;
mod keeper;
mod lease;
mod lock;
mod reentrant;
mod target;

use std::{
    sync::{
        Arc, Mutex as StdMutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Error, Name, Namespace, call::Caller, clock, protocol::ServerClock};
use abandon::Cleanup;
use inbox::Inbox;
use keeper::Keeper;
use target::{Family, Target};

pub use all::acquire_all;
pub use lease::Lease;
pub use lock::{Attempt, Held, Lock, Mutex, Plain};
pub use reentrant::{Reentrant, Share};

/// A connection to one Redis server, shared by any number of locks.
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
    keeper: Arc<Keeper>,
    /// Ends the keeper when the last clone of the client is dropped.
    _gone: DropGuard,
    cleanups: mpsc::UnboundedSender<Cleanup>,
    settings: ClientBuilder,
    namespace: Namespace,
    id: String,
    attempts: AtomicU64,
    leases: AtomicU64,
    server_clock: StdMutex<ServerClock>,
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
        Ok(Lock::new(self.clone(), Target::new(Family::Mutex, name, key)))
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
        Ok(Lock::new(self.clone(), Target::new(Family::Plain, name, key)))
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

    fn server_clock(&self) -> MutexGuard<'_, ServerClock> {
        self.shared.server_clock.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before connect"]
pub struct ClientBuilder {
    namespace: String,
    label: String,
    timeout: Duration,
    ttl: Duration,
    claim: Duration,
    retention: Duration,
    strict: bool,
    renewal_thread: bool,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            namespace: "redlatch".to_owned(),
            label: format!("{:.100}/{}", gethostname::gethostname().to_string_lossy(), std::process::id()),
            timeout: Self::DEFAULT_TIMEOUT,
            ttl: Self::DEFAULT_TTL,
            claim: Duration::from_secs(3),
            retention: Self::DEFAULT_RETENTION,
            strict: false,
            renewal_thread: false,
        }
    }
}

impl ClientBuilder {
    /// The [`timeout`](Self::timeout) of a client that sets none.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
    /// The [`ttl`](Self::ttl) of a client that sets none.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(10);
    /// The [`retention`](Self::retention) of a client that sets none.
    pub const DEFAULT_RETENTION: Duration = Duration::from_secs(3600);

    /// Prefix of every key and channel. Defaults to `redlatch`.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Who asks, for people who inspect a lock; at most 128 bytes. Defaults to `<host name>/<process id>`.
    pub fn label(mut self, label: &str) -> Self {
        label.clone_into(&mut self.label);
        self
    }

    /// The longest that one command may take before its outcome is unknown. Defaults to 2 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Length of a lease, 1 ms to 31 days; it is renewed after a third. Defaults to 10 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Length of the lease that a hand-off starts with, 1 ms to 60 s; what a waiter that died in the queue costs.
    /// Defaults to 3 s.
    pub fn claim(mut self, claim: Duration) -> Self {
        self.claim = claim;
        self
    }

    /// How long a server remembers the fence of a lock that nobody uses, 1 minute to 31 days. Defaults to 1 h.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// With `true` this client never loads a script: its user needs no right to SCRIPT and EVAL, and a missing
    /// script is an error. Defaults to `false`.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// With `true` leases are renewed, and found lost, by a thread of their own with a connection of its own: work that
    /// blocks the program's runtime, and commands that fill its connection, do not end them. Defaults to `false`: then
    /// a lease is lost when the runtime is blocked for longer than two thirds of its TTL.
    pub fn renewal_thread(mut self, own: bool) -> Self {
        self.renewal_thread = own;
        self
    }

    /// Connects to `redis://[USER:PASSWORD@]HOST[:PORT][/DB]` or `unix:///PATH` and loads the scripts that the server
    /// lacks.
    ///
    /// # Errors
    ///
    /// - [`Invalid`](crate::ErrorKind::Invalid): a setting or the URL is out of range.
    /// - [`Unavailable`](crate::ErrorKind::Unavailable): no server answers.
    /// - [`Refused`](crate::ErrorKind::Refused): the server does not let us in.
    /// - [`Bundle`](crate::ErrorKind::Bundle): something changed the scripts.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, some scripts may have been loaded; that changes nothing for anybody.
    pub async fn connect(mut self, url: &str) -> Result<Client, Error> {
        self.ttl = check_range("ttl", self.ttl, Duration::from_millis(1), MAX_TTL)?;
        check_range("claim", self.claim, Duration::from_millis(1), Duration::from_secs(60))?;
        check_range("retention", self.retention, Duration::from_secs(60), MAX_TTL)?;
        check_range("timeout", self.timeout, Duration::from_millis(1), Duration::from_secs(3600))?;
        if self.label.len() > 128 {
            return Err(Error::invalid(format!(
                "a label must be at most 128 bytes, this one has {}",
                self.label.len()
            )));
        }
        let namespace = Namespace::new(&self.namespace)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let inbox = Inbox::new(format!("{}:inbox:{id}", self.namespace));
        let caller = Caller::connect(url, self.timeout, self.strict, {
            let inbox = inbox.clone();
            move |push| inbox.receive(push)
        })
        .await?;
        if !self.strict {
            match caller.load_missing().await {
                // Callers whose ACL has no SCRIPT rely on `redlatch load`; a call says so if that did not happen.
                Err(error) if error.code() == Some("NOPERM") => {}
                outcome => {
                    outcome?;
                }
            }
        }
        let mut server_clock = ServerClock::default();
        if let Some(server_us) = caller.server_us().await? {
            server_clock.learn(server_us, clock::now());
        }
        let (cleanups, queue) = mpsc::unbounded_channel();
        tokio::spawn(abandon::release_all(queue));
        let keeper = Arc::<Keeper>::default();
        let gone = CancellationToken::new();
        if self.renewal_thread {
            let (url, timeout, strict) = (url.to_owned(), self.timeout, self.strict);
            let connect = async move { Caller::connect(&url, timeout, strict, |_| {}).await };
            keeper::keep_on_own_thread(Arc::clone(&keeper), connect, gone.clone()).await?;
        } else {
            tokio::spawn(keeper::keep(Arc::clone(&keeper), caller.clone(), gone.clone()));
        }
        Ok(Client {
            shared: Arc::new(Shared {
                caller,
                inbox,
                keeper,
                _gone: gone.drop_guard(),
                cleanups,
                settings: self,
                namespace,
                id,
                attempts: AtomicU64::new(0),
                leases: AtomicU64::new(0),
                server_clock: StdMutex::new(server_clock),
            }),
        })
    }
}

/// The longest lease: 31 days.
const MAX_TTL: Duration = Duration::from_millis(2_678_400_000);

/// `value` in whole milliseconds, as the server will count it.
fn check_range(what: &str, value: Duration, min: Duration, max: Duration) -> Result<Duration, Error> {
    if value < min || value > max {
        return Err(Error::invalid(format!("{what} must be {min:?} to {max:?}, not {value:?}")));
    }
    Ok(Duration::new(value.as_secs(), value.subsec_millis() * 1_000_000))
}
