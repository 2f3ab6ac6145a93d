//! The key that a lock's scripts run on, and giving back or extending what an owner has there.

use std::{ops::Deref, sync::Arc, time::Duration};

use super::inbox::{Listener, Wake};
use crate::{
    Error, ErrorKind, Name,
    call::{Caller, Extend, PlainExtend, PlainRelease, Release},
    clock,
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

    pub(super) async fn extend(
        &self,
        caller: &Caller,
        owner: &str,
        ttl: Duration,
        retention: Duration,
    ) -> Result<(), Error> {
        self.kept(match self.family {
            Family::Mutex => {
                let reply = caller.extend(&self.key, owner, ttl, retention).await?;
                matches!(reply, Extend::Extended { .. })
            }
            Family::Plain => {
                matches!(caller.plain_extend(&self.key, owner.as_bytes(), ttl).await?, PlainExtend::Extended { .. })
            }
        })
    }

    pub(super) fn kept(&self, kept: bool) -> Result<(), Error> {
        if kept { Ok(()) } else { Err(Error::lost(&self.name)) }
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
                    match self.release_once(caller, owner).await {
                        Ok((ours, pending)) => releasing.answered(sent, ours, pending, clock::now()),
                        Err(error) if error.is_retryable() => {
                            releasing.unanswered(error.kind() == ErrorKind::Unknown, clock::now());
                            trouble = Some(error);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Errand::Wait(until) => tokio::select! {
                    wake = next_message(&mut listener) => if matches!(wake, Wake::Granted { .. }) {
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

    /// Whether the lease or the place was the owner's to give back, and whether dead waiters are left to skip.
    async fn release_once(&self, caller: &Caller, owner: &str) -> Result<(bool, bool), Error> {
        if self.family == Family::Plain {
            return Ok((caller.plain_release(&self.key, owner.as_bytes()).await? == PlainRelease::Released, false));
        }
        Ok(match caller.release(&self.key, owner).await? {
            Release::Released { pending, .. }
            | Release::HandedOff { pending, .. }
            | Release::Left { pending, .. }
            | Release::ReleasedBefore { pending, .. } => (true, pending),
            Release::NotHeld { pending, .. } => (false, pending),
        })
    }
}

async fn next_message(listener: &mut Option<&mut Listener>) -> Wake {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}
