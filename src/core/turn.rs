//! Whose turn it is: what a waiting claim may take now, and who holds it back (docs/design.md#turn-order).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::candidates::{pick, rivals};
use super::claim::{Claim, LockSet, Part};
use super::deadlock::waits_for::WaitsFor;
use super::names::ClaimId;
use super::pool::{Overtaking, Place, Pool};
use super::state::{Snapshot, State};

/// The locks that this waiting claim may take now, in its turn; `None` when it has to wait.
pub(super) fn turn(snapshot: &Snapshot, claim: &Claim) -> Option<LockSet> {
    let locks = available(snapshot, claim)?;
    if joins_own_hold(snapshot, claim, &locks) || !is_held_back(snapshot, claim) {
        return Some(locks);
    }
    None
}

/// A full set of locks that the claim could have now, the queue aside.
fn available(snapshot: &Snapshot, claim: &Claim) -> Option<LockSet> {
    let sharer = claim.terms.ask.sharer();
    let mut locks = LockSet::new();
    for Part { pool: name, want } in &claim.terms.ask.parts {
        let picked = pick(snapshot, snapshot.pool(name)?, want, sharer)?;
        locks.extend(picked.into_iter().map(|lock| (name.clone(), lock)));
    }
    Some(locks)
}

/// A requestor that already holds the very locks, with the same key, always gets in.
fn joins_own_hold(snapshot: &Snapshot, claim: &Claim, locks: &LockSet) -> bool {
    let Some(sharer) = claim.terms.ask.sharer() else { return false };
    locks.iter().all(|(pool, lock)| snapshot.lock(pool, lock).is_some_and(|l| l.is_held_by(sharer)))
}

/// Strict: an earlier waiter holds back a later one if it listens, their candidate locks overlap, and it does not
/// itself wait for a lock that the later one's build holds.
fn is_held_back(snapshot: &Snapshot, claim: &Claim) -> bool {
    let mut rivals = earlier_rivals(snapshot, claim).peekable();
    if rivals.peek().is_none() {
        return false;
    }
    let build = claim.terms.owner.build().filter(|build| snapshot.claims_of(build).any(|c| !c.waits()));
    let Some(build) = build else { return true };
    let mut waits_for_build = WaitsFor::new(snapshot, &build);
    rivals.any(|rival| !waits_for_build.is_true_of(rival))
}

/// Whether later claims may be served before this waiting one in this pool: where backfilling is allowed, while it
/// cannot be served itself, and not too often.
pub(super) fn may_be_passed(snapshot: &Snapshot, pool: &Pool, claim: &Claim) -> bool {
    match pool.policy.overtaking {
        Overtaking::Strict => false,
        Overtaking::Backfill(most) => {
            most.is_none_or(|most| claim.passed < most) && available(snapshot, claim).is_none()
        }
    }
}

/// Before a claim is given locks: counts it for those earlier waiters past which it is served, where that is limited.
/// A requestor that joins what it has already passes nobody.
pub(super) fn count_passed(state: &mut State, claim: &Claim, locks: &LockSet) {
    if joins_own_hold(&state.snapshot, claim, locks) {
        return;
    }
    let counts = |pool: &Pool| matches!(pool.policy.overtaking, Overtaking::Backfill(Some(_)));
    let parts = claim.terms.ask.parts.iter().filter_map(|part| Some((state.snapshot.pool(&part.pool)?, &part.want)));
    let passed = parts.filter(|(pool, _)| counts(pool)).flat_map(|(pool, want)| {
        rivals(&state.snapshot, pool, want, Place::FIRST..pool.place(claim)).map(|rival| rival.id.clone())
    });
    let passed: BTreeSet<ClaimId> = passed.collect();
    for id in passed {
        state.update_claim(&id, |c| c.passed = c.passed.saturating_add(1));
    }
}

/// Listening waiters before `claim` whose candidate locks overlap with its own.
fn earlier_rivals<'w>(snapshot: &'w Snapshot, claim: &Claim) -> impl Iterator<Item = &'w Arc<Claim>> {
    let parts = claim.terms.ask.parts.iter().filter_map(|part| Some((snapshot.pool(&part.pool)?, &part.want)));
    parts.flat_map(move |(pool, want)| {
        let rivals = rivals(snapshot, pool, want, Place::FIRST..pool.place(claim));
        rivals.filter(move |rival| !may_be_passed(snapshot, pool, rival))
    })
}
