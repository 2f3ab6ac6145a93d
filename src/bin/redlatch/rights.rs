//! The rights that a user of the server needs: of the commands in the scripts' headers and of what carries them.

use std::collections::BTreeSet;

use clap::ValueEnum;
use redlatch::{Error, bundle, call::Caller};

use crate::{outcome::Failure, output::pattern_of};

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
}

/// Who is to be given rights, and for what.
pub struct Wanted<'a> {
    /// What the user does.
    pub role: Role,
    /// Prefix of all keys and channels.
    pub namespace: &'a str,
    /// Patterns of the keys of plain locks.
    pub plain: &'a [String],
    /// Whether the servers are a cluster.
    pub cluster: bool,
}

impl Wanted<'_> {
    /// Every command, those of the scripts first.
    pub fn rights(&self) -> Result<Vec<Right>, Failure> {
        let mut rights = BTreeSet::new();
        if self.role == Role::Deployer {
            rights.extend(DEPLOYER.map(|words| Right::of(words, &[])));
        } else {
            let key = format!("{}:m1:name", self.namespace);
            let channel = format!("{}:inbox:id", self.namespace);
            for script in bundle::embedded().map_err(Error::from)?.scripts() {
                let key = match (script.name().split_once('/'), self.plain.first()) {
                    (Some(("plain", _)), None) => continue,
                    (Some(("plain", _)), Some(pattern)) => example_of(pattern),
                    _ => key.clone(),
                };
                rights.extend(script.header().effects.iter().map(|command| match command.as_str() {
                    "PUBLISH" => Right::of(&["PUBLISH"], &[&channel]),
                    "TIME" => Right::of(&["TIME"], &[]),
                    command => Right::of(&[command], &[&key]),
                }));
            }
            let digest = "0".repeat(40);
            rights.insert(Right::of(&["EVALSHA"], &[&digest, "1", &key]));
            rights.insert(Right::of(&["SUBSCRIBE"], &[&channel]));
            rights.insert(Right::of(&["CLIENT", "SETNAME"], &["name"]));
            // A worker of nginx asks whether its connection still works.
            rights.insert(Right::of(&["PING"], &[]));
            if self.role == Role::Caller {
                rights.insert(Right::of(&["SCRIPT", "LOAD"], &["return 1"]));
            }
        }
        if self.cluster {
            rights.insert(Right::of(&["CLUSTER", "SLOTS"], &[]));
            if self.role == Role::Deployer {
                rights.insert(Right::of(&["CLUSTER", "INFO"], &[]));
            }
        }
        // One probe for each command: keys of one family stand for all.
        let mut commands = BTreeSet::new();
        Ok(rights.into_iter().filter(|right| commands.insert(right.command.clone())).collect())
    }

    /// The words for ACL SETUSER.
    pub fn rules(&self) -> Result<Vec<String>, Failure> {
        let namespace = pattern_of(self.namespace.as_bytes());
        let mut rules = vec!["resetkeys".to_owned()];
        if self.role != Role::Deployer {
            rules.push(format!("~{namespace}:*"));
            rules.extend(self.plain.iter().map(|pattern| format!("~{pattern}")));
        }
        rules.push("resetchannels".to_owned());
        if self.role != Role::Deployer {
            rules.push(format!("&{namespace}:inbox:*"));
        }
        rules.push("-@all".to_owned());
        rules.extend(self.rights()?.into_iter().map(|right| format!("+{}", right.command)));
        Ok(rules)
    }
}

/// What the verbs `load`, `status`, `verify`, `acl` and `doctor` ask.
const DEPLOYER: [&[&str]; 10] = [
    &["ACL", "DRYRUN"],
    &["ACL", "WHOAMI"],
    &["CLIENT", "LIST"],
    &["CONFIG", "GET"],
    &["INFO"],
    &["ROLE"],
    &["SCRIPT", "EXISTS"],
    &["SCRIPT", "LOAD"],
    &["SLOWLOG", "GET"],
    &["TIME"],
];

impl Right {
    fn of(command: &[&str], rest: &[&str]) -> Self {
        Self {
            command: command.join("|").to_ascii_lowercase(),
            probe: command.iter().chain(rest).map(|word| (*word).to_owned()).collect(),
        }
    }

    /// Whether the server would let `user` do it; `None` when it does not tell.
    pub async fn is_granted(&self, caller: &Caller, user: &str) -> Result<Option<bool>, Error> {
        // How many words a command takes at least is known to the server alone.
        for filler in 0..8 {
            let mut dry_run = redis::cmd("ACL");
            dry_run.arg("DRYRUN").arg(user).arg(&self.probe).arg(vec!["1"; filler]);
            match caller.command(&dry_run, || "ACL DRYRUN".to_owned()).await {
                Ok(reply) => {
                    return Ok(redis::from_redis_value::<String>(reply).ok().map(|reply| reply == "OK"));
                }
                Err(error) if error.to_string().contains("wrong number of arguments") => {}
                Err(error) if error.code() == Some("NOPERM") => return Ok(None),
                Err(error) if error.to_string().contains("Unknown subcommand") => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// A key that `pattern` matches, if it is as simple as most are.
fn example_of(pattern: &str) -> String {
    pattern.replace(['*', '?'], "x")
}
