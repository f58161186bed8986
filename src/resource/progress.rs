//! What a person sees while a put waits: a line at once, then one for each change, at most every 30 s. If the wait may
//! never end, because of this build or because of a deadlock, a line says so at once.

use std::time::Duration;

use crate::client::acquire::{News, env_duration};
use crate::client::who;
use crate::core::time::WallMs;
use crate::env::Env;
use crate::wire::api::{HolderView, WaitingView};
use crate::wire::concourse::LogLevel;
use crate::wire::errors::Code;

/// The least time between two lines about the wait.
const EVERY: Duration = Duration::from_secs(30);

/// Decides which news to print.
pub(super) struct Progress {
    every: Duration,
    last: Option<(Duration, String)>,
    /// Why the wait may never end, according to the last line.
    stuck: Option<Code>,
}

impl Progress {
    /// `LOCKER_PROGRESS` shortens the time between lines. At level debug, everything is printed.
    pub(super) fn of(level: LogLevel, env: &Env<'_>) -> Result<Self, String> {
        let every = if level == LogLevel::Debug { Duration::ZERO } else { EVERY };
        Ok(Self { every: env_duration(env, "LOCKER_PROGRESS", every)?, last: None, stuck: None })
    }

    /// The line to print now, if there is one.
    pub(super) fn line(&mut self, news: &News<'_>, now: Duration, wall: WallMs) -> Option<String> {
        let line = match news {
            News::Waiting(view) => {
                let stuck = Some(view.code).filter(|code| matches!(code, Code::SelfWait | Code::Deadlock));
                if stuck != self.stuck && stuck.is_some() {
                    self.last = None;
                }
                let line = self.text(format!("waiting: {}", waiting(view, wall)), now)?;
                self.stuck = stuck;
                return Some(line);
            }
            // Not in the queue yet.
            News::NoAnswer(why) if why.code == Some(Code::ConcourseUnavailable) => format!("{why}; retrying"),
            News::NoAnswer(why) => format!("{why}; retrying, the claim keeps its place in the queue"),
        };
        self.text(line, now)
    }

    /// The line itself, unless it repeats the last one or comes too soon.
    pub(super) fn text(&mut self, line: String, now: Duration) -> Option<String> {
        let due = match &self.last {
            None => true,
            Some((at, text)) => *text != line && now.saturating_sub(*at) >= self.every,
        };
        due.then(|| self.last = Some((now, line.clone())))?;
        Some(line)
    }
}

/// The place of a waiting claim, and what is ahead of it.
pub(super) fn waiting(view: &WaitingView, now: WallMs) -> String {
    let place = place(view, now);
    match view.code {
        Code::SelfWait => format!("{place}; this build already holds {}", own(view)),
        Code::Deadlock => {
            let builds: Vec<String> = view.builds.iter().map(|build| who::owner(build, "an unknown build")).collect();
            format!("{place}; DEADLOCK: each of these builds waits for the next: {}", builds.join(" -> "))
        }
        _ => place,
    }
}

/// What the build already holds, for a claim that waits for its own build.
fn own(view: &WaitingView) -> String {
    let one = |holder: &HolderView| {
        let fetched = if holder.delivered { "fetched" } else { "not fetched yet" };
        format!("{:?} of pool {:?} (claim {}, {fetched})", holder.lock, holder.pool, holder.claim)
    };
    let own: Vec<String> = view.own.iter().map(one).collect();
    if own.is_empty() { "what it waits for".to_owned() } else { own.join(", ") }
}

fn place(view: &WaitingView, now: WallMs) -> String {
    match view.claim.as_ref().and_then(|claim| claim.queue.as_ref()) {
        Some(queue) => who::queue(queue, now),
        None if view.holders.is_empty() => view.error.clone(),
        None => format!("held: {}", who::holders(&view.holders, now)),
    }
}

/// A span for people, with at most three digits after the seconds.
pub(super) fn span(span: Duration) -> String {
    let rounded = if span < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(0))
    } else {
        Duration::from_secs(span.as_secs())
    };
    humantime::format_duration(rounded).to_string()
}
