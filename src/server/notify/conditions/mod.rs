//! What a target is told: from entries of the history, or from the state at a moment, and from what it was told before.
//!
//! A wait, a hold or a suspect is told of at the moment at which it passes the target's limit. That moment is known from
//! when it began, so nothing has to be remembered but the time up to which the target was told. If the wait or hold ended
//! before anybody looked, the entry of its end says the same.

use super::message;
use super::settings::Rules;
use crate::core::claim::Claim;
use crate::core::history::{Change, ChangeKind};
use crate::core::names::{NamePattern, PoolName, Revision};
use crate::core::state::Snapshot;
use crate::core::time::{Span, WallMs};
use crate::server::notify::limits::{OVERDUE_PER_ROUND, TOLD_WITHIN_MS};
use crate::wire::notification::{Event, Notification};

/// Up to where a target was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Every entry of the history up to this revision.
    pub revision: Revision,
    /// Every limit that was passed up to this time.
    pub until: WallMs,
}

/// A notification, and up to where its target was told once it has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub notification: Notification,
    /// When it happened, or when the limit was passed.
    pub at: WallMs,
    pub then: Told,
}

/// What follows for one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    pub steps: Vec<Step>,
    /// How many were left out because they are too old.
    pub too_old: u64,
}

/// Whether a pool is among those of a target. No pattern means all.
#[must_use]
pub fn is_of(patterns: &[NamePattern], pools: &[PoolName]) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pools.iter().any(|pool| pattern.matches(pool)))
}

/// Whether the resources of a pool have a new version with this entry.
#[must_use]
pub fn is_version_of(patterns: &[NamePattern], entry: &Change) -> bool {
    entry.kind.is_version() && is_of(patterns, &entry.pools)
}

fn named(kind: ChangeKind) -> Option<Event> {
    match kind {
        ChangeKind::Lost => Some(Event::Lost),
        ChangeKind::Broken => Some(Event::Broken),
        ChangeKind::Deadlock => Some(Event::Deadlock),
        ChangeKind::SelfWait => Some(Event::SelfWait),
        ChangeKind::Quarantined => Some(Event::Quarantined),
        ChangeKind::Returned => Some(Event::Returned),
        _ => None,
    }
}

/// When something that began at `since` passes a limit, if that was after the target was last told and is not to come.
fn passed(since: WallMs, limit: Option<Span>, told: WallMs, now: WallMs) -> Option<(WallMs, Span)> {
    let limit = limit?;
    let due = WallMs(since.0.saturating_add(limit.0));
    (due > told && due <= now).then_some((due, limit))
}

/// Adds what follows from the next entries of the history, which come in their order.
pub fn of_entries(round: &mut Round, rules: &Rules, entries: &[Change], told: Told, now: WallMs) {
    let oldest = WallMs(now.0.saturating_sub(TOLD_WITHIN_MS));
    let mut before = told;
    for (at, entry) in entries.iter().enumerate() {
        if is_of(&rules.pools, &entry.pools) && !entry.pools.is_empty() {
            let found = of_entry(rules, entry, told);
            if entry.at < oldest {
                round.too_old += found.len() as u64;
            } else {
                round.steps.extend(found.into_iter().map(|(at, notification)| Step { notification, at, then: before }));
            }
        }
        // A revision is told once all its entries are.
        if entries.get(at + 1).is_none_or(|next| next.key.revision > entry.key.revision) {
            before.revision = entry.key.revision;
            if let Some(last) = round.steps.last_mut() {
                last.then = before;
            }
        }
    }
}

fn of_entry(rules: &Rules, entry: &Change, told: Told) -> Vec<(WallMs, Notification)> {
    let mut found = Vec::new();
    let began = |lasted: Option<Span>| lasted.map(|lasted| WallMs(entry.at.0.saturating_sub(lasted.0)));
    if matches!(entry.kind, ChangeKind::Claimed | ChangeKind::Ended)
        && let Some(since) = began(entry.waited)
        && let Some((due, limit)) = passed(since, rules.waits, told.until, entry.at)
    {
        found.push((due, message::ended(Event::LongWait, entry, since, due, limit)));
    }
    if let Some(since) = began(entry.held)
        && let Some((due, limit)) = passed(since, rules.holds, told.until, entry.at)
    {
        found.push((due, message::ended(Event::LongHold, entry, since, due, limit)));
    }
    if let Some(event) = named(entry.kind).filter(|event| rules.events.contains(event)) {
        found.push((entry.at, message::entry(event, entry)));
    }
    found
}

/// Adds what follows from the state at this moment, after every entry up to the state's revision. Returns up to where the
/// target is told after all of it.
pub fn of_moment(round: &mut Round, rules: &Rules, snapshot: &Snapshot, told: Told, now: WallMs) -> Told {
    let told = Told { revision: snapshot.revision, ..told };
    let mut found = Vec::new();
    if rules.waits.is_some() || rules.holds.is_some() {
        found.extend(snapshot.claims.values().filter_map(|claim| overdue(rules, claim, told, now)));
    }
    if rules.suspect.is_some() {
        for (build, suspect) in &snapshot.suspects {
            let Some((due, limit)) = passed(suspect.since, rules.suspect, told.until, now) else { continue };
            let claims = snapshot.claims_of(build).filter(|claim| claim.build_over.is_none());
            let claims: Vec<_> = claims.filter(|claim| is_of(&rules.pools, &pools(claim))).cloned().collect();
            if !claims.is_empty() {
                found.push((due, message::suspect(build, suspect, &claims, due, limit)));
            }
        }
    }
    found.sort_by(|(a, x), (b, y)| (a, &x.id).cmp(&(b, &y.id)));
    let mut all = Told { until: now, ..told };
    if let Some((last, _)) = found.get(OVERDUE_PER_ROUND) {
        // Those of one moment stay together, so that the next round begins behind them.
        let last = *last;
        found.retain(|(due, _)| *due <= last);
        all.until = last;
    }
    let steps = found.into_iter().map(|(at, notification)| Step { notification, at, then: told });
    let first = round.steps.len();
    round.steps.extend(steps);
    for at in first..round.steps.len() {
        let due = round.steps[at].at;
        let is_last_of_moment = round.steps.get(at + 1).is_none_or(|next| next.at > due);
        let until = if is_last_of_moment { due } else { WallMs(due.0.saturating_sub(1)) };
        round.steps[at].then.until = until.max(told.until);
    }
    if let Some(last) = round.steps.last_mut() {
        last.then = all;
    }
    all
}

fn pools(claim: &Claim) -> Vec<PoolName> {
    claim.terms.ask.parts.iter().map(|part| part.pool.clone()).collect()
}

/// A claim that has waited, or held, for too long.
fn overdue(rules: &Rules, claim: &Claim, told: Told, now: WallMs) -> Option<(WallMs, Notification)> {
    // A grant that nobody has confirmed yet is still a wait.
    let (event, since, limit) = match claim.held_since() {
        None => (Event::LongWait, claim.asked_at, rules.waits),
        Some(since) => (Event::LongHold, since, rules.holds),
    };
    let (due, limit) = passed(since, limit, told.until, now)?;
    let pools = pools(claim);
    is_of(&rules.pools, &pools).then(|| (due, message::overdue(event, claim, &pools, since, due, limit)))
}

#[cfg(test)]
mod tests;
