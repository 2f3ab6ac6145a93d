//! What happens to attempts and leases in the background, for a program that tells people.

use std::{sync::Arc, time::Duration};

use super::Client;
use crate::{Error, Name};

/// Something that happened while a lease was waited for or held. See [`ClientBuilder::events`](super::ClientBuilder::events).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server has said again which place in the queue the attempt has.
    Queued {
        /// The lock.
        name: Name,
        /// 1 is the next. Places of waiters that have gone count until they are stepped over.
        place: u64,
        /// What is left of the holder's lease.
        remaining: Duration,
    },
    /// The lease was renewed in the background.
    Renewed {
        /// The lock.
        name: Name,
        /// What is left of the lease now.
        remaining: Duration,
    },
    /// A renewal got no answer, or was refused. It is tried again for as long as something is left of the lease.
    NotRenewed {
        /// The lock.
        name: Name,
        /// What is left of the lease.
        remaining: Duration,
        /// What went wrong.
        error: Arc<Error>,
    },
}

impl Client {
    /// Tells whoever listens. Returns whether somebody does.
    pub(super) fn tell(&self, event: impl FnOnce() -> Event) -> bool {
        self.shared.settings.events.as_ref().is_some_and(|events| events.send(event()).is_ok())
    }
}
