//! Durations and switches of the rules; the server sets them once at start.

use super::limits;
use super::time::Span;

/// How the rules are tuned. Tests shorten these; the defaults are those of docs/design.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A waiter listens this long after its last answered `PUT`.
    pub listen: Span,
    /// After its last parked request was cut off, a waiter keeps its turn this long for coming back.
    pub grace: Span,
    /// A waiter that does not listen keeps its place this long, then ends as `listener_lost`.
    pub place: Span,
    /// A grant with `confirm` must be confirmed within this.
    pub confirm: Span,
    /// This many withdrawn grants end a claim as `unconfirmed`.
    pub withdrawals: u8,
    /// Ended claims and op answers are remembered this long.
    pub memory: Span,
    /// Ended claims of a build that is not known to be finished are remembered this long.
    pub build_memory: Span,
    /// A lease whose claim names no ttl is lost this long after its last renewal.
    pub lease: Span,
    /// Time a lock stays out of use after its holder was lost, for pools that do not set their own.
    pub drain: Span,
    /// History entries kept for one pool.
    pub history: usize,
    /// History entries older than this go.
    pub history_age: Span,
    /// History entries kept in all.
    pub changes: usize,
    /// Ended claims remembered; the oldest released ones go first.
    pub ended_claims: usize,
    /// Answers of operations remembered.
    pub ops: usize,
    /// A released latch that nobody deletes is kept this long.
    pub latch_kept: Span,
    /// Least time between two looks for claims that are stuck: each looks at all builds that hold and wait.
    pub stuck_look: Span,
    /// Only declared pools exist: a claim never makes one.
    pub declared_only: bool,
    /// Pools that pick at random pick by this: a number that nobody can foresee, so that the same state and the same
    /// command always come to the same.
    pub seed: u64,
    /// Testing only: which planted bug the core carries.
    #[cfg(any(test, feature = "plant"))]
    pub plant: Plant,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Span::secs(20),
            grace: Span::secs(3),
            place: Span::mins(10),
            confirm: Span::secs(45),
            withdrawals: 3,
            memory: Span::hours(24),
            build_memory: Span::hours(90 * 24),
            lease: Span::secs(60),
            drain: Span::secs(30),
            history: 1_000,
            history_age: Span::hours(90 * 24),
            changes: limits::CHANGES,
            ended_claims: limits::ENDED_CLAIMS,
            ops: limits::OPS,
            latch_kept: Span::hours(30 * 24),
            stuck_look: Span(250),
            declared_only: false,
            seed: 0,
            #[cfg(any(test, feature = "plant"))]
            plant: Plant::None,
        }
    }
}

/// A bug built in on purpose, to prove that the test suites find it. A released program has none of their code.
#[cfg(any(test, feature = "plant"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plant {
    #[default]
    None,
    /// The engine answers before its commit.
    AnswerBeforeCommit,
    /// A release does not check which claim holds the lock.
    ReleaseUnchecked,
    /// A restart begins no new epoch and forgets the revision.
    FenceInMemory,
    /// A call of an earlier run is accepted.
    EarlierRun,
    /// Notices to parked requests are lost.
    LostNotice,
}

/// Whether these settings carry the planted bug; in a released program never.
#[cfg(any(test, feature = "plant"))]
macro_rules! planted {
    ($settings:expr, $bug:ident) => {
        $settings.plant == $crate::core::settings::Plant::$bug
    };
}
#[cfg(not(any(test, feature = "plant")))]
macro_rules! planted {
    ($settings:expr, $bug:ident) => {{
        let _ = &$settings;
        false
    }};
}
pub(crate) use planted;
