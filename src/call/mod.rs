//! One EVALSHA on one key: routing, healing of missing scripts, typed replies.

mod connection;
mod mutex;
mod name;
mod plain;
mod refusal;
mod reply;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, ProtocolVersion, PushInfo, RedisError, RedisResult, Value, aio::MultiplexedConnection};

use crate::{
    Error, ErrorKind,
    bundle::{self, Script},
    measure,
};

use connection::Connection;
pub use mutex::{Acquire, AcquireArgs, Extend, ForceRelease, Inspect, Place, Release};
pub use name::{Name, Namespace};
pub use plain::{PlainAcquire, PlainExtend, PlainRelease};

/// How often a missing script is loaded before the call falls back to EVAL.
const HEAL_ROUNDS: usize = 3;

/// Runs the scripts of the bundle on one server.
#[derive(Clone)]
pub struct Caller {
    connection: Connection,
    timeout: Duration,
    strict: bool,
    loads: Arc<Loads>,
}

/// Makes concurrent calls that miss a script share one SCRIPT LOAD.
#[derive(Default)]
struct Loads {
    turn: tokio::sync::Mutex<()>,
    done: AtomicU64,
}

impl Caller {
    /// Connects to the server at `url`. `timeout` bounds the connection and every later command; `on_push` gets the
    /// messages of subscriptions, on the connection's reader and so in order with the replies.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a URL that is not understood, [`Unavailable`](ErrorKind::Unavailable) when
    /// no server answers, [`Refused`](ErrorKind::Refused) when it does not let us in.
    pub async fn connect(
        url: &str,
        timeout: Duration,
        strict: bool,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let invalid = |_| {
            Error::invalid("the URL is not understood, write redis://[USER:PASSWORD@]HOST[:PORT][/DB] or unix:///PATH")
        };
        let info = redis::IntoConnectionInfo::into_connection_info(url).map_err(invalid)?;
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("redlatch", env!("CARGO_PKG_VERSION"));
        let address = info.addr().to_string();
        // Without nodelay a command waits for the acknowledgement of the one before.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = redis::Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp)).map_err(invalid)?;
        let connection = Connection::new(client, timeout, on_push);
        let what = format!("connecting to {address}");
        match tokio::time::timeout(timeout, connection.live()).await {
            Ok(Ok(_)) => Ok(Self { connection, timeout, strict, loads: Arc::default() }),
            Ok(Err(error)) if !error.is_timeout() => Err(not_connected(&address, &what, error)),
            Ok(Err(_)) | Err(_) => {
                Err(Error::new(ErrorKind::Unavailable, format!("{what} took longer than {timeout:?}")))
            }
        }
    }

    /// The longest that one command may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs `script` on `key`.
    ///
    /// A missing script is loaded on the server that answered and the call repeated, a bounded number of times, with
    /// EVAL as the last resort; in strict mode that is [`ScriptMissing`](ErrorKind::ScriptMissing).
    ///
    /// # Errors
    ///
    /// [`Unknown`](ErrorKind::Unknown) when no reply came: the script may have run. Otherwise as the server said.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may still run on the server.
    pub async fn run(&self, script: &Script, key: &[u8], args: &[&[u8]]) -> Result<Value, Error> {
        let what =
            || format!("{} of {}", script.name(), Name::new(key).map_or_else(|_| "?".into(), |key| key.to_string()));
        let mut evalsha = redis::cmd("EVALSHA");
        evalsha.arg(script.digest().as_str()).arg(1).arg(key);
        args.iter().for_each(|arg| {
            evalsha.arg(*arg);
        });
        for _ in 0..HEAL_ROUNDS {
            let loads = self.loads.done.load(Ordering::Acquire);
            match self.command(&evalsha, what).await {
                Err(error) if error.kind() == ErrorKind::ScriptMissing && !self.strict => {
                    self.load_after(script, loads).await?;
                }
                outcome => return outcome,
            }
        }
        let mut eval = redis::cmd("EVAL");
        eval.arg(script.source()).arg(1).arg(key);
        args.iter().for_each(|arg| {
            eval.arg(*arg);
        });
        self.command(&eval, what).await
    }

