//! What a person sees while a request waits. Values only: callers give the time, and escape and print the lines.
//!
//! - [`Progress`]: a wait for locks: at once, within half a minute of each change, and every few minutes otherwise.
//! - [`Silence`]: a server that does not answer: at once, and then every minute.

use std::time::Duration;

use super::acquire::{News, env_duration};
use super::http::NoAnswer;
use super::{when, who};
use crate::core::settings::PLACE;
use crate::core::time::WallMs;
use crate::env::{Clock, Env};
use crate::wire::api::{HolderView, WaitingView};
use crate::wire::errors::Code;
use crate::wire::text::parse_duration;

/// The least time between two lines about changes in a build log. Parked requests are answered every 25 s, so each change
/// is told within 30 s.
const CHANGE: Duration = Duration::from_secs(20);
/// The least time between two lines about a server that does not answer.
const SILENCE: Duration = Duration::from_secs(60);
/// The least time between two lines about a wait without a change.
const STILL: Duration = Duration::from_secs(180);
/// What gets builds out of a deadlock.
const WAY_OUT: &str = "the way out: abort one of these builds; so that it does not happen again, let their jobs take \
     these locks in the same order, or in one step (also)";

/// The least time between two lines about the same wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    change: Duration,
    silence: Duration,
    still: Duration,
}

impl Pace {
    /// For a build log.
    ///
    /// # Errors
    /// The variable `LOCKER_PROGRESS`, which sets the pace, is not a duration.
    pub fn of_log(env: &Env<'_>) -> Result<Self, String> {
        Self::of(CHANGE, env)
    }

    /// For a person at a terminal, who sees each change at once.
    ///
    /// # Errors
    /// As [`Self::of_log`].
    pub fn of_terminal(env: &Env<'_>) -> Result<Self, String> {
        Self::of(Duration::ZERO, env)
    }

    fn of(change: Duration, env: &Env<'_>) -> Result<Self, String> {
        let given = env_duration(env, "LOCKER_PROGRESS", CHANGE)?;
        if given == CHANGE {
            return Ok(Self { change, silence: SILENCE, still: STILL });
        }
        Ok(Self { change: given, silence: given * 3, still: given * 9 })
    }

    /// Everything at once.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { change: Duration::ZERO, silence: Duration::ZERO, still: Duration::ZERO }
    }
}

/// The time of some news.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The monotonic clock.
    pub at: Duration,
    /// The wall clock.
    pub wall: WallMs,
}

impl Moment {
    #[must_use]
    pub fn of(clock: &dyn Clock) -> Self {
        Self { at: clock.monotonic(), wall: when::now(clock) }
    }
}

/// Says that no server answers, and for how long.
#[derive(Debug)]
pub struct Silence {
    every: Duration,
    /// Since when, and when that was said last.
    since: Option<(Duration, Duration)>,
}

impl Silence {
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { every: pace.silence, since: None }
    }

    /// The line to print now, if it is time for one. `sent` is when the request was sent. With `met`, a server has
    /// answered before; without it, the line says what may be wrong.
    pub fn line(&mut self, why: &NoAnswer, met: bool, sent: Duration, now: Duration) -> Option<String> {
        let Some((since, said)) = &mut self.since else {
            self.since = Some((sent, now));
            let text = if met { why.to_string() } else { why.with_next() };
            return Some(format!("{text}; asking again"));
        };
        if now.saturating_sub(*said) < self.every {
            return None;
        }
        *said = now;
        let long = when::span(now.saturating_sub(*since));
        let NoAnswer { server, why: what, next, .. } = why;
        let next = next.as_ref().filter(|_| !met).map(|next| format!(": {next}")).unwrap_or_default();
        Some(format!("no answer for {long} from the locker server at {server}: {what}{next}; asking again"))
    }

    /// A server has answered. Returns whether a line has said that none does.
    pub fn over(&mut self) -> bool {
        self.since.take().is_some()
    }

    /// How long there has been no answer.
    fn lasts(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |(since, _)| now.saturating_sub(since))
    }
}

