//! `redlatch bench`: what a lease costs on these servers, beside the least that any lock on Redis costs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use redlatch::{Client, Error, Name};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    duration::{self, show},
    opt::Global,
    outcome::{Cause, Failure, Outcome},
    output::plural,
    server::unconnected,
    signals::{self, Signals},
    table::table,
    width::{columns, folded},
};

/// Options of `bench`.
#[derive(Args)]
pub struct BenchOptions {
    /// How many tasks take locks at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// How many locks they share [default: as many as clients, so that nobody waits]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub locks: Option<u32>,
    /// How long each lease is held
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_or_zero, allow_hyphen_values = true,
        default_value = "0s")]
    pub hold: Duration,
    /// How long each part of the measurement takes
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = "3s")]
    pub duration: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
/// As short as a server may remember the fence of a lock that nobody uses.
const RETENTION: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(10);
/// Not counted: connections, caches, the allocator.
const WARM_UP: Duration = Duration::from_millis(200);
/// Width of the longest bar, where the terminal has the place.
const BAR: usize = 40;
/// What stands before a bar.
const BEFORE_BAR: usize = 44;
/// The same where bars would be shorter than [`LEAST_BAR`]: without where the times end that it is about.
const BEFORE_NARROW: usize = 21;
const LEAST_BAR: usize = 10;

/// What one part of the measurement saw. Times are in microseconds.
struct Part {
    what: &'static str,
    /// From the first question to the lease.
    acquire: Histogram<u64>,
    release: Histogram<u64>,
    took: Duration,
}

/// What a part does again and again.
#[derive(Clone, Copy)]
enum Work {
    /// SET NX PX, and delete if the value is still ours: no queue, no fence.
    Floor,
    /// A mutex.
    Mutex,
}

/// Measures the least that any lock costs, unless there is to be waiting, and the mutex.
pub async fn bench(options: &BenchOptions, global: &Global) -> Result<Outcome, Failure> {
    let mut signals = Signals::listen()?;
    let namespace = format!("redlatch-bench-{}", uuid::Uuid::new_v4().simple());
    let builder = Client::builder().namespace(&namespace).timeout(global.timeout).ttl(TTL).retention(RETENTION);
    // No role has the keys of a namespace that is made up.
    let endpoint = global.endpoint()?.of_role(None);
    let client = tokio::select! {
        client = builder.connect_to(&endpoint) => client.map_err(unconnected)?,
        signal = signals.next() => return Err(interrupted(signal)),
    };
    let contended = options.locks.is_some_and(|locks| locks < options.clients);
    let works: &[_] = if contended { &[Work::Mutex] } else { &[Work::Floor, Work::Mutex] };
    let mut parts = Vec::new();
    for &work in works {
        let (number, all) = (parts.len() + 1, works.len());
        let what = format!("{} ({number} of {all})", work.word());
        let progress = progress(global, &what, WARM_UP + options.duration);
        tokio::select! {
            part = measure(work, options, &client) => parts.push(part?),
            signal = signals.next() => return Err(interrupted(signal)),
            () = progress => {}
        }
    }
    client.settle().await;
    Ok(Outcome::new(view(options, &parts), data(options, &parts)).rows("parts"))
}

/// Shows on a terminal how much of the time of one part is over. Never ends by itself.
async fn progress(global: &Global, what: &str, time: Duration) {
    let style =
        ProgressStyle::with_template("{msg:19} {bar:10} {pos} of {len} s").unwrap_or(ProgressStyle::default_bar());
    let bar = global.bar(time.as_secs_f64().ceil() as u64).with_style(style).with_message(what.to_owned());
    let bar = Shown(bar);
    loop {
        bar.0.tick();
        tokio::time::sleep(SECOND).await;
        bar.0.inc(1);
    }
}

/// Leaves the terminal as it was, however the wait ends.
struct Shown(ProgressBar);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn interrupted(signal: i32) -> Failure {
    let number = u8::try_from(signal).unwrap_or_default();
    let name = signals::name(signal);
    Failure::new(Cause::Interrupted(number), format!("{name} ended the measurement; its keys are gone in a minute"))
}

async fn measure(work: Work, options: &BenchOptions, client: &Client) -> Result<Part, Error> {
    let locks = options.locks.unwrap_or(options.clients);
    let started = Instant::now() + WARM_UP;
    let end = started + options.duration;
    let mut tasks: JoinSet<_> = (0..options.clients)
        .map(|number| {
            let (client, name) = (client.clone(), Arc::new(format!("bench-{}", number % locks)));
            let hold = options.hold;
            async move {
                let (mut acquire, mut release) = (histogram(), histogram());
                while Instant::now() < end {
                    let asked = Instant::now();
                    let (acquired, released) = once(work, &client, &name, number, hold).await?;
                    if asked >= started {
                        acquire.saturating_record(micros(acquired));
                        release.saturating_record(micros(released));
                    }
                }
                Ok::<_, Error>((acquire, release))
            }
        })
        .collect();
    let mut part = Part { what: work.word(), acquire: histogram(), release: histogram(), took: options.duration };
    while let Some(task) = tasks.join_next().await {
        let Ok(outcome) = task else { continue };
        let (acquire, release) = outcome?;
        // Histograms of the same bounds can be added.
        let _ = (part.acquire.add(acquire), part.release.add(release));
    }
    part.took = part.took.max(started.elapsed());
    Ok(part)
}

