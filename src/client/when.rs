//! Times and spans for people. Callers escape the text before they print it.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::core::time::WallMs;
use crate::env::Clock;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The wall clock of this machine, which may differ a little from the server's.
#[must_use]
pub fn now(clock: &dyn Clock) -> WallMs {
    WallMs(clock.wall_ms())
}

/// A time of the server: `14:05:12Z (32 min ago)`, with the date if that is not today's in UTC. A text that is not a
/// time is returned as it is.
#[must_use]
pub fn time(text: &str, now: WallMs) -> String {
    let (Some(then), Some(today)) = (parse(text), day_of(now)) else { return text.to_owned() };
    let form = if then.date_naive() == today { "%H:%M:%SZ" } else { "%Y-%m-%d %H:%M:%SZ" };
    let between = Duration::from_millis(now.0.abs_diff(millis(then)));
    let relative =
        if millis(then) > now.0 { format!("in {}", span(between)) } else { format!("{} ago", span(between)) };
    format!("{} ({relative})", then.format(form))
}

/// How long ago a time of the server is; nothing for a time to come, which only a difference of clocks explains.
#[must_use]
pub fn since(text: &str, now: WallMs) -> Option<Duration> {
    let then = parse(text)?;
    Some(Duration::from_millis(now.0.saturating_sub(millis(then))))
}

/// A span, as roughly as people want to know it: `45 s`, `32 min`, `5 h 12 min`, `3 days 4 h`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, one: &str, small: u64, other: &str| match small {
        0 => format!("{large} {one}"),
        _ => format!("{large} {one} {small} {other}"),
    };
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "min"),
        _ => two(seconds / DAY, if seconds < 2 * DAY { "day" } else { "days" }, seconds % DAY / HOUR, "h"),
    }
}

fn parse(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc))
}

fn millis(time: DateTime<Utc>) -> u64 {
    u64::try_from(time.timestamp_millis()).unwrap_or_default()
}

fn day_of(now: WallMs) -> Option<chrono::NaiveDate> {
    Some(DateTime::<Utc>::from_timestamp_millis(i64::try_from(now.0).ok()?)?.date_naive())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_say_how_long_ago() {
        let now = WallMs(millis(parse("2026-03-01T14:37:20.500Z").unwrap()));
        let cases = [
            ("2026-03-01T14:05:12.100Z", "14:05:12Z (32 min ago)"),
            ("2026-03-01T14:37:20.500Z", "14:37:20Z (0 s ago)"),
            ("2026-03-01T15:37:20.500Z", "15:37:20Z (in 1 h)"),
            ("2026-02-27T10:00:00.000Z", "2026-02-27 10:00:00Z (2 days 4 h ago)"),
            ("2026-03-01T15:05:12+01:00", "14:05:12Z (32 min ago)"),
            ("yesterday", "yesterday"),
        ];
        for (text, told) in cases {
            assert_eq!(time(text, now), told, "{text}");
        }
        assert_eq!(time("2026-03-01T14:05:12.100Z", WallMs(u64::MAX)), "2026-03-01T14:05:12.100Z");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_600, "1 h"),
            (18_777, "5 h 12 min"),
            (86_400, "1 day"),
            (90_000, "1 day 1 h"),
            (273_600, "3 days 4 h"),
        ];
        for (seconds, told) in cases {
            assert_eq!(span(Duration::from_secs(seconds)), told);
        }
    }
}
