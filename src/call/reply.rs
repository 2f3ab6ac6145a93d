//! Reading the arrays that scripts answer with.

use std::time::Duration;

use redis::Value;

use crate::{Error, ErrorKind, Fence};

/// A reply: the outcome number, then fields that are taken in order. Surplus fields are ignored, so that a later
/// version of a script may add some.
pub(super) struct Reply {
    script: &'static str,
    fields: std::vec::IntoIter<Value>,
}

impl Reply {
    /// Takes the outcome number off `value`.
    pub(super) fn open(script: &'static str, value: Value) -> Result<(i64, Self), Error> {
        let Value::Array(fields) = value else { return Err(unexpected(script)) };
        let mut reply = Self { script, fields: fields.into_iter() };
        Ok((reply.integer()?, reply))
    }

    pub(super) fn integer(&mut self) -> Result<i64, Error> {
        match self.fields.next() {
            Some(Value::Int(number)) => Ok(number),
            _ => Err(unexpected(self.script)),
        }
    }

    pub(super) fn count(&mut self) -> Result<u64, Error> {
        self.integer()?.try_into().map_err(|_| unexpected(self.script))
    }

    pub(super) fn millis(&mut self) -> Result<Duration, Error> {
        self.count().map(Duration::from_millis)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        match self.fields.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(unexpected(self.script)),
        }
    }

    pub(super) fn array(&mut self) -> Result<Vec<Value>, Error> {
        match self.fields.next() {
            Some(Value::Array(values)) => Ok(values),
            _ => Err(unexpected(self.script)),
        }
    }

    pub(super) fn fence(&mut self) -> Result<Fence, Error> {
        Fence::new(self.count()?).ok_or_else(|| unexpected(self.script))
    }
}

/// Something answered that is not the script we know.
pub(super) fn unexpected(what: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("{what} got a reply that this version does not know: does a proxy sit in between?"),
    )
}
