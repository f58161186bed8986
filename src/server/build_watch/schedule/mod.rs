//! Decides when each build is asked about, and what follows from the answers. Values in, values out.
//!
//! Each build has its own moment within the period, so that requests are spread evenly and stay that way. If only one
//! build cannot be seen, it is asked about less and less often. If a Concourse fails as a whole, it is asked one
//! question at a time, less and less often, until it answers.
//!
//! Moments are monotonic, as [`crate::env::Clock::monotonic`] returns them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::build_status::{BuildStatus, Trouble};
use super::settings::Pace;
use crate::core::claim::{BuildEnd, Concern};
use crate::core::time::WallMs;
use crate::server::build_watch::limits;

/// The number of a build in its Concourse.
pub type BuildNo = u64;

/// A build that is watched from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// A build whose state is only shown is asked about rarely, and is never suspect for not being seen.
    pub concern: Concern,
    /// Whether it is shown as suspect at the moment.
    pub suspect: bool,
    /// It has a marked hold, which ends when the build is over: it is asked about at a quick pace.
    pub marked: bool,
}

/// What is known of one watched build.
#[derive(Debug, Clone)]
struct Track {
    concern: Concern,
    due: Duration,
    /// The first 404 since the build was last seen.
    missing_since: Option<Duration>,
    /// How many questions in a row failed for this build alone.
    failures: u32,
    suspect: bool,
    /// How many questions were answered since one of its holds was marked. `None` if none is.
    marked: Option<usize>,
}

impl Track {
    /// The build could not be seen. Whether it is suspect from now on, and was not before.
    fn becomes_suspect(&mut self) -> bool {
        self.concern == Concern::Decides && !std::mem::replace(&mut self.suspect, true)
    }
}

/// The state of a Concourse that fails as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Failures in a row.
    pub failures: u32,
    pub trouble: Trouble,
    not_before: Duration,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Ask(BuildNo),
    /// Do nothing for this long. `None` if nothing is watched.
    Wait(Option<Duration>),
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The build is over, since this time if Concourse says when. Whatever depends on it ends.
    Over(BuildNo, BuildEnd, Option<WallMs>),
    /// It is no longer known whether these builds are alive.
    Suspect(Vec<BuildNo>, Trouble),
    /// The build was seen again.
    Clear(BuildNo),
    /// The Concourse counts as failing from now on.
    Down(Trouble),
    /// The Concourse answers again.
    Up,
}

/// The builds of one Concourse.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    builds: BTreeMap<BuildNo, Track>,
    failing: Option<Failing>,
    /// Builds with marked holds are not asked about before.
    marked_not_before: Duration,
}

