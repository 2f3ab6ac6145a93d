//! Durations carry units: a bare number is refused, because nobody can tell what it means.

use std::time::Duration;

/// The library's defaults as they are written on the command line.
pub const TIMEOUT: &str = "2s";
/// See [`TIMEOUT`].
pub const TTL: &str = "10s";

const MIN: Duration = Duration::from_millis(1);
const MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// Parses a duration of 1 ms to 31 days in whole milliseconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let duration = with_unit(text).ok_or("a duration is a number with a unit, write 500ms, 30s, 5m or 2h")?;
    if !(MIN..=MAX).contains(&duration) {
        return Err("a duration must be 1ms to 31days".to_owned());
    }
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err("a duration must be whole milliseconds, write 1ms or more of them".to_owned());
    }
    Ok(duration)
}

/// As [`parse`], and `0s` too.
pub fn parse_or_zero(text: &str) -> Result<Duration, String> {
    if with_unit(text) == Some(Duration::ZERO) { Ok(Duration::ZERO) } else { parse(text) }
}

fn with_unit(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|_| !text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A duration for people, in whole milliseconds, for instance `9s 998ms`.
pub fn show(duration: Duration) -> String {
    let whole = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(whole)).to_string()
}

/// A duration that passes while people read it: two units at most, and no fraction of a second from one second on.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0 => return show(duration),
        1..3600 => 1,
        3600..86400 => 60,
        _ => 3600,
    };
    humantime::format_duration(Duration::from_secs(seconds / unit * unit)).to_string()
}

/// What is left of a time that presses: to a tenth of a second below a minute.
pub fn left(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    if tenths < 600 { format!("{}.{} s", tenths / 10, tenths % 10) } else { rough(duration) }
}

/// A duration for programs.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use redlatch::ClientBuilder;

    use super::*;

    #[test]
    fn what_passes_is_told_in_two_units_at_most() {
        for (milliseconds, text) in [
            (0, "0s"),
            (999, "999ms"),
            (59_846, "59s"),
            (3_599_999, "59m 59s"),
            (3_661_000, "1h 1m"),
            (86_400_000 * 2 + 3_600_000 + 61_000, "2days 1h"),
        ] {
            assert_eq!(rough(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn what_is_left_of_a_minute_is_told_in_tenths_of_a_second() {
        for (milliseconds, text) in [(0, "0.0 s"), (99, "0.0 s"), (3299, "3.2 s"), (59_999, "59.9 s"), (60_000, "1m")] {
            assert_eq!(left(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn zero_has_a_unit_too() {
        for zero in ["0s", "0ms", "0m"] {
            assert_eq!(parse_or_zero(zero), Ok(Duration::ZERO), "{zero}");
        }
        for wrong in ["0", "00", "", "-1s"] {
            assert!(parse_or_zero(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_or_zero("1s"), parse("1s"));
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        assert_eq!(parse(TIMEOUT), Ok(ClientBuilder::DEFAULT_TIMEOUT));
        assert_eq!(parse(TTL), Ok(ClientBuilder::DEFAULT_TTL));
    }
}
