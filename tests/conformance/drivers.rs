//! The ways to call a script. Each of them answers in the same words.

use std::{collections::BTreeMap, time::Duration};

use redis::Value;
use redlatch::{
    Client, ErrorKind,
    bundle::{self, Digest},
    call::{
        Acquire, AcquireArgs, Caller, Extend, ForceRelease, Inspect, PlainAcquire, PlainExtend, PlainRelease, Release,
    },
};

use crate::support::{
    Raw, Server,
    nginx::{Config, Nginx, percent_encode},
};

/// One element of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Field>),
}

/// An outcome number or word, and the elements that follow; `None` where a driver's types do not carry one.
#[derive(Debug)]
pub struct Answer {
    pub outcome: Outcome,
    pub fields: Vec<Option<Field>>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Number(i64),
    Word(&'static str),
}

/// Runs one script and answers its reply, or the code of its error.
pub trait Driver {
    fn call(&mut self, script: &str, key: &[u8], args: &[Vec<u8>]) -> Result<Answer, String>;
}

/// Scripts by name.
pub type Sources = BTreeMap<String, String>;

/// The newest version of each script as it is shipped.
pub fn shipped() -> Sources {
    let scripts = bundle::embedded().unwrap().scripts();
    scripts
        .iter()
        .map(|script| (script.name().to_owned(), String::from_utf8(script.source().to_vec()).unwrap()))
        .collect()
}

/// EVALSHA on a connection that knows nothing of redlatch.
pub struct RawDriver {
    connection: Raw,
    sources: Sources,
}

impl RawDriver {
    pub fn new(server: &Server, sources: Sources) -> Self {
        Self { connection: Raw::connect(server), sources }
    }
}

impl Driver for RawDriver {
    fn call(&mut self, script: &str, key: &[u8], args: &[Vec<u8>]) -> Result<Answer, String> {
        let source = &self.sources[script];
        let digest = Digest::of(source.as_bytes());
        let mut words: Vec<&[u8]> = vec![b"EVALSHA", digest.as_str().as_bytes(), b"1", key];
        words.extend(args.iter().map(Vec::as_slice));
        let mut reply = self.connection.run(&words);
        if reply.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
            self.connection.run(&[b"SCRIPT", b"LOAD", source.as_bytes()]).expect("the script compiles");
            reply = self.connection.run(&words);
        }
        match reply.map_err(|error| error.code().unwrap_or("no reply").to_owned())? {
            Value::Array(values) => numbered(values.into_iter().map(field).collect()),
            other => Err(format!("a reply that is no array: {other:?}")),
        }
    }
}

pub fn field(value: Value) -> Field {
    match value {
        Value::Int(number) => Field::Integer(number),
        Value::BulkString(bytes) => Field::Bytes(bytes),
        Value::SimpleString(text) => Field::Bytes(text.into_bytes()),
        Value::Okay => Field::Bytes(b"OK".to_vec()),
        Value::Array(values) => Field::List(values.into_iter().map(field).collect()),
        Value::Nil => Field::Bytes(b"nil".to_vec()),
        other => panic!("no script and no command here answers {other:?}"),
    }
}

fn numbered(fields: Vec<Field>) -> Result<Answer, String> {
    let mut fields = fields.into_iter();
    match fields.next() {
        Some(Field::Integer(number)) => {
            Ok(Answer { outcome: Outcome::Number(number), fields: fields.map(Some).collect() })
        }
        other => Err(format!("a reply that starts with {other:?}")),
    }
}

/// The typed calls of the Rust client; what its types cannot express goes through `Caller::run`.
pub struct TypedDriver {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl TypedDriver {
    pub fn new(server: &Server) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = runtime.block_on(Client::connect(&server.url())).unwrap();
        Self { runtime, client }
    }
}

impl Driver for TypedDriver {
    fn call(&mut self, script: &str, key: &[u8], args: &[Vec<u8>]) -> Result<Answer, String> {
        let caller = self.client.caller();
        let answer = self.runtime.block_on(async {
            match typed(caller, script, key, args) {
                Some(call) => call.await,
                None => untyped(caller, script, key, args).await,
            }
        });
        answer.map_err(|error| match error.code() {
            // The kinds that a server's refusal must never become.
            Some(_) if matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Lost | ErrorKind::Protocol) => {
                format!("the wrong kind: {error:?}")
            }
            Some(code) => code.to_owned(),
            None => format!("{error:?}"),
        })
    }
}

async fn untyped(caller: &Caller, script: &str, key: &[u8], args: &[Vec<u8>]) -> Result<Answer, redlatch::Error> {
    let script = bundle::embedded().unwrap().get(script).unwrap();
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    match caller.run(script, key, &args).await? {
        Value::Array(values) => Ok(numbered(values.into_iter().map(field).collect()).unwrap()),
        other => panic!("a reply that is no array: {other:?}"),
    }
}