impl Schedule {
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, builds: BTreeMap::new(), failing: None, marked_not_before: Duration::ZERO }
    }

    /// Watches exactly these builds from now on.
    pub fn keep(&mut self, builds: &BTreeMap<BuildNo, Watched>, now: Duration) {
        self.builds.retain(|id, _| builds.contains_key(id));
        for (id, Watched { concern, suspect, marked }) in builds {
            let due = next_moment(*id, now, self.period(*concern));
            let (concern, suspect) = (*concern, *suspect);
            let new = Track { concern, due, missing_since: None, failures: 0, suspect, marked: None };
            let track = self.builds.entry(*id).or_insert(new);
            if track.concern < concern {
                // It has come to matter more: it is asked about as soon as a new build would be.
                track.due = track.due.min(due);
            }
            (track.concern, track.suspect) = (concern, suspect);
            match (*marked, track.marked) {
                (true, None) => {
                    track.marked = Some(0);
                    track.due = track.due.min(now + millis(limits::WATCH_MARKED_FIRST_MS[0]));
                }
                (false, Some(_)) => (track.marked, track.due) = (None, due),
                _ => {}
            }
        }
    }

    /// The time between two questions about one build.
    fn period(&self, concern: Concern) -> Duration {
        match concern {
            Concern::Decides => self.pace.period,
            Concern::Shows => self.pace.period * limits::WATCH_SHOWN_PERIODS,
        }
    }

    /// Whether this build has a marked hold.
    #[must_use]
    pub fn is_marked(&self, id: BuildNo) -> bool {
        self.builds.get(&id).is_some_and(|track| track.marked.is_some())
    }

    /// The number of builds that are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.builds.len()
    }

    /// The number of watched builds that are suspect.
    #[must_use]
    pub fn suspects(&self) -> usize {
        self.builds.values().filter(|track| track.suspect).count()
    }

    /// What is wrong with the Concourse as a whole.
    #[must_use]
    pub fn failing(&self) -> Option<&Failing> {
        self.failing.as_ref()
    }

    /// What to do at `now`.
    #[must_use]
    pub fn next(&self, now: Duration) -> Next {
        // Of the builds that must wait for each other, the one that is overdue longest comes first.
        let moment = |track: &Track| match track.marked {
            Some(_) => (track.due.max(self.marked_not_before), track.due),
            None => (track.due, track.due),
        };
        let Some((id, track)) = self.builds.iter().min_by_key(|(_, track)| moment(track)) else {
            return Next::Wait(None);
        };
        let (due, _) = moment(track);
        let due = self.failing.as_ref().map_or(due, |failing| due.max(failing.not_before));
        if due <= now { Next::Ask(*id) } else { Next::Wait(Some(due.saturating_sub(now))) }
    }

    /// Whether one more 404 now would make this build gone. In that case the 404 must come from the Concourse itself.
    #[must_use]
    pub fn would_be_gone(&self, id: BuildNo, now: Duration) -> bool {
        let missing_since = self.builds.get(&id).and_then(|track| track.missing_since);
        missing_since.is_some_and(|since| now.saturating_sub(since) >= self.pace.gone)
    }

    /// What follows from this status of a build, seen at `now`.
    pub fn saw(&mut self, id: BuildNo, status: &BuildStatus, now: Duration) -> Vec<Decision> {
        let gone = *status == BuildStatus::Missing && self.would_be_gone(id, now);
        let Some(period) = self.builds.get(&id).map(|track| self.period(track.concern)) else { return Vec::new() };
        let Some(track) = self.builds.get_mut(&id) else { return Vec::new() };
        track.due = match &mut track.marked {
            Some(answered) => {
                self.marked_not_before = now + millis(limits::WATCH_MARKED_PAUSE_MS);
                *answered += 1;
                now + pause_of_marked(*answered)
            }
            None => next_moment(id, now, period),
        };
        let mut decisions = Vec::new();
        match status {
            BuildStatus::Alive => {
                track.missing_since = None;
                track.failures = 0;
                decisions.extend(std::mem::take(&mut track.suspect).then_some(Decision::Clear(id)));
            }
            BuildStatus::Over(how, at) => decisions.push(Decision::Over(id, *how, *at)),
            BuildStatus::Missing if gone => decisions.push(Decision::Over(id, BuildEnd::Gone, None)),
            BuildStatus::Missing => {
                track.missing_since.get_or_insert(now);
                track.failures = 0;
            }
            BuildStatus::Unknown(trouble) if trouble.cause.is_about_one_build() => {
                track.failures = track.failures.saturating_add(1);
                track.due = next_moment(id, now, period)
                    + period * (doubled(1, track.failures, limits::WATCH_BUILD_BACKOFF_PERIODS) - 1);
                decisions.extend(track.becomes_suspect().then(|| Decision::Suspect(vec![id], trouble.clone())));
            }
            BuildStatus::Unknown(trouble) => {
                decisions.extend(track.becomes_suspect().then(|| Decision::Suspect(vec![id], trouble.clone())));
                self.failed(trouble, now, &mut decisions);
                return decisions;
            }
        }
        self.answered(now, &mut decisions);
        decisions
    }

    /// The Concourse has failed to answer.
    fn failed(&mut self, trouble: &Trouble, now: Duration, decisions: &mut Vec<Decision>) {
        let failures = self.failing.as_ref().map_or(0, |failing| failing.failures).saturating_add(1);
        let not_before = now + pause(failures, self.pace.period);
        self.failing = Some(Failing { failures, trouble: trouble.clone(), not_before });
        if failures < limits::WATCH_FAILURES {
            return;
        }
        if failures == limits::WATCH_FAILURES {
            decisions.push(Decision::Down(trouble.clone()));
        }
        let unseen = self.builds.iter_mut().filter_map(|(id, track)| track.becomes_suspect().then_some(*id));
        let unseen: Vec<BuildNo> = unseen.collect();
        if !unseen.is_empty() {
            decisions.push(Decision::Suspect(unseen, trouble.clone()));
        }
    }

    /// The Concourse has answered: overdue questions are spread over the next period.
    fn answered(&mut self, now: Duration, decisions: &mut Vec<Decision>) {
        let Some(failing) = self.failing.take() else { return };
        let period = self.pace.period;
        let overdue = |track: &Track| track.due <= now && track.marked.is_none();
        for (id, track) in self.builds.iter_mut().filter(|(_, track)| overdue(track)) {
            track.due = next_moment(*id, now, period);
        }
        decisions.extend((failing.failures >= limits::WATCH_FAILURES).then_some(Decision::Up));
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How long to wait after so many answers about a build with marked holds.
fn pause_of_marked(answered: usize) -> Duration {
    let first = limits::WATCH_MARKED_FIRST_MS;
    match first.get(answered) {
        Some(moment) => millis(moment - first[answered - 1]),
        None => millis(limits::WATCH_MARKED_PERIOD_MS),
    }
}

/// The next moment after `now` at which this build is asked about. It is the same moment within each period.
/// Consecutive numbers are spread evenly (multiples of the golden ratio never crowd).
fn next_moment(id: BuildNo, now: Duration, period: Duration) -> Duration {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let period_ns = nanos(period).max(1);
    let part = u128::from(id.wrapping_mul(GOLDEN)) * u128::from(period_ns) / (u128::from(u64::MAX) + 1);
    let phase = u64::try_from(part).unwrap_or_default();
    let now = nanos(now);
    let since = now.wrapping_sub(phase) % period_ns;
    // In the very first phase, `now - phase` would be negative.
    let wait = if now < phase { phase - now } else { period_ns - since };
    Duration::from_nanos(now.saturating_add(wait))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How long a Concourse is left alone after this many failures in a row.
pub(super) fn pause(failures: u32, period: Duration) -> Duration {
    let most = limits::WATCH_AWAY_PERIODS * limits::WATCH_FIRST_PAUSE_PART;
    period / limits::WATCH_FIRST_PAUSE_PART * doubled(1, failures, most)
}

/// `first` for the first time, then doubled each time, up to `most`.
pub(super) fn doubled(first: u32, times: u32, most: u32) -> u32 {
    first.saturating_mul(1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX)).min(most)
}

#[cfg(test)]
mod tests;
