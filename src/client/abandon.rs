//! Gives back what a dropped lease or a dropped acquire may still hold, on the same connection and so in order.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    Client,
    inbox::{Listener, Wake},
    target::Target,
};
use crate::{
    call::Caller,
    clock,
    protocol::{Moment, Releasing},
};

/// An owner token that nobody waits for any more.
pub(super) struct Abandoned {
    caller: Caller,
    target: Target,
    owner: String,
    listener: Option<Listener>,
    until: Moment,
    late: Option<Moment>,
}

/// What the client's background task is asked to do.
pub(super) enum Cleanup {
    /// Give back what this owner token may hold.
    Release(Abandoned),
    /// Say when everything asked for before is done.
    Settle(oneshot::Sender<()>),
}

/// One owner token; sent to the client's background task when it is dropped, unless it was disarmed.
///
/// No I/O happens in the drop. Where no runtime is left, the lease ends by its TTL.
pub(super) struct Guard {
    client: Client,
    target: Target,
    owner: String,
    listener: Option<Listener>,
    ttl: Duration,
    /// Until when an acquire without answer may still take effect.
    late: Option<Moment>,
    armed: bool,
}

impl Guard {
    /// `ttl` is how long the lease can last that is to be given back. With `listens` the owner token has an ear at the
    /// inbox before its first acquire, so that no grant can come too early.
    pub(super) fn new(client: &Client, target: &Target, ttl: Duration, listens: bool) -> Self {
        let owner = client.owner();
        let listener = listens.then(|| client.shared.inbox.listen(&owner));
        Self { client: client.clone(), target: target.clone(), owner, listener, ttl, late: None, armed: true }
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    pub(super) fn set_late(&mut self, late: Option<Moment>) {
        self.late = late;
    }

    /// The next message for this owner token.
    pub(super) async fn hears(&mut self) -> Wake {
        match &mut self.listener {
            Some(listener) => listener.next().await,
            None => std::future::pending().await,
        }
    }

    /// A message that has come already.
    pub(super) fn heard(&mut self) -> Option<Wake> {
        self.listener.as_mut()?.heard()
    }

    pub(super) fn stop_listening(&mut self) {
        self.listener = None;
    }

    /// There is nothing to give back, but for what an acquire that is still on its way may take.
    pub(super) fn disarm(mut self) {
        self.armed = self.late.is_some_and(|late| clock::now() < late);
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
                listener: self.listener.take(),
                until: clock::now() + self.ttl.max(shared.settings.claim),
                late: self.late,
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
    async fn release(mut self) {
        let releasing = Releasing::new(clock::now(), self.until, self.late);
        if let Err(error) = self.target.release(&self.caller, &self.owner, releasing, self.listener.as_mut()).await {
            tracing::debug!(%error, "an abandoned lease was not given back");
        }
    }
}
