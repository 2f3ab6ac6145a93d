//! Random sequences of calls: a small model of one lock says what a real server has to answer.
//!
//! The model has no clock. All times are long; a lease or a window ends because the sequence says so.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
};

use proptest::prelude::*;
use redis::Value;
use redlatch::bundle;

use crate::support::{Raw, Server};

type Owner = u8;

#[derive(Clone, Debug)]
enum Call {
    Acquire {
        owner: Owner,
        waits: bool,
        listens: bool,
    },
    Extend {
        owner: Owner,
    },
    Release {
        owner: Owner,
    },
    ForceRelease,
    /// The lease runs out.
    LeaseEnds,
    /// The waiter has not asked again in time.
    WindowEnds {
        owner: Owner,
    },
}

#[derive(Clone, Debug)]
struct Waiter {
    owner: Owner,
    listens: bool,
    open: bool,
}

/// One lock: who holds it, who released last, who waits.
#[derive(Debug, Default)]
struct Model {
    holder: Option<Owner>,
    /// The last owner that released, as long as nobody was granted since; then the one before.
    just_released: Option<Owner>,
    released: Option<Owner>,
    /// Stepped over because nobody heard; in order, and before all in `queue`.
    passed: VecDeque<Waiter>,
    queue: VecDeque<Waiter>,
    /// How many fences were used.
    fences: u32,
}

impl Model {
    fn answer(&mut self, call: &Call) -> &'static str {
        match *call {
            Call::Acquire { owner, waits, listens } => self.acquire(owner, waits, listens),
            Call::Extend { owner } => {
                if self.holder == Some(owner) {
                    "extended"
                } else {
                    "lost"
                }
            }
            Call::Release { owner } => self.release(owner),
            Call::ForceRelease => {
                if self.holder.take().is_none() {
                    return "not_held";
                }
                let granted = self.hand_off(None) == Some(true);
                self.fences += u32::from(!granted);
                self.forget();
                if granted { "handed_off" } else { "released" }
            }
            Call::LeaseEnds => {
                self.holder = None;
                ""
            }
            Call::WindowEnds { owner } => {
                let mut waiters = self.passed.iter_mut().chain(&mut self.queue);
                waiters.find(|waiter| waiter.owner == owner).into_iter().for_each(|waiter| waiter.open = false);
                ""
            }
        }
    }

    fn acquire(&mut self, owner: Owner, waits: bool, listens: bool) -> &'static str {
        if self.just_released == Some(owner) || self.released == Some(owner) {
            return "spent";
        }
        if self.holder == Some(owner) {
            return "granted";
        }
        if self.holder.is_some() && !waits {
            return "held";
        }
        // Who was stepped over has its place back, and with it all behind it.
        if let Some(at) = self.passed.iter().position(|waiter| waiter.owner == owner) {
            let mut back = self.passed.split_off(at);
            back.append(&mut self.queue);
            self.queue = back;
        }
        if self.holder.is_none() && self.hand_off(Some(owner)) != Some(true) {
            self.queue.retain(|waiter| waiter.owner != owner);
            self.grant(owner);
            self.forget_passed();
            return "granted";
        }
        if !waits {
            self.forget_passed();
            return "held";
        }
        let place = Waiter { owner, listens, open: true };
        match self.queue.iter_mut().find(|waiter| waiter.owner == owner) {
            Some(waiter) => *waiter = place,
            None => self.queue.push_back(place),
        }
        self.forget();
        "queued"
    }

    fn release(&mut self, owner: Owner) -> &'static str {
        let waited = self.passed.len() + self.queue.len();
        let mut word = "not_held";
        if self.holder == Some(owner) {
            self.holder = None;
            if let Some(before) = self.just_released.replace(owner) {
                self.released = Some(before);
            }
            word = "released";
        } else if self.just_released == Some(owner) || self.released == Some(owner) {
            word = "released_before";
        }
        self.passed.retain(|waiter| waiter.owner != owner);
        self.queue.retain(|waiter| waiter.owner != owner);
        if self.passed.len() + self.queue.len() < waited {
            word = "left";
        }
        if self.holder.is_none() && self.hand_off(None) == Some(true) && word == "released" {
            word = "handed_off";
        }
        self.forget();
        word
    }

    /// Grants to the first waiter that is there. `Some(false)`: the caller itself comes first.
    fn hand_off(&mut self, caller: Option<Owner>) -> Option<bool> {
        while let Some(first) = self.queue.front() {
            if Some(first.owner) == caller {
                return Some(false);
            }
            let first = self.queue.pop_front().unwrap();
            if first.open && first.listens {
                self.grant(first.owner);
                return Some(true);
            }
            if first.open {
                self.passed.push_back(first);
            }
        }
        None
    }

    fn grant(&mut self, owner: Owner) {
        self.holder = Some(owner);
        self.fences += 1;
        if let Some(released) = self.just_released.take() {
            self.released = Some(released);
        }
    }

    /// Drops waiters whose window is over, as far as one sees them from the front.
    fn forget(&mut self) {
        while self.queue.front().is_some_and(|waiter| !waiter.open) {
            self.queue.pop_front();
        }
        self.forget_passed();
    }

    fn forget_passed(&mut self) {
        while self.passed.front().is_some_and(|waiter| !waiter.open) {
            self.passed.pop_front();
        }
    }

    fn waiters(&self) -> Vec<Owner> {
        self.passed.iter().chain(&self.queue).map(|waiter| waiter.owner).collect()
    }
}

