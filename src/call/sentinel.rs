//! Which server is the primary, as sentinels see it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisConnectionInfo,
    RedisError, RedisResult, Value, aio::MultiplexedConnection,
};
use tokio::task::{JoinError, JoinSet};

use super::{
    connection::{Connection, Seek, lock},
    endpoint::Endpoint,
    refusal::{self, Login},
};

/// How often the subscriptions to the switches are looked after.
const LOOK: Duration = Duration::from_secs(1);
const SWITCHES: &str = "+switch-master";

/// The sentinels that watch one primary.
pub(super) struct Sentinels {
    endpoint: Endpoint,
    addresses: Vec<ConnectionAddr>,
    name: String,
    login: RedisConnectionInfo,
    /// The longest that asking one of them may take.
    limit: Duration,
    /// What they last said that the primary is.
    announced: Mutex<Option<String>>,
}

impl Sentinels {
    pub(super) fn new(
        endpoint: Endpoint,
        addresses: Vec<ConnectionAddr>,
        name: String,
        login: RedisConnectionInfo,
        timeout: Duration,
    ) -> Self {
        // Time must be left to connect to the primary.
        Self { endpoint, addresses, name, login, limit: timeout / 2, announced: Mutex::default() }
    }

    /// What they last said that the primary is.
    pub(super) fn announced(&self) -> Option<String> {
        lock(&self.announced).clone()
    }

