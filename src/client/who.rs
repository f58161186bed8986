//! Text for people about owners, holders and places in a queue. Callers escape it before they print it.

use super::when;
use crate::core::time::WallMs;
use crate::wire::api::{HolderView, Owner, QueueView, SuspectView, WaiterView};

/// How many of the waiters ahead one line names at most.
const AHEAD_NAMED: usize = 3;

/// `team/pipeline/job #12 (URL)`, as far as it is known; `fallback` if nothing is.
#[must_use]
pub fn owner(owner: &Owner, fallback: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let path = [&owner.team, &owner.pipeline, &owner.job];
    let path: Vec<&str> = path.iter().filter_map(|part| part.as_deref()).collect();
    if !path.is_empty() {
        words.push(path.join("/"));
    }
    words.extend(owner.instance_vars.clone());
    match (&owner.build_name, &owner.build_id) {
        (Some(name), _) => words.push(format!("#{name}")),
        (None, Some(id)) => words.push(format!("build {id}")),
        (None, None) => {}
    }
    words.extend(owner.person.clone());
    words.extend(owner.program.clone());
    words.extend(owner.build_url.as_ref().map(|url| format!("({url})")));
    if words.is_empty() { fallback.to_owned() } else { words.join(" ") }
}

/// One holder: `"a" by WHO, since 14:05:12Z (32 min ago)`.
#[must_use]
pub fn holder(holder: &HolderView, now: WallMs) -> String {
    let who = owner(&holder.owner, &format!("claim {}", holder.claim));
    let mut parts = vec![format!("{:?} by {who}", holder.lock)];
    parts.extend(holder.key.as_ref().map(|key| format!("key {key:?}")));
    parts.extend(holder.since.as_ref().map(|since| format!("since {}", when::time(since, now))));
    let suspect = |s: &SuspectView| format!("not known to be alive since {} ({})", when::time(&s.since, now), s.why);
    parts.extend(holder.suspect.as_ref().map(suspect));
    parts.extend(holder.reason.as_ref().map(|reason| format!("because {reason:?}")));
    parts.join(", ")
}

/// All holders in one line; empty if there are none.
#[must_use]
pub fn holders(all: &[HolderView], now: WallMs) -> String {
    all.iter().map(|one| holder(one, now)).collect::<Vec<_>>().join("; ")
}

/// Where a waiter stands: its place, who holds what it waits for, and who is ahead.
#[must_use]
pub fn queue(queue: &QueueView, now: WallMs) -> String {
    let mut parts = vec![format!("place {} in the queue", queue.position)];
    parts.extend(queue.lacks.clone());
    if !queue.holders.is_empty() {
        parts.push(format!("held: {}", holders(&queue.holders, now)));
    }
    if !queue.ahead.is_empty() {
        let named: Vec<String> = queue.ahead.iter().take(AHEAD_NAMED).map(waiter).collect();
        let more = queue.position.saturating_sub(1 + named.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        parts.push(format!("ahead: {}{more}", named.join(", ")));
    }
    parts.extend(queue.expected_wait.as_ref().map(|span| format!("about {span} by recent holds")));
    parts.join("; ")
}

fn waiter(waiter: &WaiterView) -> String {
    let who = owner(&waiter.owner, &format!("claim {}", waiter.claim));
    if waiter.listening { who } else { format!("{who} (away)") }
}
