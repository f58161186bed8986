//! Which build is asked about when, and what follows from what was seen: values in, values out.
//!
//! Each build has its own moment within the period, so that requests are spread evenly and stay so. A build that cannot
//! be looked at alone is asked about more and more rarely; a Concourse that fails as a whole is asked one question at a
//! time, more and more rarely, until it answers.
//!
//! Moments are monotonic, as [`crate::env::Clock::monotonic`] gives them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::build_status::{BuildStatus, Trouble};
use super::settings::Pace;
use crate::core::claim::BuildEnd;
use crate::server::build_watch::limits;

/// The number of a build in its Concourse.
pub type BuildNo = u64;

/// What is known of one watched build.
#[derive(Debug, Clone, Default)]
struct Track {
    due: Duration,
    /// The first of the 404s that came since it was last seen.
    missing_since: Option<Duration>,
    /// Questions in a row that found trouble with this build alone.
    failures: u32,
    suspect: bool,
}

/// A Concourse that fails as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Failures in a row.
    pub failures: u32,
    pub trouble: Trouble,
    not_before: Duration,
}

/// What there is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Ask(BuildNo),
    /// Nothing for so long; `None` as long as nothing is watched.
    Wait(Option<Duration>),
}

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The build is over; what depends on it ends.
    Over(BuildNo, BuildEnd),
    /// Nobody knows any more whether these live.
    Suspect(Vec<BuildNo>, Trouble),
    /// It has been seen again.
    Clear(BuildNo),
    /// The Concourse counts as failing from now on.
    Down(Trouble),
    /// It answers again.
    Up,
}

/// The builds of one Concourse.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    builds: BTreeMap<BuildNo, Track>,
    failing: Option<Failing>,
}

impl Schedule {
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, builds: BTreeMap::new(), failing: None }
    }

    /// Watches exactly these builds from now on; each comes with whether it is shown as suspect now.
    pub fn keep(&mut self, builds: &BTreeMap<BuildNo, bool>, now: Duration) {
        self.builds.retain(|id, _| builds.contains_key(id));
        for (id, suspect) in builds {
            let due = next_moment(*id, now, self.pace.period);
            let track = self.builds.entry(*id).or_insert_with(|| Track { due, ..Track::default() });
            track.suspect = *suspect;
        }
    }

    /// How many builds are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.builds.len()
    }

    /// How many of them are suspect.
    #[must_use]
    pub fn suspects(&self) -> usize {
        self.builds.values().filter(|track| track.suspect).count()
    }

    /// What is wrong with the Concourse as a whole.
    #[must_use]
    pub fn failing(&self) -> Option<&Failing> {
        self.failing.as_ref()
    }

    /// What is to be done at `now`.
    #[must_use]
    pub fn next(&self, now: Duration) -> Next {
        let Some((id, track)) = self.builds.iter().min_by_key(|(_, track)| track.due) else { return Next::Wait(None) };
        let due = self.failing.as_ref().map_or(track.due, |failing| track.due.max(failing.not_before));
        if due <= now { Next::Ask(*id) } else { Next::Wait(Some(due.saturating_sub(now))) }
    }

    /// Whether another 404 now would make this build gone: then whoever says so must be the Concourse itself.
    #[must_use]
    pub fn would_be_gone(&self, id: BuildNo, now: Duration) -> bool {
        let missing_since = self.builds.get(&id).and_then(|track| track.missing_since);
        missing_since.is_some_and(|since| now.saturating_sub(since) >= self.pace.gone)
    }

    /// What follows from this look at a build, made at `now`.
    pub fn saw(&mut self, id: BuildNo, status: &BuildStatus, now: Duration) -> Vec<Decision> {
        let gone = *status == BuildStatus::Missing && self.would_be_gone(id, now);
        let Some(track) = self.builds.get_mut(&id) else { return Vec::new() };
        let period = self.pace.period;
        track.due = next_moment(id, now, period);
        let mut decisions = Vec::new();
        match status {
            BuildStatus::Alive => {
                track.missing_since = None;
                track.failures = 0;
                decisions.extend(std::mem::take(&mut track.suspect).then_some(Decision::Clear(id)));
            }
            BuildStatus::Over(how) => decisions.push(Decision::Over(id, *how)),
            BuildStatus::Missing if gone => decisions.push(Decision::Over(id, BuildEnd::Gone)),
            BuildStatus::Missing => {
                track.missing_since.get_or_insert(now);
                track.failures = 0;
            }
            BuildStatus::Unknown(trouble) if trouble.cause.is_about_one_build() => {
                track.failures = track.failures.saturating_add(1);
                track.due += period * (doubled(1, track.failures, limits::WATCH_BUILD_BACKOFF_PERIODS) - 1);
                let news = !std::mem::replace(&mut track.suspect, true);
                decisions.extend(news.then(|| Decision::Suspect(vec![id], trouble.clone())));
            }
            BuildStatus::Unknown(trouble) => {
                let news = !std::mem::replace(&mut track.suspect, true);
                decisions.extend(news.then(|| Decision::Suspect(vec![id], trouble.clone())));
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
        let unseen = self.builds.iter_mut().filter(|(_, track)| !track.suspect);
        let unseen: Vec<BuildNo> = unseen.map(|(id, track)| (track.suspect = true, *id).1).collect();
        if !unseen.is_empty() {
            decisions.push(Decision::Suspect(unseen, trouble.clone()));
        }
    }

    /// It has answered: questions that are overdue are spread over the next period.
    fn answered(&mut self, now: Duration, decisions: &mut Vec<Decision>) {
        let Some(failing) = self.failing.take() else { return };
        for (id, track) in self.builds.iter_mut().filter(|(_, track)| track.due <= now) {
            track.due = next_moment(*id, now, self.pace.period);
        }
        decisions.extend((failing.failures >= limits::WATCH_FAILURES).then_some(Decision::Up));
    }
}

/// The next moment after `now` at which this build is asked about: the same within each period, and evenly spread over it
/// for numbers that follow each other (multiples of the golden ratio never crowd).
fn next_moment(id: BuildNo, now: Duration, period: Duration) -> Duration {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let period_ns = nanos(period).max(1);
    let part = u128::from(id.wrapping_mul(GOLDEN)) * u128::from(period_ns) / (u128::from(u64::MAX) + 1);
    let phase = u64::try_from(part).unwrap_or_default();
    let now = nanos(now);
    let since = now.wrapping_sub(phase) % period_ns;
    // Before the first phase of all, `now - phase` would be negative.
    let wait = if now < phase { phase - now } else { period_ns - since };
    Duration::from_nanos(now.saturating_add(wait))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How long a Concourse is left alone after so many failures in a row.
pub(super) fn pause(failures: u32, period: Duration) -> Duration {
    let most = limits::WATCH_AWAY_PERIODS * limits::WATCH_FIRST_PAUSE_PART;
    period / limits::WATCH_FIRST_PAUSE_PART * doubled(1, failures, most)
}

/// `first` for the first time, twice that for the second, ..., `most` at most.
pub(super) fn doubled(first: u32, times: u32, most: u32) -> u32 {
    first.saturating_mul(1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX)).min(most)
}

#[cfg(test)]
mod tests;
