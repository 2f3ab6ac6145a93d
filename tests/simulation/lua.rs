//! Runs the shipped scripts, byte for byte, on the simulated server.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::HashMap,
    rc::Rc,
};

use mlua::{
    BorrowedBytes, Error, FromLua, Function, HookTriggers, IntoLua, Lua, LuaString, Table, Value, Variadic, VmState,
    debug::Debug,
};

use super::server::{Reply, Server};
use crate::conformance::Sources;

/// A server that has the scripts.
pub struct Scripted {
    lua: Lua,
    scripts: HashMap<String, Function>,
    server: Rc<RefCell<Server>>,
    /// Millions of instructions of the script that runs.
    steps: Rc<Cell<u32>>,
    /// How many scripts have run.
    pub runs: u64,
}

impl Scripted {
    /// A server with these scripts.
    pub fn of(sources: &Sources) -> Self {
        let lua = Lua::new();
        // A script that never ends is a failure and not a test that never ends.
        let (long, steps) = (HookTriggers::new().every_nth_instruction(1_000_000), Rc::new(Cell::new(0)));
        let counted = Rc::clone(&steps);
        let count = move |_: &Lua, _: &Debug<'_>| {
            counted.set(counted.get() + 1);
            if counted.get() < 10 { Ok(VmState::Continue) } else { Err(Error::runtime("the script does not end")) }
        };
        lua.set_global_hook(long, count).unwrap();
        let server = Rc::new(RefCell::new(Server::default()));
        let redis = lua.create_table().unwrap();
        let on = Rc::clone(&server);
        let call = move |lua: &Lua, words: Variadic<Value>| match on.borrow_mut().command(&words_of(&words)) {
            Reply::Error(message) => Err(Error::runtime(message)),
            reply => to_lua(lua, reply),
        };
        let on = Rc::clone(&server);
        let pcall = move |lua: &Lua, words: Variadic<Value>| {
            let reply = on.borrow_mut().command(&words_of(&words));
            to_lua(lua, reply)
        };
        let error_reply = |lua: &Lua, message: String| to_lua(lua, Reply::Error(message));
        redis.set("call", lua.create_function(call).unwrap()).unwrap();
        redis.set("pcall", lua.create_function(pcall).unwrap()).unwrap();
        redis.set("error_reply", lua.create_function(error_reply).unwrap()).unwrap();
        lua.globals().set("redis", redis).unwrap();
        lua.globals().set("struct", structs(&lua).unwrap()).unwrap();
        let compile = |source: &String| lua.load(source.as_str()).set_name("script").into_function().unwrap();
        let scripts = sources.iter().map(|(name, source)| (name.to_string(), compile(source))).collect();
        Self { lua, scripts, server, steps, runs: 0 }
    }

    /// The server, between two scripts.
    pub fn server(&self) -> RefMut<'_, Server> {
        self.server.borrow_mut()
    }

    /// Starts over with an empty server.
    pub fn reset(&mut self) {
        *self.server() = Server::default();
    }

    /// Runs `script` as EVALSHA does.
    pub fn run(&mut self, script: &str, key: &[u8], args: &[&[u8]]) -> Reply {
        self.runs += 1;
        self.steps.set(0);
        self.server().begin_script();
        let globals = self.lua.globals();
        let key = self.lua.create_string(key).unwrap();
        let args = args.iter().map(|arg| self.lua.create_string(arg).unwrap());
        globals.set("KEYS", self.lua.create_sequence_from([key]).unwrap()).unwrap();
        globals.set("ARGV", self.lua.create_sequence_from(args).unwrap()).unwrap();
        match self.scripts[script].call::<Value>(()) {
            Ok(value) => from_lua(&value),
            Err(Error::CallbackError { cause, .. }) => Reply::Error(plain(&cause)),
            Err(error) => Reply::Error(plain(&error)),
        }
    }
}

