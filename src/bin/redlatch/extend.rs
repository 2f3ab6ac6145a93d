//! `redlatch extend`: keeps a lease that `acquire` left held.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;
use redlatch::{ClientBuilder, call::Extend};
use serde_json::json;

use crate::{
    duration::{self, millis, show},
    opt::Global,
    outcome::{Failure, Outcome},
    output::{base64_of, text_of},
    owner_file,
    release::{lost, repeated},
};

/// Options of `extend`.
#[derive(Args)]
pub struct ExtendOptions {
    /// The name that was acquired
    pub name: OsString,
    /// Least length of the lease from now [default: as acquired]
    ///
    /// The owner file knows the length that the lease was acquired with.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    pub ttl: Option<Duration>,
    /// The file that `acquire` wrote
    #[arg(long, value_name = "FILE")]
    pub owner_file: PathBuf,
}

/// Makes the lease last its TTL from now, or longer if it does already.
pub async fn extend(options: &ExtendOptions, global: &Global) -> Result<Outcome, Failure> {
    let (name, key) = global.key_of(&options.name)?;
    let owned = owner_file::read(&options.owner_file, &name, global)?;
    let ttl = options.ttl.unwrap_or(owned.ttl);
    let caller = global.healing_caller().await?;
    let reply = repeated(&caller, || caller.extend(&key, &owned.owner, ttl, ClientBuilder::DEFAULT_RETENTION)).await?;
    let Extend::Extended { remaining, fence, .. } = reply else { return Err(lost(&name)) };
    let data = json!({
        "name": text_of(name.as_bytes()), "name_base64": base64_of(name.as_bytes()), "fence": fence.to_string(), "remaining_ms": millis(remaining),
    });
    Ok(Outcome::new(format!("extended {name} for {}, fence {fence}\n", show(remaining)), data).report())
}
