//! The signals that `run` gets: which it passes on, and how it ends by one itself.

use std::{future::poll_fn, io, os::unix::process::CommandExt, process::Command, task::Poll};

use nix::{
    libc,
    sys::signal::{SigSet, Signal},
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::{io_failure, outcome::Failure};

/// What a terminal stops a job with.
const STOPS: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
/// Told of our own faults, or by pipes and children of ours: not meant for the command.
const OURS: [i32; 8] = [
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGSEGV,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGBUS,
    libc::SIGTRAP,
    libc::SIGABRT,
];
/// What tells that something changed and ends nobody who does not listen.
const HARMLESS: [i32; 3] = [libc::SIGCONT, libc::SIGWINCH, libc::SIGURG];

/// Every signal that can be caught and was not ignored when this program started, as they arrive.
pub struct Signals {
    ignored: u64,
    streams: Vec<(i32, Stream)>,
}

impl Signals {
    /// From now on no signal ends this program, and what was ignored stays ignored. The terminal can still stop it.
    pub fn listen() -> Result<Self, Failure> {
        let ignored = ignored().map_err(|error| io_failure("reading which signals are ignored", &error))?;
        let mut signals = Self { ignored, streams: Vec::new() };
        signals.add((1..=libc::SIGRTMAX()).filter(|number| !STOPS.contains(number) && !OURS.contains(number)));
        Ok(signals)
    }

    /// From now on the terminal cannot stop this program any more.
    pub fn listen_for_stops(&mut self) -> io::Result<()> {
        self.add(STOPS.into_iter());
        // The one thread that gets this signal, see `let_write`: it never writes.
        std::thread::Builder::new().name("stops".to_owned()).spawn(|| {
            let _ = ttou().thread_unblock();
            loop {
                std::thread::park();
            }
        })?;
        Ok(())
    }

    fn add(&mut self, numbers: impl Iterator<Item = i32>) {
        let wanted = numbers.filter(|number| self.ignored >> (number - 1) & 1 == 0);
        // Some numbers are no signals here, or nobody can catch them.
        let streams = wanted.filter_map(|number| Some((number, signal(SignalKind::from_raw(number)).ok()?)));
        self.streams.extend(streams.collect::<Vec<_>>());
    }

    /// The number of the next one.
    pub async fn any(&mut self) -> i32 {
        poll_fn(|context| {
            for (number, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next one that would end a program that does not listen for it.
    pub async fn next(&mut self) -> i32 {
        loop {
            let number = self.any().await;
            if !HARMLESS.contains(&number) && !STOPS.contains(&number) {
                return number;
            }
        }
    }
}

/// Which signals this process ignores: bit 0 is signal 1.
fn ignored() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ok(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default())
}

/// Lets this thread and those that it starts write to a terminal that is not ours at the moment: it may want to stop
/// whoever does that, and a program that catches the signal instead would try again for ever.
pub fn let_write() {
    let _ = ttou().thread_block();
}

/// Does something that must not be inherited by what it starts: [`let_write`].
pub fn without_leave<T>(start: impl FnOnce() -> T) -> T {
    let _ = ttou().thread_unblock();
    let outcome = start();
    let_write();
    outcome
}

fn ttou() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTTOU);
    set
}

/// Ends this program by the signal `number`, without a core dump, so that whoever started it sees what happened. Returns
/// when that cannot be: no signal of its own ends the first process of a system.
pub fn end_by(number: u8) {
    if std::process::id() == 1 {
        return;
    }
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = signal_hook::low_level::emulate_default_handler(number.into());
    // It is none of those that have a name everywhere. A new program has the default for it.
    let end = format!("ulimit -c 0; kill -{number} $$; exit {}", u16::from(number) + 128);
    let _ = Command::new("sh").args(["-c", &end]).exec();
}

/// `SIGTERM`, or the number of a signal without a name.
pub fn name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.to_string())
}

/// `TERM`, `SIGTERM` or `15`.
pub fn parse(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let number = text.parse().ok().and_then(|number: i32| Signal::try_from(number).ok());
    name.parse().ok().or(number).ok_or_else(|| "a signal is a name or a number, write TERM, INT or 15".to_owned())
}
