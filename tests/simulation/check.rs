//! What must hold after every step, seen from the server and from the holders.

use std::collections::HashMap;

use super::server::Server;
use crate::support::lock::{LockState, PlaceState};

/// One lock as the server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    state: LockState,
    /// By the lock's own clock.
    waiters: Vec<(i64, PlaceState)>,
    /// Owner token whose lease runs, and its deadline by the server's clock.
    pub holder: Option<(String, i64)>,
    /// Deadline of a lease that ran out.
    pub ended_ms: Option<i64>,
    /// How long the lease was to last when it was granted or extended.
    pub granted_ms: i64,
    pub fence: i64,
    /// Ticket, owner token and end of the window of each place, by the server's clock.
    pub places: Vec<(i64, String, i64)>,
    /// The ticket that the queue has come to.
    pub head: i64,
}

impl Lock {
    pub fn read(server: &Server, key: &[u8]) -> Self {
        let mut lock = Self::default();
        for (field, value) in server.fields(key) {
            if field == b"state" {
                lock.state = LockState::parse(value);
            } else if let Some(ticket) = field.strip_prefix(b"place:") {
                let ticket = String::from_utf8_lossy(ticket).parse().unwrap_or_default();
                lock.waiters.push((ticket, PlaceState::parse(value)));
            }
        }
        lock.granted_ms = lock.state.deadline_ms - lock.state.clock_ms;
        (lock.fence, lock.head) = (lock.state.fence, lock.state.head);
        lock.at(server.clock_ms())
    }

    /// The same lock after a call that found it as `before`.
    pub fn after(mut self, before: &Self) -> Self {
        if self.state.deadline_ms == before.state.deadline_ms && self.fence == before.fence {
            self.granted_ms = before.granted_ms;
        }
        self
    }

    /// The same lock at another time, when nothing was written since.
    pub fn at(mut self, now_ms: i64) -> Self {
        let clock_ms = self.state.clock_ms.max(now_ms + self.state.behind_ms);
        let deadline_ms = now_ms + self.state.deadline_ms - clock_ms;
        let is_over = deadline_ms <= now_ms;
        self.ended_ms = (self.state.has_lease() && is_over).then_some(deadline_ms);
        self.holder = (!is_over).then(|| (self.state.holder(), deadline_ms));
        let place = |(ticket, place): &(i64, PlaceState)| {
            (*ticket, String::from_utf8_lossy(&place.owner).into_owned(), now_ms + place.closes_ms - clock_ms)
        };
        self.places = self.waiters.iter().map(place).collect();
        self
    }

    /// When the waiter with that ticket asks again by itself, by the server's clock `now_ms`.
    pub fn asks_ms(&self, ticket: i64, now_ms: i64) -> Option<i64> {
        let (_, place) = self.waiters.iter().find(|(other, _)| *other == ticket)?;
        let clock_ms = self.state.clock_ms.max(now_ms + self.state.behind_ms);
        Some(now_ms + place.closes_ms - place.window_ms * 2 / 3 - clock_ms)
    }

    pub fn is_held_by(&self, owner: &str) -> bool {
        self.holder.as_ref().is_some_and(|(holder, _)| holder == owner)
    }
}

/// What a script was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Acquire,
    Extend,
    Release,
}

impl Verb {
    pub fn script(self) -> &'static str {
        match self {
            Self::Acquire => "mutex/acquire",
            Self::Extend => "mutex/extend",
            Self::Release => "mutex/release",
        }
    }
}

/// The memory of the checks.
#[derive(Default)]
pub struct Check {
    /// The last fence of each lock, and whether the data was lost since.
    fences: HashMap<Vec<u8>, (i64, bool)>,
}

impl Check {
    /// The highest fence of the lock, in microseconds.
    pub fn last_fence(&self, key: &[u8]) -> i64 {
        self.fences.get(key).map_or(0, |(fence, _)| *fence)
    }

    pub fn data_is_lost(&mut self) {
        self.fences.values_mut().for_each(|(_, is_lost)| *is_lost = true);
    }

