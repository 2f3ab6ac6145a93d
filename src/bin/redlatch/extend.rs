//! `redlatch extend`: keeps a lease that `acquire` left held.

use redlatch::{ClientBuilder, call::Extend};
use serde_json::json;

use crate::{
    duration::{millis, show},
    opt::{ExtendOptions, Global},
    outcome::{Failure, Outcome},
    output::escaped,
    owner_file,
    release::{lost, repeated},
};

/// Makes the lease last its TTL from now, or longer if it does already.
pub async fn extend(options: &ExtendOptions, global: &Global) -> Result<Outcome, Failure> {
    let (name, key) = global.key_of(&options.name)?;
    let owner = owner_file::read(&options.owner_file)?;
    let caller = global.healing_caller().await?;
    let reply =
        repeated(&caller, || caller.extend(&key, &owner, options.ttl, ClientBuilder::DEFAULT_RETENTION)).await?;
    let Extend::Extended { remaining, fence, .. } = reply else { return Err(lost(&name)) };
    let data = json!({
        "name": escaped(name.as_bytes()), "fence": fence.to_string(), "remaining_ms": millis(remaining),
    });
    Ok(Outcome::new(format!("extended {name} for {}, fence {fence}\n", show(remaining)), data))
}
