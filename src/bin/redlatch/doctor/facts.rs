//! What a server says of itself. What the user may not see is `None`.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use redlatch::{Error, bundle::Script, call::Caller};

use crate::{
    acl::granted,
    rights::Right,
    status::{said, versions},
};

/// The facts about one server.
pub struct Facts {
    /// The scripts that it lacks.
    pub missing: usize,
    /// The fields of INFO.
    pub info: Option<HashMap<String, String>>,
    /// Settings.
    pub config: HashMap<String, String>,
    /// How far its clock is ahead of ours, in milliseconds, give or take half of a round trip.
    pub ahead_ms: Option<i64>,
    /// The user whose rights were asked for, and those it was not granted.
    pub user: Option<String>,
    pub denied: Option<Vec<String>>,
    /// Connections of redlatch's callers by version.
    pub callers: Option<BTreeMap<String, u64>>,
    /// The longest that one of our scripts took, of those that the server found slow.
    pub slowest: Option<Duration>,
    /// The fields of CLUSTER INFO.
    pub cluster: Option<HashMap<String, String>>,
}

/// Settings that checks look at.
const SETTINGS: [&str; 6] =
    ["maxmemory", "maxmemory-policy", "min-replicas-to-write", "appendonly", "appendfsync", "save"];

impl Facts {
    /// Asks `caller`'s server.
    pub async fn of(
        caller: Caller,
        scripts: &'static [Script],
        rights: Vec<Right>,
        user: Option<String>,
    ) -> Result<Self, Error> {
        let missing = caller.exists(scripts).await?.iter().filter(|present| !**present).count();
        let user = match user {
            Some(user) => Some(user),
            None => said(&caller, &["ACL", "WHOAMI"]).await?,
        };
        let denied = match &user {
            Some(user) => denied(&caller, user, &rights).await?,
            None => None,
        };
        let mut config = HashMap::new();
        for setting in SETTINGS {
            let mut command = redis::cmd("CONFIG");
            command.arg("GET").arg(setting);
            if let Some(reply) = allowed(caller.command(&command, || format!("CONFIG GET {setting}")).await)? {
                config.extend(redis::from_redis_value::<HashMap<String, String>>(reply).unwrap_or_default());
            }
        }
        let info = said(&caller, &["INFO"]).await?.map(|text| fields(&text));
        let clustered = info.as_ref().is_some_and(|info| info.get("cluster_enabled").is_some_and(|on| on == "1"));
        Ok(Self {
            missing,
            config,
            ahead_ms: ahead_ms(&caller).await?,
            user,
            denied,
            callers: said(&caller, &["CLIENT", "LIST"]).await?.map(|list| versions(&list)),
            slowest: slowest(&caller, scripts).await?,
            cluster: if clustered {
                said(&caller, &["CLUSTER", "INFO"]).await?.map(|text| fields(&text))
            } else {
                None
            },
            info,
        })
    }

    /// A field of INFO.
    pub fn info(&self, name: &str) -> Option<&str> {
        self.info.as_ref()?.get(name).map(String::as_str)
    }

    /// A field of INFO that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.info(name)?.parse().ok()
    }

    /// A setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.config.get(name).map(String::as_str)
    }
}

/// `name:value` lines.
fn fields(text: &str) -> HashMap<String, String> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// `None` for what the server's ACL denies or the server does not have.
fn allowed<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(reply) => Ok(Some(reply)),
        Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn denied(caller: &Caller, user: &str, rights: &[Right]) -> Result<Option<Vec<String>>, Error> {
    let Some(granted) = allowed(granted(caller, user, rights).await)? else { return Ok(None) };
    if granted.values().any(Option::is_none) {
        return Ok(None);
    }
    Ok(Some(granted.into_iter().filter(|(_, granted)| *granted == Some(false)).map(|(name, _)| name).collect()))
}

async fn ahead_ms(caller: &Caller) -> Result<Option<i64>, Error> {
    // The first question may wait for a connection, the second does not.
    let mut ahead = None;
    for _ in 0..2 {
        let asked = Instant::now();
        let Some(server_us) = caller.server_us(b"").await? else { return Ok(None) };
        let half = asked.elapsed() / 2;
        let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(half);
        ahead = Some((i128::from(server_us) - here.as_micros() as i128) / 1000);
    }
    Ok(ahead.and_then(|ahead| i64::try_from(ahead).ok()))
}

/// `[id, time, microseconds, [command, digest, …], …]` each.
async fn slowest(caller: &Caller, scripts: &[Script]) -> Result<Option<Duration>, Error> {
    let mut command = redis::cmd("SLOWLOG");
    command.arg("GET").arg(128);
    let Some(reply) = allowed(caller.command(&command, || "SLOWLOG GET".to_owned()).await)? else { return Ok(None) };
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
    Ok(Some(ours.max().unwrap_or_default()))
}
