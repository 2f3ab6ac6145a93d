//! Runs the cases on a real server and checks, besides what each step expects, what holds for every reply.

use std::{collections::HashMap, time::Duration};

use redis::Value;
use redlatch::{Name, Namespace};

use super::{
    drivers::{Driver, Field, field},
    subscriber::Subscriber,
    table::{Action, Case, Expected, Expr, Pattern, Step},
    words::{Named, named, show},
};
use crate::support::{
    Raw, Server,
    lock::{LockState, PlaceState, ticket_of},
};

/// Replies after which the key is what it was before, whatever the case.
const WITHOUT_EFFECT: [(&str, &str); 12] = [
    ("mutex/acquire", "too_late"),
    ("mutex/acquire", "spent"),
    ("mutex/extend", "lost"),
    ("mutex/force_release", "not_held"),
    ("mutex/inspect", "held"),
    ("mutex/inspect", "free"),
    ("plain/acquire", "held"),
    ("plain/acquire", "held_without_ttl"),
    ("plain/extend", "lost"),
    ("plain/release", "not_held"),
    ("value/store", "outdated"),
    ("value/store", "too_late"),
];

/// One driver on one server, case after case.
pub struct Runner<'a> {
    server: &'a Server,
    raw: Raw,
    driver: &'a mut dyn Driver,
}

impl<'a> Runner<'a> {
    pub fn new(server: &'a Server, driver: &'a mut dyn Driver) -> Self {
        Self { server, raw: Raw::connect(server), driver }
    }

    /// Runs a case on an empty server. The error names the step and says what was different.
    pub fn run(&mut self, case: &Case) -> Result<(), String> {
        // A node of a cluster has no such command.
        let _ = self.raw.run(&[b"REPLICAOF", b"NO", b"ONE"]);
        let _: String = self.raw.must(&["CONFIG", "SET", "maxmemory", "0"]);
        let _: String = self.raw.must(&["ACL", "SETUSER", "default", "allchannels"]);
        let _: String = self.raw.must(&["FLUSHALL"]);
        let first = case.steps.iter().find_map(Step::script).expect("a case calls a script");
        let mut run = Run {
            server: self.server,
            raw: &mut self.raw,
            driver: self.driver,
            name: &case.name,
            key: key_of(first, &case.name),
            variables: HashMap::new(),
            subscribers: HashMap::new(),
            owners: Vec::new(),
            remembered: None,
        };
        for step in &case.steps {
            run.step(step).map_err(|problem| format!("{}\n  {}\n  {problem}", case.claim, step.place))?;
        }
        Ok(())
    }
}

