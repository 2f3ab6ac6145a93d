//! One EVALSHA on one key: routing, healing of missing scripts, typed replies.

mod cluster;
mod connection;
mod endpoint;
mod hello;
mod misdirected;
mod mutex;
mod name;
mod node;
mod plain;
mod push;
mod refusal;
mod reply;
mod sentinel;
mod server;

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{Cmd, PushInfo, RedisError, Value};
use tokio::task::JoinSet;

use crate::{
    Error, ErrorKind,
    bundle::{self, Script},
    clock,
    protocol::Moment,
};

use cluster::Cluster;
use connection::{Connection, Seek};
pub use endpoint::Endpoint;
use endpoint::Topology;
pub use mutex::{Acquire, AcquireArgs, Extend, ForceRelease, Inspect, Place, Release};
pub use name::{Name, Namespace};
use node::{Node, Run};
pub use plain::{PlainAcquire, PlainExtend, PlainRelease};
#[doc(hidden)]
pub use refusal::pattern_of;
use sentinel::Sentinels;
pub use server::{Role, Server};

/// How often a call follows a redirection: a slot that moves while it is asked for takes two.
const HOPS: usize = 5;

/// Runs the scripts of the bundle on the server that has the key.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
    /// Until when to wait for each call, if that is sooner than its timeout.
    deadline: Option<Moment>,
}

struct Shared {
    servers: Servers,
    endpoint: Endpoint,
    timeout: Duration,
    strict: bool,
}

enum Servers {
    One { node: Node, sentinels: Option<Arc<Sentinels>> },
    Cluster { cluster: Cluster, inbox: Connection },
}

