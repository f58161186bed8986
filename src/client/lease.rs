//! When to renew the lease of a running program, and when the program must have stopped (docs/run.md, "When the lease
//! is lost"). Values only, without clocks, requests or signals, so that tables and a model checker can test it.
//!
//! ```text
//! a renewal is sent                                                  the server may give the lock to others
//! 0 ------------ ttl/3 ------------------ term ---------------- kill ------ gone --- ttl
//!                renew; retry if it fails SIGTERM               SIGKILL       2 s
//! ```
//! The server counts from when it receives a renewal, this side from *before* it was sent, so this side's lease always
//! ends first. All moments come from one clock, which also counts the time that the machine sleeps.

use std::time::Duration;

use crate::core::limits::LEASE_TTL_MIN_MS;

/// The shortest ttl that leaves a program time to stop.
pub const SHORTEST: Duration = Duration::from_millis(LEASE_TTL_MIN_MS);

/// The moments of a lease, counted from just before the last answered renewal was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Margins {
    /// When the server may take the lock back.
    pub ttl: Duration,
    /// When to renew it again.
    pub renew: Duration,
    /// When to ask the program to stop.
    pub term: Duration,
    /// When to kill it.
    pub kill: Duration,
}

impl Margins {
    /// The margins of a lease with this ttl. Tests pass a `shortest` below [`SHORTEST`], which shortens them all.
    ///
    /// # Errors
    /// The ttl is below the shortest one.
    pub fn of(ttl: Duration, shortest: Duration) -> Result<Self, String> {
        if ttl < shortest {
            let (ttl, shortest) = (humantime::format_duration(ttl), humantime::format_duration(shortest));
            return Err(format!("a ttl of {ttl} leaves no time to stop the command: at least {shortest}"));
        }
        // A second, unless tests shorten it.
        let second = shortest / 15;
        let term = ttl.saturating_sub((second * 5).max(ttl / 3));
        // The kill has a second to take effect, so the program is gone two seconds before the ttl.
        let kill = ttl.saturating_sub(second * 3);
        Ok(Self { ttl, renew: ttl / 3, term, kill })
    }

    /// The time between SIGTERM and SIGKILL.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.kill.saturating_sub(self.term)
    }

    /// How long to wait for the answer to one renewal. Two such waits fit in before the program is asked to stop.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.term.saturating_sub(self.renew) / 2
    }

    /// The longest pause after a renewal that failed.
    #[must_use]
    pub fn retry(&self) -> Duration {
        self.patience() / 2
    }
}

/// Why a lease is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lost {
    /// No renewal was answered in time.
    NotRenewed,
    /// The server says that the claim has ended.
    Ended,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Send a renewal.
    Renew,
    /// Ask the program to stop.
    Term(Lost),
    /// Kill it.
    Kill,
    /// Nothing until this moment; `None`: nothing, ever.
    Wait(Option<Duration>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Held,
    /// The server has ended it, but the program has not been asked to stop yet.
    Ended {
        at: Duration,
    },
    Stopping {
        kill_at: Duration,
    },
    Killed,
}

/// A lease, from its first answered renewal on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    margins: Margins,
    /// The moment just before the last answered renewal was sent.
    renewed: Duration,
    /// When the renewal in progress was sent.
    sent: Option<Duration>,
    /// No renewal is sent before this.
    next: Duration,
    phase: Phase,
}

impl Lease {
    /// A lease whose first renewal (or confirm) was sent just after `sent` and has been answered.
    #[must_use]
    pub fn new(margins: Margins, sent: Duration) -> Self {
        Self { margins, renewed: sent, sent: None, next: sent + margins.renew, phase: Phase::Held }
    }

    /// What to do at `now`. Each step is returned once; call this again after it.
    pub fn next(&mut self, now: Duration) -> Step {
        let (term_at, kill_at) = (self.renewed + self.margins.term, self.renewed + self.margins.kill);
        match self.phase {
            Phase::Held if now >= term_at => {
                self.phase = Phase::Stopping { kill_at };
                Step::Term(Lost::NotRenewed)
            }
            Phase::Held if self.sent.is_none() && now >= self.next => {
                self.sent = Some(now);
                Step::Renew
            }
            Phase::Held if self.sent.is_none() => Step::Wait(Some(term_at.min(self.next))),
            Phase::Held => Step::Wait(Some(term_at)),
            Phase::Ended { at } => {
                self.phase = Phase::Stopping { kill_at: kill_at.min(at + self.margins.grace()) };
                Step::Term(Lost::Ended)
            }
            Phase::Stopping { kill_at } if now >= kill_at => {
                self.phase = Phase::Killed;
                Step::Kill
            }
            Phase::Stopping { kill_at } => Step::Wait(Some(kill_at)),
            Phase::Killed => Step::Wait(None),
        }
    }

    /// The renewal in progress has been answered: the lease now runs from when it was sent.
    pub fn renewed(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        self.renewed = self.renewed.max(sent);
        self.next = sent + self.margins.renew;
    }

    /// The renewal in progress got no usable answer: the next one follows after `pause`.
    pub fn failed(&mut self, now: Duration, pause: Duration) {
        self.sent = None;
        self.next = now + pause.min(self.margins.retry());
    }

