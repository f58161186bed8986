//! How values look as text on the wire: durations, times, metadata, percent-encoding.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, SecondsFormat, Utc};

use super::problems::{Problems, quoted};
use crate::core::limits;
use crate::core::time::{Span, WallMs};

/// Parses a duration such as `90s` or `1h30m`, rounded down to whole milliseconds.
///
/// # Errors
/// Says what is wrong with the text.
pub fn span(text: &str) -> Result<Span, String> {
    let parsed = humantime::parse_duration(text)
        .map_err(|error| format!("{} is not a duration such as \"90s\" or \"1h30m\": {error}", quoted(text)))?;
    Ok(Span(u64::try_from(parsed.as_millis()).unwrap_or(u64::MAX)))
}

/// Parses a duration that must lie between two bounds, inclusive.
///
/// # Errors
/// Says what is wrong with the text, or names the bounds.
pub fn span_within(text: &str, min: Span, max: Span) -> Result<Span, String> {
    let parsed = span(text)?;
    if parsed < min || parsed > max {
        return Err(format!("{} is not between {} and {}", quoted(text), show_span(min), show_span(max)));
    }
    Ok(parsed)
}

/// A duration as [`span`] reads it.
#[must_use]
pub fn show_span(span: Span) -> String {
    humantime::format_duration(Duration::from_millis(span.0)).to_string().replace(' ', "")
}

/// A duration as people and pipelines write it: `90s`, `1h30m`, `500ms`.
///
/// # Errors
/// Says which forms are valid, without quoting the text. The caller adds the place.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| "is not a duration such as 90s, 5m or 1h30m".to_owned())
}

/// A duration in the form that our API accepts.
#[must_use]
pub fn api_duration(span: Duration) -> String {
    match span.subsec_millis() {
        0 => format!("{}s", span.as_secs()),
        _ => format!("{}ms", span.as_millis()),
    }
}

/// A time in RFC 3339, UTC, with milliseconds.
#[must_use]
pub fn time(at: WallMs) -> String {
    let at = i64::try_from(at.0).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
    at.unwrap_or(DateTime::<Utc>::MAX_UTC).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Parses a time as [`time`] shows it. Any RFC 3339 form is accepted.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_time(text: &str) -> Result<WallMs, String> {
    let parsed =
        DateTime::parse_from_rfc3339(text).map_err(|error| format!("{} is not a time: {error}", quoted(text)))?;
    Ok(WallMs(u64::try_from(parsed.timestamp_millis()).unwrap_or_default()))
}

/// Parses a time, or a span such as `24h` before `now`.
///
/// # Errors
/// Says which forms are valid.
pub fn moment(text: &str, now: WallMs) -> Result<WallMs, String> {
    if let Ok(ago) = span(text) {
        return Ok(WallMs(now.0.saturating_sub(ago.0)));
    }
    parse_time(text).map_err(|_| {
        format!("{} is neither a time such as \"2026-11-25T14:00:00Z\" nor a span such as \"24h\"", quoted(text))
    })
}

/// Metadata as JSON carries it: text, or base64 if it is not UTF-8.
#[must_use]
pub fn show_metadata(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

/// Metadata from JSON. `None` if there is none, or if it is invalid, which is recorded.
pub fn metadata(text: Option<String>, base64: Option<String>, problems: &mut Problems) -> Option<Arc<[u8]>> {
    let (at, bytes) = match (text, base64) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            problems.add("metadata_base64", "give either `metadata` or `metadata_base64`, not both");
            return None;
        }
        (Some(text), None) => ("metadata", text.into_bytes()),
        (None, Some(encoded)) => match BASE64.decode(encoded) {
            Ok(bytes) => ("metadata_base64", bytes),
            Err(error) => {
                problems.add("metadata_base64", format!("is not valid base64 (standard alphabet, padded): {error}"));
                return None;
            }
        },
    };
    if bytes.len() > limits::METADATA_BYTES {
        problems.add(at, format!("is too long ({} bytes > max of {})", bytes.len(), limits::METADATA_BYTES));
        return None;
    }
    Some(Arc::from(bytes))
}

