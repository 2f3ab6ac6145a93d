//! How long `run` and `acquire` wait in all: for a server that cannot be reached as for the lease.

use std::time::Duration;

use redlatch::{Attempt, Client, Error, ErrorKind, Event, Lock, Mutex};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep, timeout_at},
};

use crate::{opt::Global, outcome::Failure, output::say, server::unconnected};

/// Pause after the first try that fails; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// As good as for ever.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// One wait. It begins when this is made.
pub struct Patience<'a> {
    global: &'a Global,
    /// `None` when it asks once.
    until: Option<Instant>,
    is_endless: bool,
    /// When everything is over at the latest: late by one timeout.
    last: Instant,
    pause: Duration,
    has_told: bool,
}

impl<'a> Patience<'a> {
    /// `limit` is zero to ask once, `None` to wait for ever.
    pub fn new(global: &'a Global, limit: Option<Duration>) -> Self {
        let (now, is_endless) = (Instant::now(), limit.is_none());
        let limit = limit.unwrap_or(YEAR).min(YEAR);
        let until = Some(now + limit).filter(|_| !limit.is_zero());
        Self { global, until, is_endless, last: now + limit + global.timeout, pause: FIRST_PAUSE, has_told: false }
    }

    /// Connects, again and again while the server cannot be reached and there is time.
    pub async fn connect(&mut self, ttl: Duration, label: &str) -> Result<(Client, UnboundedReceiver<Event>), Failure> {
        loop {
            match self.global.connect(ttl, label).await {
                Err(error) if self.goes_on(&error) => self.rest().await,
                connected => {
                    let (client, heard) = connected.map_err(unconnected)??;
                    self.global.tell_of_server(client.caller()).await;
                    return Ok((client, heard));
                }
            }
        }
    }

    /// Acquires, again while no server answers and there is time.
    pub async fn acquire(&mut self, lock: &Lock<Mutex>) -> Result<Attempt<Mutex>, Error> {
        loop {
            let attempt = match self.until {
                None => lock.try_acquire().await,
                Some(_) if self.is_endless => lock.acquire().await.map(Attempt::Granted),
                Some(until) => lock.acquire_within(until.saturating_duration_since(Instant::now())).await,
            };
            match attempt {
                Err(error) if self.goes_on(&error) => self.rest().await,
                attempt => return attempt,
            }
        }
    }

    /// Waits until an acquire that was given up is undone, but not beyond the end of everything.
    pub async fn settle(&self, client: &Client) {
        let _ = timeout_at(self.last.min(Instant::now() + self.global.timeout), client.settle()).await;
    }

    /// Whether it is tried again after `error`, which people are told once.
    fn goes_on(&mut self, error: &Error) -> bool {
        let goes_on = self.until.is_some_and(|until| Instant::now() < until) && may_pass(error);
        if goes_on && !self.has_told && !self.global.quiet {
            say(&format!("Redis cannot be reached, trying again: {error}"));
            self.has_told = true;
        }
        goes_on
    }

    async fn rest(&mut self) {
        let until = self.until.unwrap_or(self.last);
        let _ = timeout_at(until, sleep(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a server that is started again, or an address that leads elsewhere, would mend it: no host name that nobody
/// knows, no certificate and no protocol that is not right.
fn may_pass(error: &Error) -> bool {
    let said = format!("{error} {:?}", std::error::Error::source(error));
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown)
        && !["lookup address", "certificate", "Certificate", "TLS"].iter().any(|words| said.contains(words))
}
