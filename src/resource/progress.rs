//! What a person sees while a put waits: at once, then when something changes, at most every 30 s.

use std::time::Duration;

use crate::client::acquire::{News, env_duration};
use crate::client::who;
use crate::env::Env;
use crate::wire::api::WaitingView;

/// Least time between two lines about the wait.
const EVERY: Duration = Duration::from_secs(30);

/// Decides which news become a line.
pub(super) struct Progress {
    every: Duration,
    last: Option<(Duration, String)>,
}

impl Progress {
    /// `LOCKER_PROGRESS` shortens the time between lines.
    pub(super) fn of(env: &Env<'_>) -> Result<Self, String> {
        Ok(Self { every: env_duration(env, "LOCKER_PROGRESS", EVERY)?, last: None })
    }

    /// The line to print now, if there is one.
    pub(super) fn line(&mut self, news: &News<'_>, now: Duration) -> Option<String> {
        let line = match news {
            News::Waiting(view) => format!("waiting: {}", waiting(view)),
            News::NoAnswer(why) => format!("{why}; asking again, the place in the queue is kept"),
        };
        let due = match &self.last {
            None => true,
            Some((at, text)) => *text != line && now.saturating_sub(*at) >= self.every,
        };
        due.then(|| self.last = Some((now, line.clone())))?;
        Some(line)
    }
}

/// Where a waiter is, and behind whom.
pub(super) fn waiting(view: &WaitingView) -> String {
    match view.claim.as_ref().and_then(|claim| claim.queue.as_ref()) {
        Some(queue) => who::queue(queue),
        None if view.holders.is_empty() => view.error.clone(),
        None => format!("held: {}", who::holders(&view.holders)),
    }
}

/// A span as people read it: no more than three digits after the seconds.
pub(super) fn span(span: Duration) -> String {
    let rounded = if span < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(0))
    } else {
        Duration::from_secs(span.as_secs())
    };
    humantime::format_duration(rounded).to_string()
}
