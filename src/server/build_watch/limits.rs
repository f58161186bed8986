//! The limits of the build watch, each with its unit and the reason for its size.

/// Time between two questions about one build, milliseconds: the lock of an ended build is freed soon, and a thousand
/// builds cost a Concourse less than a few open dashboards.
pub const WATCH_PERIOD_MS: u64 = 15_000;
/// Least time between the two 404s that make a build gone, milliseconds: longer than a hiccup of a web node.
pub const WATCH_GONE_MS: u64 = 60_000;
/// Longest time for one request to a Concourse, milliseconds, including name lookup, connection and TLS.
pub const WATCH_TIMEOUT_MS: u64 = 10_000;
/// Time between two questions about a build whose end is only shown, or whose id could not be found, in periods (5 minutes
/// by default): whoever looks at such a hold asks how long ago its build ended, not whether it ended a minute ago.
pub const WATCH_SHOWN_PERIODS: u32 = 20;
/// Longest pause before asking again about a single build that cannot be seen, in periods (2 minutes by default).
pub const WATCH_BUILD_BACKOFF_PERIODS: u32 = 8;
/// Longest pause before asking a Concourse again that does not answer, in periods (1 minute by default).
pub const WATCH_AWAY_PERIODS: u32 = 4;
/// Longest pause before trying a refused login again, in periods (10 minutes by default): directories lock accounts
/// after some wrong passwords.
pub const WATCH_REFUSED_PERIODS: u32 = 40;
/// Failures in a row after which a Concourse counts as failing, and all its builds as suspect: one may be a blip.
pub const WATCH_FAILURES: u32 = 3;
/// First pause after a failure, as a fraction of the period (1 s by default). It doubles from there.
pub const WATCH_FIRST_PAUSE_PART: u32 = 15;
/// How often a Concourse is asked whether it runs builds again, in periods (1 minute by default).
pub const WATCH_INFO_PERIODS: u32 = 4;
/// When a build whose step has released a lock is asked about, milliseconds after the release: most builds end soon
/// after their last step, and the next one waits for the lock.
pub const WATCH_MARKED_FIRST_MS: [u64; 2] = [300, 1_000];
/// Time between the further questions about such a build, milliseconds: the most that its lock is held too long.
pub const WATCH_MARKED_PERIOD_MS: u64 = 2_000;
/// Least time between two questions about such builds, milliseconds: at most 10 questions a second, which a Concourse
/// answers on one of its 10 database connections.
pub const WATCH_MARKED_PAUSE_MS: u64 = 100;
/// Least time between two questions about builds that are known by their place only, milliseconds: an import may bring
/// hundreds at once, and they are only shown.
pub const WATCH_PLACE_PAUSE_MS: u64 = 100;
/// Largest answer of a Concourse that is read, bytes: a build with long instance vars and a comment.
pub const WATCH_ANSWER_BYTES: u64 = 256 * 1024;
/// Largest password or token, bytes: a larger file is not the one that was meant.
pub const WATCH_SECRET_BYTES: usize = 8 * 1024;
/// Longest time that an unused connection to a Concourse is kept, milliseconds: shorter than proxies do, so that no
/// request meets a connection that is being closed.
pub const WATCH_IDLE_MS: u64 = 5_000;
/// Most suspect builds that are named in one log line.
pub const WATCH_NAMED: usize = 10;
/// Most checks of builds (`--verify-builds`) that ask a Concourse at the same time: its database has 10 connections.
pub const VERIFY_AT_ONCE: usize = 4;
/// Most checks that may wait for those. Further claims are told to retry. Together with [`VERIFY_AT_ONCE`], this is the
/// number of threads that a slow Concourse costs.
pub const VERIFY_WAITING: usize = 16;
/// Longest time that a check waits for its turn, and longest time that it asks, milliseconds each.
pub const VERIFY_MS: u64 = 5_000;
/// How long the result about a build is reused, milliseconds: all claims of one build come close together.
pub const VERIFY_CACHE_MS: u64 = 10_000;
/// How long a Concourse is left alone after a failure, milliseconds. Claims are told to retry.
pub const VERIFY_PAUSE_MS: u64 = 1_000;
/// Most builds whose check is remembered.
pub const VERIFY_CACHED: usize = 10_000;
