//! `redlatch force-release`: the way out when a holder hangs and its TTL is long.

use std::ffi::OsString;

use clap::Args;
use redlatch::call::ForceRelease;
use serde_json::json;

use crate::{
    inspect::not_held,
    opt::Global,
    outcome::{Cause, Failure, Outcome},
    output::{base64_of, escaped, quoted, text_of},
    rights::Role,
    width::folded,
};

/// Options of `force-release`.
#[derive(Args)]
pub struct ForceReleaseOptions {
    /// The name of the lock
    pub name: OsString,
    /// Do it, although the holder may still be at work
    #[arg(long)]
    pub yes: bool,
    /// Why, for whoever reads the output later
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Ends the lease. Never repeated by itself: a second call would end the next holder's lease.
pub async fn force_release(options: &ForceReleaseOptions, global: &Global) -> Result<Outcome, Failure> {
    let (name, key) = global.key_of(&options.name)?;
    let caller = global.healing_caller_as(Role::Operator).await?;
    let lock = caller.inspect(&key, 0).await?;
    let holder = quoted(&lock.label);
    if lock.held && !options.yes {
        return Err(Failure::new(Cause::Usage, format!("{name} is held by {holder}, which may be at work"))
            .hint("say --yes when it is gone, or when the resource refuses old fences"));
    }
    let (word, fence) = match caller.force_release(&key).await? {
        ForceRelease::Released { fence } => ("released", fence),
        ForceRelease::HandedOff { fence } => ("handed_off", fence),
        ForceRelease::NotHeld { fence } => ("not_held", fence),
        _ => return Err(Failure::new(Cause::Unknown, "the server gave a reply that this command does not know")),
    };
    let text = match word {
        "released" => {
            format!(
                "ended the lease of {holder} on {name}: {}; the fence is {fence} now\n",
                escaped(options.reason.as_bytes())
            )
        }
        "handed_off" => format!(
            "ended the lease of {holder} on {name}: {}; the next waiter has it with fence {fence}\n",
            escaped(options.reason.as_bytes())
        ),
        _ => format!("{name} is not held\n"),
    };
    let data = json!({
        "name": text_of(name.as_bytes()),
        "name_base64": base64_of(name.as_bytes()),
        "outcome": word,
        "holder": text_of(&lock.label),
        "holder_base64": base64_of(&lock.label),
        "fence": fence.to_string(),
        "reason": options.reason,
    });
    let outcome = Outcome::new(folded(&text), data).report();
    Ok(if word == "not_held" { not_held(outcome, &name) } else { outcome })
}
