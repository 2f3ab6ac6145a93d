//! `redlatch ls`: the locks of a namespace, found with SCAN, which never keeps the server busy.

use std::{collections::BTreeSet, ffi::OsString, io, os::unix::ffi::OsStrExt, time::Duration};

use clap::Args;
use redlatch::call::{Caller, Inspect, Role, pattern_of};
use serde_json::{Value, json};

use crate::{
    damaged,
    duration::{millis, rough},
    opt::Global,
    outcome::{Cause, Failure, Outcome, Problem, Verdict},
    output::{base64_of, escaped, is_unread, plural, say, tell, text_of},
    rights,
    signals::Signals,
    table::table,
};

/// Options of `ls`.
#[derive(Args)]
pub struct LsOptions {
    /// Which names, with * ? and [] as in Redis
    #[arg(default_value = "*")]
    pub pattern: OsString,
    /// Also locks that nobody holds, which the server still remembers for their fence
    #[arg(long)]
    pub all: bool,
    /// Stop after that many locks
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Show the list again whenever locks, holders or waiters have changed, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
}

/// How many keys the server looks at in one step.
const STEP: usize = 500;
/// How often `--follow` looks.
const LOOK: Duration = Duration::from_secs(1);

/// The locks that were found.
#[derive(Default)]
struct Found {
    /// Names and what is known of them.
    locks: Vec<(Vec<u8>, Inspect)>,
    /// Keys of the namespace that are not locks.
    others: u64,
    /// What is to be said of those that are locks and cannot be read.
    damaged: Vec<Problem>,
    /// Whether there are more.
    cut: bool,
}

/// Lists held locks, or all that the server remembers.
pub async fn ls(options: &LsOptions, global: &Global) -> Result<Outcome, Failure> {
    let caller = global.healing_caller_as(rights::Role::Observer).await?;
    if options.follow {
        return follow(options, global, &caller).await;
    }
    let found = find(options, global, &caller).await?;
    let mut outcome = Outcome::new(found.view(), found.data()).rows("locks");
    if found.locks.is_empty() && found.damaged.is_empty() {
        outcome = outcome.note(if options.all { "no lock is known" } else { "no lock is held" });
    }
    if found.cut {
        outcome = outcome.note(format!("there are more than {}, see --limit", options.limit));
    }
    if found.others > 0 {
        outcome = outcome.note(format!("keys of this namespace that are not locks: {}", found.others));
    }
    if found.damaged.is_empty() {
        return Ok(outcome);
    }
    Ok(found.damaged.into_iter().fold(outcome, Outcome::problem).verdict(Verdict::Partly))
}

/// Shows the list whenever it has changed, until a signal comes or nobody reads. A server that does not answer for a
/// while is waited for.
async fn follow(options: &LsOptions, global: &Global, caller: &Caller) -> Result<Outcome, Failure> {
    let mut signals = Signals::listen()?;
    let mut shown = None;
    let (mut silent, mut damaged) = (false, 0);
    loop {
        let found = tokio::select! {
            found = find(options, global, caller) => found,
            _ = signals.next() => break,
        };
        match found {
            Ok(found) => {
                let state = Some(found.state());
                if found.damaged.len() > damaged {
                    found.damaged.iter().for_each(|problem| say(&problem.message));
                }
                damaged = found.damaged.len();
                if shown != state && found.show(global, shown.is_some()).is_err() {
                    break;
                }
                (shown, silent) = (state, false);
            }
            Err(failure) if failure.cause == Cause::Unavailable => {
                if !std::mem::replace(&mut silent, true) {
                    say(&failure.problem.message);
                }
            }
            Err(failure) => return Err(failure),
        }
        if is_unread() {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = signals.next() => break,
        }
    }
    Ok(Outcome::new("", Value::Null))
}

