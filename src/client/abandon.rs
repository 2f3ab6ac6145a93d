//! Gives back what a dropped lease or a dropped acquire may still hold, on the same connection and so in order.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{Client, target::Target};
use crate::{call::Caller, clock, protocol::Moment};

/// An owner token that nobody waits for any more.
pub(super) struct Abandoned {
    caller: Caller,
    target: Target,
    owner: String,
    until: Moment,
}

/// What the client's background task is asked to do.
pub(super) enum Cleanup {
    /// Give back what this owner token may hold.
    Release(Abandoned),
    /// Say when everything asked for before is done.
    Settle(oneshot::Sender<()>),
}

/// Sends the owner token to the client's background task when it is dropped, unless it was disarmed.
///
/// No I/O happens in the drop. Where no runtime is left, the lease ends by its TTL.
pub(super) struct Guard {
    client: Client,
    target: Target,
    owner: String,
    ttl: Duration,
    armed: bool,
}

impl Guard {
    /// `ttl` is how long the lease can last that is to be given back.
    pub(super) fn new(client: &Client, target: &Target, owner: &str, ttl: Duration) -> Self {
        Self { client: client.clone(), target: target.clone(), owner: owner.to_owned(), ttl, armed: true }
    }

    pub(super) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            let shared = &self.client.shared;
            let _ = shared.cleanups.send(Cleanup::Release(Abandoned {
                caller: shared.caller.clone(),
                target: self.target.clone(),
                owner: std::mem::take(&mut self.owner),
                until: clock::now() + self.ttl.max(shared.settings.claim),
            }));
        }
    }
}

/// Releases everything that arrives until the client and its last lease are gone.
pub(super) async fn release_all(mut queue: mpsc::UnboundedReceiver<Cleanup>) {
    let mut releases = JoinSet::new();
    while let Some(cleanup) = queue.recv().await {
        match cleanup {
            Cleanup::Release(abandoned) => {
                releases.spawn(abandoned.release());
            }
            Cleanup::Settle(done) => {
                while releases.join_next().await.is_some() {}
                let _ = done.send(());
            }
        }
        while releases.try_join_next().is_some() {}
    }
    while releases.join_next().await.is_some() {}
}

impl Abandoned {
    async fn release(self) {
        if let Err(error) = self.target.release(&self.caller, &self.owner, self.until).await {
            tracing::debug!(%error, "an abandoned lease was not given back");
        }
    }
}
