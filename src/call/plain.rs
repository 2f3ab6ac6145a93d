//! The plain scripts as typed calls: the classic `SET key owner NX PX` and compare-and-delete.

use std::time::Duration;

use super::{
    Caller,
    mutex::millis,
    reply::{Reply, unexpected},
    script,
};
use crate::Error;

/// Reply of `plain/acquire`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are those of the script's header")]
pub enum PlainAcquire {
    /// The caller has the lease.
    Granted { remaining: Duration },
    /// Somebody else has it for so long.
    Held { remaining: Duration },
    /// Somebody else has it and set no TTL: the key stays until it is deleted.
    HeldWithoutTtl,
}

/// Reply of `plain/extend`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are those of the script's header")]
pub enum PlainExtend {
    /// The lease lasts at least the TTL from now.
    Extended { remaining: Duration },
    /// The caller does not have the lease any more.
    Lost,
}

/// Reply of `plain/release`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainRelease {
    /// The key is gone.
    Released,
    /// The key is not there or is somebody else's; nothing changed.
    NotHeld,
}

impl Caller {
    /// Runs `plain/acquire` on the user's own key.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn plain_acquire(&self, key: &[u8], owner: &[u8], ttl: Duration) -> Result<PlainAcquire, Error> {
        const NAME: &str = "plain/acquire";
        let (code, mut reply) = Reply::open(NAME, self.run(script(NAME)?, key, &[owner, &millis(ttl)]).await?)?;
        let remaining = reply.millis()?;
        Ok(match code {
            1 => PlainAcquire::Granted { remaining },
            3 => PlainAcquire::Held { remaining },
            6 => PlainAcquire::HeldWithoutTtl,
            _ => return Err(unexpected(NAME)),
        })
    }

    /// Runs `plain/extend` on the user's own key.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn plain_extend(&self, key: &[u8], owner: &[u8], ttl: Duration) -> Result<PlainExtend, Error> {
        const NAME: &str = "plain/extend";
        extended(self.run(script(NAME)?, key, &[owner, &millis(ttl)]).await?)
    }

    /// Runs `plain/extend` on each of `leases`, keys with their owner tokens, in one write. Waits for at most `limit`;
    /// the outcomes are in the order of the leases.
    ///
    /// # Errors
    ///
    /// [`Bundle`](crate::ErrorKind::Bundle) when this program lacks the script; each outcome may be an error of its own.
    pub async fn plain_extend_each(
        &self,
        leases: &[(&[u8], &str)],
        ttl: Duration,
        limit: Duration,
    ) -> Result<Vec<Result<PlainExtend, Error>>, Error> {
        let args = |owner: &str| vec![owner.as_bytes().to_vec(), millis(ttl)];
        let calls: Vec<_> = leases.iter().map(|(key, owner)| (*key, args(owner))).collect();
        let replies = self.run_each(script("plain/extend")?, &calls, limit).await;
        Ok(replies.into_iter().map(|reply| extended(reply?)).collect())
    }

    /// Runs `plain/release` on the user's own key.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn plain_release(&self, key: &[u8], owner: &[u8]) -> Result<PlainRelease, Error> {
        const NAME: &str = "plain/release";
        let (code, _) = Reply::open(NAME, self.run(script(NAME)?, key, &[owner]).await?)?;
        Ok(match code {
            1 => PlainRelease::Released,
            5 => PlainRelease::NotHeld,
            _ => return Err(unexpected(NAME)),
        })
    }
}

fn extended(value: redis::Value) -> Result<PlainExtend, Error> {
    const NAME: &str = "plain/extend";
    let (code, mut reply) = Reply::open(NAME, value)?;
    Ok(match code {
        1 => PlainExtend::Extended { remaining: reply.millis()? },
        2 => PlainExtend::Lost,
        _ => return Err(unexpected(NAME)),
    })
}
