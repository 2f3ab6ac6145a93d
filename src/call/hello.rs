//! What a server says of itself to HELLO: whether it knows what the scripts need, and whether it is a sentinel.

use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, Value};

/// The first version that is served.
const OLDEST: (u32, u32) = (6, 2);

/// How Redis 6.0 answers HELLO without arguments.
const UP_TO_6_0: &str = "wrong number of arguments";

/// What is the matter with a server that is too old; the detail of the error is its version.
pub(super) const TOO_OLD: &str = "redlatch needs Redis 6.2 or later";

const SENTINEL: &str = "a sentinel answers there; for a sentinel write redis+sentinel://HOST[:PORT]/NAME";

/// The reply to HELLO without arguments. Who does not tell something is believed to be fit.
pub(super) struct Hello(pub(super) Value);

impl Hello {
    /// Refuses a server that is too old.
    pub(super) fn check_age(&self) -> RedisResult<()> {
        let too_old = |version: &str| RedisError::from((ErrorKind::Extension, TOO_OLD, version.to_owned()));
        if let Value::ServerError(error) = &self.0
            && error.details().is_some_and(|words| words.starts_with(UP_TO_6_0))
        {
            return Err(too_old("older"));
        }
        match self.field("version") {
            Some(version) if number(&version).is_some_and(|number| number < OLDEST) => Err(too_old(&version)),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a sentinel, which runs no scripts.
    pub(super) fn check_mode(&self) -> RedisResult<()> {
        match self.field("mode").as_deref() {
            Some("sentinel") => {
                Err((ErrorKind::InvalidClientConfig, "another kind of server", SENTINEL.to_owned()).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn field(&self, name: &str) -> Option<String> {
        let pairs: Vec<(&Value, &Value)> = match &self.0 {
            Value::Map(pairs) => pairs.iter().map(|(name, value)| (name, value)).collect(),
            Value::Array(values) => values.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect(),
            _ => return None,
        };
        let text = |value: &Value| String::from_redis_value_ref(value).ok();
        pairs.into_iter().find(|(key, _)| text(key).as_deref() == Some(name)).and_then(|(_, value)| text(value))
    }
}

/// Major and minor number of `6.0.16`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: &str, mode: &str) -> [Hello; 2] {
        let text = |word: &str| Value::BulkString(word.as_bytes().to_vec());
        let fields = [
            (text("server"), text("redis")),
            (text("version"), text(version)),
            (text("proto"), Value::Int(3)),
            (text("mode"), text(mode)),
        ];
        let flat = fields.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect();
        [Hello(Value::Map(fields.into())), Hello(Value::Array(flat))]
    }

    #[test]
    fn only_what_is_older_than_6_2_is_too_old() {
        for old in ["6.0.16", "5.0.14", "6.1.240"] {
            let refused = |hello: Hello| {
                hello.check_age().is_err_and(|error| error.detail() == Some(old) && hello.check_mode().is_ok())
            };
            assert!(hello(old, "standalone").into_iter().all(refused), "{old}");
        }
        for fit in ["6.2.0", "7.0.15", "8.1.1", "10.0.0", "255.255.255", "unknown", ""] {
            assert!(hello(fit, "standalone").iter().all(|hello| hello.check_age().is_ok()), "{fit}");
        }
        assert!(Hello(Value::Nil).check_age().is_ok());
    }

    #[test]
    fn only_a_sentinel_is_one() {
        for (mode, is_sentinel) in [("sentinel", true), ("standalone", false), ("cluster", false), ("", false)] {
            let refused = hello("7.0.15", mode).iter().all(|hello| hello.check_mode().is_err());
            assert_eq!(refused, is_sentinel, "{mode}");
        }
        assert!(Hello(Value::Nil).check_mode().is_ok());
    }
}
