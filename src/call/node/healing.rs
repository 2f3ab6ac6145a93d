//! Running a script that may be missing: it is loaded and run in one write, and never sent by EVAL.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use redis::{Cmd, Pipeline, Value};
use tokio::sync::MutexGuard;

use super::Node;
use crate::{Error, ErrorKind, bundle::Script, call::reply, clock, measure, protocol::Moment};

/// How often one call loads a script that is lost again.
const LOADS: usize = 4;

/// Makes concurrent calls that miss a script share one SCRIPT LOAD.
#[derive(Default)]
pub(super) struct Loads {
    turn: tokio::sync::Mutex<()>,
    done: AtomicU64,
}

/// A script with the key that it runs on.
#[derive(Clone, Copy)]
pub(in crate::call) struct Run<'a> {
    pub(in crate::call) script: &'a Script,
    pub(in crate::call) key: &'a [u8],
    pub(in crate::call) args: &'a [&'a [u8]],
    /// Never load the script.
    pub(in crate::call) strict: bool,
    /// The slot of the key is on its way to this node, which serves it to those who say so.
    pub(in crate::call) asking: bool,
    /// Until when to wait for all that it takes.
    pub(in crate::call) deadline: Moment,
}

impl Node {
    /// Runs a script. Where it is missing it is loaded and run in one write, which leaves next to no time to lose it
    /// again, a bounded number of times; who finds that another call has loaded it meanwhile only runs it.
    pub(in crate::call) async fn run(&self, run: Run<'_>, what: impl Fn() -> String) -> Result<Value, Error> {
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
        for _ in 0..LOADS {
            if !is_missing(&outcome) {
                break;
            }
            let loaded;
            (loaded, outcome) = self.load_and_run(run, &what).await?;
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
        what: impl Fn() -> String,
    ) -> Result<(Result<(), Error>, Result<Value, Error>), Error> {
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.add_command(load(run.script));
        if run.asking {
            // Holds for the next command only.
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(run.evalsha());
        let mut replies = self.each(&pipeline, run.limit(), what).await?.into_iter();
        let loaded = replies.next().unwrap_or(Ok(Value::Nil)).and_then(|reply| check_digest(run.script, reply));
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

pub(super) fn load(script: &Script) -> Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(script.source());
    command
}

/// Compares the digest that SCRIPT LOAD replied.
pub(super) fn check_digest(script: &Script, reply: Value) -> Result<(), Error> {
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
