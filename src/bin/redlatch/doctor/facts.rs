//! What a server says of itself. What it does not tell is known to be unknown.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use redlatch::{Error, bundle::Script, call::Caller};

use crate::{
    acl::rights_of,
    ask::{Told, Withheld, ask, ask_text, fields},
    granted::{Grant, Untold},
    outcome::Failure,
    product::{Hello, Product},
    rights::{self, Object, Wanted},
    status::versions,
};

/// The facts about one server.
pub struct Facts {
    /// The scripts that it lacks.
    pub missing: usize,
    /// What it is.
    pub product: Option<Product>,
    /// The fields of INFO.
    pub info: Told<HashMap<String, String>>,
    /// The scripts that were evicted while it was looked at, and how long that was.
    pub evicted: Option<(u64, Duration)>,
    /// Settings.
    pub config: Told<HashMap<String, String>>,
    /// How far its clock is ahead of ours, in milliseconds, give or take half of a round trip.
    pub ahead_ms: Told<i64>,
    /// The user whose rights were asked for, and what for.
    pub user: String,
    pub role: rights::Role,
    /// What it lacks, or why that is not told.
    pub rights: Result<Lacking, Untold>,
    /// Connections of redlatch's callers by version.
    pub callers: Told<BTreeMap<String, u64>>,
    /// The longest that one of our scripts took, of those that the server found slow.
    pub slowest: Told<Duration>,
    /// Whether the URL says that it belongs to a cluster.
    pub by_cluster: bool,
    /// The fields of CLUSTER INFO of a node of a cluster.
    pub cluster: Option<Told<HashMap<String, String>>>,
}

/// Rights that a user lacks.
#[derive(Default)]
pub struct Lacking {
    /// Those that the server denies: commands, or patterns of keys and channels.
    pub denied: Vec<String>,
    /// What grants those and nothing else.
    pub rules: Vec<String>,
    /// Those that it does not tell of.
    pub unknown: Vec<String>,
}

/// What to look at.
#[derive(Clone)]
pub struct Look {
    /// The scripts that are to be there.
    pub scripts: &'static [Script],
    /// The rights that a user is to have, and for what.
    pub wanted: Wanted,
    /// That user, unless it is the one that is logged in.
    pub user: Option<String>,
    /// How long to count evictions at least.
    pub while_for: Duration,
}

/// Settings that checks look at.
const SETTINGS: [&str; 6] =
    ["maxmemory", "maxmemory-policy", "min-replicas-to-write", "appendonly", "appendfsync", "save"];

impl Facts {
    /// Asks `caller`'s server.
    pub async fn of(caller: Caller, look: Look) -> Result<Self, Failure> {
        let started = Instant::now();
        let info = ask_text(&caller, &["INFO"]).await?.map(|text| fields(&text));
        let missing = caller.exists(look.scripts).await?.iter().filter(|present| !**present).count();
        let product = match info.as_ref().ok().and_then(Product::of_info) {
            Some(product) => Some(product),
            None => Hello::of(&caller).await?.product,
        };
        let user = match look.user {
            Some(user) => user,
            None => {
                ask_text(&caller, &["ACL", "WHOAMI"]).await?.unwrap_or_else(|_| caller.endpoint().user().to_owned())
            }
        };
        let clustered = info.as_ref().is_ok_and(|info| info.get("cluster_enabled").is_some_and(|on| on == "1"));
        let cluster = if clustered {
            Some(ask_text(&caller, &["CLUSTER", "INFO"]).await?.map(|text| fields(&text)))
        } else {
            None
        };
        let mut facts = Self {
            missing,
            product,
            config: settings(&caller).await?,
            ahead_ms: ahead_ms(&caller).await?,
            rights: lacking(&caller, &user, &look.wanted).await,
            user,
            role: look.wanted.role,
            callers: ask_text(&caller, &["CLIENT", "LIST"]).await?.map(|list| versions(&list)),
            slowest: slowest(&caller, look.scripts).await?,
            by_cluster: look.wanted.endpoint.is_cluster(),
            cluster,
            info,
            evicted: None,
        };
        facts.evicted = facts.evictions(&caller, started, look.while_for).await?;
        Ok(facts)
    }

