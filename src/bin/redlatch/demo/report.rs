//! What the flash sale showed, for people and for machines.

use std::{fmt, time::Duration};

use serde_json::json;

/// All races.
pub struct Report {
    pub buyers: usize,
    pub nginx_workers: usize,
    /// Why no request took part.
    pub without_nginx: Option<String>,
    pub server: String,
    pub private_server: bool,
    pub races: Vec<Race>,
}

/// One race.
pub struct Race {
    pub stock: u32,
    pub locked: bool,
    pub sold: usize,
    pub oversold: usize,
    pub fences: Vec<u64>,
    pub fences_rise: bool,
    /// How long each buyer waited for the lock.
    pub waits: Vec<Duration>,
    pub took: Duration,
}

impl Report {
    /// Whether the lock kept every sale exact.
    pub fn exact(&self) -> bool {
        self.races
            .iter()
            .filter(|race| race.locked)
            .all(|race| race.sold == self.buyers.min(race.stock as usize) && race.fences_rise)
    }

    /// The report as data.
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "buyers": self.buyers,
            "nginx_workers": self.nginx_workers,
            "server_version": self.server,
            "exact": self.exact(),
            "races": self.races.iter().map(|race| json!({
                "stock": race.stock,
                "locked": race.locked,
                "sold": race.sold,
                "oversold": race.oversold,
                "fences": race.fences.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "wait_p50_ms": race.percentile(50).map(|wait| wait.as_secs_f64() * 1000.0),
                "wait_p99_ms": race.percentile(99).map(|wait| wait.as_secs_f64() * 1000.0),
                "took_ms": race.took.as_secs_f64() * 1000.0,
            })).collect::<Vec<_>>(),
        })
    }
}

impl Race {
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut waits = self.waits.clone();
        waits.sort();
        waits.get((waits.len() * percent / 100).min(waits.len().saturating_sub(1))).copied()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.private_server { "a private" } else { "your" };
        match &self.without_nginx {
            None => writeln!(
                f,
                "Flash sale on {place} Redis {}: {} buyers, half of them Rust tasks, half requests to {} nginx workers.",
                self.server, self.buyers, self.nginx_workers
            )?,
            Some(reason) => writeln!(
                f,
                "Flash sale on {place} Redis {}: {} buyers, all of them Rust tasks, because nginx with the Lua module \
                 could not be started ({reason}).",
                self.server, self.buyers
            )?,
        }
        writeln!(f)?;
        writeln!(f, "  stock                    sold  oversold  acquire p50   p99       fences")?;
        for race in &self.races {
            let who = if race.locked { "with redlatch" } else { "without a lock" };
            let wait = |percent| race.percentile(percent).map_or("-".to_owned(), milliseconds);
            let fences = match (race.locked, race.fences_rise) {
                (false, _) => "none".to_owned(),
                (true, true) => format!("{}, each above the one before", race.fences.len()),
                (true, false) => "NOT RISING".to_owned(),
            };
            writeln!(
                f,
                "  {:>5}  {who:<16} {:>5} {:>9}  {:>11}  {:>8}  {fences}",
                race.stock,
                race.sold,
                race.oversold,
                wait(50),
                wait(99),
            )?;
        }
        for race in self.races.iter().filter(|race| race.locked) {
            histogram(f, race)?;
        }
        writeln!(f)?;
        match self.exact() {
            true => writeln!(f, "With the lock every sale was exact."),
            false => writeln!(f, "With the lock a sale was NOT exact: this is a bug, please report it."),
        }
    }
}

/// How long buyers waited for their turn, in doubling steps.
fn histogram(f: &mut fmt::Formatter<'_>, race: &Race) -> fmt::Result {
    writeln!(f, "\n  Waiting for the lock, stock {}:", race.stock)?;
    let bucket = |wait: &Duration| (wait.as_micros().max(1).ilog2()).max(8);
    let (Some(first), Some(last)) = (race.waits.iter().map(bucket).min(), race.waits.iter().map(bucket).max()) else {
        return Ok(());
    };
    for step in first..=last {
        let count = race.waits.iter().filter(|wait| bucket(wait) == step).count();
        let limit = milliseconds(Duration::from_micros(1 << (step + 1)));
        writeln!(f, "  {:>12} {:>4} {}", format!("< {limit}"), count, "#".repeat(count.div_ceil(2)))?;
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
