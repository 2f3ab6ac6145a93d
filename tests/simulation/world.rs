//! One run: a server, its clients and the network between them, on one true clock in microseconds.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    rc::Rc,
    time::Duration,
};

use redlatch::{
    Fence,
    protocol::{Moment, Terms},
};

use super::{
    check::{Check, Lock, Verb},
    client::{Client, Open, State, Task},
    lua::Scripted,
    server::Reply,
};

pub const RETENTION: Duration = Duration::from_secs(60);
/// Kinds of faults that are counted.
pub const FAULTS: usize = 16;
const SECOND: u64 = 1_000_000;
/// The longest that one message travels.
const SLOWEST: u64 = SECOND / 5;

/// What the faults of a run have done, so that none of them can be missing unnoticed.
pub type Bites = HashMap<&'static str, u64>;

/// A script call on its way.
pub struct Call {
    pub verb: Verb,
    pub lock: usize,
    pub owner: String,
    pub args: Vec<Vec<u8>>,
}

/// What happens at a moment. Numbers of connections, questions and timers are never used twice in a run.
enum Event {
    Arrive { connection: u64, client: usize, task: usize, question: u64, call: Rc<Call> },
    Reply { connection: u64, client: usize, task: usize, question: u64, call: Rc<Call>, reply: Reply },
    Message { connection: u64, client: usize, payload: Vec<u8> },
    GiveUp { client: usize, task: usize, question: u64 },
    Timer { client: usize, task: usize, timer: u64 },
    Cancel { client: usize, task: usize, owner: String },
    Noticed { client: usize, connection: u64 },
    Connected { client: usize, connection: u64 },
    Forgotten { channel: Vec<u8>, connection: u64 },
    Fault,
}

impl Event {
    /// The process in which it happens, which may be stopped.
    fn process(&self) -> Option<usize> {
        match *self {
            Self::Reply { client, .. }
            | Self::Message { client, .. }
            | Self::GiveUp { client, .. }
            | Self::Timer { client, .. }
            | Self::Cancel { client, .. }
            | Self::Noticed { client, .. }
            | Self::Connected { client, .. } => Some(client),
            Self::Arrive { .. } | Self::Forgotten { .. } | Self::Fault => None,
        }
    }
}

struct Entry {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// How this run is: drawn from the seed.
struct Plan {
    delay: u64,
    claim: Duration,
    timeout: Duration,
    ttls: [Duration; 3],
    /// Mean time between two faults, in microseconds.
    calm: u64,
}

pub struct World<'a> {
    pub rng: fastrand::Rng,
    pub now: u64,
    pub clients: Vec<Client>,
    pub bites: Bites,
    /// What happened, when somebody wants to read it.
    pub trace: Option<Vec<String>>,
    pub scripted: &'a mut Scripted,
    plan: Plan,
    keys: Vec<Vec<u8>>,
    /// Each lock after the last script that ran on it, and when that was.
    seen: Vec<Option<(u64, Lock)>>,
    events: BinaryHeap<Reverse<Entry>>,
    serial: u64,
    is_draining: bool,
    check: Check,
    /// Connections that broke, and until when the server still read from them.
    broken: HashMap<u64, u64>,
    /// Which connections the server counts as subscribers.
    subscribed: Vec<(Vec<u8>, u64)>,
    server_base: i64,
    server_fast: i64,
    stepped_back: u64,
    server_busy_until: u64,
    has_no_scripts: bool,
    /// When data was lost or the server's clock stepped forward: leases from before may have ended early.
    pub spoiled: u64,
    /// When the server last was in trouble.
    troubled: u64,
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

