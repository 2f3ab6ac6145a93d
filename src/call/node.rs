//! One server: commands with a time limit, and scripts that are loaded where they are missing.

mod healing;

use std::{sync::Arc, time::Duration};

pub(super) use healing::Run;
use healing::{Loads, check_digest, load};
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};

use super::{
    connection::Connection,
    refusal::{self, Login},
    reply,
};
use crate::{Error, bundle::Script, clock, protocol::Moment};

/// A connection to one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Node {
    address: Arc<str>,
    connection: Connection,
    timeout: Duration,
    loads: Arc<Loads>,
    login: Arc<Login>,
}

impl Node {
    pub(super) fn new(address: String, connection: Connection, timeout: Duration, login: Login) -> Self {
        Self { address: address.into(), connection, timeout, loads: Arc::default(), login: Arc::new(login) }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends the commands of `pipeline` in one write and waits for all replies for at most `limit`.
    pub(super) async fn each(
        &self,
        pipeline: &Pipeline,
        limit: Duration,
        what: impl Fn() -> String,
    ) -> Result<Vec<Result<Value, Error>>, Error> {
        let count = pipeline.len();
        let work = async |redis: &mut MultiplexedConnection| redis.send_packed_commands(pipeline, 0, count).await;
        let replies = self.within(limit, &what, work).await?;
        let replies = replies.into_iter().zip(pipeline.cmd_iter());
        Ok(replies.map(|(reply, command)| self.answer(reply, &what, command)).collect())
    }

    /// Sends one command and waits for its reply until `deadline`.
    pub(super) async fn command(
        &self,
        command: &Cmd,
        deadline: Moment,
        what: impl Fn() -> String,
    ) -> Result<Value, Error> {
        let work = async |redis: &mut MultiplexedConnection| redis.send_packed_command(command).await;
        let reply = self.within(deadline.since(clock::now()), &what, work).await?;
        self.answer(reply, what, command)
    }

    /// The reply of CLUSTER SLOTS.
    pub(super) async fn slots(&self) -> RedisResult<Value> {
        let asked = async {
            let mut redis = self.connection.live().await?.redis;
            redis.send_packed_command(redis::cmd("CLUSTER").arg("SLOTS")).await?.extract_error()
        };
        let late = || RedisError::from((redis::ErrorKind::Io, "the node does not answer"));
        tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(late()))
    }

    /// Does `work` on the connection in use. When that breaks, or gives no reply within the caller's timeout, it is
    /// replaced.
    async fn within<T>(
        &self,
        limit: Duration,
        what: impl Fn() -> String,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Error> {
        let mut used = None;
        let outcome = tokio::time::timeout(limit, async {
            let live = used.insert(self.connection.live().await?);
            work(&mut live.redis).await
        })
        .await;
        let Some(live) = used else {
            return Err(match outcome {
                Ok(Err(error)) => refusal::not_sent(&what(), error, &self.login),
                Ok(Ok(_)) | Err(_) => refusal::no_connection(&what(), limit),
            });
        };
        match outcome {
            Ok(Ok(value)) => {
                live.answered();
                Ok(value)
            }
            Ok(Err(error)) => {
                if error.is_unrecoverable_error() || error.is_io_error() {
                    self.connection.give_up(&live);
                }
                Err(refusal::translate(&what(), error, &self.login))
            }
            Err(_) => {
                // A wait that was cut short says less.
                if live.unanswered() || limit >= self.timeout / 8 * 7 {
                    self.connection.give_up(&live);
                }
                Err(Error::unknown(what(), limit))
            }
        }
    }

    /// Which of `scripts` the server has, in the same order.
    pub(super) async fn exists(&self, scripts: &[Script]) -> Result<Vec<bool>, Error> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("EXISTS");
        scripts.iter().for_each(|script| {
            command.arg(script.digest().as_str());
        });
        let reply = self.command(&command, self.deadline(), || "SCRIPT EXISTS".to_owned()).await?;
        redis::from_redis_value::<Vec<bool>>(reply).map_err(|_| reply::unexpected("SCRIPT EXISTS"))
    }

    /// Loads `script` and compares the digest that the server answers.
    pub(super) async fn load(&self, script: &Script) -> Result<(), Error> {
        let reply =
            self.command(&load(script), self.deadline(), || format!("SCRIPT LOAD of {}", script.name())).await?;
        check_digest(script, reply)
    }

    /// A command that is sent now is waited for until then.
    fn deadline(&self) -> Moment {
        clock::now() + self.timeout
    }

    /// Loads those of `scripts` that are missing and returns how many were.
    pub(super) async fn load_missing(&self, scripts: &[Script]) -> Result<usize, Error> {
        let mut missing = 0;
        for (script, exists) in scripts.iter().zip(self.exists(scripts).await?) {
            if !exists {
                self.load(script).await?;
                missing += 1;
            }
        }
        Ok(missing)
    }

    fn answer(&self, reply: Value, what: impl Fn() -> String, sent: &Cmd) -> Result<Value, Error> {
        match reply {
            Value::ServerError(error) => {
                Err(refusal::translate_reply(&what(), RedisError::from(error), sent, &self.login))
            }
            value => Ok(value),
        }
    }
}
