//! `redlatch release`: gives back a lease that `acquire` left held.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use redlatch::{
    Error, ErrorKind, Name,
    call::{Caller, Release},
};
use serde_json::json;

use crate::{
    opt::Global,
    outcome::{Cause, Failure, Outcome},
    output::{base64_of, text_of},
    owner_file,
};

/// Options of `release`.
#[derive(Args)]
pub struct ReleaseOptions {
    /// The name that was acquired
    pub name: OsString,
    /// The file that `acquire` wrote
    #[arg(long, value_name = "FILE")]
    pub owner_file: PathBuf,
}

/// How often a command is sent that gets no answer. Every script may be run again with the same owner token.
const TRIES: usize = 3;
/// Releases that skip dead waiters: 100000 places, 64 looked at in each.
const ROUNDS: usize = 1600;

/// Releases and hands the lock to the next waiter.
pub async fn release(options: &ReleaseOptions, global: &Global) -> Result<Outcome, Failure> {
    let (name, key) = global.key_of(&options.name)?;
    let owner = owner_file::read(&options.owner_file, &name, global)?.owner;
    let caller = global.healing_caller().await?;
    let mut first = None;
    for _ in 0..ROUNDS {
        let reply = repeated(&caller, || caller.release(&key, &owner)).await?;
        let (word, pending) = match reply {
            Release::Released { pending, .. } => ("released", pending),
            Release::HandedOff { pending, .. } => ("handed_off", pending),
            Release::Left { pending, .. } => ("left", pending),
            Release::ReleasedBefore { pending, .. } => ("released_before", pending),
            Release::NotHeld { pending, .. } => ("not_held", pending),
            _ => return Err(Failure::new(Cause::Unknown, "the release got a reply that this command does not know")),
        };
        first.get_or_insert(word);
        if !pending {
            break;
        }
    }
    let word = first.unwrap_or("not_held");
    if word == "not_held" {
        return Err(lost(&name));
    }
    let text = match word {
        "handed_off" => format!("released {name}, the next waiter has it\n"),
        "left" => format!("left the queue of {name}\n"),
        "released_before" => format!("{name} was released before\n"),
        _ => format!("released {name}\n"),
    };
    let data = json!({
        "name": text_of(name.as_bytes()), "name_base64": base64_of(name.as_bytes()), "outcome": word,
    });
    Ok(Outcome::new(text, data).report())
}

/// The lease that the owner token stood for is over.
pub fn lost(name: &Name) -> Failure {
    Failure::new(
        Cause::Lost,
        format!("lease of {name} is lost: it ran out or was taken away, stop the work that relied on it"),
    )
}

/// Sends a call again while its outcome is unknown.
pub async fn repeated<T, F: Future<Output = Result<T, Error>>>(
    caller: &Caller,
    call: impl Fn() -> F,
) -> Result<T, Error> {
    for _ in 1..TRIES {
        match call().await {
            Err(error) if error.kind() == ErrorKind::Unknown => tokio::time::sleep(caller.timeout() / 20).await,
            outcome => return outcome,
        }
    }
    call().await
}
