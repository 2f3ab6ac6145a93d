//! What `run` and the guard of its command tell each other: one JSON object a line.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What the guard has to know before it starts the command.
#[derive(Serialize, Deserialize)]
pub struct Plan {
    /// The process group of `run`: the job that the shell knows. 0 when it is one of another PID namespace.
    pub job: i32,
    /// A file descriptor that is not the command's.
    pub close: Option<i32>,
    /// What the command is sent first when it has to end.
    pub signal: i32,
    /// How long it then has.
    pub grace_us: u64,
    /// How much earlier than the lease it is killed.
    pub margin_us: u64,
    /// Whether it ends with the lease.
    pub ends_with_lease: bool,
    /// Whether what it left running ends with it.
    pub ends_left_behind: bool,
    /// Until when the lease lasts, by the clock of [`now_us`].
    pub until_us: u64,
}

/// From `run` to the guard.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The lease lasts until then.
    Until(u64),
    /// A signal for the command.
    Signal(i32),
    /// Another process of the job was stopped because it wants the terminal.
    JobWantsTerminal,
    /// The lease is lost.
    Lost,
}

/// From the guard to `run`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The command has this process id.
    Started(i32),
    /// The command was stopped by this signal; whether it stays so.
    Suspended { signal: i32, stays: bool },
    /// The command goes on.
    Resumed,
    /// A signal could not be sent to the command.
    Refused { signal: i32, why: String },
    /// The command has ended, and these have not: they are ended now.
    LeftBehind(Vec<String>),
    /// The last word.
    Ended(Ended),
}

/// How it all ended.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Exit code of the command.
    pub code: Option<i32>,
    /// The signal that ended the command.
    pub signal: Option<i32>,
    /// The number of the error with which it did not even start.
    pub not_started: Option<i32>,
    /// Why it was made to end, if it was.
    pub stopped: Option<Reason>,
    /// Whether the lease, with which it was to end, was over before it was seen to have ended.
    pub late: bool,
    /// What could not be ended and goes on.
    pub left: Vec<String>,
    /// Whether the command had the terminal, so that nobody else of the job heard of its keys.
    pub had_terminal: bool,
}

/// Why the command was made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its lease could not be kept.
    Lease,
    /// It waited for the terminal, in the background, for the length of its lease.
    Terminal,
    /// Whoever renews the lease is gone.
    Orphaned,
}

/// Time since boot, suspend included: the clock of leases, the same in every process.
pub fn now_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let time = Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default());
    us(time)
}

/// In microseconds.
pub fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One line.
pub fn line(word: &impl Serialize) -> String {
    let mut line = serde_json::to_string(word).unwrap_or_default();
    line.push('\n');
    line
}
