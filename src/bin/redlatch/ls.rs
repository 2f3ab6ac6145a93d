//! `redlatch ls`: the locks of a namespace, found with SCAN, which never keeps the server busy.

use std::{collections::BTreeSet, ffi::OsString, os::unix::ffi::OsStrExt};

use clap::Args;
use redlatch::call::{Caller, Role};
use serde_json::json;

use crate::{
    duration::{millis, show},
    opt::Global,
    outcome::{Cause, Failure, Outcome},
    output::{escaped, pattern_of, table},
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
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// How many keys the server looks at in one step.
const STEP: usize = 500;

/// Lists held locks, or all that the server remembers.
pub async fn ls(options: &LsOptions, global: &Global) -> Result<Outcome, Failure> {
    // The key of a name without its name.
    let (_, mut prefix) = global.key_of("-".as_ref())?;
    prefix.pop();
    let caller = global.healing_caller().await?;
    let mut rows = Vec::new();
    let mut list = Vec::new();
    let mut others = 0;
    let mut cut = false;
    for key in keys_everywhere(&caller, &prefix, options.pattern.as_bytes()).await? {
        let lock = match caller.inspect(&key, 0).await {
            Ok(lock) => lock,
            Err(error) if error.code() == Some("WRONGTYPE") => {
                others += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if !lock.held && !options.all {
            continue;
        }
        if list.len() == options.limit {
            cut = true;
            break;
        }
        let name = escaped(&key[prefix.len()..]);
        let (state, remaining) = if lock.held { ("held", show(lock.remaining)) } else { ("free", "-".to_owned()) };
        let (fence, holder) = (lock.fence.to_string(), escaped(&lock.label));
        list.push(json!({
            "name": name, "held": lock.held, "remaining_ms": millis(lock.remaining), "fence": fence,
            "places": lock.places, "holder": holder,
        }));
        rows.push([name, state.to_owned(), remaining, fence, lock.places.to_string(), holder]);
    }
    let text = match rows.as_slice() {
        [] => String::new(),
        rows => table(&["NAME", "STATE", "REMAINING", "FENCE", "PLACES", "HOLDER"], rows),
    };
    let mut outcome = Outcome::new(text, json!({ "locks": list, "cut": cut })).rows("locks");
    if list_is_empty(&outcome) {
        outcome = outcome.note(if options.all { "no lock is known" } else { "no lock is held" });
    }
    if cut {
        outcome = outcome.note(format!("there are more than {}, see --limit", options.limit));
    }
    if others > 0 {
        outcome = outcome.note(format!("keys of this namespace that are not locks: {others}"));
    }
    Ok(outcome)
}

fn list_is_empty(outcome: &Outcome) -> bool {
    outcome.data["locks"].as_array().is_none_or(Vec::is_empty)
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
