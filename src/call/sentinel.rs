//! Which server is the primary, as sentinels see it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisConnectionInfo,
    RedisError, RedisResult, Value, aio::MultiplexedConnection,
};
use tokio::task::{JoinError, JoinSet};

use super::{
    connection::{Connection, Members, Seek},
    endpoint::Endpoint,
};

/// How often the subscription to the switches is looked after.
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
        Self { endpoint, addresses, name, login, limit: timeout / 2 }
    }

    /// What connects to the primary: the address that most sentinels name. All are asked at once, and those that do
    /// not answer are not waited for when the others are a majority.
    pub(super) async fn primary(&self) -> RedisResult<Client> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let mut votes = HashMap::new();
        let mut trouble = None;
        let mut answers = self.ask_each(&ask);
        while let Some(answer) = answers.join_next().await {
            match read::<Option<(String, u16)>>(answer) {
                Ok(Some((host, port))) => {
                    let count: &mut usize = votes.entry(format!("{host}:{port}")).or_default();
                    *count += 1;
                    if *count * 2 > self.addresses.len() {
                        break;
                    }
                }
                Ok(None) => trouble = Some(unwatched()),
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        let elected = votes.into_iter().max_by_key(|(_, count)| *count).map(|(address, _)| address);
        match elected.and_then(|address| self.endpoint.address(&address)) {
            Some(address) => self.endpoint.client(address),
            None => Err(trouble.unwrap_or_else(silent)),
        }
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

    /// Leaves the server that `connection` is connected to whenever a sentinel says that the primary is another now.
    pub(super) fn follow(self: Arc<Self>, connection: &Connection) {
        let alive = connection.downgrade();
        let members = Members {
            addresses: Mutex::new(self.addresses.clone()),
            open: Box::new({
                let this = Arc::clone(&self);
                move |address| this.endpoint.sentinel_client(address, &this.login)
            }),
        };
        let hear = {
            let (alive, name) = (connection.downgrade(), self.name.clone());
            move |push: PushInfo| {
                if is_switch_of(&push, &name)
                    && let Some(connection) = alive()
                {
                    tracing::info!(primary = name, "the sentinels switched to another primary");
                    connection.leave();
                }
            }
        };
        let listener = Connection::new(Seek::AnyOf(Arc::new(members)), self.limit, hear);
        tokio::spawn(async move {
            let mut subscribed = false;
            while alive().is_some() {
                // A connection that broke is made again, with its subscription.
                let outcome =
                    if subscribed { listener.live().await.map(|_| ()) } else { listener.subscribe(SWITCHES).await };
                match outcome {
                    Ok(()) => subscribed = true,
                    Err(error) => tracing::debug!(%error, "no sentinel can be listened to"),
                }
                tokio::time::sleep(LOOK).await;
            }
        });
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

/// `NAME OLD-HOST OLD-PORT HOST PORT`
fn is_switch_of(push: &PushInfo, name: &str) -> bool {
    let payload = match (&push.kind, push.data.get(1)) {
        (PushKind::Message, Some(Value::BulkString(payload))) => payload,
        _ => return false,
    };
    payload.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b" "))
}

fn read<T: FromRedisValue>(answer: Result<RedisResult<Value>, JoinError>) -> RedisResult<T> {
    Ok(redis::from_redis_value(answer.unwrap_or_else(|_| Err(silent()))?)?)
}

fn silent() -> RedisError {
    (ErrorKind::Io, "no sentinel answers").into()
}

fn unwatched() -> RedisError {
    (ErrorKind::InvalidClientConfig, "the sentinels do not watch a primary of this name").into()
}
