//! Random sequences of calls: a small model of one lock says what a real server and the simulated one have to answer.
//!
//! The model has no clock. All times are long; a lease or a window ends because the sequence says so.

mod place;

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
};

use place::{Place, Real, Simulated, State};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::{
    conformance::{Sources, shipped},
    mutants::worst_faults,
    support::{
        Server,
        lock::{LockState, PlaceState, ticket_of},
    },
};

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
        short: bool,
    },
    Release {
        owner: Owner,
    },
    ForceRelease,
    /// The server's clock is behind the last fence.
    ClockStepsBack,
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
            Call::Extend { owner, .. } => {
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
            Call::ClockStepsBack => "",
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
            self.forget();
            return "granted";
        }
        if !waits {
            self.forget();
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

    /// Drops waiters that were stepped over and whose window is over, as far as one sees them from the front. Others go
    /// with the next hand-off.
    fn forget(&mut self) {
        while self.passed.front().is_some_and(|waiter| !waiter.open) {
            self.passed.pop_front();
        }
    }

    fn waiters(&self) -> Vec<Owner> {
        self.passed.iter().chain(&self.queue).map(|waiter| waiter.owner).collect()
    }
}

fn name(owner: Owner) -> String {
    format!("owner-{owner}")
}

const TTL_MS: i64 = 600_000;

/// What `place` answers, and the fence in that answer.
fn answer(place: &mut impl Place, call: &Call) -> (String, Option<u64>) {
    match *call {
        Call::Acquire { owner, waits, listens } => {
            let (owner, queue) = (name(owner), if waits { "60000" } else { "0" });
            // Nobody is subscribed to that channel: with inbox_here it proves that the waiter is gone.
            let here = if listens { "0" } else { "1" };
            let rest = ["600000", "0", "0", "60000", &owner, queue, "60000", "channel", here];
            place.script("mutex/acquire", &[&[owner.as_str()], &rest[..]].concat())
        }
        Call::Extend { owner, short } => {
            place.script("mutex/extend", &[&name(owner), if short { "1000" } else { "600000" }, "60000"])
        }
        Call::Release { owner } => place.script("mutex/release", &[&name(owner)]),
        Call::ForceRelease => place.script("mutex/force_release", &[]),
        Call::ClockStepsBack => {
            edit(place, |lock| lock.fence += 3_600_000_000);
            (String::new(), None)
        }
        Call::LeaseEnds => {
            edit(place, |lock| lock.deadline_ms = lock.deadline_ms.min(1));
            (String::new(), None)
        }
        Call::WindowEnds { owner } => {
            if let Some(record) = place.field(&format!("waiter:{}", name(owner))) {
                let field = format!("place:{}", ticket_of(&record));
                let open = PlaceState::parse(&place.field(&field).unwrap());
                place.set_field(&field, &PlaceState { closes_ms: 1, ..open }.to_bytes());
            }
            (String::new(), None)
        }
    }
}

/// Changes the state of a lock that there is.
fn edit(place: &mut impl Place, change: impl FnOnce(&mut LockState)) {
    if let Some(state) = place.field("state") {
        let mut lock = LockState::parse(&state);
        change(&mut lock);
        place.set_field("state", &lock.to_bytes());
    }
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let owner = 0..6_u8;
    let call = prop_oneof![
        12 => (owner.clone(), prop::bool::weighted(0.8), prop::bool::weighted(0.7))
            .prop_map(|(owner, waits, listens)| Call::Acquire { owner, waits, listens }),
        2 => (owner.clone(), prop::bool::weighted(0.3)).prop_map(|(owner, short)| Call::Extend { owner, short }),
        6 => owner.clone().prop_map(|owner| Call::Release { owner }),
        2 => Just(Call::ForceRelease),
        1 => Just(Call::ClockStepsBack),
        4 => Just(Call::LeaseEnds),
        4 => owner.prop_map(|owner| Call::WindowEnds { owner }),
    ];
    prop::collection::vec(call, 1..60)
}

/// Whether `place` answers `calls` as the model does. Notes the words of the answers in `seen`.
fn agree(place: &mut impl Place, calls: &[Call], seen: &mut BTreeSet<&'static str>) -> Result<(), String> {
    place.clear();
    let mut model = Model::default();
    let (mut before, mut used) = (State::default(), 0);
    for (number, call) in calls.iter().enumerate() {
        let expected = model.answer(call);
        seen.insert(expected);
        let (word, fence) = answer(place, call);
        let now = place.look();
        let grown = model.fences > used;
        let same_lease = now.holder.is_some() && now.holder == before.holder && !grown;
        let problem = if word != expected {
            format!("{word} instead of {expected}")
        } else if now.holder != model.holder.map(name) {
            format!("{:?} holds it instead of {:?}", now.holder, model.holder)
        } else if now.waiters != model.waiters().into_iter().map(name).collect::<Vec<_>>() {
            format!("{:?} wait instead of {:?}", now.waiters, model.waiters())
        } else if grown != (now.fence > before.fence) && !matches!(call, Call::ClockStepsBack) {
            format!("fence {} after {}", now.fence, before.fence)
        } else if fence.is_some_and(|fence| fence != now.fence) {
            format!("the answer has fence {fence:?}, and the lock {}", now.fence)
        } else if now.holder.is_some() && now.left_ms > TTL_MS {
            format!("the lease lasts {} ms", now.left_ms)
        } else if same_lease && now.left_ms < before.left_ms - 10_000 {
            format!("the lease was shortened to {} ms", now.left_ms)
        } else {
            (before, used) = (now, model.fences);
            continue;
        };
        return Err(format!("call {number} {call:?} of {calls:?}: {problem}"));
    }
    Ok(())
}

/// Runs `cases` sequences on `place`, always the same ones; the words that were seen.
fn check(place: impl Place, cases: u32) -> Result<BTreeSet<&'static str>, String> {
    let (place, seen) = (RefCell::new(place), RefCell::new(BTreeSet::new()));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&calls(), |calls| {
            agree(&mut *place.borrow_mut(), &calls, &mut seen.borrow_mut()).map_err(TestCaseError::fail)
        })
        .map_err(|failure| failure.to_string())?;
    Ok(seen.into_inner())
}

const WORDS: [&str; 12] = [
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

#[test]
fn a_server_answers_as_the_model_of_one_lock() {
    let server = Server::start(&[]).unwrap();
    let seen = check(Real::new(&server), 300).unwrap();
    assert_eq!(seen, BTreeSet::from(WORDS), "the sequences have met every reply");
}

#[test]
fn the_simulated_server_answers_as_the_model_of_one_lock() {
    let seen = check(Simulated::new(&shipped()), 3000).unwrap();
    assert_eq!(seen, BTreeSet::from(WORDS), "the sequences have met every reply");
}

#[test]
fn a_broken_bundle_does_not_answer_as_the_model() {
    let mut survivors = Vec::new();
    for mutant in worst_faults() {
        let sources: Sources = mutant.apply(&shipped());
        match check(Simulated::new(&sources), 3000) {
            Err(failure) => println!("{}\n  caught by {:.200}", mutant.name, failure.lines().next().unwrap()),
            Ok(_) => survivors.push(mutant.name),
        }
    }
    assert_eq!(survivors, Vec::<String>::new());
}
