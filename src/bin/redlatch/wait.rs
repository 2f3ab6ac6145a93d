//! Waiting for a lease, and telling people meanwhile where that stands: by a live line on a terminal, and with -v.

use std::{
    pin::pin,
    time::{Duration, Instant, UNIX_EPOCH},
};

use redlatch::{Client, Event, Name, call::Inspect};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{self, MissedTickBehavior, interval},
};

use crate::{
    duration::rough,
    held::{held_for, holder},
    line::Line,
    opt::Global,
    output::quoted,
};

/// How often the live line is drawn.
const DRAW: Duration = Duration::from_secs(1);
/// How many places of the queue are looked at, at most.
const LOOK: u64 = 1000;

/// What the wait is for.
pub struct Wait<'a> {
    pub global: &'a Global,
    pub client: &'a Client,
    pub name: &'a Name,
    pub label: &'a str,
}

impl Wait<'_> {
    /// Carries out `attempt`, whose places in the queue come as `events`.
    pub async fn watch<T>(&self, attempt: impl Future<Output = T>, events: &mut UnboundedReceiver<Event>) -> T {
        let mut attempt = pin!(attempt);
        let line = Line::of(self.global);
        let tells = line.is_some() || self.global.verbose > 0;
        let (started, mut place) = (Instant::now(), 0);
        let mut ticks = interval(DRAW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_moved = tokio::select! {
                outcome = &mut attempt => return outcome,
                Some(event) = events.recv() => match event {
                    Event::Queued { place: now, .. } if now != place => {
                        place = now;
                        true
                    }
                    _ => continue,
                },
                _ = ticks.tick(), if line.is_some() && place > 0 => false,
            };
            if !tells {
                continue;
            }
            let seen = tokio::select! {
                outcome = &mut attempt => return outcome,
                seen = self.look(place) => seen,
            };
            let stands = standing(place, &seen, self.label);
            if has_moved {
                self.global.tell(|| format!("waiting for {}: {stands}", self.name));
            }
            if let Some(line) = &line {
                line.show(&format!("waiting {} for {}: {stands}", rough(started.elapsed()), self.name));
            }
        }
    }

    /// The lock and the queue up to our place; not for long, as it is for people alone.
    async fn look(&self, place: u64) -> Seen {
        let key = self.client.namespace().mutex_key(self.name);
        let waiters = u32::try_from(place.min(LOOK)).unwrap_or_default();
        match time::timeout(DRAW, self.client.caller().inspect(&key, waiters)).await {
            Ok(Ok(lock)) if lock.held => Seen::Held(lock),
            Ok(Err(error)) if error.is_retryable() => Seen::Silence,
            Ok(_) => Seen::Nothing,
            Err(_) => Seen::Silence,
        }
    }
}

/// What the server says of the lock.
enum Seen {
    Held(Inspect),
    /// It is about to change hands, or this user may not look.
    Nothing,
    Silence,
}

/// Our place, behind whom it is, and who holds the lock since when.
fn standing(place: u64, seen: &Seen, label: &str) -> String {
    let lock = match seen {
        Seen::Held(lock) => lock,
        Seen::Nothing => return format!("place {place}"),
        Seen::Silence => return format!("place {place}, Redis does not answer"),
    };
    let ours = lock.waiters.iter().rposition(|waiter| waiter.label == label.as_bytes());
    let before = ours.and_then(|ours| lock.waiters.get(ours.checked_sub(1)?));
    let behind = before.map(|waiter| format!(", behind {}", quoted(&waiter.label))).unwrap_or_default();
    // Those who have gone have a ticket, but no place.
    let place = ours.map_or(place, |ours| ours as u64 + 1);
    let since = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_micros(lock.since_us)).to_string();
    let time = since.split_once('T').map_or("", |(_, time)| time);
    let (held_for, holder) = (rough(held_for(lock)), holder(lock));
    format!("place {place}{behind}, held for {held_for} by {holder} (since {time})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_also_while_nobody_knows_the_holder() {
        assert_eq!(standing(3, &Seen::Nothing, "us"), "place 3");
    }
}