/// The module `resty.redlatch` behind HTTP.
pub struct NginxDriver {
    nginx: Nginx,
}

impl NginxDriver {
    /// `connection`: the option of that name, "worker" or "pool".
    pub fn new(server: &Server, connection: &str) -> Self {
        Self { nginx: Config::redis(server).options(&format!("connection = \"{connection}\"")).start() }
    }

    /// The same by the URL of the server.
    pub fn by_url(url: &str, connection: &str) -> Self {
        Self { nginx: Config::new(&format!("url = \"{url}\", connection = \"{connection}\"")).start() }
    }
}

impl Driver for NginxDriver {
    fn call(&mut self, script: &str, key: &[u8], args: &[Vec<u8>]) -> Result<Answer, String> {
        let mut path = format!("/call?op=raw&script={script}&key={}", percent_encode(key));
        args.iter().for_each(|arg| path += &format!("&a={}", percent_encode(arg)));
        let (status, body) = self.nginx.get(&path);
        assert_eq!(status, 200, "{path}: {body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        match (&answer["reply"], answer["error"].as_str(), answer["kind"].as_str()) {
            (serde_json::Value::Array(fields), None, None) => numbered(fields.iter().map(json_field).collect()),
            // "redis: CODE text (what to do)"
            (_, Some(error), Some("refused")) => {
                Err(error.strip_prefix("redis: ").and_then(|text| text.split(' ').next()).unwrap_or(error).to_owned())
            }
            _ => Err(body),
        }
    }
}

fn json_field(value: &serde_json::Value) -> Field {
    match value {
        serde_json::Value::Number(number) => Field::Integer(number.as_i64().expect("replies have integers")),
        serde_json::Value::String(text) => Field::Bytes(text.clone().into_bytes()),
        serde_json::Value::Array(values) => Field::List(values.iter().map(json_field).collect()),
        other => panic!("no script answers {other}"),
    }
}

type Pending<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Answer, redlatch::Error>> + 'a>>;

