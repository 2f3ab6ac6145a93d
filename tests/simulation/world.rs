//! One run: a server, its clients and the network between them, on one true clock in microseconds.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use redlatch::{
    Fence,
    protocol::{Moment, Terms},
};

use super::{
    answers::{Answers, Served},
    check::{Check, Lock, Verb},
    client::{Client, State, Task},
    event::{Entry, Event},
    lua::Scripted,
    server::Reply,
};
use crate::support::lock::LockState;

pub const RETENTION: Duration = Duration::from_secs(60);
/// Kinds of faults that are counted.
pub const FAULTS: usize = 16;
pub const SECOND: u64 = 1_000_000;
/// The longest that one message travels.
pub const SLOWEST: u64 = SECOND / 5;

/// What the faults of a run have done, so that none of them can be missing unnoticed.
pub type Bites = HashMap<&'static str, u64>;

/// A script call on its way.
pub struct Call {
    pub verb: Verb,
    pub lock: usize,
    pub owner: String,
    pub args: Vec<Vec<u8>>,
}

/// Where those of `mutex/acquire` are.
pub const NOT_AFTER: usize = 2;
pub const FLOOR: usize = 3;
pub const WINDOW: usize = 6;

/// How this run is: drawn from the seed.
pub struct Plan {
    pub delay: u64,
    pub claim: Duration,
    pub timeout: Duration,
    pub ttls: [Duration; 3],
    /// Mean time between two faults, in microseconds.
    pub calm: u64,
}

pub struct World<'a> {
    pub rng: fastrand::Rng,
    pub now: u64,
    pub clients: Vec<Client>,
    pub bites: Bites,
    /// What happened, when somebody wants to read it.
    pub trace: Option<Vec<String>>,
    pub scripted: &'a mut Scripted,
    pub plan: Plan,
    keys: Vec<Vec<u8>>,
    /// Each lock after the last script that ran on it, and when that was.
    pub seen: Vec<Option<(u64, Lock)>>,
    events: BinaryHeap<Reverse<Entry>>,
    serial: u64,
    pub is_draining: bool,
    pub check: Check,
    /// The highest fence that anybody said to have seen.
    floor: u64,
    pub answers: Answers,
    /// Connections that broke, and until when the server still read from them.
    pub broken: HashMap<u64, u64>,
    /// Which connections the server counts as subscribers.
    pub subscribed: Vec<(Vec<u8>, u64)>,
    pub server_base: i64,
    server_fast: i64,
    pub stepped_back: u64,
    pub server_busy_until: u64,
    pub has_no_scripts: bool,
    /// When data was lost or the server's clock stepped forward: leases from before may have ended early.
    pub spoiled: u64,
    /// When the server last was in trouble.
    pub troubled: u64,
}

impl<'a> World<'a> {
    pub fn new(seed: u64, scripted: &'a mut Scripted, is_traced: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        scripted.reset();
        let claim = Duration::from_millis([20, 100, 500, 2000][rng.usize(..4)]);
        let plan = Plan {
            delay: rng.u64(20..3000),
            claim,
            timeout: Duration::from_millis([20, 100, 500][rng.usize(..3)]),
            ttls: [30, 300, 3000].map(Duration::from_millis),
            calm: [50_000, 500_000, 5 * SECOND][rng.usize(..3)],
        };
        let keys: Vec<_> = (0..rng.usize(1..=2)).map(|lock| format!("redlatch:m1:{lock}").into_bytes()).collect();
        let mut world = Self {
            server_base: 1_700_000_000_000_000 + rng.i64(0..1_000_000_000_000),
            server_fast: rng.i64(-700..=700),
            rng,
            now: SECOND,
            clients: Vec::new(),
            bites: Bites::new(),
            trace: is_traced.then(Vec::new),
            scripted,
            plan,
            seen: vec![None; keys.len()],
            keys,
            events: BinaryHeap::new(),
            serial: 0,
            is_draining: false,
            check: Check::default(),
            floor: 0,
            answers: Answers::default(),
            broken: HashMap::new(),
            subscribed: Vec::new(),
            stepped_back: 0,
            server_busy_until: 0,
            has_no_scripts: false,
            spoiled: 0,
            troubled: 0,
        };
        for client in 0..world.rng.usize(2..=5) {
            let tasks = world.rng.usize(1..=4);
            let connection = world.number();
            let tasks = (0..tasks).map(|_| Task::default()).collect();
            let process = Client::new(format!("c{client}"), connection, &mut world.rng, world.now, tasks);
            world.subscribe(process.inbox().into_bytes(), connection);
            world.clients.push(process);
        }
        world
    }