    /// What may connect to the primary. All sentinels are asked at once.
    pub(super) fn candidates(&self) -> Candidates<'_> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let answers = self.ask_each(&ask);
        Candidates { sentinels: self, answers, votes: HashMap::new(), tried: HashSet::new(), trouble: None }
    }

    /// Addresses of the replicas that are not known to be gone, as the first sentinel that answers lists them.
    pub(super) async fn replicas(&self) -> RedisResult<Vec<String>> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("REPLICAS").arg(&self.name);
        let mut answers = self.ask_each(&ask);
        let mut trouble = None;
        while let Some(answer) = answers.join_next().await {
            match read::<Vec<HashMap<String, String>>>(answer) {
                Ok(replicas) => {
                    return Ok(replicas
                        .iter()
                        .filter_map(|it| Some(format!("{}:{}", it.get("ip")?, it.get("port")?)))
                        .collect());
                }
                Err(error) => trouble = Some(error),
            }
        }
        Err(trouble.unwrap_or_else(silent))
    }

    fn ask_each(&self, command: &redis::Cmd) -> JoinSet<RedisResult<Value>> {
        self.addresses
            .iter()
            .map(|address| {
                let client = self.endpoint.sentinel_client(address.clone(), &self.login);
                let (command, limit) = (command.clone(), self.limit);
                async move {
                    let asked = async {
                        let config =
                            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
                        let mut redis = client?.get_multiplexed_async_connection_with_config(&config).await?;
                        command.query_async(&mut redis).await
                    };
                    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(silent()))
                }
            })
            .collect()
    }

    /// Leaves the server that `connection` is connected to when a sentinel says that the primary is another now. All of
    /// them are listened to: they learn of a switch one after the other, and each may be cut off.
    pub(super) fn follow(self: Arc<Self>, connection: &Connection) {
        let alive = connection.downgrade();
        let listeners: Vec<_> =
            self.addresses.iter().filter_map(|address| self.listener(address, connection)).collect();
        tokio::spawn(async move {
            let mut subscribed = vec![false; listeners.len()];
            while alive().is_some() {
                for (listener, subscribed) in listeners.iter().zip(&mut subscribed) {
                    // A connection that broke is made again, with its subscription.
                    let attempt = async {
                        if *subscribed {
                            listener.live().await.map(|_| ())
                        } else {
                            listener.subscribe(SWITCHES).await.map(|_| ())
                        }
                    };
                    match tokio::time::timeout(self.limit, attempt).await {
                        Ok(Ok(())) => *subscribed = true,
                        Ok(Err(error)) => {
                            let error = refusal::not_sent("listening", error, &Login::unknown());
                            tracing::debug!(%error, "a sentinel cannot be listened to");
                        }
                        Err(_) => tracing::debug!("a sentinel does not answer"),
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }

    /// What hears the sentinel at `address`.
    fn listener(&self, address: &ConnectionAddr, connection: &Connection) -> Option<Connection> {
        let client = self.endpoint.sentinel_client(address.clone(), &self.login).ok()?;
        let (alive, name) = (connection.downgrade(), self.name.clone());
        Some(Connection::new(Seek::Sentinel(Box::new(client)), self.limit, move |push| {
            if let Some(address) = switch_of(&push, &name)
                && let Some(connection) = alive()
            {
                tracing::info!(address, "the sentinels switched to another primary");
                connection.move_to(&address);
            }
        }))
    }
}

/// The addresses that sentinels name. They learn of a switch one after the other.
pub(super) struct Candidates<'a> {
    sentinels: &'a Sentinels,
    answers: JoinSet<RedisResult<Value>>,
    votes: HashMap<String, usize>,
    tried: HashSet<String>,
    trouble: Option<RedisError>,
}

impl Candidates<'_> {
    /// What connects to the address that most sentinels name; after that to those that others name. Who does not
    /// answer is waited for only when there is no majority, or it was wrong.
    pub(super) async fn next(&mut self) -> RedisResult<Client> {
        let majority = self.sentinels.addresses.len() / 2 + 1;
        loop {
            let wanted = if self.answers.is_empty() { 1 } else { majority };
            let untried =
                self.votes.iter().filter(|(address, count)| **count >= wanted && !self.tried.contains(*address));
            if let Some(address) = untried.max_by_key(|(_, count)| **count).map(|(address, _)| address.clone()) {
                self.tried.insert(address.clone());
                *lock(&self.sentinels.announced) = Some(address.clone());
                let parsed = self.sentinels.endpoint.address(&address).ok_or_else(silent)?;
                return self.sentinels.endpoint.client(parsed);
            }
            let Some(answer) = self.answers.join_next().await else {
                return Err(self.trouble.take().unwrap_or_else(silent));
            };
            match read::<Option<(String, u16)>>(answer) {
                Ok(Some((host, port))) => *self.votes.entry(format!("{host}:{port}")).or_default() += 1,
                Ok(None) => self.trouble = Some(unwatched(&self.sentinels.name)),
                Err(error) => self.trouble = self.trouble.take().or(Some(error)),
            }
        }
    }

    /// The last one did not lead to a primary.
    pub(super) fn failed(&mut self, error: RedisError) {
        // What the server itself said is about no address.
        let of_the_way = error.is_io_error() || error.kind() == ErrorKind::Parse;
        let Some(at) = self.sentinels.announced().filter(|_| of_the_way && error.code().is_none()) else {
            self.trouble = Some(error);
            return;
        };
        let why = match error.is_timeout() {
            true => "does not answer".to_owned(),
            false => format!("cannot be reached ({error})"),
        };
        let sentence = format!("the sentinels say that the primary is {at}, which {why}");
        self.trouble = Some((ErrorKind::Io, "announced", sentence).into());
    }
}

/// Refuses a server that is not a primary any more, or not yet. A user without the right to ROLE is believed: its
/// first write would be refused.
pub(super) async fn check_role(redis: &mut MultiplexedConnection) -> RedisResult<()> {
    let role = redis::cmd("ROLE").query_async::<Vec<Value>>(redis).await;
    match role.as_deref() {
        Ok([Value::BulkString(role), ..]) if role != b"master" => {
            Err((ErrorKind::Io, "the sentinels name a server that is not the primary").into())
        }
        Err(error) if error.is_io_error() => Err(error.clone()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The new address in `NAME OLD-HOST OLD-PORT HOST PORT`.
fn switch_of(push: &PushInfo, name: &str) -> Option<String> {
    let (PushKind::Message, Some(Value::BulkString(payload))) = (&push.kind, push.data.get(1)) else { return None };
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    let switched = words.next()?;
    let (host, port) = (words.nth(2)?, words.next()?);
    (switched == name).then(|| format!("{host}:{port}"))
}

fn read<T: FromRedisValue>(answer: Result<RedisResult<Value>, JoinError>) -> RedisResult<T> {
    Ok(redis::from_redis_value(answer.unwrap_or_else(|_| Err(silent()))?)?)
}

fn silent() -> RedisError {
    (ErrorKind::Io, "no sentinel answers").into()
}

fn unwatched(name: &str) -> RedisError {
    let name = name.escape_debug();
    let sentence = format!("the sentinels watch no primary called {name}, write the NAME of `sentinel monitor NAME`");
    (ErrorKind::InvalidClientConfig, "wrong name", sentence).into()
}