/// Decides which news about a wait to print.
#[derive(Debug)]
pub struct Progress {
    pace: Pace,
    silence: Silence,
    /// When the wait began.
    start: Option<Duration>,
    /// When the last line about the wait was printed, and what it told.
    told: Option<(Duration, State)>,
    /// The place that the estimate is for, and when the estimate is over.
    estimate: Option<(usize, Duration)>,
}

/// What a line tells, without anything that changes only because time passes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    place: Option<usize>,
    /// Why the wait may never end.
    stuck: Option<Code>,
    /// Lock, claim, and whether it is known to be alive.
    holders: Vec<(String, String, bool)>,
    /// What the server says if nobody holds the locks.
    why: String,
    /// What the pools lack.
    lacks: Option<String>,
    note: Option<String>,
}

impl State {
    fn of(view: &WaitingView) -> Self {
        let holders = holders(view);
        let queue = view.claim.as_ref().and_then(|claim| claim.queue.as_ref());
        let holder = |h: &HolderView| (format!("{}/{}", h.pool, h.lock), h.claim.clone(), h.suspect.is_some());
        Self {
            place: queue.map(|queue| queue.position),
            stuck: Some(view.code).filter(|code| matches!(code, Code::SelfWait | Code::Deadlock)),
            holders: holders.iter().map(holder).collect(),
            why: if holders.is_empty() { view.error.clone() } else { String::new() },
            lacks: queue.and_then(|queue| queue.lacks.clone()),
            note: None,
        }
    }
}

impl Progress {
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, silence: Silence::new(pace), start: None, told: None, estimate: None }
    }

    /// The lines to print now.
    pub fn lines(&mut self, news: &News<'_>, now: Moment) -> Vec<String> {
        match news {
            News::Waiting(view) => self.waiting(view, None, now),
            News::NoAnswer { why, met, has_place, sent } => {
                let Some(line) = self.silence.line(why, *met, *sent, now.at) else { return Vec::new() };
                let keeps = *has_place && self.silence.lasts(now.at) < Duration::from_millis(PLACE.0);
                vec![if keeps { format!("{line}, and the claim keeps its place in the queue") } else { line }]
            }
        }
    }

    /// The lines to print now about a wait for locks that has no place in a queue. `free` says how things are if nobody
    /// holds them, and `note` what else there is to say.
    pub fn watched(&mut self, holders: &[HolderView], free: &str, note: Option<&str>, now: Moment) -> Vec<String> {
        let view = WaitingView {
            error: free.to_owned(),
            code: Code::Waiting,
            parked: true,
            claim: None,
            holders: holders.to_vec(),
            holder_count: holders.len(),
            own: Vec::new(),
            builds: Vec::new(),
        };
        self.waiting(&view, note, now)
    }

    fn waiting(&mut self, view: &WaitingView, note: Option<&str>, now: Moment) -> Vec<String> {
        let was_silent = self.silence.over();
        let start = *self.start.get_or_insert(now.at);
        let state = State { note: note.map(str::to_owned), ..State::of(view) };
        let before = self.told.as_ref();
        let since = before.map_or(Duration::MAX, |(at, _)| now.at.saturating_sub(*at));
        let changed = before.is_none_or(|(_, told)| *told != state);
        let newly_stuck = state.stuck.is_some() && before.is_none_or(|(_, told)| told.stuck != state.stuck);
        let is_due = if changed { since >= self.pace.change } else { since >= self.pace.still };
        if !(was_silent || newly_stuck || is_due) {
            return Vec::new();
        }
        let was = before.and_then(|(_, told)| told.place).filter(|was| Some(*was) != state.place);
        let lines = if changed || was_silent {
            self.whole(view, was, note, now)
        } else {
            let long = when::span(now.at.saturating_sub(start));
            vec![format!("still waiting after {long}: {}", short(view, now.wall))]
        };
        self.told = Some((now.at, state));
        lines
    }

    /// Everything about the wait.
    fn whole(&mut self, view: &WaitingView, was: Option<usize>, note: Option<&str>, now: Moment) -> Vec<String> {
        let (holders, count) = (holders(view), count(view));
        let queue = view.claim.as_ref().and_then(|claim| claim.queue.as_ref());
        let mut parts = Vec::new();
        if let Some(queue) = queue {
            let was = was.map(|was| format!(" (was {was})")).unwrap_or_default();
            parts.push(format!("place {} in the queue{was}", queue.position));
            parts.extend(queue.lacks.clone());
        } else if holders.is_empty() {
            parts.push(view.error.clone());
        }
        let (held, lines) = who::held(holders, count, now.wall);
        parts.extend(held);
        if let Some(queue) = queue {
            parts.extend(who::ahead(queue));
            parts.extend(self.estimate(queue.position, queue.expected_wait.as_deref(), now.at));
        }
        parts.extend(stuck(view));
        parts.extend(note.map(str::to_owned));
        let first = format!("waiting: {}", parts.join("; "));
        std::iter::once(first).chain(lines.into_iter().map(|line| format!("  {line}"))).collect()
    }

    /// The server's estimate for this place, until it is exceeded.
    fn estimate(&mut self, place: usize, text: Option<&str>, now: Duration) -> Option<String> {
        let text = text?;
        let span = parse_duration(text).ok()?;
        let end = match self.estimate {
            Some((of, end)) if of == place => end,
            _ => now + span,
        };
        self.estimate = Some((place, end));
        (now < end || span.is_zero()).then(|| format!("about {text} by recent holds"))
    }
}