/// Acquires, holds and releases. Returns what the first and the last of it took.
async fn once(
    work: Work,
    client: &Client,
    name: &str,
    number: u32,
    hold: Duration,
) -> Result<(Duration, Duration), Error> {
    let asked = Instant::now();
    match work {
        Work::Floor => {
            let caller = client.caller();
            let key = [&client.namespace().mutex_key(&Name::new(name)?)[..], b"-floor"].concat();
            let owner = number.to_string();
            let mut set = redis::cmd("SET");
            set.arg(&key).arg(&owner).arg("NX").arg("PX").arg(TTL.as_millis() as u64);
            caller.command_on(&key, &set, || "SET".to_owned()).await?;
            let acquired = asked.elapsed();
            pause(hold).await;
            let asked = Instant::now();
            caller.plain_release(&key, owner.as_bytes()).await?;
            Ok((acquired, asked.elapsed()))
        }
        Work::Mutex => {
            let lease = client.mutex(name)?.acquire().await?;
            let acquired = asked.elapsed();
            pause(hold).await;
            let asked = Instant::now();
            lease.release().await?;
            Ok((acquired, asked.elapsed()))
        }
    }
}

async fn pause(hold: Duration) {
    if !hold.is_zero() {
        tokio::time::sleep(hold).await;
    }
}

/// One microsecond to a minute, with two digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are valid")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Work {
    fn word(self) -> &'static str {
        match self {
            Self::Floor => "set-nx-px",
            Self::Mutex => "mutex",
        }
    }
}

impl Part {
    fn pairs_per_second(&self) -> f64 {
        self.acquire.len() as f64 / self.took.as_secs_f64()
    }

    fn rows(&self) -> [[String; 7]; 2] {
        let row = |verb: &str, times: &Histogram<u64>, rate: String| {
            let at = |percentile| show_micros(times.value_at_quantile(percentile));
            [
                format!("{} {verb}", self.what),
                times.len().to_string(),
                rate,
                at(0.5),
                at(0.99),
                at(0.999),
                show_micros(times.max()),
            ]
        };
        [
            row("acquire", &self.acquire, format!("{:.0}", self.pairs_per_second())),
            row("release", &self.release, String::new()),
        ]
    }
}

/// All times in one unit, so that they can be compared at a glance.
fn show_micros(micros: u64) -> String {
    format!("{:.3} ms", micros as f64 / 1e3)
}

fn view(options: &BenchOptions, parts: &[Part]) -> String {
    let locks = options.locks.unwrap_or(options.clients);
    let (clients, locks) = (plural(options.clients.into(), "client"), plural(locks.into(), "lock"));
    let mut text = folded(&format!("{clients}, {locks}, held for {}\n\n", show(options.hold)));
    let rows: Vec<_> = parts.iter().flat_map(Part::rows).collect();
    text += &table(&["", "CALLS", "PAIRS/S", "P50", "P99", "P99.9", "MAX"], &rows);
    if let [floor, mutex] = parts {
        let ratio = mutex.pairs_per_second() / floor.pairs_per_second();
        text += &folded(&format!("\na mutex does {ratio:.2} of the pairs that SET NX PX and compare-and-delete do\n"));
    }
    if let Some(mutex) = parts.last() {
        text += &format!("\nmutex acquire\n{}", bars(&mutex.acquire));
    }
    text
}

/// One bar for each power of two of microseconds.
fn bars(times: &Histogram<u64>) -> String {
    let counts: Vec<_> =
        (0..26).map(|power| (1_u64 << power, times.count_between(1 << power, (2 << power) - 1))).collect();
    let narrow = columns().is_some_and(|columns| columns < BEFORE_BAR + LEAST_BAR);
    let before = if narrow { BEFORE_NARROW } else { BEFORE_BAR };
    let widest = columns().map_or(BAR, |columns| columns.saturating_sub(before + 1).clamp(1, BAR)) as u64;
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let first = counts.iter().position(|(_, count)| *count > 0).unwrap_or(0);
    let last = counts.iter().rposition(|(_, count)| *count > 0).map_or(0, |last| last + 1);
    counts[first..last.max(first)]
        .iter()
        .map(|(from, count)| {
            let bar = "#".repeat(usize::try_from((count * widest).div_ceil(most)).unwrap_or(0));
            match narrow {
                true => format!("{:>10}  {count:>7}  {bar}\n", show_micros(*from)),
                false => format!("{:>13} .. {:>13}  {count:>10}  {bar}\n", show_micros(*from), show_micros(from * 2)),
            }
        })
        .collect()
}

fn data(options: &BenchOptions, parts: &[Part]) -> Value {
    let list: Vec<_> = parts
        .iter()
        .map(|part| {
            let times = |times: &Histogram<u64>| {
                json!({
                    "p50_us": times.value_at_quantile(0.5), "p99_us": times.value_at_quantile(0.99),
                    "p999_us": times.value_at_quantile(0.999), "max_us": times.max(),
                })
            };
            json!({
                "what": part.what, "pairs": part.acquire.len(), "pairs_per_second": part.pairs_per_second(),
                "acquire": times(&part.acquire), "release": times(&part.release),
            })
        })
        .collect();
    json!({
        "clients": options.clients, "locks": options.locks.unwrap_or(options.clients),
        "hold_ms": crate::duration::millis(options.hold), "parts": list,
    })
}
