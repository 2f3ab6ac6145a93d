//! What must hold after every step, seen from the server and from the holders.

use std::collections::HashMap;

use super::server::Server;

/// One lock as the server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    owner: Option<String>,
    deadline_ms: Option<i64>,
    /// Owner token whose lease runs, and its deadline by the server's clock.
    pub holder: Option<(String, i64)>,
    /// Deadline of a lease that ran out.
    pub ended_ms: Option<i64>,
    pub granted_ms: i64,
    pub fence: i64,
    /// Ticket, owner token and end of the window of each place, by the server's clock.
    pub places: Vec<(i64, String, i64)>,
    /// The ticket that the queue has come to.
    pub head: i64,
    /// By the queue's own clock: the ends of the windows, and the last time that it has shown.
    windows: Vec<i64>,
    seen_ms: i64,
    behind_ms: i64,
}

impl Lock {
    pub fn read(server: &Server, key: &[u8]) -> Self {
        let mut lock = Self { head: 1, ..Self::default() };
        for (field, value) in server.fields(key) {
            match field {
                "owner" => lock.owner = Some(value.to_owned()),
                "deadline_ms" => lock.deadline_ms = value.parse().ok(),
                "granted_ms" => lock.granted_ms = value.parse().unwrap_or_default(),
                "fence" => lock.fence = value.parse().unwrap_or_default(),
                "head" => lock.head = value.parse().unwrap_or_default(),
                "seen_ms" => lock.seen_ms = value.parse().unwrap_or_default(),
                "behind_ms" => lock.behind_ms = value.parse().unwrap_or_default(),
                _ => {
                    if let Some(ticket) = field.strip_prefix("place:") {
                        let mut words = value.split(' ');
                        let window = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
                        let owner = words.nth(2).unwrap_or_default().to_owned();
                        lock.windows.push(window);
                        lock.places.push((ticket.parse().unwrap_or_default(), owner, window));
                    }
                }
            }
        }
        lock.at(server.clock_ms())
    }

    /// The same lock at another time, when nothing was written since.
    pub fn at(mut self, now_ms: i64) -> Self {
        let (running, ended) = match self.deadline_ms {
            Some(deadline) if deadline > now_ms => (Some(deadline), None),
            other => (None, other),
        };
        self.ended_ms = ended;
        let clock_ms = self.seen_ms.max(now_ms + self.behind_ms);
        for ((_, _, window), end) in self.places.iter_mut().zip(&self.windows) {
            *window = now_ms + end - clock_ms;
        }
        self.holder = running.and_then(|deadline| Some((self.owner.clone()?, deadline)));
        self
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
            if *now_until < (*deadline).min(now_ms + before.granted_ms) {
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
        if verb == Verb::Extend && before.holder.is_none() && after != before {
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
