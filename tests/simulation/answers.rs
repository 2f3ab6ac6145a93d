//! What a script answers must be so, and what it was asked must have been heeded.

use std::collections::HashMap;

use super::{
    check::{Lock, Verb},
    server::{Reply, Server},
    world::{Call, FLOOR, NOT_AFTER, WINDOW, code, field, number},
};

/// A call that the server has just served.
pub struct Served<'a> {
    pub call: &'a Call,
    pub reply: &'a Reply,
    pub before: &'a Lock,
    pub after: &'a Lock,
    pub server: &'a Server,
    /// What a hand-off lasts at most.
    pub claim_ms: i64,
}

/// Who gave back the lease of each lock last.
#[derive(Default)]
pub struct Answers {
    released: HashMap<usize, String>,
    /// How long each owner's place was to stay open, in milliseconds.
    windows: HashMap<String, i64>,
}

impl Answers {
    pub fn data_is_lost(&mut self) {
        self.released.clear();
    }

    /// `inbox` is the channel of an owner token whose client is there; `waits` tells whether its waiter is connected,
    /// awake and in the queue.
    pub fn check(
        &mut self,
        served: &Served,
        inbox: impl Fn(&str) -> Option<Vec<u8>>,
        waits: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let (verb, owner) = (served.call.verb, &served.call.owner);
        let Some(code) = code(served.reply) else {
            // Only what would add something may be refused for want of memory.
            return if verb == Verb::Acquire { Ok(()) } else { Err(format!("G5: a full server refuses {verb:?}")) };
        };
        let (held, holds) = (served.before.is_held_by(owner), served.after.is_held_by(owner));
        let says = match verb {
            // A copy that comes too late is told so, whoever holds it.
            Verb::Acquire => (code == 1) == (holds && code != 4),
            Verb::Extend => (code == 1) == holds,
            Verb::Release => matches!(code, 1 | 2) == held && (code != 2 || served.after.holder.is_some()),
        };
        if !says {
            return Err(format!("G7: the answer {code} to {verb:?} by {owner} is not so"));
        }
        let told_ms = served.now_ms() + field(served.reply, 1) as i64;
        if holds && code == 1 && served.after.holder.as_ref().is_some_and(|(_, deadline)| *deadline > told_ms) {
            return Err(format!("G4: {owner} got a longer lease than it was told"));
        }
        match verb {
            Verb::Acquire => self.acquired(served, code)?,
            Verb::Extend => served.extended()?,
            Verb::Release if held => drop(self.released.insert(served.call.lock, owner.clone())),
            Verb::Release => {}
        }
        served.handed_on(&inbox)?;
        served.told_head(&inbox)?;
        self.windows_are_kept(served)?;
        let is_done = verb == Verb::Release && field(served.reply, 1) == 0;
        if is_done && served.after.holder.is_none() {
            let open = |(_, waiter, window): &&(i64, String, i64)| *window > served.now_ms() && waits(waiter);
            if let Some((_, waiter, _)) = served.after.places.iter().find(open) {
                return Err(format!("G5: the release by {owner} left the lock free, and {waiter} waits"));
            }
        }
        Ok(())
    }

    /// No place is open for longer than its waiter asked for.
    fn windows_are_kept(&self, served: &Served) -> Result<(), String> {
        let kept = |(_, owner, window): &&(i64, String, i64)| {
            self.windows.get(owner).is_some_and(|asked| window - served.now_ms() > *asked)
        };
        match served.after.places.iter().find(kept) {
            Some((_, owner, _)) => Err(format!("G6: the place of {owner} is open for longer than it asked for")),
            None => Ok(()),
        }
    }

