//! The limits of the engine and the log, each with its unit and the reason for its size.

/// Most commands in one batch. Larger batches increase latency and gain nothing (measured).
pub const BATCH: usize = 512;
/// Most bytes of log lines that wait to be written, about 20,000 lines. Further lines are dropped and counted, because
/// a full pipe must not block the server.
pub const LOG_BYTES: usize = 4 * 1024 * 1024;
