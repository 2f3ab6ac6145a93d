//! The key that a lock's scripts run on, and giving back or extending what an owner has there.

use std::{ops::Deref, sync::Arc, time::Duration};

use super::{
    heard::Heard,
    inbox::{Listener, Wake},
};
use crate::{
    Error, ErrorKind, Fence, Name,
    call::{Caller, Extend, PlainExtend, PlainRelease, Release},
    clock, measure,
    protocol::{Errand, Given, Releasing},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    pub(super) heard: Heard,
}

impl Deref for Target {
    type Target = Key;

    fn deref(&self) -> &Key {
        &self.0
    }
}

impl Target {
    pub(super) fn new(family: Family, name: Name, key: Vec<u8>, heard: Heard) -> Self {
        Self(Arc::new(Key { family, name, key, heard }))
    }

    /// The lease that was extended; `None` when the owner token has none.
    pub(super) async fn extend(
        &self,
        caller: &Caller,
        owner: &str,
        ttl: Duration,
        retention: Duration,
    ) -> Result<Option<Extended>, Error> {
        Ok(match self.family {
            Family::Mutex => extended(&caller.extend(&self.key, owner, ttl, retention).await?),
            Family::Plain => plain_extended(&caller.plain_extend(&self.key, owner.as_bytes(), ttl).await?),
        })
    }

    /// Does what `releasing` decides; a message for the owner token comes by `listener`.
    pub(super) async fn release(
        &self,
        caller: &Caller,
        owner: &str,
        mut releasing: Releasing,
        mut listener: Option<&mut Listener>,
    ) -> Result<(), Error> {
        let mut trouble = None;
        loop {
            match releasing.next(clock::now()) {
                Errand::Ask => {
                    let sent = clock::now();
                    match self.release_once(caller, owner, listener.is_some()).await {
                        Ok((ours, pending)) => releasing.answered(sent, ours, pending, clock::now()),
                        Err(error) if error.is_retryable() => {
                            releasing.unanswered(error.kind() == ErrorKind::Unknown, clock::now());
                            trouble = Some(error);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Errand::Wait(until) => tokio::select! {
                    wake = next_message(&mut listener) => if matches!(wake, Wake::Granted { .. } | Wake::Told) {
                        releasing.pushed(clock::now());
                    },
                    () = clock::sleep_until(until) => {}
                },
                Errand::Done(Given::Back) => return Ok(()),
                Errand::Done(Given::Lost) => return Err(Error::lost(&self.name)),
                Errand::Done(Given::Unknown) => {
                    return Err(Error::new(
                        ErrorKind::Unknown,
                        format!("unknown whether the release of {} came in time: its first reply was lost", self.name),
                    ));
                }
                Errand::Done(Given::Silent) => {
                    return Err(trouble.unwrap_or_else(|| Error::unknown("release", caller.timeout())));
                }
            }
        }
    }

    /// Whether the lease or the place was the owner's to give back, and whether dead waiters are left to skip. `waited`:
    /// the owner token belongs to a waiter that has given up.
    async fn release_once(&self, caller: &Caller, owner: &str, waited: bool) -> Result<(bool, bool), Error> {
        if self.family == Family::Plain {
            return Ok((caller.plain_release(&self.key, owner.as_bytes()).await? == PlainRelease::Released, false));
        }
        let reply = caller.release(&self.key, owner).await?;
        if waited && matches!(reply, Release::Released { .. } | Release::HandedOff { .. }) {
            measure::granted_to_nobody();
        }
        Ok(match reply {
            Release::Released { pending, .. }
            | Release::HandedOff { pending, .. }
            | Release::Left { pending, .. }
            | Release::ReleasedBefore { pending, .. } => (true, pending),
            Release::NotHeld { pending, .. } => (false, pending),
        })
    }
}

/// What the server says of a lease that it extended.
pub(super) struct Extended {
    pub(super) fence: Fence,
    pub(super) remaining: Duration,
}

pub(super) fn extended(reply: &Extend) -> Option<Extended> {
    match *reply {
        Extend::Extended { fence, remaining, .. } => Some(Extended { fence, remaining }),
        Extend::Lost { .. } => None,
    }
}

pub(super) fn plain_extended(reply: &PlainExtend) -> Option<Extended> {
    match *reply {
        PlainExtend::Extended { remaining } => Some(Extended { fence: Fence::NONE, remaining }),
        PlainExtend::Lost => None,
    }
}

async fn next_message(listener: &mut Option<&mut Listener>) -> Wake {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}
