//! The limits of the engine and the log, each with its unit and the reason for its size.

/// Most commands in one batch. Larger batches increase latency and gain nothing (measured).
pub const BATCH: usize = 512;
/// Most bytes of log lines that wait to be written, about 20,000 lines. Further lines are dropped and counted, because
/// a full pipe must not block the server.
pub const LOG_BYTES: usize = 4 * 1024 * 1024;
/// Most pools that have metrics of their own, unless set otherwise: about 40 lines each, so a scrape stays below 1 MiB
/// or so. All others are summed.
pub const METRIC_POOLS: usize = 200;
/// Most history entries that one read of the store takes before others may read: a few milliseconds.
pub const ENTRIES_PER_READ: usize = 1_000;
/// Most history entries from which one answer makes figures: a second or two of reading.
pub const ENTRIES_COUNTED: usize = 200_000;
/// Most pools, and most teams, in one answer with figures.
pub const GROUPS_SHOWN: usize = 1_000;
/// Most waits, and most holds, that an answer lists as the longest.
pub const LONGEST_SHOWN: usize = 100;
