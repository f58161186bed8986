//! Log lines: text for people, JSON for programs, on standard error.
//!
//! Lines are written by a thread of their own (`lines`). When nobody reads them they are dropped, beyond
//! [`LOG_BYTES`](super::limits::LOG_BYTES): a full pipe must never stop the server.

mod lines;

use std::io::IsTerminal;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object in each line.
    Json,
}

/// Which lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what is broken.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And one line for each request.
    #[default]
    Info,
    Debug,
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

/// Lines are written until this is dropped; then those that wait are.
#[must_use]
pub struct Log {
    _writer: lines::Writer,
}

/// Starts writing. The log is one for the whole process: a second call while it runs changes nothing.
pub fn start(settings: LogSettings) -> Log {
    let (lines, writer) = lines::start(std::io::stderr());
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let builder = tracing_subscriber::fmt().with_writer(lines).with_max_level(level);
    // An error means that there is a log already.
    let _ = match settings.format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(builder.with_ansi(std::io::stderr().is_terminal()).finish())
        }
        LogFormat::Json => tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish(),
        ),
    };
    Log { _writer: writer }
}
