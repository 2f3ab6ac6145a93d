//! Decides from the records alone whether the locks did what they promise.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::history::{Event, History, Section};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A lease was granted while another one ran.
    Overlap { lock: String, fence: u64 },
    /// A client held its lease at a time when the server had granted the next one, or not yet this one.
    HeldTooLong { lock: String, fence: u64 },
    /// The lease lasts longer on the server than its owner was told.
    LongerThanTold { lock: String, fence: u64 },
    /// A grant's fence is not above the one before.
    FenceNotAbove { lock: String, fence: u64, before: u64 },
    /// Two clients had the same fence, or one the server never granted.
    ForeignFence { lock: String, fence: u64 },
    /// A write was refused, or the lease called lost, while the client was sure to hold it.
    LostWhileHeld { lock: String, fence: u64 },
    /// The grant passed a waiter that was alive and in time.
    Overtaken { lock: String, fence: u64, ticket: u64 },
    /// The counter does not stand where the accepted writes lead.
    CounterOff { lock: String, writes: u64, counter: u64 },
    /// A section that wrote has no accepted write.
    WriteMissing { lock: String, fence: u64 },
    /// Something else, such as a key that was left behind.
    Remark(String),
}

/// From when to when each fence was the newest one, in microseconds.
type Tenures = HashMap<u64, (u64, u64)>;

/// Everything that is wrong with `history`.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found: Vec<Violation> = history.remarks.iter().cloned().map(Violation::Remark).collect();
    let mut grants = HashMap::new();
    for (lock, events) in &history.events {
        grants.insert(lock.as_str(), check_grants(lock, events, &history.deaths, &mut found));
    }
    let mut written = HashMap::new();
    for (lock, counter) in &history.counters {
        let tenures = grants.entry(lock.as_str()).or_default();
        written.insert(lock.as_str(), check_writes(lock, *counter, history, tenures, &mut found));
    }
    let mut seen = HashSet::new();
    for section in &history.sections {
        let (lock, fence) = (section.lock.clone(), section.fence);
        let tenures = grants.get(lock.as_str());
        let Some(&(from, to)) =
            tenures.and_then(|tenures| tenures.get(&fence)).filter(|_| seen.insert((&section.lock, fence)))
        else {
            found.push(Violation::ForeignFence { lock, fence });
            continue;
        };
        if section.verdict == "stale_while_held" || section.release == "lost_while_held" {
            found.push(Violation::LostWhileHeld { lock: lock.clone(), fence });
        }
        if section.verdict == "kept" && (section.enter_us < from || section.exit_us > to) {
            found.push(Violation::HeldTooLong { lock: lock.clone(), fence });
        }
        if wrote(section) && !written.get(lock.as_str()).is_some_and(|fences| fences.contains(&fence)) {
            found.push(Violation::WriteMissing { lock, fence });
        }
    }
    found
}

fn wrote(section: &Section) -> bool {
    section.verdict == "kept" || section.verdict == "late"
}

/// The lease that runs, and the places of the queue, while the events of one lock are replayed.
#[derive(Default)]
struct Replay<'a> {
    lease: Option<(&'a str, u64)>,
    fence: u64,
    places: BTreeMap<u64, (&'a str, u64)>,
    tickets: HashMap<&'a str, u64>,
}

/// Replays the events; returns from when to when each fence was the newest one.
fn check_grants(lock: &str, events: &[Event], deaths: &HashMap<String, u64>, found: &mut Vec<Violation>) -> Tenures {
    let (mut tenures, mut replay) = (Tenures::new(), Replay::default());
    for event in events {
        match event {
            Event::Granted { owner, fence, at_us, deadline_ms, told_ms, .. } => {
                let (fence, at_us) = (*fence, *at_us);
                if replay.lease.is_some_and(|(_, deadline_ms)| deadline_ms > at_us / 1000) {
                    found.push(Violation::Overlap { lock: lock.to_owned(), fence });
                }
                if *deadline_ms > at_us / 1000 + told_ms {
                    found.push(Violation::LongerThanTold { lock: lock.to_owned(), fence });
                }
                if fence <= replay.fence {
                    found.push(Violation::FenceNotAbove { lock: lock.to_owned(), fence, before: replay.fence });
                }
                if let Some(ticket) = replay.overtaken(owner, at_us, deaths) {
                    found.push(Violation::Overtaken { lock: lock.to_owned(), fence, ticket });
                }
                if let Some(before) = tenures.get_mut(&replay.fence) {
                    before.1 = at_us;
                }
                tenures.insert(fence, (at_us, u64::MAX));
                replay.fence = fence;
                replay.lease = Some((owner, *deadline_ms));
            }
            Event::Extended { deadline_ms } => {
                replay.lease = replay.lease.map(|(owner, _)| (owner, *deadline_ms));
            }
            Event::Ended => replay.lease = None,
            Event::Queued { ticket, owner, label, window_ms } => {
                replay.places.insert(*ticket, (label, *window_ms));
                replay.tickets.insert(owner, *ticket);
            }
            Event::Unqueued { ticket } => {
                replay.places.remove(ticket);
            }
        }
    }
    tenures
}

impl Replay<'_> {
    /// The first place before `owner`'s own that belongs to a waiter which is alive and has asked in time.
    fn overtaken(&mut self, owner: &str, at_us: u64, deaths: &HashMap<String, u64>) -> Option<u64> {
        let own = self.tickets.remove(owner).unwrap_or(u64::MAX);
        let in_front = self.places.range(..own).find(|(_, (label, window_ms))| {
            let alive = deaths.get(*label).is_none_or(|death_us| *death_us > at_us);
            alive && *window_ms > at_us / 1000
        });
        in_front.map(|(ticket, _)| *ticket)
    }
}

/// The accepted writes must count 1, 2, 3, … with rising fences, and end where the counter stands.
fn check_writes(
    lock: &str,
    counter: u64,
    history: &History,
    tenures: &Tenures,
    found: &mut Vec<Violation>,
) -> HashSet<u64> {
    let writes = history.writes.get(lock).map_or(&[][..], Vec::as_slice);
    let (mut fences, mut before) = (HashSet::new(), 0);
    for write in writes {
        if write.fence <= before {
            found.push(Violation::FenceNotAbove { lock: lock.to_owned(), fence: write.fence, before });
        }
        if tenures.get(&write.fence).is_none_or(|(from, _)| write.at_us < *from) {
            found.push(Violation::ForeignFence { lock: lock.to_owned(), fence: write.fence });
        }
        before = write.fence;
        fences.insert(write.fence);
    }
    let lost = writes.iter().zip(1..).any(|(write, expected)| write.value != expected);
    if lost || writes.len() as u64 != counter {
        found.push(Violation::CounterOff { lock: lock.to_owned(), writes: writes.len() as u64, counter });
    }
    fences
}
