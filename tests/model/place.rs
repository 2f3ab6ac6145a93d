//! Where the lock of a sequence lives.

use redis::Value;
use redlatch::bundle;

use crate::{
    conformance::Sources,
    simulation::{Reply, Scripted},
    support::{Raw, Server, lock::LockState},
};

const KEY: &str = "redlatch:m1:model";

/// The lock between two calls.
#[derive(Debug, Default)]
pub struct State {
    pub holder: Option<String>,
    pub fence: u64,
    /// What is left of the lease by its deadline.
    pub left_ms: i64,
    pub waiters: Vec<String>,
}

pub trait Place {
    fn clear(&mut self);
    /// The reply of a script.
    fn run(&mut self, script: &str, args: &[&str]) -> Value;
    fn field(&mut self, field: &str) -> Option<Vec<u8>>;
    fn set_field(&mut self, field: &str, value: &[u8]);

    fn lock(&mut self) -> LockState {
        self.field("state").map_or_else(LockState::default, |state| LockState::parse(&state))
    }

    /// The word of a reply, and the fence in it.
    fn script(&mut self, name: &str, args: &[&str]) -> (String, Option<u64>) {
        let Value::Array(fields) = self.run(name, args) else { panic!("not an array") };
        let Value::Int(code) = fields[0] else { panic!("not a number") };
        let script = bundle::embedded().unwrap().get(name).unwrap();
        let reply = script.header().replies.iter().find(|reply| reply.code == code).unwrap();
        let at = reply.fields.iter().position(|field| field == "fence");
        let fence = at.map(|at| redis::from_redis_value(fields[at + 1].clone()).unwrap());
        (reply.word.clone(), fence)
    }

    /// The lock as `mutex/inspect` tells it.
    fn look(&mut self) -> State {
        let Value::Array(mut fields) = self.run("mutex/inspect", &["1000"]) else { panic!("not an array") };
        let held = fields.remove(0) == Value::Int(1);
        type Reply = (i64, i64, u64, String, i64, i64, Vec<(i64, i64, i64, String)>);
        let (_, now_us, fence, label, _, _, waiters): Reply = redis::from_redis_value(Value::Array(fields)).unwrap();
        let lock = self.lock();
        State {
            holder: held.then_some(label),
            fence,
            left_ms: lock.deadline_ms - lock.behind_ms - now_us / 1000,
            waiters: waiters.into_iter().map(|(_, _, _, label)| label).collect(),
        }
    }
}

pub struct Real {
    raw: Raw,
}

impl Real {
    pub fn new(server: &Server) -> Self {
        Self { raw: Raw::connect(server) }
    }
}

impl Place for Real {
    fn clear(&mut self) {
        let _: String = self.raw.must(&["FLUSHALL"]);
    }

    fn run(&mut self, script: &str, args: &[&str]) -> Value {
        let script = bundle::embedded().unwrap().get(script).unwrap();
        let mut words: Vec<&[u8]> = vec![b"EVAL", script.source(), b"1", KEY.as_bytes()];
        words.extend(args.iter().map(|arg| arg.as_bytes()));
        self.raw.run(&words).unwrap()
    }

    fn field(&mut self, field: &str) -> Option<Vec<u8>> {
        self.raw.must(&["HGET", KEY, field])
    }

    fn set_field(&mut self, field: &str, value: &[u8]) {
        self.raw.run(&[b"HSET", KEY.as_bytes(), field.as_bytes(), value]).unwrap();
    }
}

pub struct Simulated {
    scripted: Scripted,
}

impl Simulated {
    pub fn new(sources: &Sources) -> Self {
        Self { scripted: Scripted::of(sources) }
    }
}

impl Place for Simulated {
    fn clear(&mut self) {
        self.scripted.reset();
        self.scripted.server().clock_us = 1_700_000_000_000_000;
    }

    fn run(&mut self, script: &str, args: &[&str]) -> Value {
        self.scripted.server().clock_us += 10;
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        value(self.scripted.run(script, KEY.as_bytes(), &args))
    }

    fn field(&mut self, field: &str) -> Option<Vec<u8>> {
        let server = self.scripted.server();
        server.fields(KEY.as_bytes()).find(|(name, _)| *name == field.as_bytes()).map(|(_, value)| value.to_owned())
    }

    fn set_field(&mut self, field: &str, value: &[u8]) {
        self.scripted.server().set_field(KEY.as_bytes(), field.as_bytes(), value);
    }
}

/// As a client would read it.
fn value(reply: Reply) -> Value {
    match reply {
        Reply::Nil => Value::Nil,
        Reply::Integer(number) => Value::Int(number),
        Reply::Text(text) => Value::BulkString(text),
        Reply::List(items) => Value::Array(items.into_iter().map(value).collect()),
        Reply::Error(message) => panic!("{message}"),
    }
}