    /// After some time without clients a newcomer has each lock at once, and then nothing is left of the queue.
    fn leaves_nothing(&mut self) -> Result<(), String> {
        // Windows are ends by the server's clock.
        self.now += 10 * SECOND + self.stepped_back;
        for lock in 0..self.keys.len() {
            let (owner, ttl) = (format!("newcomer:{lock}"), Duration::from_secs(1));
            let acquire = self.acquire_call(lock, &owner, ttl, (Duration::ZERO, 0, 0), "");
            let reply = self.serve(&acquire)?;
            if code(&reply) != Some(1) {
                return Err(format!("G8: a newcomer after the end got {reply:?}"));
            }
            self.serve(&Call { verb: Verb::Release, lock, args: vec![owner.clone().into_bytes()], owner })?;
            let server = self.scripted.server();
            let left: Vec<String> = server.fields(&self.keys[lock]).map(|(field, _)| field.to_owned()).collect();
            if left.iter().any(|field| field.contains(':') || field == "tail") {
                return Err(format!("G8: {left:?} is left after the end"));
            }
        }
        self.now += 4 * RETENTION.as_micros() as u64;
        self.scripted.server().clock_us = self.server_clock();
        for key in &self.keys {
            if self.scripted.server().exists(key) {
                return Err("G8: the key outlives the retention of its fence".to_owned());
            }
        }
        Ok(())
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

    fn at(&mut self, after: u64, event: Event) {
        let order = self.number();
        self.events.push(Reverse(Entry { at: self.now + after, order, event }));
    }

    fn bite(&mut self, fault: &'static str) {
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
        let numbers = [ttl.as_millis(), window.as_millis(), self.plan.claim.as_millis()];
        let mut args = vec![owner.to_owned()];
        args.extend(numbers.map(|number| number.to_string()));
        args.extend([not_after_us.to_string(), floor.to_string(), RETENTION.as_millis().to_string()]);
        args.extend(["who".to_owned(), inbox.to_owned(), u8::from(!inbox.is_empty()).to_string()]);
        let args = args.into_iter().map(String::into_bytes).collect();
        Call { verb: Verb::Acquire, lock, owner: owner.to_owned(), args }
    }

    /// Sends `call`; its answer, or that none came within `limit`, is reported to the task.
    pub fn send(&mut self, client: usize, task: usize, call: Call, limit: Duration) {
        let question = self.number();
        let process = &mut self.clients[client];
        let sent = process.moment(self.now);
        let ttl = Duration::from_millis(call.args.get(1).map_or(0, |ttl| number(ttl)));
        process.tasks[task].question = Some(Open { number: question, sent, sent_us: self.now, ttl });
        self.note(|| format!("c{client}/{task} asks {question}: {:?} {}", call.verb, call.owner));
        let limit = limit.as_micros() as u64;
        if !self.clients[client].is_connected {
            let after = self.rng.u64(1..=limit.max(1));
            return self.at(after, Event::GiveUp { client, task, question });
        }
        self.transmit(client, task, question, Rc::new(call));
        self.at(limit, Event::GiveUp { client, task, question });
    }

    fn transmit(&mut self, client: usize, task: usize, question: u64, call: Rc<Call>) {
        let delay = self.delay();
        let process = &mut self.clients[client];
        process.to_server = process.to_server.max(self.now + delay) + 1;
        let (after, connection) = (process.to_server - self.now, process.connection);
        if self.rng.u32(..500) == 0 && !self.is_draining {
            self.bite("repeated requests");
            let late = after + self.rng.u64(..SECOND);
            self.at(late, Event::Arrive { connection: 0, client, task, question: 0, call: Rc::clone(&call) });
        }
        self.at(after, Event::Arrive { connection, client, task, question, call });
    }

    fn delay(&mut self) -> u64 {
        if self.rng.u32(..300) == 0 && !self.is_draining {
            self.bite("slow messages");
            return self.rng.u64(..SLOWEST);
        }
        self.plan.delay + self.rng.u64(..=self.plan.delay)
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

    /// Sends what the server answers, unless the connection is gone.
    fn answer(&mut self, connection: u64, client: usize, task: usize, question: u64, call: Rc<Call>, reply: Reply) {
        if connection != self.clients[client].connection || self.broken.contains_key(&connection) {
            return;
        }
        let after = self.way_back(client);
        self.at(after, Event::Reply { connection, client, task, question, call, reply });
    }

    /// How long the next bytes from the server take to a client: never less than those before them.
    fn way_back(&mut self, client: usize) -> u64 {
        let delay = self.delay();
        let process = &mut self.clients[client];
        process.from_server = process.from_server.max(self.now + delay) + 1;
        process.from_server - self.now
    }

    /// Sends what the last script published.
    fn deliver(&mut self) {
        let published = std::mem::take(&mut self.scripted.server().published);
        for (channel, payload) in published {
            let reached = self.clients.iter().position(|client| client.inbox().as_bytes() == channel);
            let Some(client) = reached else { continue };
            let connection = self.clients[client].connection;
            if self.broken.contains_key(&connection) || !self.clients[client].is_connected {
                self.bite("messages to broken connections");
                continue;
            }
            if self.rng.u32(..200) == 0 && !self.is_draining {
                self.bite("lost messages");
                continue;
            }
            let twice = self.rng.u32(..200) == 0;
            for _ in 0..=u8::from(twice) {
                let after = self.way_back(client);
                self.at(after, Event::Message { connection, client, payload: payload.clone() });
            }
        }
    }

    fn subscribe(&mut self, channel: Vec<u8>, connection: u64) {
        self.scripted.server().subscribed.insert(channel.clone());
        self.subscribed.push((channel, connection));
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
        let args: Vec<&[u8]> = call.args.iter().map(Vec::as_slice).collect();
        let reply = self.scripted.run(call.verb.script(), &key, &args);
        let after = Lock::read(&self.scripted.server(), &key);
        self.note(|| format!("server answers {:?} by {}: {reply:?}, {after:?}", call.verb, call.owner));
        if let Reply::Error(text) = &reply
            && !text.starts_with("OOM")
        {
            return Err(format!("{:?} by {} failed: {text}", call.verb, call.owner));
        }
        let mut check = std::mem::take(&mut self.check);
        let steady = |owner: &str| self.steady_since(owner).map(|since| (self.now.saturating_sub(since) / 1000) as i64);
        let within = (self.plan.claim.as_micros() as u64 / 3 + 4 * SLOWEST) as i64 / 1000 + 50;
        let outcome = check.call(&key, (&before, &after), (call.verb, &call.owner), clock / 1000, within, steady);
        self.check = check;
        outcome?;
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

    fn fault(&mut self) -> Result<(), String> {
        if self.scripted.server().is_full {
            self.scripted.server().is_full = false;
            self.troubled = self.now;
            return Ok(());
        }
        let client = self.rng.usize(..self.clients.len());
        match self.rng.u32(..100) {
            0..35 => self.break_connection(client),
            35..50 => {
                self.bite("stopped processes");
                let longest = [20_000, 2 * SECOND][self.rng.usize(..2)];
                let until = self.now + self.rng.u64(..longest);
                let process = &mut self.clients[client];
                process.stopped_until = process.stopped_until.max(until);
                process.steady_since = process.steady_since.max(until);
            }
            50..62 => self.crash(client)?,
            62..72 => {
                self.bite("stops of the server");
                let longest = [20_000, SECOND][self.rng.usize(..2)];
                self.server_busy_until = self.now + self.rng.u64(..longest);
                self.troubled = self.server_busy_until + SLOWEST;
            }
            72..80 => self.has_no_scripts = true,
            80..86 => {
                self.bite("losses of all data");
                self.check.data_is_lost();
                self.scripted.server().lose_data();
                self.seen.fill(None);
                (self.spoiled, self.troubled) = (self.now, self.now);
                self.note(|| "the server loses all data".to_owned());
            }
            86..90 => {
                self.bite("steps back of the server's clock");
                let step = self.rng.u64(..5 * SECOND);
                self.stepped_back += step;
                self.server_base -= step as i64;
                self.troubled = self.now + 10 * SECOND;
                self.note(|| "the server's clock steps back".to_owned());
            }
            90..94 => {
                self.bite("steps ahead of the server's clock");
                self.server_base += self.rng.i64(0..5_000_000);
                (self.spoiled, self.troubled) = (self.now, self.now);
                self.note(|| "the server's clock steps ahead".to_owned());
            }
            _ => {
                self.bite("full memory");
                self.scripted.server().is_full = true;
                self.troubled = u64::MAX;
            }
        }
        Ok(())
    }

    /// The connection carries nothing any more. The server may read what it has, and count it for a while yet; the
    /// client notices some time later.
    fn break_connection(&mut self, client: usize) {
        let connection = self.clients[client].connection;
        if !self.clients[client].is_connected || self.broken.contains_key(&connection) {
            return;
        }
        self.bite("broken connections");
        self.note(|| format!("the connection of c{client} breaks"));
        self.broken.insert(connection, self.now + self.rng.u64(..=2 * self.plan.delay));
        let channel = self.clients[client].inbox().into_bytes();
        let ghost = if self.rng.bool() { self.plan.delay } else { self.rng.u64(..5 * SECOND) };
        self.at(ghost, Event::Forgotten { channel, connection });
        let notice = if self.rng.bool() { self.plan.delay } else { self.rng.u64(..SECOND) };
        self.at(notice, Event::Noticed { client, connection });
        self.clients[client].steady_since = u64::MAX;
    }

    /// The client learns that its connection is broken, and makes another.
    fn disconnect(&mut self, client: usize) -> Result<(), String> {
        self.note(|| format!("c{client} notices that its connection broke"));
        let connection = self.number();
        self.clients[client].is_connected = false;
        self.clients[client].connection = connection;
        let after = 10_000 + self.rng.u64(..SECOND / 2);
        self.at(after, Event::Connected { client, connection });
        for task in 0..self.clients[client].tasks.len() {
            if let Some(open) = self.clients[client].tasks[task].question.take() {
                self.unanswered(client, task, open);
            }
            self.disconnected(client, task);
            self.drive(client, task)?;
        }
        Ok(())
    }

    /// A process dies and another takes its place.
    fn crash(&mut self, client: usize) -> Result<(), String> {
        self.bite("deaths");
        self.note(|| format!("c{client} dies"));
        self.break_connection(client);
        let tasks = self.clients[client].tasks.iter().map(|_| Task::default()).collect();
        let connection = self.number();
        let id = format!("d{connection}");
        let process = Client::new(id, connection, &mut self.rng, self.now, tasks);
        self.subscribe(process.inbox().into_bytes(), connection);
        self.clients[client] = process;
        for task in 0..self.clients[client].tasks.len() {
            self.drive(client, task)?;
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
