//! The one background task of a client that renews its leases and ends them at their deadline.
//!
//! Leases are kept in order of when they need attention. Taking and giving back a lease touches that order only: the
//! task is woken when something is due earlier than it knew, which short leases never are. Renewals that are due at
//! about the same time leave in one write.

mod batch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    runtime::Builder,
    sync::{Notify, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::lease::Core;
use crate::{
    Error, ErrorKind,
    call::Caller,
    clock, measure,
    protocol::{EARLY, Moment, Next},
};
use batch::Batches;

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

    /// Everything that is due at `now`, off the agenda, and what may go along with it.
    fn take(&self, now: Moment) -> Vec<(Moment, Arc<Core>)> {
        let mut agenda = self.agenda();
        let mut due = Vec::new();
        let mut until = now;
        while let Some(entry) = agenda.due.first_entry()
            && entry.key().0 <= until
        {
            until = now + EARLY;
            due.push((entry.key().0, entry.remove()));
        }
        due
    }

    /// Until when to sleep.
    fn sleep(&self, now: Moment) -> Option<Moment> {
        let mut agenda = self.agenda();
        // With nothing on the agenda the sleep goes on as planned: waking this task for every short lease in turn would
        // cost as much as a round trip.
        let planned = agenda.asleep_until.filter(|until| *until > now);
        agenda.asleep_until = agenda.due.first_key_value().map(|((at, _), _)| *at).or(planned);
        agenda.asleep_until
    }
}

/// Runs until `gone` says that the client and its last lease are. Renewals leave by `caller`.
pub(super) async fn keep(keeper: Arc<Keeper>, caller: Caller, gone: CancellationToken) {
    loop {
        let now = clock::now();
        let mut batches = Batches::default();
        for (planned, core) in keeper.take(now) {
            core.take_due();
            attend(&keeper, core, (planned, now), &mut batches);
        }
        batches.send(&caller);
        let until = keeper.sleep(now);
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

/// Does the same on a thread of its own, by the connection that `connect` makes there.
pub(super) async fn keep_on_own_thread(
    keeper: Arc<Keeper>,
    connect: impl Future<Output = Result<Caller, Error>> + Send + 'static,
    gone: CancellationToken,
) -> Result<(), Error> {
    let no_thread =
        |error| Error::new(ErrorKind::Unavailable, format!("no thread could be started for the renewals: {error}"));
    let (connected, connection) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
    let work = async move {
        match connect.await {
            Ok(caller) => {
                let _ = connected.send(Ok(()));
                keep(keeper, caller, gone).await;
            }
            Err(error) => drop(connected.send(Err(error))),
        }
    };
    std::thread::Builder::new()
        .name("redlatch-renewals".to_owned())
        .spawn(move || runtime.block_on(work))
        .map_err(no_thread)?;
    connection.await.unwrap_or_else(|_| Err(no_thread(std::io::Error::other("it stopped"))))
}

fn attend(keeper: &Arc<Keeper>, core: Arc<Core>, (planned, now): (Moment, Moment), batches: &mut Batches) {
    if core.is_given_back() {
        return;
    }
    let (next, nearly) = {
        let tenure = core.tenure();
        (tenure.next(now), tenure.is_nearly_due(now))
    };
    match next {
        Next::Lost => core.end(),
        Next::Wait(at) if !nearly => keeper.put(&core, at),
        Next::Wait(_) | Next::Renew => match core.begin_renewal() {
            Some(renewal) => {
                measure::renewed_late(now.since(planned));
                batches.add(renewal);
            }
            // The holder is extending it: the end of that puts it back.
            None => keeper.put(&core, core.deadline()),
        },
    }
}
