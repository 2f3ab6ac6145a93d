//! Renewals that leave in one write.

use std::{collections::HashMap, time::Duration};

use super::super::{
    lease::Extending,
    target::{Extended, Family, Target, extended, plain_extended},
};
use crate::{Error, call::Caller};

/// Renewals in one write, at most: its replies keep what comes after them on the connection waiting.
const MOST: usize = 500;

/// Renewals by what they ask for.
#[derive(Default)]
pub(super) struct Batches(HashMap<(Family, Duration), Vec<Extending>>);

impl Batches {
    pub(super) fn add(&mut self, renewal: Extending) {
        self.0.entry((renewal.core().target().family, renewal.ttl())).or_default().push(renewal);
    }

    /// Sends each batch by a task of its own, so that one without answer delays no other.
    pub(super) fn send(self, caller: &Caller) {
        for ((family, ttl), mut renewals) in self.0 {
            while !renewals.is_empty() {
                let rest = renewals.split_off(renewals.len().min(MOST));
                tokio::spawn(renew(caller.clone(), family, ttl, std::mem::replace(&mut renewals, rest)));
            }
        }
    }
}

async fn renew(caller: Caller, family: Family, ttl: Duration, renewals: Vec<Extending>) {
    // A lost reply leaves time to ask again, and again, before the lease is over.
    let limit = caller.timeout().min(ttl / 6);
    let outcomes = extend_each(&caller, family, ttl, limit, &renewals).await;
    match outcomes {
        Ok(outcomes) => {
            for (renewal, extended) in renewals.into_iter().zip(outcomes) {
                renewal.end_renewal(extended);
            }
        }
        Err(_) => {
            for renewal in renewals {
                let unknown = Error::unknown(format!("extend of {}", renewal.core().target().name), limit);
                renewal.end_renewal(Err(unknown));
            }
        }
    }
}

async fn extend_each(
    caller: &Caller,
    family: Family,
    ttl: Duration,
    limit: Duration,
    renewals: &[Extending],
) -> Result<Vec<Result<Option<Extended>, Error>>, Error> {
    let leases: Vec<_> =
        renewals.iter().map(|renewal| (key(renewal.core().target()), renewal.core().owner())).collect();
    Ok(match family {
        Family::Mutex => {
            let retention = renewals.first().map_or(Duration::ZERO, |renewal| renewal.core().client().retention());
            let outcomes = caller.extend_each(&leases, ttl, retention, limit).await?;
            outcomes.into_iter().map(|reply| Ok(extended(&reply?))).collect()
        }
        Family::Plain => {
            let outcomes = caller.plain_extend_each(&leases, ttl, limit).await?;
            outcomes.into_iter().map(|reply| Ok(plain_extended(&reply?))).collect()
        }
    })
}

fn key(target: &Target) -> &[u8] {
    &target.key
}
