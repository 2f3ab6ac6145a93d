//! Whether a server is old enough to know what the scripts need.

use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, Value};

/// The first version that is served.
const OLDEST: (u32, u32) = (6, 2);

/// How Redis 6.0 answers HELLO without arguments.
const UP_TO_6_0: &str = "wrong number of arguments";

/// What is the matter with a server that is too old; the detail of the error is its version.
pub(super) const TOO_OLD: &str = "redlatch needs Redis 6.2 or later";

/// Reads the reply to HELLO without arguments. Who does not tell a version is believed to have it.
pub(super) fn check(reply: &Value) -> RedisResult<()> {
    let too_old = |version: &str| RedisError::from((ErrorKind::Extension, TOO_OLD, version.to_owned()));
    match reply {
        Value::ServerError(error) if error.details().is_some_and(|words| words.starts_with(UP_TO_6_0)) => {
            Err(too_old("older"))
        }
        reply => match version(reply) {
            Some(version) if number(&version).is_some_and(|number| number < OLDEST) => Err(too_old(&version)),
            Some(_) | None => Ok(()),
        },
    }
}

fn version(reply: &Value) -> Option<String> {
    let pairs: Vec<(Value, Value)> = match reply {
        Value::Map(pairs) => pairs.clone(),
        Value::Array(values) => values.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
        _ => return None,
    };
    let text = |value: Value| String::from_redis_value(value).ok();
    pairs.into_iter().find_map(|(name, value)| if text(name)? == "version" { text(value) } else { None })
}

/// Major and minor number of `6.0.16`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: &str) -> Value {
        let text = |word: &str| Value::BulkString(word.as_bytes().to_vec());
        Value::Map(vec![
            (text("server"), text("redis")),
            (text("version"), text(version)),
            (text("proto"), Value::Int(3)),
        ])
    }

    #[test]
    fn only_what_is_older_than_6_2_is_too_old() {
        for old in ["6.0.16", "5.0.14", "6.1.240"] {
            assert!(check(&hello(old)).is_err_and(|error| error.detail() == Some(old)), "{old}");
        }
        for fit in ["6.2.0", "7.0.15", "8.1.1", "10.0.0", "255.255.255", "unknown", ""] {
            assert!(check(&hello(fit)).is_ok(), "{fit}");
        }
        assert!(check(&Value::Nil).is_ok());
    }
}