    /// Runs until `runs` scripts ran, then lets everybody finish without further faults.
    pub fn run(&mut self, runs: u64) -> Result<(), String> {
        let enough = self.scripted.runs + runs;
        for client in 0..self.clients.len() {
            for task in 0..self.clients[client].tasks.len() {
                self.drive(client, task)?;
            }
        }
        self.at(self.plan.calm, Event::Fault);
        while self.scripted.runs < enough {
            self.next()?;
        }
        self.is_draining = true;
        self.scripted.server().is_full = false;
        let limit = self.now + 120 * SECOND;
        while self.clients.iter().flat_map(|client| &client.tasks).any(|task| !matches!(task.state, State::Done)) {
            self.next()?;
            if self.now > limit {
                return Err("G5 G7: tasks are not done two minutes after the last fault".to_owned());
            }
        }
        while let Some(Reverse(entry)) = self.events.pop() {
            // What is still on its way, such as a late copy of a request, has no effect that lasts.
            self.now = self.now.max(entry.at);
            if let Event::Arrive { .. } = entry.event {
                self.happens(entry.event)?;
            }
        }
        self.leaves_nothing()
    }

    /// After some time without clients a newcomer has each lock at once, and soon nothing is left of the queue.
    fn leaves_nothing(&mut self) -> Result<(), String> {
        // Windows are ends by the server's clock.
        self.now += 10 * SECOND + self.stepped_back;
        for lock in 0..self.keys.len() {
            // Each call looks at 64 tickets, and there may be more of waiters that were stepped over.
            let mut left = Vec::new();
            for newcomer in 0..20 {
                left = self.newcomer(lock, newcomer)?;
                if left.is_empty() {
                    break;
                }
            }
            if !left.is_empty() {
                return Err(format!("G8: {left:?} is left after the end"));
            }
        }
        // A fence that is ahead of the clock does not fall meanwhile, and keeps its key.
        self.now += 2 * RETENTION.as_micros() as u64;
        for lock in 0..self.keys.len() {
            self.newcomer(lock, 100)?;
        }
        let fences = self.keys.iter().map(|key| self.check.last_fence(key)).chain([self.floor.cast_signed()]);
        let ahead = fences.max().unwrap_or(0) - self.server_clock();
        self.now += (ahead + ahead / 100).max(0).unsigned_abs() + 4 * RETENTION.as_micros() as u64;
        self.scripted.server().clock_us = self.server_clock();
        for key in &self.keys {
            if self.scripted.server().exists(key) {
                return Err("G8: the key outlives the retention of its fence".to_owned());
            }
        }
        Ok(())
    }

    /// A newcomer comes and goes; what is left of the queue then.
    fn newcomer(&mut self, lock: usize, number: u32) -> Result<Vec<String>, String> {
        let (owner, ttl) = (format!("newcomer:{lock}/{number}"), Duration::from_secs(1));
        let acquire = self.acquire_call(lock, &owner, ttl, (Duration::ZERO, 0, 0), "");
        let reply = self.serve(&acquire)?;
        if code(&reply) != Some(1) {
            return Err(format!("G8: a newcomer after the end got {reply:?}"));
        }
        self.serve(&Call { verb: Verb::Release, lock, args: vec![owner.clone().into_bytes()], owner })?;
        let server = self.scripted.server();
        let left = server.fields(&self.keys[lock]).filter(|(field, value)| match *field {
            b"state" => LockState::parse(value).is_queue_open(),
            _ => true,
        });
        Ok(left.map(|(field, _)| String::from_utf8_lossy(field).into_owned()).collect())
    }

    fn next(&mut self) -> Result<(), String> {
        let Some(Reverse(mut entry)) = self.events.pop() else {
            return Err("G7: nothing is going to happen any more".to_owned());
        };
        self.now = self.now.max(entry.at);
        let delayed = match entry.event {
            Event::Arrive { .. } => self.server_busy_until,
            ref event => event.process().map_or(0, |client| self.clients[client].stopped_until),
        };
        if delayed > self.now {
            entry.at = delayed;
            self.events.push(Reverse(entry));
            return Ok(());
        }
        self.happens(entry.event)
    }

    pub fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    pub fn at(&mut self, after: u64, event: Event) {
        let order = self.number();
        self.events.push(Reverse(Entry { at: self.now + after, order, event }));
    }

