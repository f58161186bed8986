//! Text for people about owners, holders and places in a queue. Callers escape it before they print it.

use super::when;
use crate::core::time::WallMs;
use crate::wire::api::{
    BuildEndedView, ClaimView, HolderView, MadePoolView, Owner, QueueView, SuspectView, WaiterView,
};

/// How many of the waiters ahead one line names at most.
const AHEAD_NAMED: usize = 3;
/// How many holders are written out at most.
const HOLDERS_NAMED: usize = 5;

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
    format!("{:?} by {}", holder.lock, held_by(holder, now))
}

/// Who holds a lock: `WHO, since 14:05:12Z (32 min ago)`.
#[must_use]
pub fn held_by(holder: &HolderView, now: WallMs) -> String {
    let mut parts = vec![owner(&holder.owner, &format!("claim {}", holder.claim))];
    parts.extend(holder.key.as_ref().map(|key| format!("key {key:?}")));
    parts.extend(holder.since.as_ref().map(|since| format!("since {}", when::time(since, now))));
    parts.extend(holder.build_ended.as_ref().map(|ended| build_ended(ended, now)));
    parts.extend(holder.suspect.as_ref().map(|it| suspect(it, now)));
    parts.extend(holder.reason.as_ref().map(|reason| format!("because {reason:?}")));
    parts.join(", ")
}

/// That it is not known whether the build of a hold is alive, since when and why.
#[must_use]
pub fn suspect(suspect: &SuspectView, now: WallMs) -> String {
    format!("not known to be alive since {} ({})", when::time(&suspect.since, now), suspect.why)
}

/// How the build of a hold ended that outlives it: `its build succeeded 5 min ago`.
#[must_use]
pub fn build_ended(ended: &BuildEndedView, now: WallMs) -> String {
    let what = match ended.how.as_str() {
        "errored" => "ended with an error",
        "aborted" => "was aborted",
        "gone" => "is gone, seen",
        how => how,
    };
    match when::since(&ended.at, now) {
        Some(since) => format!("its build {what} {} ago", when::span(since)),
        None => format!("its build {what}"),
    }
}

/// How a claim ended, by whom and why: `it was ended by force by ada: "hung"`.
#[must_use]
pub fn how_it_ended(claim: &ClaimView, how: &str) -> String {
    let words = match how {
        "released" => "it was released",
        "cancelled" => "it was cancelled before it held anything",
        "gave_up" => "it gave up waiting",
        "listener_lost" => "its client did not come back in time",
        "unconfirmed" => "too many of its grants were not confirmed",
        "superseded" => "a newer claim replaced it",
        "removed" => "what it asked for was removed from the pool",
        "broken" => "it was ended by force",
        "lost" => "its time was over (its ttl, or max_hold of the pool)",
        "lease_lost" => "its lease was not renewed in time",
        "build_over" => "its build had ended",
        "undelivered" => "its build ended before any get had fetched it",
        other => other,
    };
    let by = claim.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let why = claim.reason.as_ref().map(|reason| format!(": {reason:?}")).unwrap_or_default();
    format!("{words}{by}{why}")
}

/// For each pool that a claim has made: that it is new, and which one may have been meant.
#[must_use]
pub fn new_pools(claim: &ClaimView) -> Vec<String> {
    claim.made.iter().map(|made| new_pool(made, "this claim has made it, with one lock")).collect()
}

/// That a pool is new, and which one may have been meant; else `how` it was made.
#[must_use]
pub fn new_pool(made: &MadePoolView, how: &str) -> String {
    match &made.nearest {
        Some(nearest) => format!("pool {:?} is new: did you mean {nearest:?}?", made.pool),
        None => format!("pool {:?} is new: {how}", made.pool),
    }
}

/// The first holders in one line, and how many more there are; empty if there are none.
#[must_use]
pub fn holders(all: &[HolderView], now: WallMs) -> String {
    let mut words: Vec<String> = all.iter().take(HOLDERS_NAMED).map(|one| holder(one, now)).collect();
    words.extend(more(all.len(), words.len()));
    words.join("; ")
}

/// What is held, for the line about a wait, and the lines that follow it: one for each of the first holders, unless
/// there is only one. `count` is how many there are in all.
#[must_use]
pub fn held(first: &[HolderView], count: usize, now: WallMs) -> (Option<String>, Vec<String>) {
    match first {
        [] => (None, Vec::new()),
        [only] if count <= 1 => (Some(format!("held: {}", holder(only, now))), Vec::new()),
        several => {
            let one = |one: &HolderView| format!("held: {}", holder(one, now));
            let mut lines: Vec<String> = several.iter().take(HOLDERS_NAMED).map(one).collect();
            lines.extend(more(count, lines.len()));
            (Some(format!("{count} holders")), lines)
        }
    }
}

/// For how long it has been held: `held 32 min by WHO and 3 more`.
#[must_use]
pub fn held_for(first: &[HolderView], count: usize, now: WallMs) -> Option<String> {
    let oldest = first.iter().filter(|one| one.since.is_some()).min_by_key(|one| one.since.as_deref());
    let one = oldest.or(first.first())?;
    let who = owner(&one.owner, &format!("claim {}", one.claim));
    let since = one.since.as_deref().and_then(|since| when::since(since, now));
    let long = since.map(|span| format!(" {}", when::span(span))).unwrap_or_default();
    let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
    Some(format!("held{long} by {who}{others}"))
}

fn more(count: usize, shown: usize) -> Option<String> {
    (count > shown).then(|| format!("and {} more", count - shown))
}

/// Who is ahead in the queue.
#[must_use]
pub fn ahead(queue: &QueueView) -> Option<String> {
    if queue.ahead.is_empty() {
        return None;
    }
    let named: Vec<String> = queue.ahead.iter().take(AHEAD_NAMED).map(waiter).collect();
    let more = more(queue.position.saturating_sub(1), named.len()).map(|more| format!(" {more}")).unwrap_or_default();
    Some(format!("ahead: {}{more}", named.join(", ")))
}

fn waiter(waiter: &WaiterView) -> String {
    let who = owner(&waiter.owner, &format!("claim {}", waiter.claim));
    if waiter.listening { who } else { format!("{who} (away)") }
}
