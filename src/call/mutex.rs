//! The mutex scripts as typed calls. The meaning of every argument and reply is in the header of the script.

use std::time::Duration;

use super::{
    Caller,
    reply::{Reply, unexpected},
    script,
};
use crate::{Error, Fence};

/// Arguments of `mutex/acquire`. Not `Debug`: the owner token is a secret.
#[derive(Clone)]
pub struct AcquireArgs<'a> {
    /// Owner token of this attempt.
    pub owner: &'a str,
    /// Length of the lease.
    pub ttl: Duration,
    /// How long the place in the queue stays alive from now; zero to try without waiting.
    pub queue: Duration,
    /// Length of the lease that a hand-off gives to this waiter.
    pub claim: Duration,
    /// Server time in microseconds after which nothing is granted.
    pub not_after_us: Option<u64>,
    /// The highest fence the caller has seen for this lock.
    pub fence_floor: Option<Fence>,
    /// How long the fence is kept after lease and queue.
    pub retention: Duration,
    /// Who asks, for people.
    pub label: &'a str,
    /// Channel that hears of a hand-off; empty for none.
    pub inbox: &'a str,
    /// Whether the inbox is subscribed on this very server.
    pub inbox_here: bool,
}

/// Reply of `mutex/acquire`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are those of the script's header")]
pub enum Acquire {
    /// The caller has the lease.
    Granted { remaining: Duration, now_us: u64, fence: Fence },
    /// The caller has a place in the queue.
    Queued { remaining: Duration, now_us: u64, position: u64 },
    /// Somebody else has the lease or comes first; nothing was written for the caller.
    Held { remaining: Duration, now_us: u64 },
    /// The call arrived after `not_after_us`.
    TooLate { remaining: Duration, now_us: u64 },
    /// This owner has released before; its token is used up.
    Spent { remaining: Duration, now_us: u64 },
}

/// Reply of `mutex/extend`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are those of the script's header")]
pub enum Extend {
    /// The lease lasts at least the TTL from now.
    Extended { remaining: Duration, now_us: u64, fence: Fence },
    /// The caller does not have the lease any more.
    Lost { remaining: Duration, now_us: u64 },
}

/// Reply of `mutex/release`. `pending`: dead waiters are still in front of the queue, call again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are those of the script's header")]
pub enum Release {
    /// The lease ended and the lock is free.
    Released { pending: bool, now_us: u64 },
    /// The lease ended and the next waiter has one.
    HandedOff { pending: bool, now_us: u64 },
    /// The caller gave up its place in the queue.
    Left { pending: bool, now_us: u64 },
    /// A repeated call: this owner has released before.
    ReleasedBefore { pending: bool, now_us: u64 },
    /// The caller never had the lease or has lost it.
    NotHeld { pending: bool, now_us: u64 },
}

/// Reply of `mutex/force_release`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are those of the script's header")]
pub enum ForceRelease {
    /// The lease ended and the lock is free.
    Released { fence: Fence },
    /// The lease ended and the next waiter has one.
    HandedOff { fence: Fence },
    /// Nobody held it; nothing changed.
    NotHeld { fence: Fence },
}

/// Reply of `mutex/inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspect {
    /// Whether somebody holds the lease now.
    pub held: bool,
    /// What is left of the lease.
    pub remaining: Duration,
    /// Server time, microseconds since 1970.
    pub now_us: u64,
    /// The last fence granted.
    pub fence: Fence,
    /// Who holds the lease, or held it last.
    pub label: Vec<u8>,
    /// Server time of that grant, microseconds since 1970; 0 when there was none.
    pub since_us: u64,
    /// Tickets that are out, including waiters that left and were not stepped over yet.
    pub places: u64,
    /// The waiters that were looked at, in order.
    pub waiters: Vec<Place>,
}

/// One place in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Number of the ticket, rising in order of arrival.
    pub ticket: u64,
    /// Time since the waiter joined.
    pub waited: Duration,
    /// How long the place stays alive without a new heartbeat; zero when it is overdue.
    pub window: Duration,
    /// Who waits.
    pub label: Vec<u8>,
}

