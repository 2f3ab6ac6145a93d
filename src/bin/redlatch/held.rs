//! The answer "no": who holds the lock, as far as that can be seen.

use std::time::Duration;

use redlatch::{Client, Held, Name, call::Inspect};
use serde_json::json;

use crate::{
    duration::{millis, rough},
    outcome::{Outcome, Problem, Verdict},
    output::{base64_of, quoted, text_of},
};

/// Who holds `lock`: its label in quotes, or "another" where it has none.
pub fn holder(lock: &Inspect) -> String {
    if lock.label.is_empty() { "another".to_owned() } else { quoted(&lock.label) }
}

/// How long it has been held.
pub fn held_for(lock: &Inspect) -> Duration {
    Duration::from_micros(lock.now_us.saturating_sub(lock.since_us))
}

/// The answer of a verb that got no lease.
pub async fn by_another(client: &Client, name: &Name, held: Held, exit_code: u8) -> Outcome {
    // Nobody may hold it by now, or the server may not say.
    let lock = client.caller().inspect(&client.namespace().mutex_key(name), 0).await.ok().filter(|lock| lock.held);
    let remaining = lock.as_ref().map_or(held.remaining, |lock| lock.remaining);
    let who = lock.as_ref().map_or_else(|| "another".to_owned(), holder);
    let left = if remaining.is_zero() { String::new() } else { format!(", {} left of its lease", rough(remaining)) };
    let message = format!("{name} is held by {who}{left}");
    let mut data = json!({
        "name": text_of(name.as_bytes()), "name_base64": base64_of(name.as_bytes()), "held": false,
        "remaining_ms": millis(remaining),
    });
    if let Some(lock) = &lock {
        data["holder"] = text_of(&lock.label).into();
        data["holder_base64"] = base64_of(&lock.label).into();
        data["since_us"] = lock.since_us.into();
        data["fence"] = lock.fence.to_string().into();
    }
    Outcome::new("", data).verdict(Verdict::Held(exit_code)).problem(Problem::new("held", message))
}
