//! `redlatch acquire`: a lease that outlives this program.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;
use redlatch::{Attempt, Lease, Name};
use serde_json::json;

use crate::{
    duration::{self, millis, show},
    held, label,
    opt::{Format, Global},
    outcome::{Cause, Failure, Outcome},
    output::{self, base64_of, text_of},
    owner_file::OwnerFile,
    patience::Patience,
    signals::{self, Signals},
    voice::Voice,
    wait::Wait,
};

/// Options of `acquire`.
#[derive(Args)]
pub struct AcquireOptions {
    /// What is protected: 1 to 512 bytes
    pub name: OsString,
    /// Length of the lease
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = duration::TTL)]
    pub ttl: Duration,
    /// Wait at most that long [default: 0s, ask once]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_or_zero, allow_hyphen_values = true)]
    pub wait: Option<Duration>,
    /// Who holds the lease [default: USER@HOST redlatch acquire]
    ///
    /// For people who inspect the lock or wait for it; at most 128 bytes.
    #[arg(long, value_name = "TEXT", value_parser = label::parse)]
    pub label: Option<String>,
    /// Where the owner token is written, readable by its owner only; needed unless --format json
    ///
    /// A file, or a symbolic link to one. One that has the token of another lock is replaced once the lease of that is
    /// over, and refused before.
    #[arg(long, value_name = "FILE")]
    pub owner_file: Option<PathBuf>,
}

/// Acquires and leaves the lease held; the owner token goes to the file, or into JSON.
pub async fn acquire(options: &AcquireOptions, global: &Global) -> Result<Outcome, Failure> {
    let (name, _) = global.key_of(&options.name)?;
    if options.owner_file.is_none() {
        let nobody = "nothing would know the owner token, so nobody could release the lease";
        if global.format == Format::Human {
            return Err(Failure::new(Cause::Usage, nobody).hint("add --owner-file FILE or --format json"));
        }
        if output::is_thrown_away() {
            let message = format!("stdout is closed or thrown away: {nobody}");
            return Err(Failure::new(Cause::Output, message).hint("keep stdout or add --owner-file FILE"));
        }
    }
    let mut patience = Patience::new(global, Some(options.wait.unwrap_or_default()));
    let file = options.owner_file.as_deref().map(OwnerFile::prepare).transpose()?;
    let mut signals = Signals::listen()?;
    let _voice = Voice::without_waiting();
    let label = options.label.clone().unwrap_or_else(|| label::of("redlatch acquire".as_ref()));
    let (client, mut events) = tokio::select! {
        client = patience.connect(options.ttl, &label) => client?,
        signal = signals.next() => return Err(interrupted(&name, signal)),
    };
    if let Some(file) = &file {
        file.refuse_to_lose_another(&client, &name).await?;
    }
    let lock = client.mutex(name.as_bytes())?.renew(false);
    let wait = Wait { global, client: &client, name: &name, label: &label };
    let granted = tokio::select! {
        granted = wait.watch(patience.acquire(&lock), &mut events) => granted.map_err(Failure::from),
        signal = signals.next() => Err(interrupted(&name, signal)),
    };
    let outcome = match granted {
        Ok(Attempt::Granted(lease)) => leave_held(options, global, lease, file).await,
        Ok(Attempt::Held(held)) => Ok(held::by_another(&client, &name, held, 75).await),
        Err(failure) => Err(failure),
    };
    patience.settle(&client).await;
    outcome
}

async fn leave_held(
    options: &AcquireOptions,
    global: &Global,
    lease: Lease,
    file: Option<OwnerFile>,
) -> Result<Outcome, Failure> {
    let data = json!({
        "name": text_of(lease.name().as_bytes()),
        "name_base64": base64_of(lease.name().as_bytes()),
        "held": true,
        "fence": lease.fence().to_string(),
        "ttl_ms": millis(options.ttl),
        "namespace": global.namespace,
    });
    let text = format!("acquired {} for {}, fence {}\n", lease.name(), show(options.ttl), lease.fence());
    let mut with_token = data.clone();
    with_token["owner"] = lease.owner_token().into();
    let Some(file) = file else { return hand_out(global, lease, Outcome::new(text, with_token)).await };
    file.write(&with_token)?;
    lease.into_owner_token();
    Ok(Outcome::new(text, data).report())
}

/// Prints the only copy of the owner token. A lease whose token nobody got is given back: nobody else could.
async fn hand_out(global: &Global, lease: Lease, outcome: Outcome) -> Result<Outcome, Failure> {
    let result = Ok(outcome);
    let printed = output::stdout().and_then(|mut out| output::print(global, "acquire", &result, 0, &mut out));
    let Err(error) = printed else {
        lease.into_owner_token();
        return result.map(|outcome| Outcome { is_printed: true, ..outcome });
    };
    let name = lease.name().clone();
    let given_back = match lease.release().await {
        Ok(()) => format!("the lease of {name} was given back"),
        Err(error) => format!("and the lease of {name} could not be given back: {error}"),
    };
    Err(Failure::new(Cause::Output, format!("{}; {given_back}", output::unwritten(&error))))
}

/// A signal that came before there was anything to forward it to.
pub fn interrupted(name: &Name, signal: i32) -> Failure {
    let number = u8::try_from(signal).unwrap_or_default();
    Failure::new(Cause::Interrupted(number), format!("{} ended the wait for {name}", signals::name(signal)))
}
