//! One server: commands with a time limit, and scripts that are loaded where they are missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::sync::MutexGuard;

use super::{connection::Connection, refusal, reply};
use crate::{Error, ErrorKind, bundle::Script, clock, measure, protocol::Moment};

/// How often one call loads a script that is lost again.
const LOADS: usize = 4;

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

    /// Runs a script. Where it is missing it is loaded and run in one write, which leaves next to no time to lose it
    /// again, a bounded number of times; who finds that another call has loaded it meanwhile only runs it.
    pub(super) async fn run(&self, run: Run<'_>, what: impl Fn() -> String) -> Result<Value, Error> {
        let loads = self.loads.done.load(Ordering::Acquire);
        let mut outcome = self.evalsha(run, &what).await;
        if run.strict || !is_missing(&outcome) {
            return outcome;
        }
        let turn = self.turn(run).await?;
        let _turn = if self.loads.done.load(Ordering::Acquire) == loads {
            Some(turn)
        } else {
            drop(turn);
            outcome = self.evalsha(run, &what).await;
            None
        };
        for attempt in 0..LOADS {
            if !is_missing(&outcome) {
                break;
            }
            let loaded;
            (loaded, outcome) = self.load_and_run(run, attempt, &what).await?;
            if let (Err(error), true) = (loaded, is_missing(&outcome)) {
                return Err(self.may_not_load(run.script, error));
            }
        }
        outcome
    }

    async fn evalsha(&self, run: Run<'_>, what: impl Fn() -> String) -> Result<Value, Error> {
        let command = run.evalsha();
        if !run.asking {
            return self.command(&command, run.deadline, what).await;
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ASKING").add_command(command);
        self.each(&pipeline, run.limit(), what).await?.pop().unwrap_or(Ok(Value::Nil))
    }

    /// What became of the load, and of the run.
    async fn load_and_run(
        &self,
        run: Run<'_>,
        attempt: usize,
        what: impl Fn() -> String,
    ) -> Result<(Result<(), Error>, Result<Value, Error>), Error> {
        let mut pipeline = Pipeline::with_capacity(4);
        if attempt % 2 == 1 {
            pipeline.add_command(padding(run.script));
        }
        let at = pipeline.len();
        pipeline.add_command(load(run.script));
        if run.asking {
            // Holds for the next command only.
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(run.evalsha());
        let mut replies = self.each(&pipeline, run.limit(), what).await?.into_iter();
        let loaded = replies.nth(at).unwrap_or(Ok(Value::Nil)).and_then(|reply| check_digest(run.script, reply));
        if loaded.is_ok() {
            measure::reloaded();
            self.loads.done.fetch_add(1, Ordering::Release);
        }
        Ok((loaded, replies.next_back().unwrap_or(Ok(Value::Nil))))
    }

    /// Waits until no other call is loading.
    async fn turn(&self, run: Run<'_>) -> Result<MutexGuard<'_, ()>, Error> {
        let limit = run.limit();
        tokio::time::timeout(limit, self.loads.turn.lock()).await.map_err(|_| {
            let what = format!("{} did not run: loading it took longer than {limit:?}", run.script.name());
            Error::new(ErrorKind::Unavailable, what)
        })
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
        Ok(replies.map(|(reply, command)| answer(reply, &what, command)).collect())
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
        answer(reply, what, command)
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
    fn evalsha(&self) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.digest().as_str()).arg(1).arg(self.key).arg(self.args);
        command
    }

    /// How long to wait for what is sent now.
    fn limit(&self) -> Duration {
        self.deadline.since(clock::now())
    }
}

fn load(script: &Script) -> Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(script.source());
    command
}

/// A server reads 16 KB at a time, and does what others ask between two reads: with this in front the end of a read falls
/// on another place. It is longer than any EVALSHA of ours.
fn padding(script: &Script) -> Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("EXISTS").arg(vec![script.digest().as_str(); 60]);
    command
}

/// Compares the digest that SCRIPT LOAD replied.
fn check_digest(script: &Script, reply: Value) -> Result<(), Error> {
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

fn is_missing(outcome: &Result<Value, Error>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ScriptMissing)
}

fn answer(reply: Value, what: impl Fn() -> String, sent: &Cmd) -> Result<Value, Error> {
    match reply {
        Value::ServerError(error) => Err(refusal::translate_reply(&what(), RedisError::from(error), sent)),
        value => Ok(value),
    }
}
