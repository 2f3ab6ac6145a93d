//! The rights that a user of the server needs: of the commands in the scripts' headers and of what carries them.

use std::collections::BTreeSet;

use clap::ValueEnum;
use redlatch::{
    Error, bundle,
    call::{Endpoint, pattern_of},
};

use crate::product::Version;

/// What a user of the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Takes locks, and loads scripts where they are missing: programs, run, acquire, extend, release.
    Caller,
    /// Takes locks, and can neither load nor write scripts: `load --watch` has to keep them there.
    Strict,
    /// Runs load, status, verify, acl, doctor, ls and inspect.
    Deployer,
    /// Runs ls, inspect and force-release.
    Operator,
    /// Runs ls, inspect and status: only reads.
    Observer,
}

impl Role {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Strict => "strict",
            Self::Deployer => "deployer",
            Self::Operator => "operator",
            Self::Observer => "observer",
        }
    }

    /// The word for it with its article.
    pub fn one(self) -> &'static str {
        match self {
            Self::Caller => "a caller",
            Self::Strict => "a strict caller",
            Self::Deployer => "a deployer",
            Self::Operator => "an operator",
            Self::Observer => "an observer",
        }
    }

    /// Whether it runs scripts of this name, such as `mutex/inspect`.
    fn runs(self, script: &str) -> bool {
        let verb = script.rsplit('/').next().unwrap_or(script);
        match self {
            Self::Caller | Self::Strict => true,
            Self::Deployer | Self::Observer => verb == "inspect",
            Self::Operator => matches!(verb, "inspect" | "force_release" | "resize"),
        }
    }

    /// What it asks of servers beside running scripts, with what makes a harmless question of it.
    fn asks(self) -> Vec<(&'static [&'static str], &'static [&'static str])> {
        let scan: (&[&str], &[&str]) = (&["SCAN"], &["0"]);
        match self {
            Self::Caller => vec![LOAD, EXISTS, PING],
            Self::Strict => vec![EXISTS, PING],
            Self::Deployer => [&DEPLOYER[..], &STATUS, &[LOAD, scan]].concat(),
            Self::Operator => vec![scan],
            Self::Observer => [&STATUS[..], &[scan]].concat(),
        }
    }
}

/// What is there already need not be loaded.
const EXISTS: (&[&str], &[&str]) = (&["SCRIPT", "EXISTS"], &["0"]);
const LOAD: (&[&str], &[&str]) = (&["SCRIPT", "LOAD"], &["not Lua"]);
/// A worker of nginx asks whether its connection still works.
const PING: (&[&str], &[&str]) = (&["PING"], &[]);
/// What `status` asks.
const STATUS: [(&[&str], &[&str]); 4] =
    [(&["CLIENT", "LIST"], &[]), (&["INFO"], &["server"]), (&["ROLE"], &[]), EXISTS];
/// What `acl` and `doctor` ask beside that.
const DEPLOYER: [(&[&str], &[&str]); 5] = [
    (&["ACL", "DRYRUN"], &["default", "PING"]),
    (&["ACL", "WHOAMI"], &[]),
    (&["CONFIG", "GET"], &["maxmemory"]),
    (&["SLOWLOG", "GET"], &["1"]),
    (&["TIME"], &[]),
];

