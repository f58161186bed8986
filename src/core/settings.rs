//! Durations and switches of the rules. The server sets them once, at its start.

use super::limits;
use super::names::{NamePattern, PoolName};
use super::time::Span;

/// How long a waiter that does not listen keeps its place, unless the server is told otherwise.
pub const PLACE: Span = Span::mins(10);

/// The settings of the rules. Tests shorten them; the defaults are those of docs/design.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A waiter listens for this long after its last answered `PUT`.
    pub listen: Span,
    /// A waiter whose last parked request was cut off keeps its turn for this long, so that it can come back.
    pub grace: Span,
    /// A waiter that does not listen keeps its place for this long, then ends as `listener_lost`.
    pub place: Span,
    /// A grant with `confirm` must be confirmed within this time.
    pub confirm: Span,
    /// The withdrawal of this many grants ends a claim as `unconfirmed`.
    pub withdrawals: u8,
    /// How long ended claims and the answers of operations are remembered.
    pub memory: Span,
    /// How long ended claims of a build that is not known to be over are remembered.
    pub build_memory: Span,
    /// How long the same builds of ended claims are shown to those who ask about builds, and how long after the end of a
    /// claim at the earliest.
    pub past_builds: Span,
    /// A marked hold ends after this long without news of its build.
    pub unanswered: Span,
    /// The ttl of a lease whose claim names none, counted from its last renewal.
    pub lease: Span,
    /// How long a lock stays out of use after its holder was lost, in pools that do not set their own drain.
    pub drain: Span,
    /// Older history entries are pruned.
    pub history_age: Span,
    /// How many bytes of history are kept across all pools ([`super::history::Change::bytes`]).
    pub history_bytes: u64,
    /// How many history entries are kept across all pools.
    pub changes: usize,
    /// How many ended claims are remembered; the oldest released ones go first.
    pub ended_claims: usize,
    /// About how many of them, the newest, are kept at hand although the store has them.
    pub at_hand: usize,
    /// How many answers of operations are remembered.
    pub ops: usize,
    /// How long a released latch that nobody deletes is kept.
    pub latch_kept: Span,
    /// The least time between two searches for stuck claims: each looks at all builds that hold and wait.
    pub stuck_look: Span,
    /// Only declared pools exist: a claim never makes a pool.
    pub declared_only: bool,
    /// The names of pools that a claim may make otherwise; any if there is no pattern.
    pub claims_make: Vec<NamePattern>,
    /// The seed of random picks: a number that nobody can predict. It is a setting so that the same state and the same
    /// command always have the same result.
    pub seed: u64,
    /// Testing only: the planted bug of this core.
    #[cfg(any(test, feature = "plant"))]
    pub plant: Plant,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Span::secs(20),
            grace: Span::secs(3),
            place: PLACE,
            confirm: Span::secs(45),
            withdrawals: 3,
            memory: Span::hours(24),
            build_memory: Span::hours(90 * 24),
            past_builds: Span::mins(10),
            unanswered: Span::mins(10),
            lease: Span::secs(60),
            drain: Span::secs(30),
            history_age: Span::hours(90 * 24),
            history_bytes: limits::HISTORY_BYTES,
            changes: limits::CHANGES,
            ended_claims: limits::ENDED_CLAIMS,
            at_hand: limits::AT_HAND,
            ops: limits::OPS,
            latch_kept: Span::hours(30 * 24),
            stuck_look: Span(250),
            declared_only: false,
            claims_make: Vec::new(),
            seed: 0,
            #[cfg(any(test, feature = "plant"))]
            plant: Plant::None,
        }
    }
}

impl Settings {
    /// Whether a claim may make a pool of this name.
    #[must_use]
    pub fn claim_may_make(&self, pool: &PoolName) -> bool {
        let any = self.claims_make.is_empty();
        !self.declared_only && (any || self.claims_make.iter().any(|pattern| pattern.matches(pool)))
    }
}

/// A bug built in on purpose, to prove that the test suites find it. A released program does not contain this code.
#[cfg(any(test, feature = "plant"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plant {
    #[default]
    None,
    /// The engine answers before it commits.
    AnswerBeforeCommit,
    /// A release does not check which claim holds the lock.
    ReleaseUnchecked,
    /// A restart does not begin a new epoch, and forgets the revision.
    FenceInMemory,
    /// A call of an earlier run is accepted.
    EarlierRun,
    /// Notices to parked requests are lost.
    LostNotice,
}

/// Whether these settings have the planted bug; always false in a released program.
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
