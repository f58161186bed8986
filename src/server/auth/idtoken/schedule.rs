//! When the keys of an issuer are fetched: at the start, again and again, and when a token names a key that may be new.
//! Values only; times are monotonic.

use std::time::Duration;

use super::limits::{IDTOKEN_AWAY_MS, IDTOKEN_FIRST_PAUSE_MS, IDTOKEN_PAUSE_MS, IDTOKEN_REFRESH_MS};

/// The times between fetches.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How old keys become before they are fetched again.
    pub refresh: Duration,
    /// Least time between two fetches that unknown keys cause.
    pub pause: Duration,
    /// First and longest pause after a failure.
    pub failing: (Duration, Duration),
}

impl Default for Pace {
    fn default() -> Self {
        let ms = Duration::from_millis;
        let failing = (ms(IDTOKEN_FIRST_PAUSE_MS), ms(IDTOKEN_AWAY_MS));
        Self { refresh: ms(IDTOKEN_REFRESH_MS), pause: ms(IDTOKEN_PAUSE_MS), failing }
    }
}

/// What is known about the fetches of one issuer.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    /// When the last fetch began.
    began: Option<Duration>,
    /// How many failed since the last that worked.
    failures: u32,
    /// A token has named a key that is not known.
    wanted: bool,
}

impl Schedule {
    /// A fetch begins. It brings what was wanted until now.
    pub fn begin(&mut self, now: Duration) {
        self.began = Some(now);
        self.wanted = false;
    }

    /// A fetch has ended.
    pub fn end(&mut self, worked: bool) {
        self.failures = if worked { 0 } else { self.failures.saturating_add(1) };
    }

    /// How many fetches in a row have failed.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Somebody needs newer keys. Returns whether that is news.
    pub fn want(&mut self) -> bool {
        !std::mem::replace(&mut self.wanted, true)
    }

    /// How long from now the next fetch begins.
    #[must_use]
    pub fn next(&self, now: Duration, pace: &Pace) -> Duration {
        let Some(began) = self.began else { return Duration::ZERO };
        let span = match (self.failures, self.wanted) {
            (0, false) => pace.refresh,
            (0, true) => pace.pause,
            (failures, _) => {
                let (first, longest) = pace.failing;
                first.saturating_mul(1 << (failures - 1).min(20)).min(longest)
            }
        };
        began.saturating_add(span).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn fetches_are_paced() {
        let (pace, mut schedule) = (Pace::default(), Schedule::default());
        assert_eq!(schedule.next(5 * S, &pace), Duration::ZERO);
        schedule.begin(5 * S);
        schedule.end(true);
        assert_eq!(schedule.next(6 * S, &pace), 599 * S);
        // A thousand unknown keys are one wish, and it waits.
        assert!(schedule.want());
        assert!((0..1_000).all(|_| !schedule.want()));
        assert_eq!(schedule.next(6 * S, &pace), 9 * S);
        schedule.begin(15 * S);
        assert_eq!(schedule.next(15 * S, &pace), 600 * S);
        schedule.want();
        schedule.end(false);
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                schedule.end(false);
                schedule.next(15 * S, &pace).as_secs()
            })
            .collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        // What fails is not asked more often because somebody wants it.
        schedule.want();
        assert_eq!(schedule.next(15 * S, &pace), 60 * S);
        schedule.begin(100 * S);
        schedule.end(true);
        assert_eq!(schedule.next(100 * S, &pace), 600 * S);
    }
}
