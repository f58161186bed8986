//! The limits of the engine and the log, each with its unit and the reason for its size.

/// Most commands in one batch: larger ones cost latency and win nothing (measured).
pub const BATCH: usize = 512;
/// Most log lines that wait to be written; further ones are dropped, since a full pipe must stop nobody.
pub const LOG_LINES: usize = 16_384;