    pub fn bite(&mut self, fault: &'static str) {
        *self.bites.entry(fault).or_default() += 1;
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12} {}", now, text()));
        }
    }

    pub fn timer(&mut self, client: usize, task: usize, at: Moment) {
        let timer = self.number();
        self.clients[client].tasks[task].timer = timer;
        let after = self.clients[client].true_time(at).saturating_sub(self.now).max(1);
        self.at(after, Event::Timer { client, task, timer });
    }

    pub fn cancel_after(&mut self, client: usize, task: usize, after: u64) {
        if let Some(owner) = self.clients[client].tasks[task].owner() {
            let owner = owner.to_owned();
            self.at(after, Event::Cancel { client, task, owner });
        }
    }

    /// Terms and wait of the next attempt, and the lock.
    pub fn terms(&mut self) -> (usize, Terms) {
        let lock = self.rng.usize(..self.keys.len());
        let ttl = self.any_ttl();
        let terms = Terms {
            ttl,
            claim: self.plan.claim,
            renew: self.rng.u32(..4) > 0,
            max_hold: (self.rng.u32(..4) == 0).then_some(ttl * 2),
            timeout: self.plan.timeout,
            patience: if self.rng.bool() { self.plan.timeout } else { Duration::from_secs(10) },
        };
        (lock, terms)
    }

    pub fn any_ttl(&mut self) -> Duration {
        self.plan.ttls[self.rng.usize(..3)]
    }

    pub fn timeout(&self) -> Duration {
        self.plan.timeout
    }

    pub fn acquire_call(
        &self,
        lock: usize,
        owner: &str,
        ttl: Duration,
        (window, not_after_us, floor): (Duration, u64, u64),
        inbox: &str,
    ) -> Call {
        let mut args = vec![owner.to_owned(), ttl.as_millis().to_string(), not_after_us.to_string(), floor.to_string()];
        args.extend([RETENTION.as_millis().to_string(), "who".to_owned()]);
        args.extend([window.as_millis(), self.plan.claim.as_millis()].map(|number| number.to_string()));
        args.extend([inbox.to_owned(), u8::from(!inbox.is_empty()).to_string()]);
        let args = args.into_iter().map(String::into_bytes).collect();
        Call { verb: Verb::Acquire, lock, owner: owner.to_owned(), args }
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrive { connection, client, task, question, call } => {
                if self.broken.get(&connection).is_some_and(|until| *until < self.now) {
                    self.bite("lost requests");
                    return Ok(());
                }
                if self.has_no_scripts && connection != 0 {
                    self.has_no_scripts = false;
                    self.answer(connection, client, task, question, call, Reply::Error("NOSCRIPT".to_owned()));
                    return Ok(());
                }
                let reply = self.serve(&call)?;
                self.answer(connection, client, task, question, call, reply);
                self.deliver();
            }
            Event::Reply { connection, client, task, question, call, reply } => {
                if self.clients[client].connection != connection || !self.clients[client].is_connected {
                    return Ok(());
                }
                let open = self.clients[client].tasks[task].question.filter(|open| open.number == question);
                let Some(open) = open else { return Ok(()) };
                if matches!(&reply, Reply::Error(text) if text == "NOSCRIPT") {
                    self.bite("missing scripts");
                    self.transmit(client, task, question, call);
                    return Ok(());
                }
                self.clients[client].tasks[task].question = None;
                self.answered(client, task, open, &reply)?;
                self.drive(client, task)?;
            }
            Event::Message { connection, client, payload } => {
                if self.clients[client].connection == connection && self.clients[client].is_connected {
                    self.hears(client, &payload)?;
                }
            }
            Event::GiveUp { client, task, question } => {
                let slot = &mut self.clients[client].tasks[task].question;
                if let Some(open) = slot.take_if(|open| open.number == question) {
                    self.bite("calls without answer");
                    self.unanswered(client, task, open);
                    self.drive(client, task)?;
                }
            }
            Event::Timer { client, task, timer } => {
                if self.clients[client].tasks[task].timer == timer {
                    self.drive(client, task)?;
                }
            }
            Event::Cancel { client, task, owner } => {
                if self.clients[client].tasks[task].owner() == Some(&owner) && self.cancel(client, task) {
                    self.bite("cancels");
                    self.drive(client, task)?;
                }
            }
            Event::Noticed { client, connection } => {
                if self.clients[client].connection == connection {
                    self.disconnect(client)?;
                }
            }
            Event::Connected { client, connection } => {
                let inbox = self.clients[client].inbox().into_bytes();
                let process = &mut self.clients[client];
                if process.is_connected || process.connection != connection {
                    return Ok(());
                }
                process.is_connected = true;
                process.steady_since = self.now;
                (process.to_server, process.from_server) = (self.now, self.now);
                self.subscribe(inbox, connection);
            }
            Event::Forgotten { channel, connection } => {
                self.subscribed.retain(|(_, other)| *other != connection);
                if self.subscribed.iter().all(|(other, _)| *other != channel) {
                    self.scripted.server().subscribed.remove(&channel);
                }
            }
            Event::Fault if self.is_draining => {}
            Event::Fault => {
                self.fault()?;
                let after = self.rng.u64(1..=2 * self.plan.calm);
                self.at(after, Event::Fault);
            }
        }
        Ok(())
    }

    fn server_clock(&self) -> i64 {
        self.server_base + self.now as i64 + self.now as i64 * self.server_fast / 1_000_000
    }

    /// Runs a script and checks what it did.
    fn serve(&mut self, call: &Call) -> Result<Reply, String> {
        let clock = self.server_clock();
        let key = self.keys[call.lock].clone();
        {
            let mut server = self.scripted.server();
            server.clock_us = clock;
        }
        let before = match self.seen[call.lock].take() {
            Some((at, lock)) if self.now < at + RETENTION.as_micros() as u64 / 2 => lock.at(clock / 1000),
            _ => Lock::read(&self.scripted.server(), &key),
        };
        if call.verb == Verb::Acquire {
            self.floor = self.floor.max(number(&call.args[FLOOR]));
        }
        let args: Vec<&[u8]> = call.args.iter().map(Vec::as_slice).collect();
        let reply = self.scripted.run(call.verb.script(), &key, &args);
        let after = Lock::read(&self.scripted.server(), &key).after(&before);
        self.note(|| format!("server answers {:?} by {}: {reply:?}, {after:?}", call.verb, call.owner));
        if let Reply::Error(text) = &reply
            && !text.starts_with("OOM")
        {
            return Err(format!("{:?} by {} failed: {text}", call.verb, call.owner));
        }
        let (mut check, mut answers) = (std::mem::take(&mut self.check), std::mem::take(&mut self.answers));
        let steady = |owner: &str| self.steady_since(owner).map(|since| (self.now.saturating_sub(since) / 1000) as i64);
        let within = (self.plan.claim.as_micros() as u64 / 3 + 4 * SLOWEST) as i64 / 1000 + 50;
        let outcome = check.call(&key, (&before, &after), (call.verb, &call.owner), clock / 1000, within, steady);
        let served = Served {
            call,
            reply: &reply,
            before: &before,
            after: &after,
            server: &self.scripted.server(),
            claim_ms: self.plan.claim.as_millis() as i64,
        };
        let inbox = |owner: &str| {
            let client = self.clients.iter().find(|client| client.task_of(owner).is_some())?;
            Some(client.inbox().into_bytes())
        };
        let truth = outcome.and_then(|()| answers.check(&served, inbox, |owner| self.steady_since(owner).is_some()));
        (self.check, self.answers) = (check, answers);
        truth?;
        self.believers(call.lock, &after)?;
        self.seen[call.lock] = Some((self.now, after));
        Ok(reply)
    }

    /// Since when the owner of this token has been awake, connected and waiting, and the server well.
    fn steady_since(&self, owner: &str) -> Option<u64> {
        let (client, task) = owner
            .split_once(':')
            .and_then(|_| self.clients.iter().find_map(|client| Some((client, client.task_of(owner)?))))?;
        // Who was stepped over has its place back when it has asked again.
        let State::Acquiring { joined: Some(joined), heard, .. } = task.state else { return None };
        let well =
            self.now >= client.stopped_until && client.is_connected && !self.broken.contains_key(&client.connection);
        (well && heard >= client.steady_since).then_some(joined.max(client.steady_since).max(self.troubled))
    }

    /// G1 G4: whoever believes to hold the lock does.
    fn believers(&self, lock: usize, state: &Lock) -> Result<(), String> {
        for client in &self.clients {
            for task in &client.tasks {
                let State::Holding { owner, fence, tenure, proven, .. } = &task.state else { continue };
                if task.lock != lock || *proven <= self.spoiled || tenure.deadline() <= client.moment(self.now) {
                    continue;
                }
                match &state.holder {
                    Some((holder, _)) if holder == owner && state.fence == fence.get() as i64 => {}
                    other => {
                        let until = client.true_time(tenure.deadline());
                        return Err(format!(
                            "G1 G4: {owner} believes to hold fence {fence} until {until}, but {other:?} does"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The first number of a reply.
pub fn code(reply: &Reply) -> Option<i64> {
    match reply {
        Reply::List(fields) => match fields.first() {
            Some(Reply::Integer(code)) => Some(*code),
            _ => None,
        },
        _ => None,
    }
}

/// Field `at` of a reply as a number.
pub fn field(reply: &Reply, at: usize) -> u64 {
    match reply {
        Reply::List(fields) => match &fields[at] {
            Reply::Integer(field) => field.unsigned_abs(),
            Reply::Text(text) => number(text),
            other => panic!("{other:?} is not a number"),
        },
        other => panic!("{other:?} has no fields"),
    }
}

pub fn fence(reply: &Reply) -> Fence {
    field(reply, 3).to_string().parse().expect("a fence below 2^53")
}

pub fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("a number")
}