async fn find(options: &LsOptions, global: &Global, caller: &Caller) -> Result<Found, Failure> {
    // The key of a name without its name.
    let (_, mut prefix) = global.key_of("-".as_ref())?;
    prefix.pop();
    let mut found = Found::default();
    for key in keys_everywhere(caller, &prefix, options.pattern.as_bytes()).await? {
        let lock = match caller.inspect(&key, 0).await {
            Ok(lock) => lock,
            Err(error) if error.code() == Some("WRONGTYPE") => {
                found.others += 1;
                continue;
            }
            Err(error) if damaged::is_damage(&error) => {
                found.damaged.push(damaged::by_look(&key, error).problem);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if !lock.held && !options.all {
            continue;
        }
        if found.locks.len() == options.limit as usize {
            found.cut = true;
            break;
        }
        found.locks.push((key[prefix.len()..].to_vec(), lock));
    }
    Ok(found)
}

impl Found {
    fn view(&self) -> String {
        if self.locks.is_empty() {
            return String::new();
        }
        let row = |(name, lock): &(Vec<u8>, Inspect)| {
            let (state, left) = if lock.held { ("held", rough(lock.remaining)) } else { ("free", "-".to_owned()) };
            let (waiters, fence) = (lock.places.to_string(), lock.fence.to_string());
            [escaped(name), state.to_owned(), left, waiters, fence, escaped(&lock.label)]
        };
        let rows: Vec<_> = self.locks.iter().map(row).collect();
        table(&["NAME", "STATE", "REMAINING", "WAITERS", "FENCE", "HOLDER"], &rows)
    }

    fn data(&self) -> Value {
        let lock = |(name, lock): &(Vec<u8>, Inspect)| {
            json!({
                "name": text_of(name), "name_base64": base64_of(name), "held": lock.held,
                "remaining_ms": millis(lock.remaining), "fence": lock.fence.to_string(), "places": lock.places,
                "holder": text_of(&lock.label), "holder_base64": base64_of(&lock.label),
            })
        };
        json!({ "locks": self.locks.iter().map(lock).collect::<Vec<_>>(), "cut": self.cut })
    }

    /// What makes a list worth showing again. Time passes all the time.
    fn state(&self) -> Vec<(Vec<u8>, bool, String, u64)> {
        let lock = |(name, lock): &(Vec<u8>, Inspect)| (name.clone(), lock.held, lock.fence.to_string(), lock.places);
        self.locks.iter().map(lock).collect()
    }

    /// Shows the list as one of several.
    fn show(&self, global: &Global, again: bool) -> io::Result<()> {
        let gap = if again { "\n" } else { "" };
        let locks = plural(self.locks.len() as u64, "lock");
        tell(global, format!("{gap}{locks}\n{}", self.view()).trim_end(), &self.data())
    }
}

/// The keys of the server, or of every node of a cluster.
async fn keys_everywhere(caller: &Caller, prefix: &[u8], pattern: &[u8]) -> Result<BTreeSet<Vec<u8>>, Failure> {
    if !caller.endpoint().is_cluster() {
        return keys(caller, prefix, pattern).await;
    }
    let mut all = BTreeSet::new();
    for server in caller.servers().await?.into_iter().filter(|server| server.role == Role::Primary) {
        let node = Caller::connect(&server.endpoint, caller.timeout(), true, |_| {}).await?;
        all.extend(keys(&node, prefix, pattern).await?);
    }
    Ok(all)
}

/// Every key that begins with `prefix` and goes on as `pattern` says, each once, in order.
async fn keys(caller: &Caller, prefix: &[u8], pattern: &[u8]) -> Result<BTreeSet<Vec<u8>>, Failure> {
    let mut matching = pattern_of(prefix).into_bytes();
    matching.extend_from_slice(pattern);
    let mut keys = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(&matching).arg("COUNT").arg(STEP);
        let reply = caller.command(&scan, || "SCAN".to_owned()).await?;
        let (next, found): (String, Vec<Vec<u8>>) = redis::from_redis_value(reply)
            .map_err(|_| Failure::new(Cause::Configuration, "SCAN got a reply that is not Redis"))?;
        keys.extend(found);
        if next == "0" {
            return Ok(keys);
        }
        cursor = next;
    }
}
