//! `redlatch inspect`: who holds a lock, since when, for how long, and who waits.

use std::ffi::OsString;

use clap::Args;
use std::time::{Duration, UNIX_EPOCH};

use redlatch::{
    Name,
    call::{Caller, Inspect},
};
use serde_json::{Value, json};

use crate::{
    damaged,
    duration::{millis, rough},
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{base64_of, escaped, good, is_unread, tell, text_of},
    rights::Role,
    signals::Signals,
    table::table,
    width::folded,
};

/// Options of `inspect`.
#[derive(Args)]
pub struct InspectOptions {
    /// What is protected: 1 to 512 bytes
    pub name: OsString,
    /// Show it again whenever holder or waiters have changed, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// How many waiters to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub waiters: u32,
}

/// How often `--follow` looks.
const LOOK: Duration = Duration::from_millis(250);

/// Asks only; works on replicas too.
pub async fn inspect(options: &InspectOptions, global: &Global) -> Result<Outcome, Failure> {
    let (name, key) = global.key_of(&options.name)?;
    let caller = global.healing_caller_as(Role::Observer).await?;
    if options.follow {
        return follow(options, global, &name, &key, &caller).await;
    }
    let lock = caller.inspect(&key, options.waiters).await.map_err(|error| damaged::by_look(&key, error))?;
    Ok(outcome(&name, &lock, options.waiters))
}

/// Shows the lock whenever it has changed, until a signal comes. A server that does not answer for a while is waited for.
async fn follow(
    options: &InspectOptions,
    global: &Global,
    name: &Name,
    key: &[u8],
    caller: &Caller,
) -> Result<Outcome, Failure> {
    let mut signals = Signals::listen()?;
    let mut shown = None;
    loop {
        let looked = tokio::select! {
            looked = caller.inspect(key, options.waiters) => looked,
            _ = signals.next() => break,
        };
        match looked {
            Ok(lock) => {
                let tickets: Vec<_> = lock.waiters.iter().map(|place| place.ticket).collect();
                let state = Some((lock.held, lock.fence, tickets));
                if shown != state {
                    let Outcome { text, data, .. } = outcome(name, &lock, options.waiters);
                    let gap = if shown.is_some() { "\n" } else { "" };
                    if tell(global, &format!("{gap}{}", String::from_utf8_lossy(&text).trim_end()), &data).is_err() {
                        break;
                    }
                    shown = state;
                }
            }
            Err(error) if error.is_retryable() => tracing::warn!(%error, "the lock cannot be seen"),
            Err(error) => return Err(damaged::by_look(key, error)),
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

fn outcome(name: &Name, lock: &Inspect, limit: u32) -> Outcome {
    let title = escaped(name.as_bytes());
    let waiters: Vec<_> = lock
        .waiters
        .iter()
        .map(|place| {
            json!({
                "ticket": place.ticket, "waited_ms": millis(place.waited), "window_ms": millis(place.window),
                "label": text_of(&place.label), "label_base64": base64_of(&place.label),
            })
        })
        .collect();
    let data = json!({
        "name": text_of(name.as_bytes()),
        "name_base64": base64_of(name.as_bytes()),
        "held": lock.held,
        "holder": text_of(&lock.label),
        "holder_base64": base64_of(&lock.label),
        "since_us": lock.since_us,
        "remaining_ms": millis(lock.remaining),
        "fence": lock.fence.to_string(),
        "places": lock.places,
        "waiters": waiters,
    });
    let outcome = Outcome::new(view(&title, lock, limit), data);
    if lock.held { outcome } else { not_held(outcome, name) }
}

/// The answer "no", which the text has told people already.
pub fn not_held(outcome: Outcome, name: &Name) -> Outcome {
    let no = Problem::new("not_held", format!("{name} is not held"));
    Outcome { problems_shown: true, ..outcome.verdict(Verdict::Different).problem(no) }
}

fn view(title: &str, lock: &Inspect, limit: u32) -> String {
    let (state, holder) = if lock.held { (good("held"), "holder") } else { ("free".to_owned(), "last held by") };
    let mut lines = vec![("name", title.to_owned()), ("state", state)];
    if lock.since_us > 0 {
        let since = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_micros(lock.since_us));
        let ago = Duration::from_micros(lock.now_us.saturating_sub(lock.since_us));
        lines.push((holder, escaped(&lock.label)));
        lines.push(("since", format!("{since} ({} ago)", rough(ago))));
        lines.push(("fence", lock.fence.to_string()));
    }
    if lock.held {
        lines.push(("remaining", rough(lock.remaining)));
    }
    let shown = lock.waiters.len();
    lines.push((
        "waiters",
        match lock.places {
            // Some of the places may be left by waiters that have gone.
            places if places > limit.into() => format!("{places} at most, {shown} shown, see --waiters"),
            _ => shown.to_string(),
        },
    ));
    let lines: String = lines.into_iter().map(|(word, value)| format!("{word:<12}  {value}\n")).collect();
    let mut text = folded(&lines);
    if !lock.waiters.is_empty() {
        let rows: Vec<_> = lock
            .waiters
            .iter()
            .enumerate()
            .map(|(number, place)| {
                let alive = if place.window.is_zero() { "overdue".to_owned() } else { rough(place.window) };
                [(number + 1).to_string(), rough(place.waited), alive, escaped(&place.label)]
            })
            .collect();
        text += &format!("\n{}", table(&["#", "WAITED", "ALIVE FOR", "WAITER"], &rows));
    }
    text
}