/// What gives the user that asks the right to `command`, which `role` has.
pub fn grant_to_ask(command: &str, role: Role) -> String {
    let (right, role) = (command.to_ascii_lowercase().replace(' ', "|"), role.word());
    format!("grant the user that asks +{right}; role {role} has it: `redlatch acl print {role}`")
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
        self.of_scripts(&mut rights)?;
        rights.extend(self.role.asks().into_iter().map(|(words, rest)| {
            let lacking_is_fatal = matches!(words[0], "SCRIPT" | "SCAN" | "PING");
            Right::of(words, &[]).asked(rest).spare(!lacking_is_fatal)
        }));
        self.of_connections(version, &mut rights);
        // One probe for each command: keys of one family stand for all.
        let mut commands = BTreeSet::new();
        Ok(rights.into_iter().filter(|right| commands.insert(right.command.clone())).collect())
    }

    fn of_scripts(&self, rights: &mut BTreeSet<Right>) -> Result<(), Error> {
        let key = format!("{}:m1:name", self.namespace);
        let channel = format!("{}:inbox:id", self.namespace);
        for script in bundle::embedded().map_err(Error::from)?.scripts() {
            if !self.role.runs(script.name()) {
                continue;
            }
            let key = match (script.name().split_once('/'), self.plain.first()) {
                (Some(("plain", _)), None) => continue,
                (Some(("plain", _)), Some(pattern)) => example_of(pattern),
                _ => key.clone(),
            };
            rights.extend(script.header().effects.iter().map(|command| self.of_effect(command, &key, &channel)));
        }
        rights.insert(Right::of(&["EVALSHA"], &[&"0".repeat(40), "1", &key]).about(Object::Key));
        if matches!(self.role, Role::Caller | Role::Strict) {
            rights.insert(Right::of(&["SUBSCRIBE"], &[&channel]).about(Object::Channel));
        }
        Ok(())
    }

    fn of_effect(&self, command: &str, key: &str, channel: &str) -> Right {
        let nobodys = format!("{}:m1:", self.namespace);
        let right = |about: &str| Right::of(&[command], &[about]);
        match command {
            "TIME" => Right::of(&[command], &[]),
            "PUBLISH" => right(channel).asked(&[channel, ""]).about(Object::Channel),
            "HSET" => right(key).asked(&[key, "field", "value", "field without value"]).about(Object::Key),
            "HDEL" | "HGET" | "HMGET" => right(key).asked(&[&nobodys, "field"]).about(Object::Key),
            "PEXPIRE" | "PEXPIREAT" => right(key).asked(&[key, "not a number"]).about(Object::Key),
            "SET" => right(key).asked(&[key, "", "NX", "XX"]).about(Object::Key),
            "DEL" => right(key).asked(&[&nobodys]).about(Object::Key),
            _ => right(key).about(Object::Key),
        }
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
            // A slot that moves is served to those who say so.
            rights.insert(Right::of(&["ASKING"], &[]));
            if self.role == Role::Deployer {
                rights.insert(Right::of(&["CLUSTER", "INFO"], &[]));
            }
        }
    }

    /// The words for ACL SETUSER on a server of `version`.
    pub fn rules(&self, version: &Version) -> Result<Vec<String>, Error> {
        let rights = self.rights(version)?;
        let patterns =
            |of: Object| if rights.iter().any(|right| right.of == of) { self.patterns(of) } else { Vec::new() };
        let commands = rights.iter().map(|right| format!("+{}", right.command));
        let mut rules = vec!["resetkeys".to_owned()];
        rules.extend(patterns(Object::Key));
        rules.push("resetchannels".to_owned());
        rules.extend(patterns(Object::Channel));
        rules.push("-@all".to_owned());
        rules.extend(commands);
        Ok(rules)
    }

    /// The words that grant `right` to a user and take nothing away: what it lacks of it, all when that is not told.
    pub fn rules_for(&self, right: &Right, lacks: Option<Object>) -> Vec<String> {
        let command = || std::iter::once(format!("+{}", right.command));
        match lacks {
            Some(Object::Nothing) => command().collect(),
            Some(of) => self.patterns(of),
            None => command().chain(self.patterns(right.of)).collect(),
        }
    }

    /// The command that prints the rules.
    pub fn printed_by(&self) -> String {
        let mut command = format!("redlatch acl print {}", self.role.word());
        if self.namespace != "redlatch" {
            command += &format!(" --namespace {}", self.namespace);
        }
        for pattern in self.plain.iter().filter(|_| self.role.runs("plain/acquire")) {
            command += &format!(" --plain '{}'", pattern.escape_debug());
        }
        command
    }

    fn patterns(&self, of: Object) -> Vec<String> {
        let namespace = pattern_of(self.namespace.as_bytes());
        match of {
            Object::Key => {
                let plain = self.plain.iter().filter(|_| self.role.runs("plain/acquire"));
                std::iter::once(format!("~{namespace}:*")).chain(plain.map(|pattern| format!("~{pattern}"))).collect()
            }
            Object::Channel => vec![format!("&{namespace}:inbox:*")],
            Object::Nothing => Vec::new(),
        }
    }
}

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
