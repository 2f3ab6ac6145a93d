//! The rights that a user of the server needs: of the commands in the scripts' headers and of what carries them.

use std::collections::BTreeSet;

use clap::ValueEnum;
use redlatch::{Error, bundle, call::Endpoint};

use crate::{output::pattern_of, product::Version};

/// What a user of the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Takes locks, and loads scripts where they are missing.
    Caller,
    /// Runs load, status, verify, acl and doctor.
    Deployer,
    /// Takes locks, and can neither load nor write scripts: `load --watch` has to keep them there.
    Strict,
}

impl Role {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Deployer => "deployer",
            Self::Strict => "strict",
        }
    }
}

/// Something that a user may be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// As an ACL rule names the command, for instance `script|load`.
    pub command: String,
    /// Words that ACL DRYRUN is asked about.
    pub probe: Vec<String>,
    /// Whether we do without where the server does not have the command.
    pub spare: bool,
    /// What the ACL has to allow beside the command.
    pub of: Object,
    /// A call that has no effect, whatever is on the server: it is incomplete in a way that the server sees only after it
    /// has looked at the rights, or it is about a key that no lock has.
    pub harmless: Vec<String>,
}

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A key.
    Key,
    /// A channel.
    Channel,
    /// Neither.
    Nothing,
}

/// Who is to be given rights, and for what.
#[derive(Clone)]
pub struct Wanted {
    /// What the user does.
    pub role: Role,
    /// Prefix of all keys and channels.
    pub namespace: String,
    /// Patterns of the keys of plain locks.
    pub plain: Vec<String>,
    /// The servers that the user logs in to.
    pub endpoint: Endpoint,
}

impl Wanted {
    /// Every command on a server of `version`, those of the scripts first.
    pub fn rights(&self, version: &Version) -> Result<Vec<Right>, Error> {
        let mut rights = BTreeSet::new();
        if self.role == Role::Deployer {
            rights.extend(DEPLOYER.map(|(words, rest)| Right::of(words, &[]).asked(rest).spare(words[0] != "SCRIPT")));
        } else {
            self.of_callers(&mut rights)?;
        }
        self.of_connections(version, &mut rights);
        // One probe for each command: keys of one family stand for all.
        let mut commands = BTreeSet::new();
        Ok(rights.into_iter().filter(|right| commands.insert(right.command.clone())).collect())
    }

    fn of_callers(&self, rights: &mut BTreeSet<Right>) -> Result<(), Error> {
        let key = format!("{}:m1:name", self.namespace);
        let channel = format!("{}:inbox:id", self.namespace);
        for script in bundle::embedded().map_err(Error::from)?.scripts() {
            let key = match (script.name().split_once('/'), self.plain.first()) {
                (Some(("plain", _)), None) => continue,
                (Some(("plain", _)), Some(pattern)) => example_of(pattern),
                _ => key.clone(),
            };
            let nobodys = format!("{}:m1:", self.namespace);
            rights.extend(script.header().effects.iter().map(|command| match command.as_str() {
                "PUBLISH" => Right::of(&["PUBLISH"], &[&channel]).asked(&[&channel, ""]).about(Object::Channel),
                "TIME" => Right::of(&["TIME"], &[]),
                command => {
                    let right = Right::of(&[command], &[&key]).about(Object::Key);
                    match command {
                        "HSET" => right.asked(&[&key, "field", "value", "field without value"]),
                        "HDEL" | "HMGET" => right.asked(&[&nobodys, "field"]),
                        "PEXPIRE" => right.asked(&[&key, "not a number"]),
                        "SET" => right.asked(&[&key, "", "NX", "XX"]),
                        "DEL" => right.asked(&[&nobodys]),
                        _ => right,
                    }
                }
            }));
        }
        let digest = "0".repeat(40);
        rights.insert(Right::of(&["EVALSHA"], &[&digest, "1", &key]).about(Object::Key));
        rights.insert(Right::of(&["SUBSCRIBE"], &[&channel]).about(Object::Channel));
        // What is there already need not be loaded.
        rights.insert(Right::of(&["SCRIPT", "EXISTS"], &[&digest]));
        // A worker of nginx asks whether its connection still works.
        rights.insert(Right::of(&["PING"], &[]));
        if self.role == Role::Caller {
            rights.insert(Right::of(&["SCRIPT", "LOAD"], &["return 1"]).asked(&["not Lua"]));
        }
        Ok(())
    }

