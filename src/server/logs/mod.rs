//! The log on standard error: text for people, JSON for programs.
//!
//! Lines of text without colours are made in `plain`. A separate thread writes the lines (`lines`). If nobody reads them, lines beyond
//! [`LOG_BYTES`](super::limits::LOG_BYTES) are dropped: a full pipe must never stop the server.

mod lines;
mod plain;

use std::io::IsTerminal;
use std::str::FromStr;

use prometheus_client::registry::Registry;
use tracing::level_filters::LevelFilter;

use self::plain::Plain;
use crate::core::time::WallMs;
use crate::wire::escape::escape_json;
use crate::wire::text::time;

/// The format of the lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people. Coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Which lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only failures.
    Error,
    /// Also what an operator should look at.
    Warn,
    /// Also one line for each request.
    #[default]
    Info,
    Debug,
}

impl LogFormat {
    /// A line that is written whatever the level, such as the first one and the reason for a failed start.
    #[must_use]
    pub fn line(self, level: &str, text: &str, now: WallMs) -> String {
        match self {
            Self::Text => text.to_owned(),
            Self::Json => {
                let at = time(now);
                let line = serde_json::json!({"timestamp": at, "level": level, "message": text, "target": "locker"});
                escape_json(&line.to_string())
            }
        }
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be text or json"),
        }
    }
}

impl FromStr for LogLevel {
    type Err = &'static str;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            _ => Err("must be error, warn, info or debug"),
        }
    }
}

/// How the server writes its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: LogLevel,
}

/// The running log. When this is dropped, it writes the lines that still wait and then stops.
#[must_use]
pub struct Log {
    writer: lines::Writer,
}

impl Log {
    /// Adds the metrics of the log, without the prefix of the program.
    pub fn metrics(&self) -> impl Fn(&mut Registry) + Send + Sync + 'static {
        let dropped = self.writer.dropped();
        move |registry| {
            let help = "Log lines that were dropped because nobody read them in time";
            registry.register("log_lines_dropped", help, dropped.clone());
        }
    }
}

/// Starts the log. There is one log for the whole process: a second call while it runs changes nothing.
pub fn start(settings: LogSettings) -> Log {
    let (lines, writer) = lines::start(std::io::stderr());
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let builder = tracing_subscriber::fmt().with_writer(lines).with_max_level(level);
    // An error means that there already is a log.
    let _ = match settings.format {
        LogFormat::Text if std::io::stderr().is_terminal() => {
            tracing::subscriber::set_global_default(builder.with_ansi(true).finish())
        }
        LogFormat::Text => tracing::subscriber::set_global_default(builder.event_format(Plain).finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish(),
        ),
    };
    Log { writer }
}
