//! The lines of a log of text without colours: byte by byte as `tracing-subscriber` writes them, in a fifth of the
//! instructions. It passes each word of a line through the machinery of `format!`, colours included. At two lines for
//! each claim that was much of what a claim cost.
//!
//! The server uses no spans, so none are looked for.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write as _};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::VisitOutput as _;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{DefaultVisitor, FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

pub(super) struct Plain;

/// Room for the usual line, bytes: no other is tried first.
const LINE: usize = 512;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let mut fields = Fields { line: String::with_capacity(LINE), is_first: true, result: Ok(()) };
        add_time(&mut fields.line, SystemTime::now().into());
        for text in [level(*meta.level()), meta.target(), ": "] {
            fields.line.push_str(text);
        }
        event.record(&mut fields);
        fields.result?;
        fields.line.push('\n');
        writer.write_str(&fields.line)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::TRACE => " TRACE ",
        Level::DEBUG => " DEBUG ",
        Level::INFO => "  INFO ",
        Level::WARN => "  WARN ",
        Level::ERROR => " ERROR ",
    }
}

thread_local! {
    /// A second, since 1970, and what a line says of it.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

fn add_time(line: &mut String, now: DateTime<Utc>) {
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.timestamp() {
            (*second, *text) = (now.timestamp(), now.format("%Y-%m-%dT%H:%M:%S").to_string());
        }
        line.push_str(text);
    });
    // Writing to a String cannot fail.
    let _ = write!(line, ".{:06}Z", now.timestamp_subsec_micros());
}

/// Adds the fields of an event to its line.
struct Fields {
    line: String,
    is_first: bool,
    result: fmt::Result,
}

impl Fields {
    fn begin(&mut self, field: &Field) {
        if !self.is_first {
            self.line.push(' ');
        }
        self.is_first = false;
        if field.name() != MESSAGE {
            self.line.push_str(field.name());
            self.line.push('=');
        }
    }

    /// Adds a field as `tracing-subscriber` does, whatever there is to escape in it.
    fn as_ever(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        let mut visitor = DefaultVisitor::new(Writer::new(&mut self.line), self.is_first);
        record(&mut visitor);
        self.result = self.result.and(visitor.finish());
        self.is_first = false;
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !is_plain(value) || field.name() == MESSAGE || field.name().starts_with(RAW) {
            return self.as_ever(|visitor| visitor.record_str(field, value));
        }
        self.begin(field);
        self.line.push('"');
        self.line.push_str(value);
        self.line.push('"');
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.as_ever(|visitor| visitor.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name().starts_with(RAW) {
            return self.as_ever(|visitor| visitor.record_debug(field, value));
        }
        let (before, is_first) = (self.line.len(), self.is_first);
        self.begin(field);
        let from = self.line.len();
        self.result = self.result.and(write!(self.line, "{value:?}"));
        // Only the message is escaped.
        if field.name() == MESSAGE && !is_plain(&self.line[from..]) {
            self.line.truncate(before);
            self.is_first = is_first;
            self.as_ever(|visitor| visitor.record_debug(field, value));
        }
    }
}

/// The field that is written without its name and without quotes.
const MESSAGE: &str = "message";
/// The names of fields that would be keywords begin with this. It is not written.
const RAW: &str = "r#";

/// Whether `{:?}` would write this as it is, in quotes.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_plain_text_is_what_debug_makes_of_it() {
        for byte in 0..=127_u8 {
            let text = format!("a{}b'", char::from(byte));
            let debug = format!("{text:?}");
            assert_eq!(is_plain(&text), debug == format!("\"{text}\""), "{debug}");
        }
        assert!(!is_plain("\u{e9}"));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer\u{1b}")]
    struct Outer(#[source] io::Error);

    /// Events of all kinds of fields.
    fn events() {
        let (none, some) = (None::<&str>, Some("a b"));
        let error = Outer(io::Error::other("inner"));
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::info!("a message");
        tracing::info!(target: "locker::audit", revision = 7_u64, pool = "p", claim = none, how = some, "{}", "claimed");
        tracing::warn!(id = "7-1", text = "say \"no\"\\", other = "\u{e9}\n\u{1b}[31m", n = -3_i64, is = true, x = 0.5);
        tracing::error!(error, "it failed: {}", "\u{1b}[31m\u{7} \u{e9} \"quoted\" \\");
        tracing::error!(cause = error);
        tracing::debug!(list = ?["a", "b\n"], shown = %"a \"b\"", r#type = "t", r#fn = ?Some(1), "{:?}", "m");
        tracing::trace!(message = "told \u{7f}", after = 1);
        tracing::info!("");
        tracing::info!(only = 1_u8);
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that a subscriber writes of the events: their times, and the rest.
    fn written<S: Subscriber + Send + Sync>(subscriber: impl FnOnce(Lines) -> S) -> Vec<(String, String)> {
        let lines = Lines::default();
        tracing::subscriber::with_default(subscriber(lines.clone()), events);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let split = |line: &str| line.split_once(' ').map(|(time, rest)| (time.to_owned(), rest.to_owned())).unwrap();
        text.lines().map(split).collect()
    }

    #[test]
    fn the_lines_are_those_of_the_library() {
        let builder = || tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false);
        let ours = written(|lines| builder().with_writer(move || lines.clone()).event_format(Plain).finish());
        let theirs = written(|lines| builder().with_writer(move || lines.clone()).finish());
        assert!(theirs.len() > 8);
        for ((our_time, ours), (their_time, theirs)) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs);
            let time = |text: &str| DateTime::parse_from_rfc3339(text).unwrap();
            assert_eq!(our_time.len(), their_time.len());
            assert!((time(their_time) - time(our_time)).num_seconds() < 60);
        }
        assert_eq!(ours.len(), theirs.len());
    }

    #[test]
    fn a_time_is_that_of_its_second() {
        let shown = |micros| {
            let mut line = String::new();
            add_time(&mut line, DateTime::from_timestamp_micros(micros).unwrap());
            line
        };
        assert_eq!(shown(1_764_247_579_000_001), "2025-11-27T12:46:19.000001Z");
        assert_eq!(shown(1_764_247_579_999_999), "2025-11-27T12:46:19.999999Z");
        assert_eq!(shown(1_764_247_580_000_000), "2025-11-27T12:46:20.000000Z");
        assert_eq!(shown(1_764_247_579_000_000), "2025-11-27T12:46:19.000000Z");
    }
}