    /// What every connection does before its first command, and what finds the server that is meant.
    fn of_connections(&self, version: &Version, rights: &mut BTreeSet<Right>) {
        rights.insert(Right::of(&["CLIENT", "SETNAME"], &["name"]).spare(true));
        // 7.0 refuses rules about what it does not know; 6.2 takes them, and looks at rights before it knows.
        if version.is_from([7, 2, 0]) || !version.is_from([7, 0, 0]) {
            rights.insert(Right::of(&["CLIENT", "SETINFO"], &["LIB-NAME", "redlatch"]).spare(true));
        }
        let database = self.endpoint.database();
        if database != 0 {
            rights.insert(Right::of(&["SELECT"], &[&database.to_string()]));
        }
        if self.endpoint.has_sentinels() {
            rights.insert(Right::of(&["ROLE"], &[]));
        }
        if self.endpoint.is_cluster() {
            rights.insert(Right::of(&["CLUSTER", "SLOTS"], &[]));
            rights.insert(if self.role == Role::Deployer {
                Right::of(&["CLUSTER", "INFO"], &[])
            } else {
                // A slot that moves is served to those who say so.
                Right::of(&["ASKING"], &[])
            });
        }
    }

    /// The words for ACL SETUSER on a server of `version`.
    pub fn rules(&self, version: &Version) -> Result<Vec<String>, Error> {
        let mut rules = vec!["resetkeys".to_owned()];
        rules.extend(self.keys());
        rules.push("resetchannels".to_owned());
        rules.extend(self.channels());
        rules.push("-@all".to_owned());
        rules.extend(self.rights(version)?.into_iter().map(|right| format!("+{}", right.command)));
        Ok(rules)
    }

    /// The words that grant `right` to a user and take nothing away.
    pub fn rules_for(&self, right: &Right) -> Vec<String> {
        let patterns = match right.of {
            Object::Key => self.keys(),
            Object::Channel => self.channels(),
            Object::Nothing => Vec::new(),
        };
        std::iter::once(format!("+{}", right.command)).chain(patterns).collect()
    }

    fn keys(&self) -> Vec<String> {
        if self.role == Role::Deployer {
            return Vec::new();
        }
        let own = format!("~{}:*", pattern_of(self.namespace.as_bytes()));
        std::iter::once(own).chain(self.plain.iter().map(|pattern| format!("~{pattern}"))).collect()
    }

    fn channels(&self) -> Vec<String> {
        if self.role == Role::Deployer {
            return Vec::new();
        }
        vec![format!("&{}:inbox:*", pattern_of(self.namespace.as_bytes()))]
    }
}

/// What the verbs `load`, `status`, `verify`, `acl` and `doctor` ask, with what makes a harmless question of it.
const DEPLOYER: [(&[&str], &[&str]); 10] = [
    (&["ACL", "DRYRUN"], &["default", "PING"]),
    (&["ACL", "WHOAMI"], &[]),
    (&["CLIENT", "LIST"], &[]),
    (&["CONFIG", "GET"], &["maxmemory"]),
    (&["INFO"], &["server"]),
    (&["ROLE"], &[]),
    (&["SCRIPT", "EXISTS"], &["0"]),
    (&["SCRIPT", "LOAD"], &["not Lua"]),
    (&["SLOWLOG", "GET"], &["1"]),
    (&["TIME"], &[]),
];

impl Right {
    fn of(command: &[&str], rest: &[&str]) -> Self {
        let probe: Vec<_> = command.iter().chain(rest).map(|word| (*word).to_owned()).collect();
        Self {
            command: command.join("|").to_ascii_lowercase(),
            spare: false,
            of: Object::Nothing,
            harmless: probe.clone(),
            probe,
        }
    }

    fn spare(self, spare: bool) -> Self {
        Self { spare, ..self }
    }

    fn about(self, of: Object) -> Self {
        Self { of, ..self }
    }

    /// The same with other words after the command where it is asked for without an effect.
    fn asked(mut self, rest: &[&str]) -> Self {
        self.harmless.truncate(self.command.split('|').count());
        self.harmless.extend(rest.iter().map(|word| (*word).to_owned()));
        self
    }
}

/// A key that `pattern` matches, if it is as simple as most are.
fn example_of(pattern: &str) -> String {
    pattern.replace(['*', '?'], "x")
}