/// The typed call, if the types can say it.
fn typed<'a>(caller: &'a Caller, script: &str, key: &'a [u8], args: &'a [Vec<u8>]) -> Option<Pending<'a>> {
    Some(match (script, args) {
        ("mutex/acquire", [owner, ttl, not_after, floor, retention, label, waiting @ ..]) => {
            let [queue, claim, inbox, here] = match waiting {
                [] => [b"0".as_slice(), b"1", b"", b"0"],
                // A try of the client sends no more than this.
                [queue, ..] if queue == b"0" => return None,
                [queue, claim, inbox, here] => [queue, claim, inbox, here].map(Vec::as_slice),
                _ => return None,
            };
            let args = AcquireArgs {
                owner: text(owner)?,
                ttl: millis(ttl)?,
                queue: millis(queue)?,
                claim: millis(claim)?,
                not_after_us: Some(number(not_after)?).filter(|&us| us > 0),
                fence_floor: Some(text(floor)?.parse().ok()?),
                retention: millis(retention)?,
                label: text(label)?,
                inbox: text(inbox)?,
                inbox_here: match here {
                    b"0" => false,
                    b"1" => true,
                    _ => return None,
                },
            };
            Box::pin(async move { caller.acquire(key, &args).await.map(acquire) })
        }
        ("mutex/extend", [owner, ttl, retention]) => {
            let (owner, ttl, retention) = (text(owner)?, millis(ttl)?, millis(retention)?);
            Box::pin(async move { caller.extend(key, owner, ttl, retention).await.map(extend) })
        }
        ("mutex/release", [owner]) => {
            let owner = text(owner)?;
            Box::pin(async move { caller.release(key, owner).await.map(release) })
        }
        ("mutex/force_release", []) => Box::pin(async move { caller.force_release(key).await.map(force_release) }),
        ("mutex/inspect", [max_waiters]) => {
            let max_waiters = number(max_waiters)?.try_into().ok()?;
            Box::pin(async move { caller.inspect(key, max_waiters).await.map(inspect) })
        }
        ("plain/acquire", [owner, ttl]) => {
            let ttl = millis(ttl)?;
            Box::pin(async move { caller.plain_acquire(key, owner, ttl).await.map(plain_acquire) })
        }
        ("plain/extend", [owner, ttl]) => {
            let ttl = millis(ttl)?;
            Box::pin(async move { caller.plain_extend(key, owner, ttl).await.map(plain_extend) })
        }
        ("plain/release", [owner]) => {
            Box::pin(async move { caller.plain_release(key, owner).await.map(plain_release) })
        }
        _ => return None,
    })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn number(bytes: &[u8]) -> Option<u64> {
    let text = text(bytes)?;
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

fn millis(bytes: &[u8]) -> Option<Duration> {
    number(bytes).map(Duration::from_millis)
}

fn ms(duration: Duration) -> Option<Field> {
    Some(Field::Integer(duration.as_millis().try_into().unwrap()))
}

fn int(number: u64) -> Option<Field> {
    Some(Field::Integer(number.try_into().unwrap()))
}

fn fence(fence: redlatch::Fence) -> Option<Field> {
    int(fence.get())
}

fn word(word: &'static str, fields: Vec<Option<Field>>) -> Answer {
    Answer { outcome: Outcome::Word(word), fields }
}

fn acquire(reply: Acquire) -> Answer {
    match reply {
        Acquire::Granted { remaining, now_us, fence: token } => {
            word("granted", vec![ms(remaining), int(now_us), fence(token)])
        }
        Acquire::Queued { remaining, now_us, position } => {
            word("queued", vec![ms(remaining), int(now_us), int(position)])
        }
        Acquire::Held { remaining, now_us } => word("held", vec![ms(remaining), int(now_us)]),
        Acquire::TooLate { remaining, now_us } => word("too_late", vec![ms(remaining), int(now_us)]),
        Acquire::Spent { remaining, now_us } => word("spent", vec![ms(remaining), int(now_us)]),
        other => panic!("a reply that no header has: {other:?}"),
    }
}

fn extend(reply: Extend) -> Answer {
    match reply {
        Extend::Extended { remaining, now_us, fence: token } => {
            word("extended", vec![ms(remaining), int(now_us), fence(token)])
        }
        Extend::Lost { remaining, now_us } => word("lost", vec![ms(remaining), int(now_us)]),
        other => panic!("a reply that no header has: {other:?}"),
    }
}

fn release(reply: Release) -> Answer {
    let (name, pending, now_us) = match reply {
        Release::Released { pending, now_us } => ("released", pending, now_us),
        Release::HandedOff { pending, now_us } => ("handed_off", pending, now_us),
        Release::Left { pending, now_us } => ("left", pending, now_us),
        Release::ReleasedBefore { pending, now_us } => ("released_before", pending, now_us),
        Release::NotHeld { pending, now_us } => ("not_held", pending, now_us),
        other => panic!("a reply that no header has: {other:?}"),
    };
    word(name, vec![int(pending.into()), int(now_us)])
}

fn force_release(reply: ForceRelease) -> Answer {
    // The type leaves out pending and now_us.
    match reply {
        ForceRelease::Released { fence: token, .. } => word("released", vec![None, None, fence(token)]),
        ForceRelease::HandedOff { fence: token, .. } => word("handed_off", vec![None, None, fence(token)]),
        ForceRelease::NotHeld { fence: token, .. } => word("not_held", vec![None, None, fence(token)]),
        other => panic!("a reply that no header has: {other:?}"),
    }
}

fn inspect(reply: Inspect) -> Answer {
    let waiters = reply.waiters.into_iter().map(|place| {
        let fields = [int(place.ticket), ms(place.waited), ms(place.window), Some(Field::Bytes(place.label))];
        Field::List(fields.into_iter().flatten().collect())
    });
    word(
        if reply.held { "held" } else { "free" },
        vec![
            ms(reply.remaining),
            int(reply.now_us),
            fence(reply.fence),
            Some(Field::Bytes(reply.label)),
            int(reply.since_us),
            int(reply.places),
            Some(Field::List(waiters.collect())),
        ],
    )
}

fn plain_acquire(reply: PlainAcquire) -> Answer {
    match reply {
        PlainAcquire::Granted { remaining } => word("granted", vec![ms(remaining)]),
        PlainAcquire::Held { remaining } => word("held", vec![ms(remaining)]),
        PlainAcquire::HeldWithoutTtl => word("held_without_ttl", vec![None]),
        other => panic!("a reply that no header has: {other:?}"),
    }
}

fn plain_extend(reply: PlainExtend) -> Answer {
    match reply {
        PlainExtend::Extended { remaining } => word("extended", vec![ms(remaining)]),
        PlainExtend::Lost => word("lost", vec![None]),
        other => panic!("a reply that no header has: {other:?}"),
    }
}

fn plain_release(reply: PlainRelease) -> Answer {
    match reply {
        PlainRelease::Released => word("released", vec![]),
        PlainRelease::NotHeld => word("not_held", vec![]),
        other => panic!("a reply that no header has: {other:?}"),
    }
}