    /// The server says that the claim has ended.
    pub fn ended(&mut self, now: Duration) {
        self.sent = None;
        if self.phase == Phase::Held {
            self.phase = Phase::Ended { at: now };
        }
    }

    /// When the program is killed. If the claim has ended, this may be earlier.
    #[must_use]
    pub fn kill_at(&self) -> Duration {
        match self.phase {
            Phase::Stopping { kill_at } => kill_at,
            _ => self.renewed + self.margins.kill,
        }
    }

    /// When the program is asked to stop, unless a renewal is answered first.
    #[must_use]
    pub fn term_at(&self) -> Duration {
        self.renewed + self.margins.term
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn margins() {
        // ttl, shortest: renew, term, kill, in milliseconds.
        let cases = [
            (15_000, 15_000, 5_000, 10_000, 12_000),
            (16_500, 15_000, 5_500, 11_000, 13_500),
            (60_000, 15_000, 20_000, 40_000, 57_000),
            (3_600_000, 15_000, 1_200_000, 2_400_000, 3_597_000),
            // As in tests: everything takes a fifth of the time.
            (3_000, 3_000, 1_000, 2_000, 2_400),
        ];
        for (ttl, shortest, renew, term, kill) in cases {
            let margins = Margins::of(ms(ttl), ms(shortest)).unwrap();
            let found = (margins.renew, margins.term, margins.kill);
            assert_eq!(found, (ms(renew), ms(term), ms(kill)), "{ttl}");
            assert!(margins.renew + margins.patience() * 2 <= margins.term && margins.grace() >= ms(shortest) / 15 * 2);
            assert!(margins.kill + ms(shortest) / 15 * 2 < margins.ttl);
        }
        assert!(Margins::of(ms(14_999), SHORTEST).unwrap_err().contains("at least 15s"));
    }

    /// What happens to the lease.
    enum Event {
        Tick,
        Acked,
        Failed,
        Ended,
    }
    use Event::{Acked, Ended, Failed, Tick};

    /// Runs a lease of 60 s that was renewed at 0: at each second, an event and the step that must follow it.
    #[track_caller]
    fn check(events: &[(u64, Event, Step)]) {
        let mut lease = Lease::new(Margins::of(secs(60), SHORTEST).unwrap(), secs(0));
        for (at, event, step) in events {
            match event {
                Tick => {}
                Acked => lease.renewed(),
                Failed => lease.failed(secs(*at), secs(1)),
                Ended => lease.ended(secs(*at)),
            }
            assert_eq!(lease.next(secs(*at)), *step, "at {at}");
        }
    }

    fn wait(until: u64) -> Step {
        Step::Wait(Some(secs(until)))
    }

    #[test]
    fn a_renewal_counts_from_before_it_was_sent() {
        check(&[
            (0, Tick, wait(20)),
            (20, Tick, Step::Renew),
            (20, Tick, wait(40)),
            // The answer took ten seconds.
            (30, Acked, wait(40)),
            (40, Tick, Step::Renew),
            (40, Tick, wait(60)),
            (59, Acked, wait(60)),
            (60, Tick, Step::Renew),
        ]);
    }

    #[test]
    fn failed_renewals_are_retried_until_the_margin() {
        check(&[
            (20, Tick, Step::Renew),
            (25, Failed, wait(26)),
            (26, Tick, Step::Renew),
            (26, Failed, wait(27)),
            (39, Tick, Step::Renew),
            (40, Tick, Step::Term(Lost::NotRenewed)),
            (40, Tick, wait(57)),
            // Too late: the command has been asked to stop, and must be gone before the certain lease ends.
            (41, Acked, wait(57)),
            (57, Tick, Step::Kill),
            (57, Tick, Step::Wait(None)),
        ]);
    }

    #[test]
    fn a_longer_pause_than_fits_is_shortened() {
        let mut lease = Lease::new(Margins::of(secs(60), SHORTEST).unwrap(), secs(0));
        lease.next(secs(20));
        lease.failed(secs(20), secs(600));
        assert_eq!(lease.next(secs(20)), wait(25));
    }

    #[test]
    fn an_ended_claim_stops_the_program_at_once() {
        // The usual grace, which is 17 s ...
        check(&[
            (20, Tick, Step::Renew),
            (21, Ended, Step::Term(Lost::Ended)),
            (21, Tick, wait(38)),
            (38, Tick, Step::Kill),
        ]);
        // ... but not past the end of the certain lease.
        check(&[
            (20, Tick, Step::Renew),
            (39, Failed, wait(40)),
            (39, Ended, Step::Term(Lost::Ended)),
            (39, Tick, wait(56)),
            (56, Ended, Step::Kill),
        ]);
    }

    #[test]
    fn a_guard_that_wakes_up_too_late_kills_at_once() {
        check(&[
            (20, Tick, Step::Renew),
            // Suspended for minutes; the answer arrived in the meantime.
            (300, Acked, Step::Term(Lost::NotRenewed)),
            (300, Tick, Step::Kill),
            (300, Tick, Step::Wait(None)),
        ]);
    }
}
