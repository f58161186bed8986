//! Time as values: the core never reads a clock (docs/design.md#time).

use super::limits::SHORT_DEADLINE_MS;

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

impl Span {
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(secs * 1_000)
    }
    #[must_use]
    pub const fn mins(mins: u64) -> Self {
        Self::secs(mins * 60)
    }
    #[must_use]
    pub const fn hours(hours: u64) -> Self {
        Self::mins(hours * 60)
    }
}

/// Engine time in milliseconds: the sum of monotonic time over all lives of the server. Deadlines use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EngineMs(pub u64);

impl EngineMs {
    /// The time `span` later.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// Wall clock, milliseconds since 1970 UTC: for display, the age of history and the epoch, and for no other decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallMs(pub u64);

/// The time, as each step receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    pub engine: EngineMs,
    pub wall: WallMs,
}

/// When something ends, with the span that it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub at: EngineMs,
    pub span: Span,
}

impl Deadline {
    /// The deadline `span` from `now`.
    #[must_use]
    pub fn after(now: Now, span: Span) -> Self {
        Self { at: now.engine.plus(span), span }
    }

    /// Whether the deadline has passed; never early.
    #[must_use]
    pub fn is_over(self, now: Now) -> bool {
        now.engine >= self.at
    }

    /// Whether it continues over a restart, instead of starting again in full.
    #[must_use]
    pub fn is_long(self) -> bool {
        self.span.0 > SHORT_DEADLINE_MS
    }

    /// The deadline as a new life of the server sees it: short ones start again in full (I9: never early).
    #[must_use]
    pub fn restarted(self, now: Now) -> Self {
        if self.is_long() { self } else { Self::after(now, self.span) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_deadlines_restart_and_long_ones_continue() {
        let start = Now { engine: EngineMs(1_000), wall: WallMs(0) };
        let later = Now { engine: EngineMs(5_000), wall: WallMs(0) };
        let short = Deadline::after(start, Span::mins(10));
        assert_eq!(short.restarted(later), Deadline::after(later, Span::mins(10)));
        let long = Deadline::after(start, Span(Span::mins(10).0 + 1));
        assert_eq!(long.restarted(later), long);
        assert!(!short.is_over(later));
        assert!(short.is_over(Now { engine: short.at, wall: WallMs(0) }));
    }
}
