//! How often `out` tells what it waits for, and spans for people.

use std::time::Duration;

use crate::client::progress::Pace;
use crate::env::Env;
use crate::wire::concourse::LogLevel;

/// At level debug, everything is told.
pub(super) fn pace(level: LogLevel, env: &Env<'_>) -> Result<Pace, String> {
    if level == LogLevel::Debug { Ok(Pace::unlimited()) } else { Pace::of_log(env) }
}

/// A span for people, with at most three digits after the seconds.
pub(super) fn span(span: Duration) -> String {
    let rounded = if span < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(0))
    } else {
        Duration::from_secs(span.as_secs())
    };
    humantime::format_duration(rounded).to_string()
}
