//! The key that a lock's scripts run on, and giving back or extending what an owner has there.

use std::{ops::Deref, sync::Arc, time::Duration};

use super::Client;
use crate::{
    Error, ErrorKind, Name,
    call::{Caller, Extend, PlainExtend, PlainRelease, Release},
    clock,
    protocol::Moment,
};

/// Pause before a command is repeated that got no answer.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Releases of one lock that skip dead waiters: 100000 places, 64 looked at in each.
const RELEASE_ROUNDS: usize = 1600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Mutex,
    Plain,
}

/// The key that a lock's scripts run on. Cheap to clone.
#[derive(Clone)]
pub(super) struct Target(Arc<Key>);

pub(super) struct Key {
    pub(super) family: Family,
    pub(super) name: Name,
    pub(super) key: Vec<u8>,
}

impl Deref for Target {
    type Target = Key;

    fn deref(&self) -> &Key {
        &self.0
    }
}

impl Target {
    pub(super) fn new(family: Family, name: Name, key: Vec<u8>) -> Self {
        Self(Arc::new(Key { family, name, key }))
    }

    pub(super) async fn extend(&self, client: &Client, owner: &str, ttl: Duration) -> Result<(), Error> {
        let caller = &client.shared.caller;
        let kept = match self.family {
            Family::Mutex => {
                let reply = caller.extend(&self.key, owner, ttl, client.shared.settings.retention).await?;
                matches!(reply, Extend::Extended { .. })
            }
            Family::Plain => {
                matches!(caller.plain_extend(&self.key, owner.as_bytes(), ttl).await?, PlainExtend::Extended { .. })
            }
        };
        if kept { Ok(()) } else { Err(Error::lost(&self.name)) }
    }

    /// Releases and repeats what got no answer until `until`.
    pub(super) async fn release(&self, caller: &Caller, owner: &str, until: Moment) -> Result<(), Error> {
        let mut unanswered = false;
        loop {
            match self.release_once(caller, owner).await {
                Ok(true) => return Ok(()),
                Ok(false) if unanswered => {
                    return Err(Error::new(
                        ErrorKind::Unknown,
                        format!("unknown whether the release of {} came in time: its first reply was lost", self.name),
                    ));
                }
                Ok(false) => return Err(Error::lost(&self.name)),
                Err(error) if error.is_retryable() && clock::now() < until => {
                    unanswered |= error.kind() == ErrorKind::Unknown;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the lease or the place was the owner's to give back.
    async fn release_once(&self, caller: &Caller, owner: &str) -> Result<bool, Error> {
        if self.family == Family::Plain {
            return Ok(caller.plain_release(&self.key, owner.as_bytes()).await? == PlainRelease::Released);
        }
        let mut ours = None;
        for _ in 0..RELEASE_ROUNDS {
            let (outcome, more) = match caller.release(&self.key, owner).await? {
                Release::Released { pending, .. }
                | Release::HandedOff { pending, .. }
                | Release::Left { pending, .. }
                | Release::ReleasedBefore { pending, .. } => (true, pending),
                Release::NotHeld { pending, .. } => (false, pending),
            };
            let ours = *ours.get_or_insert(outcome);
            if !more {
                return Ok(ours);
            }
        }
        Ok(ours.unwrap_or(false))
    }
}