/// The holders of what the claim waits for.
fn holders(view: &WaitingView) -> &[HolderView] {
    view.claim.as_ref().and_then(|claim| claim.queue.as_ref()).map_or(&view.holders, |queue| &queue.holders)
}

/// How many there are; the view lists only the first.
fn count(view: &WaitingView) -> usize {
    let queue = view.claim.as_ref().and_then(|claim| claim.queue.as_ref());
    queue.map_or(view.holder_count, |queue| queue.holder_count).max(holders(view).len())
}

/// One line about a wait: the place, and the first of those who hold what it is for.
#[must_use]
pub fn short(view: &WaitingView, now: WallMs) -> String {
    let queue = view.claim.as_ref().and_then(|claim| claim.queue.as_ref());
    let mut parts: Vec<String> = queue.iter().map(|queue| format!("place {} in the queue", queue.position)).collect();
    parts.extend(queue.and_then(|queue| queue.lacks.clone()));
    parts.extend(who::held_for(holders(view), count(view), now));
    parts.extend(stuck(view));
    if parts.is_empty() { view.error.clone() } else { parts.join("; ") }
}

/// Why the wait may never end, and the way out.
fn stuck(view: &WaitingView) -> Option<String> {
    match view.code {
        Code::SelfWait if view.own.is_empty() => Some("this build already holds what it waits for".to_owned()),
        Code::SelfWait => Some(already_held(&view.own)),
        Code::Deadlock => {
            let builds: Vec<String> = view.builds.iter().map(|build| who::owner(build, "an unknown build")).collect();
            Some(format!("DEADLOCK: each of these builds waits for the next: {}; {WAY_OUT}", builds.join(" -> ")))
        }
        _ => None,
    }
}

