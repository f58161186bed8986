//! Whose turn it is: what a waiting claim may take now, and which claims hold it back (docs/design.md#turn-order).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::candidates::{Overlaps, pick, rivals};
use super::claim::{Claim, LockSet, Part, Want};
use super::deadlock::waits_for::WaitsFor;
use super::names::{ClaimId, PoolName, Text};
use super::pool::{Overtaking, Place, Pool};
use super::state::{Snapshot, State};

/// The findings of one walk over a queue, so that equal wants are examined once and not once for each waiter. Only
/// grants may happen while a walk is in use, and the caller reports each of them.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pools: BTreeMap<PoolName, Found>,
}

/// The findings about one pool.
#[derive(Debug, Default)]
struct Found {
    overlaps: Overlaps,
    /// Wants that the pool cannot serve now, by the sharing party.
    short: HashMap<Want, HashSet<Option<(Text, Text)>>>,
    /// For each want, the place before which no claim holds it back.
    clear: HashMap<Want, Place>,
}

impl Walk {
    fn in_pool(&mut self, pool: &PoolName) -> &mut Found {
        if !self.pools.contains_key(pool) {
            self.pools.insert(pool.clone(), Found::default());
        }
        self.pools.entry(pool.clone()).or_default()
    }

    /// A claim was granted: other claims with its key may join it, and some claims may have reached their limit of
    /// being passed. No other claim gains anything.
    pub(super) fn granted(&mut self, snapshot: &Snapshot) {
        for (name, found) in &mut self.pools {
            found.short.values_mut().for_each(|sharers| sharers.retain(Option::is_none));
            if snapshot.pool(name).is_none_or(|pool| pool.policy.overtaking != Overtaking::Strict) {
                found.clear.clear();
            }
        }
    }
}

/// The locks that this waiting claim may take now, if it is its turn; `None` when it has to wait.
pub(super) fn turn(snapshot: &Snapshot, claim: &Claim) -> Option<LockSet> {
    turn_in(snapshot, claim, &mut Walk::default())
}

/// The same as [`turn`], within a walk.
pub(super) fn turn_in(snapshot: &Snapshot, claim: &Claim, walk: &mut Walk) -> Option<LockSet> {
    let locks = available(snapshot, claim, walk)?;
    if joins_own_hold(snapshot, claim, &locks) || !is_held_back(snapshot, claim, walk) {
        return Some(locks);
    }
    None
}

/// A full set of locks that the claim could have now, regardless of the queue.
fn available(snapshot: &Snapshot, claim: &Claim, walk: &mut Walk) -> Option<LockSet> {
    let sharer = claim.terms.ask.sharer();
    let mut locks = LockSet::new();
    for Part { pool: name, want } in &claim.terms.ask.parts {
        let pool = snapshot.pool(name)?;
        // For named locks, looking is as fast as remembering.
        if matches!(want, Want::Named(_)) {
            locks.extend(pick(snapshot, pool, want, sharer)?.into_iter().map(|lock| (name.clone(), lock)));
            continue;
        }
        let owned = || sharer.map(|(key, who)| (key.clone(), who.clone()));
        let short = walk.pools.get(name).and_then(|found| found.short.get(want));
        if short.is_some_and(|sharers| sharers.contains(&owned())) {
            return None;
        }
        let Some(picked) = pick(snapshot, pool, want, sharer) else {
            walk.in_pool(name).short.entry(want.clone()).or_default().insert(owned());
            return None;
        };
        locks.extend(picked.into_iter().map(|lock| (name.clone(), lock)));
    }
    Some(locks)
}

/// A requestor that already holds exactly these locks, with the same key, always gets in.
fn joins_own_hold(snapshot: &Snapshot, claim: &Claim, locks: &LockSet) -> bool {
    let Some(sharer) = claim.terms.ask.sharer() else { return false };
    locks.iter().all(|(pool, lock)| snapshot.lock(pool, lock).is_some_and(|l| l.is_held_by(sharer)))
}

