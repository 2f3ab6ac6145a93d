//! A simulated Redis: as much of it as the scripts use, with a clock that the simulation moves.

use std::collections::HashSet;

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Integer(i64),
    Text(Vec<u8>),
    List(Vec<Reply>),
    Error(String),
}

/// Fields in order of their first write. A lock has few, so a scan is quicker than hashing.
type Hash = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Hash(Hash),
    Text(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Key {
    value: Value,
    expires_ms: Option<i64>,
}

/// The server's data and its clock.
#[derive(Default)]
pub struct Server {
    /// A handful, so a scan is quicker than hashing.
    keys: Vec<(Vec<u8>, Key)>,
    /// What TIME says, in microseconds.
    pub clock_us: i64,
    /// Refuses a script whose first write needs memory.
    pub is_full: bool,
    /// Channels that the server counts a subscriber for.
    pub subscribed: HashSet<Vec<u8>>,
    /// What was published to them since the last look, in order.
    pub published: Vec<(Vec<u8>, Vec<u8>)>,
    has_written: bool,
}

impl Server {
    /// Everything is gone, as after a restart without persistence.
    pub fn lose_data(&mut self) {
        self.keys.clear();
    }

    /// Called before each script.
    pub fn begin_script(&mut self) {
        self.has_written = false;
    }

    pub fn clock_ms(&self) -> i64 {
        self.clock_us / 1000
    }

    /// All fields of the hash `key`.
    pub fn fields<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let hash: &[(Vec<u8>, Vec<u8>)] = match self.live(key) {
            Some(Key { value: Value::Hash(hash), .. }) => hash,
            _ => &[],
        };
        hash.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Sets a field of an existing hash, as a person with redis-cli can.
    pub fn set_field(&mut self, key: &[u8], field: &[u8], value: &[u8]) {
        if let Some(Key { value: Value::Hash(hash), .. }) = self.key_mut(key) {
            put(hash, field, value);
        }
    }

    pub fn exists(&self, key: &[u8]) -> bool {
        self.live(key).is_some()
    }

    fn live(&self, key: &[u8]) -> Option<&Key> {
        self.key(key).filter(|key| key.expires_ms.is_none_or(|at| at > self.clock_ms()))
    }

    fn key(&self, name: &[u8]) -> Option<&Key> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, key)| key)
    }

    fn key_mut(&mut self, name: &[u8]) -> Option<&mut Key> {
        self.keys.iter_mut().find(|(key, _)| key == name).map(|(_, key)| key)
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.keys.len();
        self.keys.retain(|(key, _)| key != name);
        self.keys.len() < before
    }

    /// Runs one command of a script.
    pub fn command<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Reply {
        let words: Vec<&[u8]> = words.iter().map(W::as_ref).collect();
        let name = words.first().map_or("", |word| text(word));
        if matches!(name, "HSET" | "SET") && self.is_full && !self.has_written {
            return Reply::Error("OOM command not allowed when used memory > 'maxmemory'.".to_owned());
        }
        self.has_written |= matches!(name, "HSET" | "SET" | "HDEL" | "DEL" | "PEXPIRE" | "PEXPIREAT");
        if let Some(key) = words.get(1)
            && self.live(key).is_none()
        {
            self.remove(key);
        }
        match (name, &words[1..]) {
            ("TIME", []) => {
                let (seconds, micros) = (self.clock_us / 1_000_000, self.clock_us % 1_000_000);
                Reply::List(vec![number_text(seconds), number_text(micros)])
            }
            ("PUBLISH", [channel, message]) => self.publish(channel, message),
            ("HGET", [key, field]) => match self.hmget(key, &[field]) {
                Reply::List(mut values) => values.remove(0),
                error => error,
            },
            ("HMGET", [key, fields @ ..]) => self.hmget(key, fields),
            ("HSET", [key, pairs @ ..]) if pairs.len() % 2 == 0 => self.hset(key, pairs),
            ("HDEL", [key, fields @ ..]) => self.hdel(key, fields),
            ("HLEN", [key]) => Reply::Integer(self.fields(key).count() as i64),
            ("PEXPIRE", [key, ms]) => self.expire(key, ms, self.clock_ms()),
            ("PEXPIREAT", [key, at]) => self.expire(key, at, 0),
            ("GET", [key]) => match self.key(key) {
                None => Reply::Nil,
                Some(Key { value: Value::Text(value), .. }) => Reply::Text(value.clone()),
                Some(_) => wrong_type(),
            },
            ("SET", [key, value, nx, px, ms]) if nx == b"NX" && px == b"PX" => self.set(key, value, ms),
            ("PTTL", [key]) => match self.key(key) {
                None => Reply::Integer(-2),
                Some(key) => Reply::Integer(key.expires_ms.map_or(-1, |at| at - self.clock_ms())),
            },
            ("DEL", [key]) => Reply::Integer(i64::from(self.remove(key))),
            _ => Reply::Error(format!("ERR the simulation has no command {name} with {} words", words.len() - 1)),
        }
    }

    fn publish(&mut self, channel: &[u8], message: &[u8]) -> Reply {
        let reached = self.subscribed.contains(channel);
        if reached {
            self.published.push((channel.to_vec(), message.to_vec()));
        }
        Reply::Integer(i64::from(reached))
    }

    fn hmget(&self, key: &[u8], fields: &[&[u8]]) -> Reply {
        let hash: &[(Vec<u8>, Vec<u8>)] = match self.key(key) {
            None => &[],
            Some(Key { value: Value::Hash(hash), .. }) => hash,
            Some(_) => return wrong_type(),
        };
        let value = |field: &&[u8]| hash.iter().find(|(name, _)| name == field).map(|(_, value)| value.clone());
        Reply::List(fields.iter().map(|field| value(field).map_or(Reply::Nil, Reply::Text)).collect())
    }

    fn hset(&mut self, key: &[u8], pairs: &[&[u8]]) -> Reply {
        if self.key(key).is_none() {
            self.keys.push((key.to_vec(), Key { value: Value::Hash(Vec::new()), expires_ms: None }));
        }
        let Some(key) = self.key_mut(key) else { return Reply::Nil };
        let Value::Hash(hash) = &mut key.value else { return wrong_type() };
        let before = hash.len();
        pairs.chunks(2).for_each(|pair| put(hash, pair[0], pair[1]));
        Reply::Integer((hash.len() - before) as i64)
    }

    fn hdel(&mut self, key: &[u8], fields: &[&[u8]]) -> Reply {
        let Some(Key { value, .. }) = self.key_mut(key) else { return Reply::Integer(0) };
        let Value::Hash(hash) = value else { return wrong_type() };
        let before = hash.len();
        hash.retain(|(name, _)| !fields.contains(&name.as_slice()));
        let (removed, is_empty) = (before - hash.len(), hash.is_empty());
        if is_empty {
            self.remove(key);
        }
        Reply::Integer(removed as i64)
    }

    /// The key goes at `ms` after `from`.
    fn expire(&mut self, key: &[u8], ms: &[u8], from: i64) -> Reply {
        let Ok(ms) = text(ms).parse::<i64>() else {
            return Reply::Error("ERR value is not an integer or out of range".to_owned());
        };
        let at = from + ms;
        let now = self.clock_ms();
        match self.key_mut(key) {
            None => Reply::Integer(0),
            Some(_) if at <= now => {
                self.remove(key);
                Reply::Integer(1)
            }
            Some(key) => {
                key.expires_ms = Some(at);
                Reply::Integer(1)
            }
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], ms: &[u8]) -> Reply {
        if self.key(key).is_some() {
            return Reply::Nil;
        }
        let Ok(ms) = text(ms).parse::<i64>() else {
            return Reply::Error("ERR value is not an integer or out of range".to_owned());
        };
        let expires_ms = Some(self.clock_ms() + ms);
        self.keys.push((key.to_vec(), Key { value: Value::Text(value.to_vec()), expires_ms }));
        Reply::Text(b"OK".to_vec())
    }
}

fn put(hash: &mut Hash, field: &[u8], value: &[u8]) {
    match hash.iter_mut().find(|(name, _)| name == field) {
        Some((_, old)) => value.clone_into(old),
        None => hash.push((field.to_vec(), value.to_vec())),
    }
}

fn number_text(number: i64) -> Reply {
    Reply::Text(number.to_string().into_bytes())
}

fn wrong_type() -> Reply {
    Reply::Error("WRONGTYPE Operation against a key holding the wrong kind of value".to_owned())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("?")
}