/// A case that is running.
struct Run<'a> {
    server: &'a Server,
    raw: &'a mut Raw,
    driver: &'a mut dyn Driver,
    name: &'a [u8],
    key: Vec<u8>,
    variables: HashMap<String, Vec<u8>>,
    subscribers: HashMap<String, Subscriber>,
    owners: Vec<Vec<u8>>,
    remembered: Option<String>,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Call { script, args, expected } => self.call(script, args, expected),
            Action::Redis { words, expected } => self.redis(words, expected),
            Action::Passes { ms } => {
                self.pass(*ms);
                Ok(())
            }
            Action::EarlyInASecond => {
                while self.time() % 1_000_000 > 20_000 {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(())
            }
            Action::Subscribe { channel } => {
                self.subscribers.insert(channel.clone(), Subscriber::new(self.server, channel));
                Ok(())
            }
            Action::Unsubscribe { channel } => {
                self.subscribers.remove(channel).ok_or("nobody is subscribed")?;
                while self.raw.must::<(String, u64)>(&["PUBSUB", "NUMSUB", channel]).1 > 0 {
                    std::thread::yield_now();
                }
                Ok(())
            }
            Action::Hears { channel, words } => self.hears(channel, words.as_deref()),
            Action::State { fields } => self.set_state(fields),
            Action::StateIs { field, pattern } => {
                let (now, got) = (self.time(), Field::Bytes(self.state().get(field)));
                if self.matches(pattern, &got, now)? { Ok(()) } else { Err(format!("the value is {}", show(&got))) }
            }
            Action::Place { ticket, fields } => self.put_place(*ticket, fields),
            Action::Fields { names } => {
                let fields = self.hash().unwrap_or_default();
                let got: Vec<_> = fields.iter().map(|(field, _)| field.escape_ascii().to_string()).collect();
                if got == *names { Ok(()) } else { Err(format!("the fields are {got:?}")) }
            }
            Action::Remember => {
                self.remembered = Some(self.content());
                Ok(())
            }
            Action::Unchanged => match self.content() {
                now if Some(&now) == self.remembered.as_ref() => Ok(()),
                now => Err(format!("the key changed from {:?} to {now}", self.remembered)),
            },
        }
    }

    fn call(&mut self, script: &str, args: &[Expr], expected: &Expected) -> Result<(), String> {
        self.key = key_of(script, self.name);
        let now = self.time();
        let args: Vec<Vec<u8>> = args.iter().map(|arg| self.value(arg, now)).collect::<Result<_, _>>()?;
        if let Some(owner) = args.first().filter(|owner| owner.len() > 8 && !self.owners.contains(owner)) {
            self.owners.push(owner.clone());
        }
        let before = if leaves_the_key_alone(script, expected) { Some(self.content()) } else { None };
        let kept_for_ever = self.is_kept_for_ever();
        let from = self.time();
        let answer = self.driver.call(script, &self.key, &args);
        let to = self.time();
        match (expected, answer) {
            (Expected::Error { code, .. }, Err(got)) => {
                if *code != got {
                    return Err(format!("the error is {got}"));
                }
            }
            (Expected::Reply { word, fields }, Ok(answer)) => {
                let answer = named(script, answer)?;
                if answer.word != *word {
                    return Err(format!("the reply is {answer}"));
                }
                self.check_fields(&answer, from, to)?;
                for (name, pattern) in fields {
                    let got = answer.field(name)?;
                    if let Some(got) = got
                        && !self.matches(pattern, got, now)?
                    {
                        return Err(format!("{name} does not fit in {answer}; {:?}", self.variables));
                    }
                }
            }
            (_, got) => return Err(format!("the answer is {got:?}")),
        }
        if let Some(before) = before
            && self.content() != before
        {
            return Err(format!("the key changed from {before} to {}", self.content()));
        }
        if self.is_kept_for_ever() && !kept_for_ever {
            return Err(format!("the key has no expiry now: {}", self.content()));
        }
        if script.starts_with("mutex/") {
            self.check_queue()?;
        }
        Ok(())
    }

    /// Fields have the types that their names promise, the time in the reply is the server's, and no reply tells an
    /// owner token.
    fn check_fields(&self, answer: &Named, from: i64, to: i64) -> Result<(), String> {
        for (name, got) in &answer.fields {
            let fits = match (name.as_str(), got) {
                (_, None) => true,
                ("now_us", Some(Field::Integer(now))) => (from..=to).contains(now),
                ("label", Some(Field::Bytes(_))) | ("waiters", Some(Field::List(_))) => true,
                ("label" | "waiters" | "now_us", Some(_)) => false,
                (_, Some(got)) => matches!(got, Field::Integer(0..)),
            };
            if !fits {
                return Err(format!("{name} is not what its name says in {answer} between {from} and {to}"));
            }
        }
        let told = answer.to_string();
        match self.owners.iter().find(|owner| told.contains(&String::from_utf8_lossy(owner).into_owned())) {
            Some(_) => Err(format!("the reply tells an owner token: {answer}")),
            None => Ok(()),
        }
    }

    fn key_text(&self) -> String {
        String::from_utf8(self.key.clone()).expect("the lock of a case that looks into it has a name of text")
    }

    fn state(&mut self) -> LockState {
        let key = self.key_text();
        self.raw.lock(&key)
    }

    fn set_state(&mut self, fields: &[(String, Expr)]) -> Result<(), String> {
        let (now, mut state) = (self.time(), self.state());
        for (field, expr) in fields {
            state.set(field, &self.value(expr, now)?);
        }
        self.raw.run(&[b"HSET", &self.key, b"state", &state.to_bytes()]).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn put_place(&mut self, ticket: i64, fields: &[(String, Expr)]) -> Result<(), String> {
        let (now, key) = (self.time(), self.key_text());
        let usual =
            PlaceState { window_ms: 3000, lease_ms: 3000, retention_ms: 60_000, since_us: 1, ..PlaceState::default() };
        let mut place = self.raw.place(&key, ticket).unwrap_or(usual);
        for (field, expr) in fields {
            place.set(field, &self.value(expr, now)?);
        }
        self.raw.put_place(&key, ticket, &place);
        Ok(())
    }

    fn redis(&mut self, words: &[Expr], expected: &Expected) -> Result<(), String> {
        let now = self.time();
        let words: Vec<Vec<u8>> = words.iter().map(|word| self.value(word, now)).collect::<Result<_, _>>()?;
        let reply = self.raw.run(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        match (expected, reply) {
            (Expected::Value(None), Ok(_)) => Ok(()),
            (Expected::Value(Some(pattern)), Ok(value)) => {
                let got = field(value);
                if self.matches(pattern, &got, now)? { Ok(()) } else { Err(format!("the value is {}", show(&got))) }
            }
            (Expected::Error { code, .. }, Err(error)) if error.code() == Some(code) => Ok(()),
            (_, got) => Err(format!("the answer is {got:?}")),
        }
    }

    /// Waits until the server's clock has moved on.
    fn pass(&mut self, ms: u64) {
        let until = self.time() + i64::try_from(ms).unwrap() * 1000;
        while self.time() <= until {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn hears(&mut self, channel: &str, words: Option<&[Pattern]>) -> Result<(), String> {
        // What was published before comes before this.
        let _: i64 = self.raw.must(&["PUBLISH", channel, "end"]);
        let subscriber = self.subscribers.get_mut(channel).ok_or("nobody is subscribed")?;
        let heard = subscriber.until("end");
        let Some(words) = words else {
            return if heard.is_empty() { Ok(()) } else { Err(format!("the messages are {heard:?}")) };
        };
        let [message] = &heard[..] else { return Err(format!("the messages are {heard:?}")) };
        let got: Vec<Field> = message.split(' ').map(|word| Field::Bytes(word.as_bytes().to_vec())).collect();
        let mut fits = got.len() == words.len();
        for (pattern, word) in words.iter().zip(&got) {
            fits = fits && self.matches(pattern, word, 0)?;
        }
        if fits { Ok(()) } else { Err(format!("the message is {message:?}; {:?}", self.variables)) }
    }

    fn matches(&mut self, pattern: &Pattern, got: &Field, now: i64) -> Result<bool, String> {
        let bytes = match got {
            Field::Integer(number) => number.to_string().into_bytes(),
            Field::Bytes(bytes) => bytes.clone(),
            Field::List(got) => {
                let Pattern::List(patterns) = pattern else { return Ok(false) };
                let mut fits = patterns.len() == got.len();
                for (pattern, got) in patterns.iter().zip(got) {
                    fits = fits && self.matches(pattern, got, now)?;
                }
                return Ok(fits);
            }
        };
        Ok(match pattern {
            Pattern::Is(Expr::Variable(name, 0)) if !self.variables.contains_key(name) => {
                self.variables.insert(name.clone(), bytes);
                true
            }
            Pattern::Is(expr) => self.value(expr, now)? == bytes,
            Pattern::Above(expr) => integer(&bytes)? > integer(&self.value(expr, now)?)?,
            Pattern::Within(range) => integer(&bytes).is_ok_and(|number| range.contains(&number)),
            Pattern::List(_) => false,
        })
    }

    fn value(&self, expr: &Expr, now: i64) -> Result<Vec<u8>, String> {
        Ok(match expr {
            Expr::Bytes(bytes) => bytes.clone(),
            Expr::Key => self.key.clone(),
            Expr::NowUs(offset) => (now + offset).to_string().into_bytes(),
            Expr::NowMs(offset) => (now / 1000 + offset).to_string().into_bytes(),
            Expr::Variable(name, offset) => {
                let value = self.variables.get(name).ok_or_else(|| format!("${name} has no value yet"))?;
                if *offset == 0 { value.clone() } else { (integer(value)? + offset).to_string().into_bytes() }
            }
        })
    }

    /// The server's clock in microseconds.
    fn time(&mut self) -> i64 {
        let (seconds, micros): (i64, i64) = self.raw.must(&["TIME"]);
        seconds * 1_000_000 + micros
    }

    fn is_kept_for_ever(&mut self) -> bool {
        self.raw.run(&[b"PTTL", &self.key]).unwrap() == Value::Int(-1)
    }

    /// All that the key holds, in a fixed order.
    fn content(&mut self) -> String {
        match self.hash() {
            Some(fields) => {
                let show = |bytes: &Vec<u8>| bytes.escape_ascii().to_string();
                fields.iter().map(|(field, value)| format!("{}={}; ", show(field), show(value))).collect()
            }
            None => format!("{:?}", self.raw.run(&[b"DUMP", &self.key]).unwrap()),
        }
    }

    fn hash(&mut self) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let reply = self.raw.run(&[b"HGETALL", &self.key]).ok()?;
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = redis::from_redis_value(reply).unwrap();
        fields.sort();
        Some(fields)
    }

    /// Each place belongs to a waiter and each waiter to a place between the ends of the queue; without a queue
    /// nothing of it is left.
    fn check_queue(&mut self) -> Result<(), String> {
        // A full one takes seconds to look through.
        if self.raw.run(&[b"HLEN", &self.key]).is_ok_and(|length| matches!(length, Value::Int(10_000..))) {
            return Ok(());
        }
        let Some(fields) = self.hash() else { return Ok(()) };
        let fields: HashMap<String, Vec<u8>> =
            fields.into_iter().map(|(field, value)| (field.escape_ascii().to_string(), value)).collect();
        let state = fields.get("state").map_or_else(LockState::default, |state| LockState::parse(state));
        if state.tail > 0 && state.head > state.tail && state.parked == 0 {
            return Err(format!("an empty queue stays: {state:?}"));
        }
        if state.parked >= state.head && state.tail > 0 {
            return Err(format!("nobody was stepped over: {state:?}"));
        }
        let first = if state.parked > 0 { state.parked } else { state.head };
        let range = first..=state.tail;
        let of = |ticket: i64| Some(PlaceState::parse(fields.get(&format!("place:{ticket}"))?).owner);
        for (field, value) in &fields {
            let ticket = match field.split_once(':') {
                Some(("place", ticket)) => ticket.parse().unwrap(),
                Some(("waiter", owner)) => {
                    let ticket = ticket_of(value);
                    if of(ticket).is_none_or(|waiter| waiter.escape_ascii().to_string() != owner) {
                        return Err(format!("{field} has no place of its own: {state:?}"));
                    }
                    ticket
                }
                _ => continue,
            };
            let owner = of(ticket).unwrap_or_default().escape_ascii().to_string();
            if !fields.contains_key(&format!("waiter:{owner}")) || !range.contains(&ticket) {
                return Err(format!("{field} is outside of the queue {range:?}: {state:?}"));
            }
        }
        Ok(())
    }
}

/// Whether a script promises with this reply that it wrote nothing.
fn leaves_the_key_alone(script: &str, expected: &Expected) -> bool {
    match expected {
        Expected::Error { writes, .. } => !writes,
        Expected::Reply { word, .. } => WITHOUT_EFFECT.contains(&(script, word)),
        Expected::Value(_) => false,
    }
}

/// The key that a script works on. `plain` takes the caller's own key, and a value has a key beside that of its lock.
fn key_of(script: &str, name: &[u8]) -> Vec<u8> {
    if script.starts_with("plain/") {
        return name.to_vec();
    }
    if script.starts_with("value/") {
        return [b"redlatch:v1:", name].concat();
    }
    Namespace::default().mutex_key(&Name::new(name).expect("the table has valid names"))
}

fn integer(bytes: &[u8]) -> Result<i64, String> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{} is not a number", bytes.escape_ascii()))
}
