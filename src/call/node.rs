//! One server: commands with a time limit, and scripts that are loaded where they are missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};

use super::{connection::Connection, refusal, reply};
use crate::{Error, ErrorKind, bundle::Script, clock, measure, protocol::Moment};

/// How often a missing script is loaded before the call falls back to EVAL.
const HEAL_ROUNDS: usize = 3;

/// A connection to one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Node {
    address: Arc<str>,
    connection: Connection,
    timeout: Duration,
    loads: Arc<Loads>,
}

/// Makes concurrent calls that miss a script share one SCRIPT LOAD.
#[derive(Default)]
struct Loads {
    turn: tokio::sync::Mutex<()>,
    done: AtomicU64,
}

/// A script with the key that it runs on.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) script: &'a Script,
    pub(super) key: &'a [u8],
    pub(super) args: &'a [&'a [u8]],
    /// Never load the script.
    pub(super) strict: bool,
    /// The slot of the key is on its way to this node, which serves it to those who say so.
    pub(super) asking: bool,
    /// Until when to wait for all that it takes.
    pub(super) deadline: Moment,
}

impl Node {
    pub(super) fn new(address: String, connection: Connection, timeout: Duration) -> Self {
        Self { address: address.into(), connection, timeout, loads: Arc::default() }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs a script, which is loaded and tried again where it is missing, a bounded number of times, with EVAL as the
    /// last resort.
    pub(super) async fn run(&self, run: Run<'_>, what: impl Fn() -> String) -> Result<Value, Error> {
        let evalsha = run.command("EVALSHA", run.script.digest().as_str().as_bytes());
        for _ in 0..HEAL_ROUNDS {
            let loads = self.loads.done.load(Ordering::Acquire);
            match self.ask(&evalsha, run, &what).await {
                Err(error) if error.kind() == ErrorKind::ScriptMissing && !run.strict => {
                    self.load_after(run, loads).await?;
                }
                outcome => return outcome,
            }
        }
        self.ask(&run.command("EVAL", run.script.source()), run, what).await
    }

    async fn ask(&self, command: &Cmd, run: Run<'_>, what: impl Fn() -> String) -> Result<Value, Error> {
        if !run.asking {
            return self.command(command, run.deadline, what).await;
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ASKING").add_command(command.clone());
        let work = async |redis: &mut MultiplexedConnection| redis.send_packed_commands(&pipeline, 1, 1).await;
        let mut replies = self.within(run.deadline.since(clock::now()), &what, work).await?;
        answer(replies.pop().unwrap_or(Value::Nil), what, std::iter::once(command))
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
        Ok(replies.into_iter().map(|reply| answer(reply, &what, pipeline.cmd_iter())).collect())
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
        answer(reply, what, std::iter::once(command))
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
                Ok(Err(error)) => refusal::not_sent(&what(), error),
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
                Err(refusal::translate(&what(), error))
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
        self.load_by(script, self.deadline()).await
    }

    /// A command that is sent now is waited for until then.
    fn deadline(&self) -> Moment {
        clock::now() + self.timeout
    }

    async fn load_by(&self, script: &Script, deadline: Moment) -> Result<(), Error> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(script.source());
        let reply = self.command(&command, deadline, || format!("SCRIPT LOAD of {}", script.name())).await?;
        match redis::from_redis_value::<String>(reply) {
            Ok(digest) if digest == script.digest().as_str() => Ok(()),
            Ok(_) => Err(Error::new(
                ErrorKind::Bundle,
                format!(
                    "the server has another digest for {} than this program: something changed its bytes on the way",
                    script.name()
                ),
            )),
            Err(_) => Err(reply::unexpected("SCRIPT LOAD")),
        }
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

    /// Loads the script unless somebody else did since `seen`.
    async fn load_after(&self, run: Run<'_>, seen: u64) -> Result<(), Error> {
        let limit = run.deadline.since(clock::now());
        let turn = tokio::time::timeout(limit, self.loads.turn.lock()).await;
        let _turn = turn.map_err(|_| {
            let what = format!("{} did not run: loading it took longer than {limit:?}", run.script.name());
            Error::new(ErrorKind::Unavailable, what)
        })?;
        if self.loads.done.load(Ordering::Acquire) == seen {
            self.load_by(run.script, run.deadline).await.map_err(|error| self.may_not_load(run.script, error))?;
            measure::reloaded();
            self.loads.done.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// A user who may not load lacks a script, and not a right.
    fn may_not_load(&self, script: &Script, error: Error) -> Error {
        if error.code() != Some("NOPERM") {
            return error;
        }
        let (name, address) = (script.name(), &self.address);
        let message = format!(
            "{name} is not on {address}, and this user may not load it: run `redlatch load` as a user who may, or grant \
             +script|load"
        );
        Error::new(ErrorKind::ScriptMissing, message).with_code("NOSCRIPT").with_source(error)
    }
}

impl Run<'_> {
    fn command(&self, verb: &str, script: &[u8]) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(1).arg(self.key);
        self.args.iter().for_each(|arg| {
            command.arg(*arg);
        });
        command
    }
}

fn answer<'a>(reply: Value, what: impl Fn() -> String, sent: impl Iterator<Item = &'a Cmd>) -> Result<Value, Error> {
    match reply {
        Value::ServerError(error) => Err(refusal::translate_reply(&what(), RedisError::from(error), sent)),
        value => Ok(value),
    }
}