/// What the build already has besides the claim that it waits for, or got.
#[must_use]
pub fn already_held(own: &[HolderView]) -> String {
    let one = |holder: &HolderView| {
        let fetched = if holder.fetched { "fetched" } else { "not fetched yet" };
        format!("{:?} of pool {:?} (claim {}, {fetched})", holder.lock, holder.pool, holder.claim)
    };
    let own: Vec<String> = own.iter().map(one).collect();
    format!("this build already holds {}", own.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api::QueueView;

    /// A wait at this place, with an estimate.
    fn view(place: usize, expected: &str) -> WaitingView {
        let queue = QueueView {
            position: place,
            ahead: Vec::new(),
            holders: Vec::new(),
            holder_count: 0,
            lacks: None,
            listening: true,
            expected_wait: Some(expected.to_owned()),
            stuck: None,
        };
        let claim = serde_json::json!({"id": "c", "state": "waiting", "life": 1, "asks": [], "queue": queue});
        let view = serde_json::json!({"error": "it waits", "code": "waiting", "parked": true, "claim": claim});
        serde_json::from_value(view).unwrap()
    }

    fn no_answer() -> NoAnswer {
        let (server, why) = ("http://locker".to_owned(), "refused".to_owned());
        NoAnswer { server, why, next: Some("start it".to_owned()), code: None, retry_after: None }
    }

    #[test]
    fn a_log_tells_changes_soon_and_the_rest_now_and_then() {
        let mut progress = Progress::new(Pace { change: CHANGE, silence: SILENCE, still: STILL });
        // Seconds, the place and the estimate that the server reports, and what is printed.
        let steps = [
            (0, 3, "2m", "waiting: place 3 in the queue; about 2m by recent holds"),
            (5, 2, "1m", ""),
            (25, 2, "1m", "waiting: place 2 in the queue (was 3); about 1m by recent holds"),
            (50, 2, "1m", ""),
            (200, 2, "1m", ""),
            (206, 2, "1m", "still waiting after 3 min: place 2 in the queue"),
            (300, 1, "30s", "waiting: place 1 in the queue (was 2); about 30s by recent holds"),
            (325, 1, "30s", ""),
            (481, 1, "30s", "still waiting after 8 min: place 1 in the queue"),
        ];
        for (seconds, place, expected, line) in steps {
            let now = Moment { at: Duration::from_secs(seconds), wall: WallMs(0) };
            let lines = progress.lines(&News::Waiting(&view(place, expected)), now);
            assert_eq!(lines.join("\n"), line, "after {seconds} s");
        }
        // The same place again, when its estimate is over: after an outage, everything is told, but no estimate.
        let (sent, why) = (Duration::from_secs(500), no_answer());
        let steps = [
            (
                500,
                "no answer from the locker server at http://locker: refused; asking again, and the claim keeps its place in the queue",
            ),
            (550, ""),
            (
                560,
                "no answer for 1 min from the locker server at http://locker: refused; asking again, and the claim keeps its place in the queue",
            ),
            (1_200, "no answer for 11 min from the locker server at http://locker: refused; asking again"),
        ];
        for (seconds, line) in steps {
            let now = Moment { at: Duration::from_secs(seconds), wall: WallMs(0) };
            let news = News::NoAnswer { why: &why, met: true, has_place: true, sent };
            assert_eq!(progress.lines(&news, now).join("\n"), line, "after {seconds} s");
        }
        let now = Moment { at: Duration::from_secs(1_201), wall: WallMs(0) };
        let lines = progress.lines(&News::Waiting(&view(1, "30s")), now);
        assert_eq!(lines, ["waiting: place 1 in the queue"]);
    }

    #[test]
    fn before_the_first_answer_a_silence_says_what_to_do() {
        let mut silence = Silence::new(Pace { change: CHANGE, silence: SILENCE, still: STILL });
        let line = silence.line(&no_answer(), false, Duration::ZERO, Duration::from_secs(5)).unwrap();
        assert_eq!(line, "no answer from the locker server at http://locker: refused: start it; asking again");
        let line = silence.line(&no_answer(), false, Duration::from_secs(60), Duration::from_secs(65)).unwrap();
        assert_eq!(
            line,
            "no answer for 1 min from the locker server at http://locker: refused: start it; asking again"
        );
    }
}