    /// Runs `script` on each of `calls`, keys with their arguments, in one write. Waits for all replies for at most
    /// `limit`; the outcomes are in the order of the calls.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), for all calls together; each outcome is an error of its own where the server said so.
    ///
    /// # Cancel safety
    ///
    /// Dropped calls may still run on the server.
    pub async fn run_each(
        &self,
        script: &Script,
        calls: &[(&[u8], Vec<Vec<u8>>)],
        limit: Duration,
    ) -> Result<Vec<Result<Value, Error>>, Error> {
        let what = || format!("{} of {} locks", script.name(), calls.len());
        let mut pipeline = redis::Pipeline::with_capacity(calls.len());
        for (key, args) in calls {
            pipeline.cmd("EVALSHA").arg(script.digest().as_str()).arg(1).arg(*key).arg(args);
        }
        let count = calls.len();
        let replies =
            self.within(limit, what, async |redis| redis.send_packed_commands(&pipeline, 0, count).await).await?;
        let mut outcomes = Vec::with_capacity(count);
        for (reply, (key, args)) in replies.into_iter().zip(calls) {
            let outcome = match reply {
                Value::ServerError(error) => Err(refusal::translate(&what(), RedisError::from(error))),
                value => Ok(value),
            };
            outcomes.push(match outcome {
                // One of them heals, the others find it healed.
                Err(error) if error.kind() == ErrorKind::ScriptMissing && !self.strict => {
                    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                    self.run(script, key, &args).await
                }
                outcome => outcome,
            });
        }
        Ok(outcomes)
    }

    /// Sends one command and waits for its reply, for at most the timeout.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn command(&self, command: &Cmd, what: impl Fn() -> String) -> Result<Value, Error> {
        let reply = self.within(self.timeout, &what, async |redis| redis.send_packed_command(command).await).await?;
        match reply {
            Value::ServerError(error) => Err(refusal::translate(&what(), RedisError::from(error))),
            value => Ok(value),
        }
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
                if live.unanswered() || limit >= self.timeout {
                    self.connection.give_up(&live);
                }
                Err(Error::unknown(what(), limit))
            }
        }
    }

    /// The server's time in microseconds since 1970, so that even the first acquire can say until when it may be
    /// granted; `None` when the server's ACL denies TIME.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn server_us(&self) -> Result<Option<u64>, Error> {
        match self.command(&redis::cmd("TIME"), || "TIME".to_owned()).await {
            Ok(reply) => {
                let (seconds, micros): (u64, u64) =
                    redis::from_redis_value(reply).map_err(|_| reply::unexpected("TIME"))?;
                Ok(Some(seconds * 1_000_000 + micros))
            }
            Err(error) if error.code() == Some("NOPERM") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Subscribes to `channel`, now and after every reconnect.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn subscribe(&self, channel: &str) -> Result<(), Error> {
        let what = || "subscribing to the inbox".to_owned();
        match tokio::time::timeout(self.timeout, self.connection.subscribe(channel)).await {
            Ok(outcome) => outcome.map_err(|error| refusal::translate(&what(), error)),
            Err(_) => Err(Error::unknown(what(), self.timeout)),
        }
    }

    /// Which of `scripts` the server has, in the same order.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn exists(&self, scripts: &[Script]) -> Result<Vec<bool>, Error> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("EXISTS");
        scripts.iter().for_each(|script| {
            command.arg(script.digest().as_str());
        });
        let reply = self.command(&command, || "SCRIPT EXISTS".to_owned()).await?;
        redis::from_redis_value::<Vec<bool>>(reply).map_err(|_| reply::unexpected("SCRIPT EXISTS"))
    }

    /// Loads `script` and compares the digest that the server answers.
    ///
    /// # Errors
    ///
    /// [`Bundle`](ErrorKind::Bundle) when the server's digest differs: the bytes were changed on the way.
    pub async fn load(&self, script: &Script) -> Result<(), Error> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(script.source());
        let reply = self.command(&command, || format!("SCRIPT LOAD of {}", script.name())).await?;
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

    /// Loads every missing script of the bundle and returns how many were missing.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub async fn load_missing(&self) -> Result<usize, Error> {
        let scripts = bundle::embedded()?.scripts();
        let mut missing = 0;
        for (script, exists) in scripts.iter().zip(self.exists(scripts).await?) {
            if !exists {
                self.load(script).await?;
                missing += 1;
            }
        }
        Ok(missing)
    }

    /// Loads `script` unless somebody else did since `seen`.
    async fn load_after(&self, script: &Script, seen: u64) -> Result<(), Error> {
        let _turn = self.loads.turn.lock().await;
        if self.loads.done.load(Ordering::Acquire) == seen {
            self.load(script).await?;
            measure::reloaded();
            self.loads.done.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }
}

fn not_connected(address: &str, what: &str, error: RedisError) -> Error {
    let refused = error.is_connection_refusal();
    let error = refusal::not_sent(what, error);
    if error.kind() != ErrorKind::Unavailable || error.code().is_some() {
        error
    } else if refused {
        Error::new(ErrorKind::Unavailable, format!("no server answers at {address}, is it running?")).with_source(error)
    } else {
        Error::new(ErrorKind::Unavailable, format!("{what} failed: {}", root(&error)))
    }
}

fn root(error: &Error) -> String {
    let source: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(source), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

/// The embedded script `name`.
fn script(name: &str) -> Result<&'static Script, Error> {
    bundle::embedded()?
        .get(name)
        .ok_or_else(|| Error::new(ErrorKind::Bundle, format!("bundle is corrupt: it has no script {name}")))
}