impl Caller {
    /// Connects to the servers of `endpoint`. `timeout` bounds the connection and every later command; with `strict`
    /// scripts are never loaded; `on_push` gets the messages of subscriptions, with one server on the connection's
    /// reader and so in order with the replies.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a certificate that cannot be used, [`Unavailable`](ErrorKind::Unavailable)
    /// when no server answers, [`Refused`](ErrorKind::Refused) when it does not let us in.
    pub async fn connect(
        endpoint: &Endpoint,
        timeout: Duration,
        strict: bool,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let endpoint = &if strict { endpoint.clone().of_strict() } else { endpoint.clone() };
        if endpoint.lacks_password() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the URL names the user {:?} without a password, write USER:PASSWORD@ or give the password by itself",
                    endpoint.user()
                ),
            ));
        }
        let invalid = |error: RedisError| refusal::not_sent("connecting", error, &endpoint.login());
        let one = |connection| Node::new(endpoint.to_string(), connection, timeout, endpoint.login());
        let servers = match &endpoint.topology {
            Topology::Single(address) => {
                let seek = Seek::Fixed(Box::new(endpoint.client(address.clone()).map_err(invalid)?));
                Servers::One { node: one(Connection::new(seek, timeout, on_push)), sentinels: None }
            }
            Topology::Sentinel { sentinels, primary, login } => {
                let (addresses, name, login) = (sentinels.clone(), primary.clone(), login.clone());
                let sentinels = Arc::new(Sentinels::new(endpoint.clone(), addresses, name, login, timeout));
                let connection = Connection::new(Seek::Primary(Arc::clone(&sentinels)), timeout, on_push);
                Arc::clone(&sentinels).follow(&connection);
                Servers::One { node: one(connection), sentinels: Some(sentinels) }
            }
            Topology::Cluster { seeds } => {
                let cluster = Cluster::new(endpoint.clone(), seeds.clone(), timeout);
                let inbox = Connection::new(cluster.any_node(), timeout, on_push);
                Servers::Cluster { cluster, inbox }
            }
        };
        let connected = async {
            match &servers {
                Servers::One { node, .. } => node.connection().live().await.map(|_| ()),
                Servers::Cluster { cluster, .. } => cluster.look().await,
            }
        };
        let what = format!("connecting to {endpoint}");
        match tokio::time::timeout(timeout, connected).await {
            Ok(Ok(())) => {
                let shared = Shared { servers, endpoint: endpoint.clone(), timeout, strict };
                Ok(Self { shared: Arc::new(shared), deadline: None })
            }
            Ok(Err(error)) if !error.is_timeout() => Err(misdirected::about_tls(
                refusal::not_connected(&endpoint.to_string(), &what, error, &endpoint.login()),
                endpoint.has_tls(),
            )),
            Ok(Err(_)) | Err(_) => {
                let announced = match &servers {
                    Servers::One { sentinels: Some(sentinels), .. } => sentinels.announced(),
                    Servers::One { sentinels: None, .. } | Servers::Cluster { .. } => None,
                };
                let announced = announced.map(|at| format!(": the sentinels say that the primary is {at}"));
                let late = format!("{what} took longer than {timeout:?}{}", announced.unwrap_or_default());
                Err(misdirected::about_tls(Error::new(ErrorKind::Unavailable, late), endpoint.has_tls()))
            }
        }
    }

    /// The longest that one call may take.
    pub fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// The same for calls that are waited for until `deadline` at the longest.
    pub(crate) fn by(&self, deadline: Moment) -> Self {
        Self { shared: Arc::clone(&self.shared), deadline: Some(deadline) }
    }

    /// Until when a call that begins now is waited for, with all that it takes: a connection, a script to be loaded.
    fn deadline(&self) -> Moment {
        let deadline = clock::now() + self.shared.timeout;
        self.deadline.map_or(deadline, |sooner| sooner.min(deadline))
    }

    /// The address of the server that has `key`, as far as is known: servers have clocks of their own.
    pub(crate) fn server_of(&self, key: &[u8]) -> Option<String> {
        match &self.shared.servers {
            Servers::One { .. } => None,
            Servers::Cluster { cluster, .. } => cluster.owner_address(key),
        }
    }

    /// The address of the server in use, or that was used last: the primary that sentinels have named. `None` in a
    /// cluster, where each key has its own.
    pub fn address(&self) -> Option<String> {
        match &self.shared.servers {
            Servers::One { node, .. } => node.connection().address(),
            Servers::Cluster { .. } => None,
        }
    }

    /// The servers that are meant.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Runs `script` on `key`.
    ///
    /// A missing script is loaded on the server that answered and run in the same write, a bounded number of times; in
    /// strict mode that is [`ScriptMissing`](ErrorKind::ScriptMissing). EVAL is never sent.
    ///
    /// # Errors
    ///
    /// [`Unknown`](ErrorKind::Unknown) when no reply came: the script may have run. Otherwise as the server said.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still run on the server.
    pub async fn run(&self, script: &Script, key: &[u8], args: &[&[u8]]) -> Result<Value, Error> {
        let what = || describe(script, &[key]);
        let deadline = self.deadline();
        let mut node = self.node_of(key, deadline, what).await?;
        let mut asking = false;
        for _ in 0..HOPS {
            let run = Run { script, key, args, strict: self.shared.strict, asking, deadline };
            match node.run(run, what).await {
                Err(error) => match self.redirection(&node, &error) {
                    Some((next, ask)) => (node, asking) = (next, ask),
                    None => return Err(self.weighed(&node, error)),
                },
                outcome => return outcome,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("{} did not run: its slot moves from node to node", what())))
    }

    /// Runs `script` on each of `calls`, keys with their arguments, in one write to each server. Waits for at most
    /// `limit`, also where some have to be run again; the outcomes, as those of [`run`](Self::run), are in the order of the calls.
    ///
    /// # Cancel safety
    ///
    /// Dropped calls may still run on the server.
    pub async fn run_each(
        &self,
        script: &Script,
        calls: &[(&[u8], Vec<Vec<u8>>)],
        limit: Duration,
    ) -> Vec<Result<Value, Error>> {
        let within = self.by(clock::now() + limit);
        let keys: Vec<&[u8]> = calls.iter().map(|(key, _)| *key).collect();
        let what = || describe(script, &keys);
        let mut shares: HashMap<String, (Node, Vec<usize>, redis::Pipeline)> = HashMap::new();
        for (number, (key, args)) in calls.iter().enumerate() {
            let Ok(node) = self.node_of(key, within.deadline(), what).await else { continue };
            let share = shares.entry(node.address().to_owned()).or_insert_with(|| (node, Vec::new(), redis::pipe()));
            share.1.push(number);
            share.2.cmd("EVALSHA").arg(script.digest().as_str()).arg(1).arg(*key).arg(args);
        }
        let mut sent: JoinSet<_> = shares
            .into_values()
            .map(|(node, numbers, pipeline)| {
                let what = describe(script, &numbers.iter().map(|number| keys[*number]).collect::<Vec<_>>());
                async move { (node.each(&pipeline, limit, || what.clone()).await, node, numbers) }
            })
            .collect();
        // What stays so had no answer: one server that is silent takes nothing from what the others say.
        let mut outcomes: Vec<_> =
            std::iter::repeat_with(|| Err(Error::unknown(what(), limit))).take(calls.len()).collect();
        while let Some(share) = sent.join_next().await {
            let Ok((replies, node, numbers)) = share else { continue };
            let replies = match replies {
                Ok(replies) => replies,
                Err(error) => {
                    self.weighed(&node, error);
                    continue;
                }
            };
            for (number, reply) in numbers.into_iter().zip(replies) {
                let (key, args) = &calls[number];
                outcomes[number] = match reply {
                    // One of them heals, the others find it healed.
                    Err(error) if self.may_run_again(&error) => {
                        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                        within.run(script, key, &args).await
                    }
                    Err(error) => Err(self.weighed(&node, error)),
                    outcome => outcome,
                };
            }
        }
        outcomes
    }

    /// Sends one command to the server; to any node of a cluster.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn command(&self, command: &Cmd, what: impl Fn() -> String) -> Result<Value, Error> {
        self.command_on(b"", command, what).await
    }

    /// Sends one command to the server that has `key`, as far as is known.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn command_on(&self, key: &[u8], command: &Cmd, what: impl Fn() -> String) -> Result<Value, Error> {
        let deadline = self.deadline();
        let node = self.node_of(key, deadline, &what).await?;
        node.command(command, deadline, what).await.map_err(|error| self.weighed(&node, error))
    }

    /// The time of the server that has `key`, in microseconds since 1970, so that even the first acquire can say until
    /// when it may be granted; `None` when the server's ACL denies TIME.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn server_us(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let what = || "TIME".to_owned();
        match self.command_on(key, &redis::cmd("TIME"), what).await {
            Ok(reply) => {
                let (seconds, micros): (u64, u64) =
                    redis::from_redis_value(reply).map_err(|_| reply::unexpected("TIME"))?;
                Ok(Some(seconds * 1_000_000 + micros))
            }
            Err(error) if error.code() == Some("NOPERM") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Subscribes to `channel`, on the connection in use and on every later one. Whether its messages come: they do not
    /// when the server's ACL denies the channel, or the server has no RESP3. Asked anew for each connection.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). The connection is then made again.
    pub async fn subscribe(&self, channel: &str) -> Result<bool, Error> {
        let what = || "subscribing to the inbox".to_owned();
        let (connection, limit) = match &self.shared.servers {
            Servers::One { node, .. } => (node.connection(), self.deadline().since(clock::now())),
            // Its node need not be one that has the lock: the lock does not wait for it for long.
            Servers::Cluster { inbox, .. } => (inbox, self.deadline().since(clock::now()) / 4),
        };
        if let Some(hears) = connection.hears() {
            return Ok(hears);
        }
        match tokio::time::timeout(limit, connection.subscribe(channel)).await {
            Ok(outcome) => outcome.map_err(|error| refusal::translate(&what(), error, &self.endpoint().login())),
            Err(_) => Err(Error::unknown(what(), limit)),
        }
    }

    /// Which of `scripts` the server has, in the same order; of a cluster, any node.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn exists(&self, scripts: &[Script]) -> Result<Vec<bool>, Error> {
        self.node_of(b"", self.deadline(), || "SCRIPT EXISTS".to_owned()).await?.exists(scripts).await
    }

    /// Loads `script` and compares the digest that the server answers; of a cluster, any node.
    ///
    /// # Errors
    ///
    /// [`Bundle`](ErrorKind::Bundle) when the server's digest differs: the bytes were changed on the way.
    pub async fn load(&self, script: &Script) -> Result<(), Error> {
        self.node_of(b"", self.deadline(), || format!("SCRIPT LOAD of {}", script.name())).await?.load(script).await
    }

    /// Loads every missing script of the bundle and returns how many were missing; in a cluster on every node that
    /// owns slots, where one that does not answer is left to the first call that needs it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub async fn load_missing(&self) -> Result<usize, Error> {
        let scripts = bundle::embedded()?.scripts();
        let cluster = match &self.shared.servers {
            Servers::One { node, .. } => return node.load_missing(scripts).await,
            Servers::Cluster { cluster, .. } => cluster,
        };
        let mut loads: JoinSet<_> =
            cluster.owners().into_iter().map(|node| async move { node.load_missing(scripts).await }).collect();
        let mut missing = 0;
        while let Some(loaded) = loads.join_next().await {
            match loaded {
                Ok(Ok(count)) => missing += count,
                Ok(Err(error)) if error.is_retryable() => tracing::debug!(%error, "a node has no scripts yet"),
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(missing)
    }

    /// The node that has `key`.
    async fn node_of(&self, key: &[u8], deadline: Moment, what: impl Fn() -> String) -> Result<Node, Error> {
        let cluster = match &self.shared.servers {
            Servers::One { node, .. } => return Ok(node.clone()),
            Servers::Cluster { cluster, .. } => cluster,
        };
        let limit = deadline.since(clock::now());
        match tokio::time::timeout(limit, cluster.owner(key)).await {
            Ok(owner) => owner.map_err(|error| refusal::not_sent(&what(), error, &self.endpoint().login())),
            Err(_) => Err(refusal::no_connection(&what(), limit)),
        }
    }

    /// Where `error` of `node` says that the key is, and whether that node has to be told so.
    fn redirection(&self, node: &Node, error: &Error) -> Option<(Node, bool)> {
        let Servers::Cluster { cluster, .. } = &self.shared.servers else { return None };
        let asking = match error.code() {
            Some("MOVED") => false,
            Some("ASK") => true,
            _ => return None,
        };
        if !asking {
            cluster.doubt();
        }
        let source = std::error::Error::source(error)?.downcast_ref::<RedisError>()?;
        let (address, _) = source.redirect_node()?;
        cluster.redirected(node, address).map(|node| (node, asking))
    }

    fn may_run_again(&self, error: &Error) -> bool {
        let moved =
            matches!(self.shared.servers, Servers::Cluster { .. }) && matches!(error.code(), Some("MOVED" | "ASK"));
        moved || error.kind() == ErrorKind::ScriptMissing && !self.shared.strict
    }

    /// What `error` of `node` means where servers change their roles.
    fn weighed(&self, node: &Node, error: Error) -> Error {
        let demoted = error.code() == Some("READONLY");
        if demoted {
            // A reconnect finds the primary, with one server too when its name leads to another address by now.
            node.connection().leave();
        }
        match &self.shared.servers {
            Servers::One { sentinels: None, .. } => error,
            Servers::One { sentinels: Some(_), .. } if demoted => error.into_unavailable(),
            Servers::One { sentinels: Some(_), .. } => error,
            Servers::Cluster { cluster, .. } => {
                if demoted || matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable) {
                    cluster.doubt();
                }
                if demoted { error.into_unavailable() } else { error }
            }
        }
    }
}

/// What is done, for an error: a script on one lock, or on so many.
fn describe(script: &Script, keys: &[&[u8]]) -> String {
    match keys {
        [key] => format!("{} of {}", script.name(), Name::new(*key).map_or_else(|_| "?".into(), |key| key.to_string())),
        keys => format!("{} of {} locks", script.name(), keys.len()),
    }
}

/// The embedded script `name`.
fn script(name: &str) -> Result<&'static Script, Error> {
    bundle::embedded()?
        .get(name)
        .ok_or_else(|| Error::new(ErrorKind::Bundle, format!("bundle is corrupt: it has no script {name}")))
}
