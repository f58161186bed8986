//! The limits of the engine and the log, each with its unit and the reason for its size.

/// Most commands in one batch: larger ones cost latency and win nothing (measured).
pub const BATCH: usize = 512;
/// Most bytes of log lines that wait to be written, some 20,000 lines; further ones are dropped and counted, since a
/// full pipe must stop nobody.
pub const LOG_BYTES: usize = 4 * 1024 * 1024;
