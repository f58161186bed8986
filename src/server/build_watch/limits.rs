//! The limits of the build watch, each with its unit and the reason for its size.

/// Time between two questions about one build, milliseconds: an ended build's lock comes back soon, and a thousand builds
/// cost a Concourse less than a few open dashboards.
pub const WATCH_PERIOD_MS: u64 = 15_000;
/// Least time between the two 404s that make a build gone, milliseconds: longer than a hiccup of a web node.
pub const WATCH_GONE_MS: u64 = 60_000;
/// Longest that one request to a Concourse may take, milliseconds, name, connection and TLS included.
pub const WATCH_TIMEOUT_MS: u64 = 10_000;
/// Longest pause before a build that cannot be looked at alone is asked about again, in periods (2 minutes by default).
pub const WATCH_BUILD_BACKOFF_PERIODS: u32 = 8;
/// Longest pause before a Concourse that does not answer is asked again, in periods (1 minute by default).
pub const WATCH_AWAY_PERIODS: u32 = 4;
/// Longest pause before a login that was refused is tried again, in periods (10 minutes by default): directories lock
/// accounts after some wrong passwords.
pub const WATCH_REFUSED_PERIODS: u32 = 40;
/// Failures in a row after which a Concourse counts as failing, and all its builds as suspect: one may be a blip.
pub const WATCH_FAILURES: u32 = 3;
/// First pause after a failure, as a part of the period (1 s by default); it doubles from there.
pub const WATCH_FIRST_PAUSE_PART: u32 = 15;
/// Largest answer of a Concourse that is read, bytes: a build with long instance vars and a comment.
pub const WATCH_ANSWER_BYTES: u64 = 256 * 1024;
/// Largest password or token, bytes: larger is not the file that was meant.
pub const WATCH_SECRET_BYTES: usize = 8 * 1024;
/// Longest that an unused connection to a Concourse is kept, milliseconds: shorter than proxies do, so that no request
/// meets a closing one.
pub const WATCH_IDLE_MS: u64 = 5_000;
/// Most suspect builds named in one log line.
pub const WATCH_NAMED: usize = 10;
/// Checks of builds (`--verify-builds`) that ask a Concourse at the same time: its database has 10 connections.
pub const VERIFY_AT_ONCE: usize = 4;
/// Checks that may wait for those; further claims are told to ask again. With [`VERIFY_AT_ONCE`] these are the
/// threads that a slow Concourse costs.
pub const VERIFY_WAITING: usize = 16;
/// Longest that a check waits for its turn, and longest that it asks, milliseconds each.
pub const VERIFY_MS: u64 = 5_000;
/// What was found out about a build is believed this long, milliseconds: all claims of one build come close together.
pub const VERIFY_CACHE_MS: u64 = 10_000;
/// After a failure a Concourse is left alone this long, milliseconds; claims are told to ask again.
pub const VERIFY_PAUSE_MS: u64 = 1_000;
/// Most builds whose check is remembered.
pub const VERIFY_CACHED: usize = 10_000;