    /// Compares a lock before and after a call of `verb` by `owner`. `steady` tells of an owner token for how many
    /// milliseconds it has waited with a client that is connected and awake; after `within_ms` such a waiter has taken
    /// a lock whose holder died.
    pub fn call(
        &mut self,
        key: &[u8],
        (before, after): (&Lock, &Lock),
        (verb, owner): (Verb, &str),
        now_ms: i64,
        within_ms: i64,
        steady: impl Fn(&str) -> Option<i64>,
    ) -> Result<(), String> {
        if let Some(ended_ms) = before.ended_ms
            && now_ms - ended_ms > within_ms
            && let Some((_, waiter, _)) = before.places.iter().find(|(_, _, window)| *window > now_ms)
            && steady(waiter).is_some_and(|steady_ms| steady_ms > now_ms - ended_ms + within_ms)
        {
            return Err(format!("G5: the lease ended {} ms ago, and {waiter} still waits", now_ms - ended_ms));
        }
        let regranted = after.holder.is_some() && after.fence != before.fence;
        if let Some((holder, deadline)) = &before.holder
            && !(verb == Verb::Release && holder == owner)
        {
            let Some((_, now_until)) = after.holder.as_ref().filter(|(after, _)| after == holder) else {
                return Err(format!("G1 G3: {verb:?} by {owner} ended the lease of {holder}"));
            };
            if regranted {
                return Err(format!("G2: {holder} got another fence for the same lease"));
            }
            if now_until < deadline {
                return Err(format!("G4: {verb:?} by {owner} shortened the lease of {holder}"));
            }
            if *now_until > *deadline && (verb == Verb::Release || holder != owner) {
                return Err(format!("G3: {verb:?} by {owner} lengthened the lease of {holder}"));
            }
        } else if let Some((holder, _)) = &after.holder {
            if before.holder.is_some() && holder == owner {
                return Err(format!("G3: {owner} released and still holds"));
            }
            if verb == Verb::Extend {
                return Err(format!("G3: an extend by {owner} granted to {holder}"));
            }
            self.grant(key, before, (holder, after.fence, owner), now_ms, &steady)?;
        }
        if let Some((holder, deadline)) = &after.holder
            && *deadline > now_ms + after.granted_ms
            && before.holder.as_ref() != Some(&(holder.clone(), *deadline))
        {
            return Err(format!("G4: {holder} got a longer lease than it was told"));
        }
        if verb == Verb::Extend
            && before.holder.is_none()
            && (&after.state, &after.waiters) != (&before.state, &before.waiters)
        {
            return Err("G3: an extend changed a free lock".to_owned());
        }
        if verb == Verb::Release && after.is_held_by(owner) {
            return Err(format!("G3: a release by {owner} left or gave it the lease"));
        }
        let again = before.places.iter().filter(|(ticket, ..)| !after.places.iter().any(|place| place.0 == *ticket));
        for (_, gone, window) in again {
            if gone != owner && !after.is_held_by(gone) && *window > now_ms {
                return Err(format!("G6: the place of {gone} is gone though its window is open"));
            }
        }
        for (_, place, _) in &after.places {
            if after.is_held_by(place) {
                return Err(format!("G6: {place} holds the lease and waits still"));
            }
        }
        Ok(())
    }

    fn grant(
        &mut self,
        key: &[u8],
        before: &Lock,
        (holder, fence, caller): (&str, i64, &str),
        now_ms: i64,
        steady: impl Fn(&str) -> Option<i64>,
    ) -> Result<(), String> {
        let (last, is_lost) = self.fences.insert(key.to_vec(), (fence, false)).unwrap_or_default();
        // Only where a clock behind the last fence meets the loss of all data a fence may be lower.
        if fence <= last && !(is_lost && now_ms * 1000 <= last) {
            return Err(format!("G2: fence {fence} after {last}"));
        }
        let overdue = before.places.iter().any(|(_, owner, window)| owner == holder && *window <= now_ms);
        if overdue && holder != caller {
            return Err(format!("G6: {holder} was granted though its window was over"));
        }
        let ticket = before.places.iter().find(|(_, owner, _)| owner == holder).map_or(i64::MAX, |place| place.0);
        for (earlier, owner, window) in &before.places {
            if *earlier < ticket && *window > now_ms && steady(owner).is_some() {
                return Err(format!("G6: {holder} overtook {owner}"));
            }
        }
        Ok(())
    }
}