    fn acquired(&mut self, served: &Served, code: i64) -> Result<(), String> {
        let owner = &served.call.owner;
        if code == 2 {
            let longest = self.windows.entry(owner.clone()).or_default();
            *longest = (*longest).max(served.number(WINDOW));
        }
        let [not_after_us, floor] = [NOT_AFTER, FLOOR].map(|at| served.number(at));
        let is_late = not_after_us > 0 && served.server.clock_us > not_after_us;
        if is_late != (code == 4) {
            return Err(format!("G7: {owner} asked for an answer until {not_after_us} and got {code}"));
        }
        let is_new = !served.before.is_held_by(owner) && served.after.is_held_by(owner);
        if is_new && served.after.fence <= floor {
            return Err(format!("G2: fence {} with a floor of {floor}", served.after.fence));
        }
        let is_kept = served.before.fence > 0;
        if code <= 2 && is_kept && self.released.get(&served.call.lock) == Some(owner) {
            return Err(format!("G3: {owner} has released and is granted or queued again"));
        }
        let outlasts = served
            .after
            .holder
            .as_ref()
            .is_some_and(|(_, deadline)| *deadline > served.now_ms() + served.after.granted_ms);
        if outlasts && code <= 3 && !served.server.is_full {
            return Err(format!("G5: {owner} waits for a lease that a step back of the clock made longer"));
        }
        Ok(())
    }
}

impl Served<'_> {
    fn now_ms(&self) -> i64 {
        self.server.clock_ms()
    }

    fn number(&self, at: usize) -> i64 {
        number(&self.call.args[at]).cast_signed()
    }

    fn extended(&self) -> Result<(), String> {
        let most = self.now_ms() + self.number(1).max(self.before.granted_ms);
        match &self.after.holder {
            Some((holder, deadline)) if *holder == self.call.owner && *deadline > most => {
                Err(format!("G4: {holder} extended for longer than it had asked at any time"))
            }
            _ => Ok(()),
        }
    }

    /// Under the same lease: whoever has become the head of the queue, and would ask only after its end, is told so, by
    /// the reply or by a message.
    fn told_head(&self, inbox: impl Fn(&str) -> Option<Vec<u8>>) -> Result<(), String> {
        let is_same = self.before.holder.is_some() && self.before.fence == self.after.fence;
        let head = self.after.places.iter().find(|(ticket, ..)| *ticket == self.after.head);
        let Some((ticket, head, _)) = head.filter(|_| is_same) else { return Ok(()) };
        let Some((_, deadline)) = self.after.holder else { return Ok(()) };
        if self.after.asks_ms(*ticket, self.now_ms()).is_some_and(|asks_ms| asks_ms <= deadline) {
            return Ok(());
        }
        if self.after.head <= self.before.head || *head == self.call.owner || inbox(head).is_none() {
            return Ok(());
        }
        let message = format!("{head} 0 0").into_bytes();
        let listens = self.server.subscribed.contains(&inbox(head).unwrap_or_default());
        let is_told = self.server.published.iter().any(|(_, payload)| *payload == message);
        if is_told || !listens { Ok(()) } else { Err(format!("G5: {head} is the head now, and nobody has told it")) }
    }

    /// A lease that somebody else than the caller got: somebody hears of it, and it is as long as it says.
    fn handed_on(&self, inbox: impl Fn(&str) -> Option<Vec<u8>>) -> Result<(), String> {
        let Some((holder, _)) = &self.after.holder else { return Ok(()) };
        let is_new = self.after.fence != self.before.fence;
        if !is_new || *holder == self.call.owner {
            return Ok(());
        }
        if self.after.granted_ms > self.claim_ms {
            return Err(format!("G6: a hand-off to {holder} for {} ms", self.after.granted_ms));
        }
        let message = format!("{holder} {} {}", self.after.fence, self.after.granted_ms).into_bytes();
        let is_told = self
            .server
            .published
            .iter()
            .any(|(channel, payload)| *payload == message && inbox(holder).is_none_or(|inbox| inbox == *channel));
        if is_told { Ok(()) } else { Err(format!("G6: {holder} was granted, and nobody was told so")) }
    }
}
