//! What the holder of a lease and the keeper share: its tenure, its extends and its end.

use std::{
    sync::{
        Arc, Mutex as StdMutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::super::{
    Client, Event,
    target::{Extended, Target},
};
use crate::{
    Error, ErrorKind, Fence, clock, measure,
    protocol::{Moment, Tenure},
};

/// What the holder and the keeper share.
pub(in crate::client) struct Core {
    pub(in crate::client) client: Client,
    pub(in crate::client) target: Target,
    pub(in crate::client) owner: String,
    pub(in crate::client) fence: Fence,
    pub(in crate::client) tenure: StdMutex<Tenure>,
    /// Held while an extend is under way: two at once could be answered in another order than they ran.
    pub(in crate::client) extending: Arc<tokio::sync::Mutex<()>>,
    /// When the keeper looks at this lease next.
    pub(in crate::client) due: StdMutex<Option<Moment>>,
    pub(in crate::client) id: u64,
    pub(in crate::client) granted: Moment,
    pub(in crate::client) given_back: AtomicBool,
    pub(in crate::client) lost: CancellationToken,
}

/// An extend that is under way. Dropping it puts the lease back on the keeper's agenda, also when nobody waits for the
/// reply any more: else a dropped extend would stop the renewals.
pub(in crate::client) struct Extending {
    core: Arc<Core>,
    ttl: Duration,
    sent: Moment,
    _alone: OwnedMutexGuard<()>,
}

impl Extending {
    pub(in crate::client) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(in crate::client) fn core(&self) -> &Core {
        &self.core
    }

    /// Takes note of the outcome. A lease that is over locally stays over, whatever a
    /// late reply says. Another fence than ours is a later grant to a late copy of our acquire, after the loss of all
    /// data; others may have held the lock in between.
    pub(in crate::client) fn end(self, outcome: Result<Option<Extended>, Error>) -> Result<(), Error> {
        let core = &self.core;
        match outcome {
            Ok(Some(lease)) if lease.fence == core.fence && !core.is_over() => {
                core.tenure().extended(self.sent, self.ttl, lease.remaining);
                Ok(())
            }
            Ok(_) => {
                if !core.is_given_back() {
                    core.end();
                }
                Err(Error::lost(&core.target.name))
            }
            Err(error) => {
                core.tenure().unanswered(clock::now() + (self.ttl / 20).min(Duration::from_secs(1)));
                Err(error)
            }
        }
    }

    /// As [`end`](Self::end), for a renewal: nobody waits for it but who listens for events, or the log.
    pub(in crate::client) fn end_renewal(self, outcome: Result<Option<Extended>, Error>) {
        let core = Arc::clone(&self.core);
        let outcome = self.end(outcome);
        let (name, remaining) = (|| core.target.name.clone(), core.deadline().since(clock::now()));
        match outcome {
            Ok(()) => drop(core.client.tell(|| Event::Renewed { name: name(), remaining })),
            Err(_) if core.is_given_back() => {}
            Err(error) if error.kind() == ErrorKind::Lost => tracing::warn!(%error, "a renewal came too late"),
            Err(error) => {
                let error = Arc::new(error);
                let event = || Event::NotRenewed { name: name(), remaining, error: Arc::clone(&error) };
                if !core.client.tell(event) {
                    tracing::warn!(%error, "a renewal got no answer, trying again");
                }
            }
        }
    }
}

impl Drop for Extending {
    fn drop(&mut self) {
        if !self.core.is_given_back() {
            self.core.client.shared.keeper.add(&self.core);
        }
    }
}

impl Core {
    pub(in crate::client) fn id(&self) -> u64 {
        self.id
    }

    pub(in crate::client) fn tenure(&self) -> MutexGuard<'_, Tenure> {
        self.tenure.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn due(&self) -> MutexGuard<'_, Option<Moment>> {
        self.due.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    pub(in crate::client) fn replace_due(&self, at: Moment) -> Option<Moment> {
        self.due().replace(at)
    }

    pub(in crate::client) fn take_due(&self) -> Option<Moment> {
        self.due().take()
    }

    /// The lease is lost: tell the holder.
    pub(in crate::client) fn end(&self) {
        self.tenure().end(clock::now());
        if !self.lost.is_cancelled() {
            measure::lost();
            measure::held(clock::now().since(self.granted));
        }
        self.lost.cancel();
    }

    pub(in crate::client) fn is_given_back(&self) -> bool {
        self.given_back.load(Ordering::Acquire)
    }

    pub(in crate::client) fn give_back(&self) {
        if !self.given_back.swap(true, Ordering::AcqRel) && !self.lost.is_cancelled() {
            measure::held(clock::now().since(self.granted));
        }
        self.client.shared.keeper.remove(self);
    }

    pub(in crate::client) fn deadline(&self) -> Moment {
        self.tenure().deadline()
    }

    pub(in crate::client) fn is_over(&self) -> bool {
        clock::now() >= self.deadline()
    }

    /// Asks once for the lease to last `ttl` from now.
    pub(in crate::client) async fn extend(self: &Arc<Self>, ttl: Duration) -> Result<(), Error> {
        let alone = tokio::select! {
            alone = Arc::clone(&self.extending).lock_owned() => alone,
            () = clock::sleep_until(self.deadline()) => return Err(Error::lost(&self.target.name)),
        };
        let extending = self.begin(ttl, alone).ok_or_else(|| Error::lost(&self.target.name))?;
        let client = &self.client;
        let caller = client.caller().by(self.deadline());
        let outcome = self.target.extend(&caller, &self.owner, ttl, client.shared.settings.retention).await;
        extending.end(outcome)
    }

    /// Begins a renewal, unless the lease is over or the holder is extending it right now.
    pub(in crate::client) fn begin_renewal(self: &Arc<Self>) -> Option<Extending> {
        let alone = Arc::clone(&self.extending).try_lock_owned().ok()?;
        let ttl = self.tenure().ttl();
        self.begin(ttl, alone)
    }

    fn begin(self: &Arc<Self>, ttl: Duration, alone: OwnedMutexGuard<()>) -> Option<Extending> {
        let extending = Extending { core: Arc::clone(self), ttl, sent: clock::now(), _alone: alone };
        if self.is_over() || self.is_given_back() {
            return None;
        }
        // The deadline stays on the agenda: an extend that gets no answer never delays the signal.
        let deadline = self.tenure().deadline();
        self.client.shared.keeper.put(self, deadline);
        Some(extending)
    }

    pub(in crate::client) fn client(&self) -> &Client {
        &self.client
    }

    pub(in crate::client) fn target(&self) -> &Target {
        &self.target
    }

    pub(in crate::client) fn owner(&self) -> &str {
        &self.owner
    }
}
