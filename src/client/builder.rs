//! The settings of a client, and connecting with them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_util::sync::CancellationToken;

use super::{Client, Event, Shared, abandon, heard::Fences, inbox::Inbox, keeper, keeper::Keeper};
use crate::{
    Error, Namespace,
    call::{Caller, Endpoint},
    clock,
    protocol::ServerClock,
};

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before connect"]
pub struct ClientBuilder {
    pub(super) namespace: String,
    pub(super) label: String,
    pub(super) timeout: Duration,
    pub(super) ttl: Duration,
    pub(super) claim: Duration,
    pub(super) retention: Duration,
    pub(super) strict: bool,
    pub(super) renewal_thread: bool,
    pub(super) events: Option<UnboundedSender<Event>>,
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
            events: None,
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

    /// The longest that one call may take before its outcome is unknown, with all that it needs: a connection, a script
    /// that is loaded. Connecting a client takes several calls. Defaults to 2 s.
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

    /// With `true` this client never loads a script: its user needs no right to SCRIPT, and a missing script
    /// is an error. Defaults to `false`.
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

    /// Sends there what happens in the background: places in queues, renewals, and what goes wrong with those, which is
    /// then no `tracing` event as well. Whoever has the other end must read it, or it grows. Defaults to nobody.
    ///
    /// ```
    /// # redlatch::private_server::with_server(async |url| {
    /// use redlatch::Event;
    /// let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
    /// let client = redlatch::Client::builder().events(events).connect(&url).await?;
    /// tokio::spawn(async move {
    ///     while let Some(event) = heard.recv().await {
    ///         if let Event::NotRenewed { name, remaining, error, .. } = event {
    ///             eprintln!("{name} is lost in {remaining:?}: {error}");
    ///         }
    ///     }
    /// });
    /// # client.mutex("stock")?.acquire().await?.release().await
    /// # });
    /// ```
    pub fn events(mut self, events: UnboundedSender<Event>) -> Self {
        self.events = Some(events);
        self
    }

    /// Connects to the server, the sentinels or the cluster at `url`, as [`Endpoint`] describes it, and loads the scripts
    /// that are missing.
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
    pub async fn connect(self, url: &str) -> Result<Client, Error> {
        self.connect_to(&Endpoint::parse(url)?).await
    }

    /// The same for an endpoint with a password or certificates of its own.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_to(mut self, endpoint: &Endpoint) -> Result<Client, Error> {
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
        let inbox = Inbox::new(format!("{}:inbox:{id}", self.namespace), !endpoint.is_cluster());
        let caller = Caller::connect(endpoint, self.timeout, self.strict, {
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
        let mut server_clocks = HashMap::new();
        // The nodes of a cluster are asked when they are needed: one that is down concerns its own locks only.
        if !endpoint.is_cluster()
            && let Some(server_us) = caller.server_us(b"").await?
        {
            let server_clock: &mut ServerClock = server_clocks.entry(caller.server_of(b"")).or_default();
            server_clock.learn(server_us, clock::now());
        }
        let (cleanups, queue) = mpsc::unbounded_channel();
        tokio::spawn(abandon::release_all(queue));
        let keeper = Arc::<Keeper>::default();
        let gone = CancellationToken::new();
        if self.renewal_thread {
            let (endpoint, timeout, strict) = (endpoint.clone(), self.timeout, self.strict);
            let connect = async move { Caller::connect(&endpoint, timeout, strict, |_| {}).await };
            keeper::keep_on_own_thread(Arc::clone(&keeper), connect, gone.clone()).await?;
        } else {
            tokio::spawn(keeper::keep(Arc::clone(&keeper), caller.clone(), gone.clone()));
        }
        Ok(Client {
            shared: Arc::new(Shared {
                caller,
                inbox,
                fences: Fences::default(),
                keeper,
                _gone: gone.drop_guard(),
                cleanups,
                settings: self,
                namespace,
                id,
                attempts: AtomicU64::new(0),
                leases: AtomicU64::new(0),
                server_clocks: StdMutex::new(server_clocks),
            }),
        })
    }
}

/// The longest lease: 31 days.
pub(super) const MAX_TTL: Duration = Duration::from_millis(2_678_400_000);

/// `value` in whole milliseconds, as the server will count it.
pub(super) fn check_range(what: &str, value: Duration, min: Duration, max: Duration) -> Result<Duration, Error> {
    if value < min || value > max {
        return Err(Error::invalid(format!("{what} must be {min:?} to {max:?}, not {value:?}")));
    }
    Ok(Duration::new(value.as_secs(), value.subsec_millis() * 1_000_000))
}
