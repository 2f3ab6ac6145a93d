//! The signals that `run` forwards to its command.

use std::io;

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::{io_failure, outcome::Failure};

/// TERM, INT, HUP and QUIT as they arrive.
pub struct Signals {
    term: Stream,
    int: Stream,
    hup: Stream,
    quit: Stream,
}

impl Signals {
    /// From now on these signals no longer end this program.
    pub fn listen() -> Result<Self, Failure> {
        let listen = || -> io::Result<Self> {
            Ok(Self {
                term: signal(SignalKind::terminate())?,
                int: signal(SignalKind::interrupt())?,
                hup: signal(SignalKind::hangup())?,
                quit: signal(SignalKind::quit())?,
            })
        };
        listen().map_err(|error| io_failure("listening for signals", &error))
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::SIGTERM,
            _ = self.int.recv() => Signal::SIGINT,
            _ = self.hup.recv() => Signal::SIGHUP,
            _ = self.quit.recv() => Signal::SIGQUIT,
        }
    }
}

/// `TERM`, `SIGTERM` or `15`.
pub fn parse(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let number = text.parse().ok().and_then(|number: i32| Signal::try_from(number).ok());
    name.parse().ok().or(number).ok_or_else(|| "a signal is a name or a number, write TERM, INT or 15".to_owned())
}