/// As much of Redis' library `struct` as the scripts use: little-endian `d`, `B` and `H`.
fn structs(lua: &Lua) -> mlua::Result<Table> {
    let pack = |lua: &Lua, (format, values): (LuaString, Variadic<Value>)| {
        let mut packed = Vec::new();
        let number = |value: &Value| f64::from_lua(value.clone(), lua);
        for (kind, value) in format.as_bytes()[1..].iter().zip(values.iter()) {
            match kind {
                b'd' => packed.extend(number(value)?.to_le_bytes()),
                b'B' => packed.push(number(value)? as u8),
                b'H' => packed.extend((number(value)? as u16).to_le_bytes()),
                other => panic!("no script packs {other}"),
            }
        }
        lua.create_string(packed)
    };
    let unpack = |_: &Lua, (format, packed, from): (LuaString, LuaString, Option<usize>)| {
        let (packed, mut at) = (packed.as_bytes(), from.unwrap_or(1) - 1);
        let mut values = Variadic::new();
        for kind in &format.as_bytes()[1..] {
            let mut take = |length| {
                at += length;
                packed.get(at - length..at).ok_or_else(|| Error::runtime("data string too short"))
            };
            values.push(match kind {
                b'd' => f64::from_le_bytes(take(8)?.try_into().unwrap()),
                b'B' => f64::from(take(1)?[0]),
                b'H' => f64::from(u16::from_le_bytes(take(2)?.try_into().unwrap())),
                other => panic!("no script unpacks {other}"),
            });
        }
        Ok(values)
    };
    let table = lua.create_table()?;
    table.set("pack", lua.create_function(pack)?)?;
    table.set("unpack", lua.create_function(unpack)?)?;
    Ok(table)
}

fn plain(error: &Error) -> String {
    match error {
        Error::RuntimeError(message) => message.lines().next().unwrap_or_default().to_owned(),
        error => error.to_string(),
    }
}

/// A word of a command, as Redis makes it from what Lua passes.
enum Word {
    Text(BorrowedBytes),
    Number(String),
}

impl AsRef<[u8]> for Word {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Number(text) => text.as_bytes(),
        }
    }
}

fn words_of(words: &[Value]) -> Vec<Word> {
    let word = |word: &Value| match word {
        Value::String(text) => Word::Text(text.as_bytes()),
        Value::Integer(number) => Word::Number(number.to_string()),
        // Redis prints with %.17g. All numbers of the scripts are whole ones below 2^53; a fraction would be a fault.
        Value::Number(number) => Word::Number(number.to_string()),
        other => panic!("a command takes text and numbers, not {other:?}"),
    };
    words.iter().map(word).collect()
}

fn to_lua(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    match reply {
        Reply::Nil => Ok(Value::Boolean(false)),
        Reply::Integer(number) => number.into_lua(lua),
        Reply::Text(text) => lua.create_string(text)?.into_lua(lua),
        Reply::List(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (at, item) in items.into_iter().enumerate() {
                table.raw_set(at + 1, to_lua(lua, item)?)?;
            }
            table.into_lua(lua)
        }
        Reply::Error(message) => {
            let table = lua.create_table()?;
            table.raw_set("err", message)?;
            table.into_lua(lua)
        }
    }
}

/// What a client receives: numbers without their fraction, and nothing of a list after its first nil.
fn from_lua(value: &Value) -> Reply {
    match value {
        Value::Integer(number) => Reply::Integer(*number),
        Value::Number(number) => Reply::Integer(*number as i64),
        Value::String(text) => Reply::Text(text.as_bytes().to_vec()),
        Value::Boolean(true) => Reply::Integer(1),
        Value::Table(table) => match table.raw_get::<Option<String>>("err") {
            Ok(Some(message)) => Reply::Error(message),
            _ => Reply::List(table.sequence_values::<Value>().map(|item| from_lua(&item.unwrap())).collect()),
        },
        _ => Reply::Nil,
    }
}