const KEY: &str = "redlatch:m1:model";

/// The same lock on a server.
struct Real {
    raw: Raw,
}

impl Real {
    fn new(server: &Server) -> Self {
        let mut raw = Raw::connect(server);
        let _: String = raw.must(&["FLUSHALL"]);
        Self { raw }
    }

    fn answer(&mut self, call: &Call) -> String {
        match *call {
            Call::Acquire { owner, waits, listens } => {
                let (owner, queue) = (name(owner), if waits { "60000" } else { "0" });
                // Nobody is subscribed to that channel: with inbox_here it proves that the waiter is gone.
                let here = if listens { "0" } else { "1" };
                let rest = ["600000", queue, "60000", "0", "0", "60000", &owner, "channel", here];
                self.script("mutex/acquire", &[&[owner.as_str()], &rest[..]].concat()).0
            }
            Call::Extend { owner } => self.script("mutex/extend", &[&name(owner), "600000", "60000"]).0,
            Call::Release { owner } => self.script("mutex/release", &[&name(owner)]).0,
            Call::ForceRelease => self.script("mutex/force_release", &[]).0,
            Call::LeaseEnds => {
                if self.raw.must(&["HEXISTS", KEY, "deadline_ms"]) {
                    let _: u8 = self.raw.must(&["HSET", KEY, "deadline_ms", "1"]);
                }
                String::new()
            }
            Call::WindowEnds { owner } => {
                let record: Option<String> = self.raw.must(&["HGET", KEY, &format!("waiter:{}", name(owner))]);
                if let Some(record) = record {
                    let place = format!("place:{}", record.split(' ').next().unwrap());
                    let text: String = self.raw.must(&["HGET", KEY, &place]);
                    let (_, rest) = text.split_once(' ').unwrap();
                    let _: u8 = self.raw.must(&["HSET", KEY, &place, &format!("1 {rest}")]);
                }
                String::new()
            }
        }
    }

    /// Holder, last fence and waiters as `mutex/inspect` tells them.
    fn look(&mut self) -> (Option<String>, u64, Vec<String>) {
        let (word, fields) = self.script("mutex/inspect", &["1000"]);
        type Reply = (i64, i64, String, String, i64, i64, Vec<(i64, i64, i64, String)>);
        let (_, _, fence, label, _, _, waiters): Reply = redis::from_redis_value(Value::Array(fields)).unwrap();
        let waiters = waiters.into_iter().map(|(_, _, _, label)| label).collect();
        ((word == "held").then_some(label), fence.parse().unwrap(), waiters)
    }

    fn script(&mut self, name: &str, args: &[&str]) -> (String, Vec<Value>) {
        let script = bundle::embedded().unwrap().get(name).unwrap();
        let mut words: Vec<&[u8]> = vec![b"EVAL", script.source(), b"1", KEY.as_bytes()];
        words.extend(args.iter().map(|arg| arg.as_bytes()));
        let Value::Array(mut fields) = self.raw.run(&words).unwrap() else { panic!("not an array") };
        let Value::Int(code) = fields.remove(0) else { panic!("not a number") };
        let reply = script.header().replies.iter().find(|reply| reply.code == code).unwrap();
        (reply.word.clone(), fields)
    }
}

fn name(owner: Owner) -> String {
    format!("owner-{owner}")
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let owner = 0..6_u8;
    let call = prop_oneof![
        6 => (owner.clone(), prop::bool::weighted(0.8), prop::bool::weighted(0.7))
            .prop_map(|(owner, waits, listens)| Call::Acquire { owner, waits, listens }),
        1 => owner.clone().prop_map(|owner| Call::Extend { owner }),
        3 => owner.clone().prop_map(|owner| Call::Release { owner }),
        1 => Just(Call::ForceRelease),
        2 => Just(Call::LeaseEnds),
        2 => owner.prop_map(|owner| Call::WindowEnds { owner }),
    ];
    prop::collection::vec(call, 1..60)
}

#[test]
fn a_server_answers_as_the_model_of_one_lock() {
    let server = Server::start(&[]).unwrap();
    let seen = RefCell::new(BTreeSet::new());
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(calls in calls())| {
        let (mut model, mut real) = (Model::default(), Real::new(&server));
        let (mut last_fence, mut used) = (0, 0);
        for (number, call) in calls.iter().enumerate() {
            let expected = model.answer(call);
            seen.borrow_mut().insert(expected);
            prop_assert_eq!(expected, real.answer(call), "call {} {:?} of {:?}", number, call, calls);
            let (holder, fence, waiters) = real.look();
            prop_assert_eq!(model.holder.map(name), holder, "after call {} {:?} of {:?}", number, call, calls);
            let expected: Vec<String> = model.waiters().into_iter().map(name).collect();
            prop_assert_eq!(expected, waiters, "after call {} {:?} of {:?}", number, call, calls);
            // A new fence for every grant, and none without one.
            prop_assert_eq!(model.fences > used, fence > last_fence, "after call {} {:?}", number, call);
            (last_fence, used) = (fence, model.fences);
        }
    });
    let words = [
        "",
        "extended",
        "granted",
        "handed_off",
        "held",
        "left",
        "lost",
        "not_held",
        "queued",
        "released",
        "released_before",
        "spent",
    ];
    assert_eq!(seen.into_inner(), BTreeSet::from(words), "the sequences have met every reply");
}
