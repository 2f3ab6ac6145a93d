//! The figures of one line of a table.

use std::time::Duration;

/// What a number of waiters that take turns came to.
pub struct Figures {
    median: f64,
    p99: f64,
    per_second: f64,
    /// Mean, in microseconds.
    hold: f64,
    calls: Option<f64>,
    jain: f64,
}

/// The value below which that part of `sorted` lies.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

impl Figures {
    pub const HEADER: &str = "who                waiters  hold   median us     p99 us   x floor   turns/s   x 1/(floor+hold)   calls/turn    Jain";

    /// From the hand-off times of each waiter, in microseconds. The first of each is the wait before the start.
    pub fn new(per_waiter: &[Vec<f64>], elapsed: Duration, held: Duration, calls: Option<u64>) -> Self {
        let mut times: Vec<f64> = per_waiter.iter().flat_map(|times| times.iter().skip(1).copied()).collect();
        times.sort_by(f64::total_cmp);
        let counts: Vec<f64> = per_waiter.iter().map(|times| times.len() as f64).collect();
        let turns: f64 = counts.iter().sum();
        // Jain, Chiu, Hawe: A Quantitative Measure of Fairness, DEC 1984.
        let squares: f64 = counts.iter().map(|count| count * count).sum();
        Self {
            median: percentile(&times, 0.5),
            p99: percentile(&times, 0.99),
            per_second: turns / elapsed.as_secs_f64(),
            hold: held.as_secs_f64() * 1e6 / turns,
            calls: calls.map(|calls| calls as f64 / turns),
            jain: turns * turns / (counts.len() as f64 * squares),
        }
    }

    pub fn line(&self, who: &str, waiters: usize, hold_ms: u64, floor: f64) -> String {
        let most = 1e6 / (floor + self.hold);
        format!(
            "{who:<18} {waiters:>7} {hold_ms:>2} ms {:>11.1} {:>10.1} {:>9.2} {:>9.0} {:>18.2} {:>12} {:>7.4}",
            self.median,
            self.p99,
            self.median / floor,
            self.per_second,
            self.per_second / most,
            self.calls.map_or_else(|| "-".to_owned(), |calls| format!("{calls:.2}")),
            self.jain,
        )
    }
}
