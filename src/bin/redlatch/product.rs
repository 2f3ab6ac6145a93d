//! Which product a server is and of which version, and what follows from that.

use std::{collections::HashMap, fmt, str::FromStr};

use redis::Value;
use redlatch::{Error, call::Caller};

use crate::ask::ask;

/// Products that say so in a field of INFO that is called after them, beside the version of Redis that they stand for.
const FORKS: [(&str, &str); 6] = [
    ("valkey", "Valkey"),
    ("redict", "Redict"),
    ("keydb", "KeyDB"),
    ("dragonfly", "Dragonfly"),
    ("kvrocks", "Kvrocks"),
    ("garnet", "Garnet"),
];

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// As its makers write it.
    pub name: &'static str,
    /// The product's own version.
    pub version: Version,
}

/// What a server says of itself to HELLO, which every user may send.
pub struct Hello {
    /// The server, unless it does not say.
    pub product: Option<Product>,
    /// Whether messages can come beside replies on this connection.
    pub pushes: bool,
}

/// A version as it is written; its numbers can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    text: String,
    numbers: [u32; 3],
}

impl Product {
    /// What the fields of INFO say.
    pub fn of_info(info: &HashMap<String, String>) -> Option<Self> {
        let named = |key: &str| info.get("server_name").is_some_and(|name| name == key);
        let is_keydb = info.contains_key("mvcc_depth")
            || info.get("executable").is_some_and(|path| path.rsplit('/').next() == Some("keydb-server"));
        let redis = info.get("redis_version");
        let fork = FORKS.iter().find_map(|(key, name)| {
            let own = info.get(&format!("{key}_version"));
            let it_is = own.is_some() || named(key) || *key == "keydb" && is_keydb;
            it_is.then_some((*name, own.or(redis)))
        });
        let (name, version) = fork.unwrap_or(("Redis", redis));
        Some(Self { name, version: version?.parse().ok()? })
    }

    fn of_fields(fields: &HashMap<String, Value>) -> Option<Self> {
        let text = |name: &str| redis::from_redis_value::<String>(fields.get(name)?.clone()).ok();
        let server = text("server")?;
        let name = FORKS.iter().find(|(key, _)| *key == server).map_or("Redis", |(_, name)| name);
        Some(Self { name, version: text("version")?.parse().ok()? })
    }

    /// Whether a script that came by EVAL goes away again when enough others come by EVAL after it.
    pub fn forgets_evals(&self) -> bool {
        self.version.is_from(match self.name {
            "Valkey" => [8, 0, 0],
            "Redict" => [7, 3, 0],
            "KeyDB" => return false,
            _ => [7, 4, 0],
        })
    }

    /// Whether SCRIPT LOAD makes a script stay that came by EVAL first.
    pub fn pins_what_is_there(&self) -> bool {
        !self.forgets_evals() || self.name == "Valkey"
    }

    /// Whether a setting says that scripts are replicated, and not what they do.
    pub fn may_replicate_scripts(&self) -> bool {
        !self.version.is_from([7, 0, 0])
    }

    /// Whether it counts the replicas that `min-replicas-to-write` asks for before a script writes.
    pub fn counts_replicas_for_scripts(&self) -> bool {
        self.name != "Redis" || self.version.is_from([6, 2, 7])
    }
}

impl Hello {
    /// Asks `caller`'s server.
    pub async fn of(caller: &Caller) -> Result<Self, Error> {
        let reply = ask(caller, &["HELLO"]).await?;
        let fields: HashMap<String, Value> =
            reply.ok().and_then(|it| redis::from_redis_value(it).ok()).unwrap_or_default();
        Ok(Self { product: Product::of_fields(&fields), pushes: fields.get("proto") == Some(&Value::Int(3)) })
    }
}

impl Version {
    /// A version without further numbers.
    pub fn new(major: u32, minor: u32) -> Self {
        Self { text: format!("{major}.{minor}"), numbers: [major, minor, 0] }
    }

    /// Whether it is this one or a later one.
    pub fn is_from(&self, numbers: [u32; 3]) -> bool {
        self.numbers >= numbers
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = [0; 3];
        let mut parts = text.split('.');
        for number in &mut numbers {
            let Some(part) = parts.next() else { break };
            let digits = part.split(|character: char| !character.is_ascii_digit()).next().unwrap_or_default();
            *number = digits.parse().map_err(|_| format!("{text:?} is not a version, write 7.2"))?;
        }
        Ok(Self { text: text.to_owned(), numbers })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::output::escaped(self.text.as_bytes()))
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::fields;

    #[track_caller]
    fn assert_is(info: &str, shown: &str, forgets_evals: bool, pins: bool, counts: bool) {
        let product = Product::of_info(&fields(info)).unwrap();
        let rules = (product.forgets_evals(), product.pins_what_is_there(), product.counts_replicas_for_scripts());
        assert_eq!((product.to_string().as_str(), rules), (shown, (forgets_evals, pins, counts)));
    }

    #[test]
    fn products_are_called_as_they_call_themselves() {
        assert_is("redis_version:6.2.6\r\nredis_mode:standalone", "Redis 6.2.6", false, true, false);
        assert_is("redis_version:6.2.14", "Redis 6.2.14", false, true, true);
        assert_is("redis_version:7.2.6", "Redis 7.2.6", false, true, true);
        assert_is("redis_version:7.4.1", "Redis 7.4.1", true, false, true);
        assert_is("redis_version:8.0.2", "Redis 8.0.2", true, false, true);
        assert_is(
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.7",
            "Valkey 7.2.7",
            false,
            true,
            true,
        );
        assert_is(
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1",
            "Valkey 8.1.1",
            true,
            true,
            true,
        );
        assert_is("redis_version:7.2.4\r\nredict_version:7.3.6", "Redict 7.3.6", true, false, true);
        assert_is("redis_version:6.3.4\r\nexecutable:/usr/bin/keydb-server", "KeyDB 6.3.4", false, true, true);
        assert_is("redis_version:6.3.4\r\n# KeyDB\r\nmvcc_depth:0", "KeyDB 6.3.4", false, true, true);
        assert_is("redis_version:255.255.255", "Redis 255.255.255", true, false, true);
        assert_eq!(Product::of_info(&fields("role:master")), None);
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let is_from = |text: &str, numbers| text.parse::<Version>().unwrap().is_from(numbers);
        assert!(is_from("7", [7, 0, 0]) && is_from("7.2", [7, 2, 0]) && is_from("10.0", [7, 2, 0]));
        assert!(!is_from("7.0.15", [7, 2, 0]) && is_from("8.0.0-rc1", [8, 0, 0]));
        assert!("new".parse::<Version>().is_err());
    }
}