impl Caller {
    /// Runs `mutex/acquire`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn acquire(&self, key: &[u8], args: &AcquireArgs<'_>) -> Result<Acquire, Error> {
        const NAME: &str = "mutex/acquire";
        let (ttl, queue, claim, retention) =
            (millis(args.ttl), millis(args.queue), millis(args.claim), millis(args.retention));
        let not_after = args.not_after_us.unwrap_or(0).to_string();
        let floor = args.fence_floor.map_or(0, Fence::get).to_string();
        let here: &[u8] = if args.inbox_here { b"1" } else { b"0" };
        let all = [
            args.owner.as_bytes(),
            &ttl,
            not_after.as_bytes(),
            floor.as_bytes(),
            &retention,
            args.label.as_bytes(),
            &queue,
            &claim,
            args.inbox.as_bytes(),
            here,
        ];
        // The last four are for waiters only.
        let count = if args.queue.is_zero() { 6 } else { all.len() };
        let value = self.run(script(NAME)?, key, &all[..count]).await?;
        let (code, mut reply) = Reply::open(NAME, value)?;
        let (remaining, now_us) = (reply.millis()?, reply.count()?);
        Ok(match code {
            1 => Acquire::Granted { remaining, now_us, fence: reply.fence()? },
            2 => Acquire::Queued { remaining, now_us, position: reply.count()? },
            3 => Acquire::Held { remaining, now_us },
            4 => Acquire::TooLate { remaining, now_us },
            5 => Acquire::Spent { remaining, now_us },
            _ => return Err(unexpected(NAME)),
        })
    }

    /// Runs `mutex/extend`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn extend(&self, key: &[u8], owner: &str, ttl: Duration, retention: Duration) -> Result<Extend, Error> {
        const NAME: &str = "mutex/extend";
        extended(self.run(script(NAME)?, key, &[owner.as_bytes(), &millis(ttl), &millis(retention)]).await?)
    }

    /// Runs `mutex/extend` on each of `leases`, keys with their owner tokens, in one write. Waits for at most `limit`;
    /// the outcomes are in the order of the leases.
    ///
    /// # Errors
    ///
    /// [`Bundle`](crate::ErrorKind::Bundle) when this program lacks the script; each outcome may be an error of its own.
    pub async fn extend_each(
        &self,
        leases: &[(&[u8], &str)],
        ttl: Duration,
        retention: Duration,
        limit: Duration,
    ) -> Result<Vec<Result<Extend, Error>>, Error> {
        let args = |owner: &str| vec![owner.as_bytes().to_vec(), millis(ttl), millis(retention)];
        let calls: Vec<_> = leases.iter().map(|(key, owner)| (*key, args(owner))).collect();
        let replies = self.run_each(script("mutex/extend")?, &calls, limit).await;
        Ok(replies.into_iter().map(|reply| extended(reply?)).collect())
    }

    /// Runs `mutex/release` once.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn release(&self, key: &[u8], owner: &str) -> Result<Release, Error> {
        const NAME: &str = "mutex/release";
        let (code, mut reply) = Reply::open(NAME, self.run(script(NAME)?, key, &[owner.as_bytes()]).await?)?;
        let (pending, now_us) = (reply.integer()? == 1, reply.count()?);
        Ok(match code {
            1 => Release::Released { pending, now_us },
            2 => Release::HandedOff { pending, now_us },
            3 => Release::Left { pending, now_us },
            4 => Release::ReleasedBefore { pending, now_us },
            5 => Release::NotHeld { pending, now_us },
            _ => return Err(unexpected(NAME)),
        })
    }

    /// Runs `mutex/force_release`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). Do not repeat it blindly: a second call ends the next holder's lease.
    pub async fn force_release(&self, key: &[u8]) -> Result<ForceRelease, Error> {
        const NAME: &str = "mutex/force_release";
        let (code, mut reply) = Reply::open(NAME, self.run(script(NAME)?, key, &[]).await?)?;
        let (_pending, _now_us) = (reply.integer()?, reply.count()?);
        let fence = reply.fence()?;
        Ok(match code {
            1 => ForceRelease::Released { fence },
            2 => ForceRelease::HandedOff { fence },
            5 => ForceRelease::NotHeld { fence },
            _ => return Err(unexpected(NAME)),
        })
    }

    /// Runs `mutex/inspect`, which reads only. `max_waiters` is at most 1000.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn inspect(&self, key: &[u8], max_waiters: u32) -> Result<Inspect, Error> {
        const NAME: &str = "mutex/inspect";
        let value = self.run(script(NAME)?, key, &[max_waiters.to_string().as_bytes()]).await?;
        let (code, mut reply) = Reply::open(NAME, value)?;
        let held = match code {
            1 => true,
            2 => false,
            _ => return Err(unexpected(NAME)),
        };
        Ok(Inspect {
            held,
            remaining: reply.millis()?,
            now_us: reply.count()?,
            fence: reply.fence()?,
            label: reply.bytes()?,
            since_us: reply.count()?,
            places: reply.count()?,
            waiters: reply.array()?.into_iter().map(place).collect::<Result<_, _>>()?,
        })
    }
}

fn extended(value: redis::Value) -> Result<Extend, Error> {
    const NAME: &str = "mutex/extend";
    let (code, mut reply) = Reply::open(NAME, value)?;
    let (remaining, now_us) = (reply.millis()?, reply.count()?);
    Ok(match code {
        1 => Extend::Extended { remaining, now_us, fence: reply.fence()? },
        2 => Extend::Lost { remaining, now_us },
        _ => return Err(unexpected(NAME)),
    })
}

fn place(value: redis::Value) -> Result<Place, Error> {
    let (ticket, mut reply) = Reply::open("mutex/inspect", value)?;
    Ok(Place { ticket: ticket.unsigned_abs(), waited: reply.millis()?, window: reply.millis()?, label: reply.bytes()? })
}

pub(super) fn millis(duration: Duration) -> Vec<u8> {
    duration.as_millis().to_string().into_bytes()
}
