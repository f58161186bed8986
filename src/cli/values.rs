//! Values that several commands read from arguments or the environment.

use std::fmt;
use std::time::Duration;

use crate::core::limits::OWNER_FIELD_BYTES;
use crate::env::{Env, random_hex};
use crate::wire::api::{ByBody, Owner};
use crate::wire::escape::cut;

/// A flag that limits a wait, and its value: shown as `--wait 30s`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub flag: &'static str,
    pub span: Duration,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flag, humantime::format_duration(self.span))
    }
}

/// The person at the command line, as far as the environment tells.
pub(super) fn person(env: &Env<'_>) -> Owner {
    let name = env.var("USER").or_else(|| env.var("LOGNAME")).unwrap_or("somebody");
    let place = if env.hostname.is_empty() { String::new() } else { format!("@{}", env.hostname) };
    let person = format!("{name}{place}");
    Owner { person: Some(cut(&person, OWNER_FIELD_BYTES).to_owned()), ..Owner::default() }
}

/// Who makes a change, with a fresh id that makes the call safe to repeat.
pub(super) fn by(env: &Env<'_>, reason: Option<&String>) -> ByBody {
    ByBody { op: Some(random_hex::<16>()), owner: person(env), reason: reason.cloned() }
}

/// Parses `NAME=VALUE`, as given to `--label`.
pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::wire::text::parse_duration(text)
}

/// Parses a duration; a plain number, also with a fraction, is in seconds, as for `flock --wait`.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse::<f64>() {
        Ok(seconds) if is_plain => Duration::try_from_secs_f64(seconds).map_err(|_| "is too long".to_owned()),
        _ => parse_duration(text),
    }
}

/// Parses a size in bytes: a whole number, alone or with KiB, MiB or GiB.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("must be a number of bytes, or end in KiB, MiB or GiB".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "must be a whole number such as 512MiB".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds() {
        for (text, ms) in [("10", 10_000), ("0.5", 500), ("0", 0), ("90s", 90_000), ("1m 30s", 90_000)] {
            assert_eq!(parse_seconds(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", ".", "1e3", "inf", "-1", "99999999999999999999999"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [("0", 0), ("17", 17), ("4KiB", 4096), ("512 MiB", 512 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for wrong in ["", "MiB", "1GB", "1.5GiB", "-1", "1e9", "99999999999GiB", "1 KiB KiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