    /// What the counter of evicted scripts has grown by since `started`: it counts from the start of the server on, and
    /// what happened last year needs no mending.
    async fn evictions(
        &self,
        caller: &Caller,
        started: Instant,
        while_for: Duration,
    ) -> Result<Option<(u64, Duration)>, Error> {
        let Some(before) = self.number(EVICTED) else { return Ok(None) };
        if before > 0 {
            tokio::time::sleep(while_for.saturating_sub(started.elapsed())).await;
        }
        let info = ask_text(caller, &["INFO", "stats"]).await?.map(|text| fields(&text));
        let after = info.ok().and_then(|info| info.get(EVICTED)?.parse::<u64>().ok());
        Ok(after.map(|after| (after.saturating_sub(before), started.elapsed())))
    }

    /// A field of INFO.
    pub fn info(&self, name: &str) -> Option<&str> {
        self.info.as_ref().ok()?.get(name).map(String::as_str)
    }

    /// A field of INFO that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.info(name)?.parse().ok()
    }

    /// A setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.config.as_ref().ok()?.get(name).map(String::as_str)
    }
}

/// The counter of INFO.
pub const EVICTED: &str = "evicted_scripts";

async fn settings(caller: &Caller) -> Result<Told<HashMap<String, String>>, Error> {
    let mut settings = HashMap::new();
    for setting in SETTINGS {
        match ask(caller, &["CONFIG", "GET", setting]).await? {
            Ok(reply) => {
                settings.extend(redis::from_redis_value::<HashMap<String, String>>(reply).unwrap_or_default());
            }
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(settings))
}

/// The rights of `wanted` that `user` lacks.
async fn lacking(caller: &Caller, user: &str, wanted: &Wanted) -> Result<Lacking, Untold> {
    let rights = rights_of(caller, user, wanted).await?;
    let mut lacking = Lacking::default();
    for (right, granted) in rights {
        match granted {
            Grant::Granted => {}
            Grant::Denied(lacks) => {
                // Without the command the server does not look at the key.
                let lacks = lacks.filter(|of| *of != Object::Nothing);
                let rules = wanted.rules_for(&right, lacks);
                let denied = lacks.map_or_else(|| right.command.replace('|', " ").to_uppercase(), |_| rules.join(" "));
                add(&mut lacking.denied, [denied]);
                add(&mut lacking.rules, rules);
            }
            Grant::Unknown if right.spare => {}
            Grant::Unknown => lacking.unknown.push(right.command),
        }
    }
    Ok(lacking)
}

fn add(list: &mut Vec<String>, words: impl IntoIterator<Item = String>) {
    for word in words {
        if !list.contains(&word) {
            list.push(word);
        }
    }
}

async fn ahead_ms(caller: &Caller) -> Result<Told<i64>, Error> {
    // The first question may wait for a connection, the second does not.
    let mut ahead = Err(Withheld::Absent);
    for _ in 0..2 {
        let asked = Instant::now();
        let reply = match ask(caller, &["TIME"]).await? {
            Ok(reply) => reply,
            Err(why) => return Ok(Err(why)),
        };
        let half = asked.elapsed() / 2;
        let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(half);
        let there: Option<(i128, i128)> = redis::from_redis_value(reply).ok();
        let there_us = there.map(|(seconds, micros)| seconds * 1_000_000 + micros).ok_or(Withheld::Absent);
        ahead = there_us.map(|there_us| ((there_us - here.as_micros() as i128) / 1000) as i64);
    }
    Ok(ahead)
}

/// `[id, time, microseconds, [command, digest, …], …]` each.
async fn slowest(caller: &Caller, scripts: &[Script]) -> Result<Told<Duration>, Error> {
    let reply = match ask(caller, &["SLOWLOG", "GET", "128"]).await? {
        Ok(reply) => reply,
        Err(why) => return Ok(Err(why)),
    };
    let entries: Vec<Vec<redis::Value>> = redis::from_redis_value(reply).unwrap_or_default();
    let ours = entries.into_iter().filter_map(|entry| {
        let mut fields = entry.into_iter().skip(2);
        let micros: u64 = redis::from_redis_value(fields.next()?).ok()?;
        let words: Vec<Vec<u8>> = redis::from_redis_value(fields.next()?).ok()?;
        let digest = words.get(1)?;
        scripts
            .iter()
            .any(|script| script.digest().as_str().as_bytes() == digest)
            .then_some(Duration::from_micros(micros))
    });
    Ok(Ok(ours.max().unwrap_or_default()))
}