/// Decodes percent-encoding, once.
///
/// # Errors
/// A `%` is not followed by two hexadecimal digits, or the result is not UTF-8.
pub fn percent_decoded(text: &str) -> Result<Cow<'_, str>, String> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let bad = bytes.iter().enumerate().find(|&(at, byte)| *byte == b'%' && !(is_hex(at + 1) && is_hex(at + 2)));
    if let Some((at, _)) = bad {
        return Err(format!("{}: the % at byte {at} is not followed by two hexadecimal digits", quoted(text)));
    }
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map_err(|_| format!("{} is not UTF-8 after percent-decoding", quoted(text)))
}

/// A number and what it counts: `1 lock`, `2 locks`.
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_shown() {
        for (text, ms, shown) in [
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("1h 30m", 5_400_000, "1h30m"),
            ("250ms", 250, "250ms"),
            ("1.5s", 1_500, "1s500ms"),
            ("0s", 0, "0s"),
            ("30days", limits::TTL_MAX_MS, "30days"),
            ("1ns", 0, "0s"),
        ] {
            assert_eq!(span(text), Ok(Span(ms)), "{text}");
            assert_eq!(show_span(Span(ms)), shown);
            assert_eq!(span(shown), Ok(Span(ms)), "the output parses again");
        }
        for text in ["", "x", "90", "-1s", "s", "99999999999999999999s", "1\u{1b}s"] {
            assert!(span(text).is_err(), "{text:?}");
        }
        let bounds = |text| span_within(text, Span::secs(1), Span::mins(1));
        assert_eq!(bounds("1s"), Ok(Span::secs(1)));
        assert_eq!(bounds("1m"), Ok(Span::mins(1)));
        assert_eq!(bounds("999ms"), Err("\"999ms\" is not between 1s and 1m".into()));
        assert_eq!(bounds("61s"), Err("\"61s\" is not between 1s and 1m".into()));
    }

    #[test]
    fn times_have_milliseconds_and_never_fail() {
        assert_eq!(time(WallMs(1_767_225_600_007)), "2026-01-01T00:00:00.007Z");
        assert!(time(WallMs(u64::MAX)).ends_with('Z'));
    }

    #[test]
    fn metadata_is_text_or_base64() {
        let read = |text: Option<&str>, base64: Option<&str>| {
            let mut problems = Problems::default();
            let bytes = metadata(text.map(Into::into), base64.map(Into::into), &mut problems);
            problems.done(Some(bytes)).map(|b| b.map(|b| b.to_vec()))
        };
        assert_eq!(read(None, None), Ok(None));
        assert_eq!(read(Some("a: b"), None), Ok(Some(b"a: b".to_vec())));
        assert_eq!(read(None, Some("/wA=")), Ok(Some(vec![255, 0])));
        assert_eq!(show_metadata(&[255, 0]), (None, Some("/wA=".into())));
        assert!(read(None, Some("/wA")).is_err());
        assert!(read(Some("a"), Some("/wA=")).is_err());
        assert!(read(Some(&"x".repeat(limits::METADATA_BYTES)), None).is_ok());
        assert!(read(Some(&"x".repeat(limits::METADATA_BYTES + 1)), None).is_err());
    }

    #[test]
    fn percent_encoding_is_decoded_once() {
        for (text, decoded) in [("a%20b", "a b"), ("%252f", "%2f"), ("a+b", "a+b"), ("%F0%9F%94%92", "🔒"), ("", "")]
        {
            assert_eq!(percent_decoded(text).as_deref(), Ok(decoded));
        }
        for text in ["%", "%2", "%zz", "a%", "%ff", "%+1"] {
            assert!(percent_decoded(text).is_err(), "{text}");
        }
    }
}
