//! The one background task of a client that renews its leases and ends them at their deadline.
//!
//! Leases are kept in order of when they need attention. Taking and giving back a lease touches that order only: the
//! task is woken when something is due earlier than it knew, which short leases never are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::lease::Core;
use crate::{
    clock,
    protocol::{Moment, Next},
};

/// When each lease needs attention.
#[derive(Default)]
pub(super) struct Keeper {
    agenda: Mutex<Agenda>,
    earlier: Notify,
}

#[derive(Default)]
struct Agenda {
    due: BTreeMap<(Moment, u64), Arc<Core>>,
    asleep_until: Option<Moment>,
}

impl Keeper {
    /// Puts `core` on the agenda at the moment that its tenure asks for.
    pub(super) fn add(&self, core: &Arc<Core>) {
        if let Next::Wait(at) = core.tenure().next(clock::now()) {
            self.put(core, at);
        } else {
            self.put(core, clock::now());
        }
    }

    /// Takes `core` off the agenda.
    pub(super) fn remove(&self, core: &Core) {
        if let Some(at) = core.take_due() {
            self.agenda().due.remove(&(at, core.id()));
        }
    }

    /// Puts `core` on the agenda at `at`.
    pub(super) fn put(&self, core: &Arc<Core>, at: Moment) {
        let mut agenda = self.agenda();
        if let Some(before) = core.replace_due(at) {
            agenda.due.remove(&(before, core.id()));
        }
        agenda.due.insert((at, core.id()), Arc::clone(core));
        if agenda.asleep_until.is_none_or(|until| at < until) {
            agenda.asleep_until = Some(at);
            self.earlier.notify_one();
        }
    }

    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Everything that is due at `now`, off the agenda; and until when to sleep then.
    fn take(&self, now: Moment) -> (Vec<Arc<Core>>, Option<Moment>) {
        let mut agenda = self.agenda();
        let mut due = Vec::new();
        while let Some(entry) = agenda.due.first_entry()
            && entry.key().0 <= now
        {
            due.push(entry.remove());
        }
        // With nothing on the agenda the sleep goes on as planned: waking this task for every short lease in turn would
        // cost as much as a round trip.
        let planned = agenda.asleep_until.filter(|until| *until > now);
        agenda.asleep_until = agenda.due.first_key_value().map(|((at, _), _)| *at).or(planned);
        (due, agenda.asleep_until)
    }
}

/// Runs until `gone` says that the client and its last lease are.
pub(super) async fn keep(keeper: Arc<Keeper>, gone: CancellationToken) {
    loop {
        let (due, until) = keeper.take(clock::now());
        for core in due {
            core.take_due();
            attend(&keeper, core);
        }
        let next = async {
            match until {
                Some(until) => clock::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = gone.cancelled() => return,
            () = keeper.earlier.notified() => {}
            () = next => {}
        }
    }
}

fn attend(keeper: &Arc<Keeper>, core: Arc<Core>) {
    if core.is_given_back() {
        return;
    }
    let next = core.tenure().next(clock::now());
    match next {
        Next::Lost => core.end(),
        Next::Wait(at) => keeper.put(&core, at),
        Next::Renew => {
            tokio::spawn(async move { core.renew().await });
        }
    }
}