/// Strict order: an earlier waiter holds back a later one if it listens, their candidate locks overlap, and it does not
/// itself wait for a lock that the later one's build has.
fn is_held_back(snapshot: &Snapshot, claim: &Claim, walk: &mut Walk) -> bool {
    let parts = || claim.terms.ask.parts.iter().filter_map(|part| Some((snapshot.pool(&part.pool)?, &part.want)));
    if !parts().any(|(pool, want)| has_rival(snapshot, pool, want, claim, walk)) {
        return false;
    }
    let build = claim.terms.owner.build().filter(|build| snapshot.claims_of(build).any(|c| !c.waits()));
    let Some(build) = build else { return true };
    let mut waits_for_build = WaitsFor::new(snapshot, &build);
    parts().any(|(pool, want)| {
        let mut overlaps = std::mem::take(&mut walk.in_pool(&pool.name).overlaps);
        let mut earlier = rivals(snapshot, pool, want, Place::FIRST..pool.place(claim), &mut overlaps);
        let held =
            earlier.any(|rival| !may_be_passed(snapshot, pool, rival, walk) && !waits_for_build.is_true_of(rival));
        drop(earlier);
        walk.in_pool(&pool.name).overlaps = overlaps;
        held
    })
}

/// Whether an earlier claim wants some of the same locks of this pool and may not be passed.
fn has_rival(snapshot: &Snapshot, pool: &Pool, want: &Want, claim: &Claim, walk: &mut Walk) -> bool {
    let place = pool.place(claim);
    if pool.waiting.get_min().is_none_or(|(first, _)| *first >= place) {
        return false;
    }
    let found = walk.in_pool(&pool.name);
    let clear = found.clear.get(want).copied().unwrap_or(Place::FIRST);
    if clear >= place {
        return false;
    }
    if found.overlaps.shares_nothing(pool, want, claim) {
        return false;
    }
    let mut overlaps = std::mem::take(&mut found.overlaps);
    let mut earlier = rivals(snapshot, pool, want, clear..place, &mut overlaps);
    let rival = earlier.find(|rival| !may_be_passed(snapshot, pool, rival, walk)).map(|rival| pool.place(rival));
    drop(earlier);
    let found = walk.in_pool(&pool.name);
    found.overlaps = overlaps;
    match found.clear.get_mut(want) {
        Some(clear) => *clear = rival.unwrap_or(place),
        None => drop(found.clear.insert(want.clone(), rival.unwrap_or(place))),
    }
    rival.is_some()
}

/// Whether later claims may be served before this waiting one in this pool: the pool allows backfilling, the claim
/// cannot be served itself, and it has not been passed too often.
pub(super) fn may_be_passed(snapshot: &Snapshot, pool: &Pool, claim: &Claim, walk: &mut Walk) -> bool {
    match pool.policy.overtaking {
        Overtaking::Strict => false,
        Overtaking::Backfill(most) => {
            most.is_none_or(|most| claim.passed < most) && available(snapshot, claim, walk).is_none()
        }
    }
}

/// Called before a claim gets locks: counts the pass for each earlier waiter that the claim passes, in pools with a
/// limit. A requestor that joins its own hold passes no claim.
pub(super) fn count_passed(state: &mut State, claim: &Claim, locks: &LockSet) {
    if joins_own_hold(&state.snapshot, claim, locks) {
        return;
    }
    let counts = |pool: &Pool| matches!(pool.policy.overtaking, Overtaking::Backfill(Some(_)));
    let parts = claim.terms.ask.parts.iter().filter_map(|part| Some((state.snapshot.pool(&part.pool)?, &part.want)));
    let mut passed: BTreeSet<ClaimId> = BTreeSet::new();
    for (pool, want) in parts.filter(|(pool, _)| counts(pool)) {
        let mut overlaps = Overlaps::default();
        let earlier = rivals(&state.snapshot, pool, want, Place::FIRST..pool.place(claim), &mut overlaps);
        passed.extend(earlier.map(|rival| rival.id.clone()));
    }
    for id in passed {
        state.update_claim(&id, |c| c.passed = c.passed.saturating_add(1));
    }
}
