//! The rules that the scripts follow, in ticks.

use super::{CLAIM, Fault, TTL, WINDOW};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Acquire,
    Extend,
    Release,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Granted { fence: u8 },
    Queued,
    Spent,
    Lost,
    Released { was_held: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    owner: (usize, u8),
    window: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// Owner and ticks that are left.
    lease: Option<((usize, u8), u8)>,
    pub fence: u8,
    queue: Vec<Place>,
    /// The last attempt of each client that gave back a lease.
    released: Vec<u8>,
    /// A copy of a request that is still on its way.
    pub late: Option<(usize, u8, Verb)>,
    pub fence_repeated: bool,
    pub overtaken: bool,
}

/// A grant that the waiter is told by a message.
type Push = Option<(usize, u8, u8)>;

impl Server {
    pub fn new(clients: usize) -> Self {
        Self { released: vec![0; clients], ..Self::default() }
    }

    pub fn is_held_by(&self, id: usize, attempt: u8, fence: u8) -> bool {
        self.is_of(id, attempt) && self.fence == fence
    }

    pub fn is_of(&self, id: usize, attempt: u8) -> bool {
        self.lease.is_some_and(|(owner, _)| owner == (id, attempt))
    }

    pub fn is_free(&self) -> bool {
        self.lease.is_none()
    }

    /// Whether that attempt waits or was the last to hold the lock.
    pub fn knows(&self, id: usize, attempt: u8) -> bool {
        self.fence > 0 && self.released[id] < attempt
    }

    pub fn tick(&mut self) {
        self.lease = self.lease.and_then(|(owner, left)| (left > 1).then(|| (owner, left - 1)));
        self.queue.iter_mut().for_each(|place| place.window -= 1);
        self.queue.retain(|place| place.window > 0);
    }

    pub fn serve(&mut self, owner: (usize, u8), verb: Verb, fault: Fault) -> (Answer, Push) {
        match verb {
            Verb::Acquire => self.acquire(owner, fault),
            Verb::Extend => match &mut self.lease {
                Some((holder, left)) if *holder == owner => {
                    *left = TTL;
                    (Answer::Granted { fence: self.fence }, None)
                }
                _ => (Answer::Lost, None),
            },
            Verb::Release => self.release(owner, fault),
        }
    }

    fn acquire(&mut self, owner: (usize, u8), fault: Fault) -> (Answer, Push) {
        if self.released[owner.0] >= owner.1 && fault != Fault::NoMemo {
            return (Answer::Spent, None);
        }
        if let Some((_, left)) = self.lease.as_mut().filter(|(holder, _)| *holder == owner) {
            *left = TTL;
            return (Answer::Granted { fence: self.fence }, None);
        }
        let mut pushed = None;
        if self.lease.is_none() {
            let first = self.queue.first().map_or(owner, |place| place.owner);
            if first == owner || fault == Fault::Overtaking {
                self.grant(owner, TTL, fault);
                self.queue.retain(|place| place.owner != owner);
                return (Answer::Granted { fence: self.fence }, None);
            }
            pushed = self.hand_off(fault);
        }
        match self.queue.iter_mut().find(|place| place.owner == owner) {
            Some(place) => place.window = WINDOW,
            None => self.queue.push(Place { owner, window: WINDOW }),
        }
        (Answer::Queued, pushed)
    }

    fn release(&mut self, owner: (usize, u8), fault: Fault) -> (Answer, Push) {
        self.queue.retain(|place| place.owner != owner);
        let is_ours = self.lease.is_some_and(|(holder, _)| holder == owner || fault == Fault::ReleaseForAnybody);
        if is_ours {
            self.lease = None;
            self.released[owner.0] = owner.1;
        }
        let pushed = if self.lease.is_none() { self.hand_off(fault) } else { None };
        (Answer::Released { was_held: is_ours || self.released[owner.0] >= owner.1 }, pushed)
    }

    fn hand_off(&mut self, fault: Fault) -> Push {
        let skipped = usize::from(fault == Fault::PoppedTwice && self.queue.len() > 1);
        let next = self.queue.get(skipped)?.owner;
        self.grant(next, CLAIM, fault);
        self.queue.drain(..=skipped);
        Some((next.0, next.1, self.fence))
    }

    /// Grants to `owner`, whose place is still in the queue if it has one.
    fn grant(&mut self, owner: (usize, u8), ticks: u8, fault: Fault) {
        let last = self.fence;
        if fault != Fault::FenceNotRaised || ticks == TTL {
            self.fence += 1;
        }
        self.fence_repeated |= self.fence <= last;
        // All windows in the queue are open.
        self.overtaken |= self.queue.first().is_some_and(|first| first.owner != owner);
        self.lease = Some((owner, ticks));
    }
}
