//! Moves the queues: freed locks go to the next claim in turn (docs/design.md#turn-order).

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;

use super::claim::{Labels, Part, Presence, Want};
use super::claims;
use super::names::{ClaimId, LockName, PoolName};
use super::pool::{Place, Pool};
use super::state::{Notice, State};
use super::time::Now;
use super::turn::{Walk, may_be_passed, turn_in};

/// Grants whatever can be granted in the order of the queue, in every pool where that may have changed.
pub(super) fn dispatch(state: &mut State, now: Now) {
    // Each round walks at least its last pool to the end, and only grants add pools.
    let mut next_round = BTreeSet::new();
    loop {
        state.dispatch_entangled();
        match state.to_dispatch.pop_first() {
            Some(pool) => {
                if dispatch_pool(state, &pool, now).is_none() {
                    next_round.insert(pool);
                }
            }
            None if next_round.is_empty() => return,
            None => state.to_dispatch.append(&mut next_round),
        }
    }
}

/// Walks the queue until no lock is free, or up to the first waiter that holds back all others: a walk must not look at
/// ten thousand waiters whenever the head of the queue cannot be served. `None`: the walk stopped at a claim that also
/// wants locks of a pool which is still to be walked. Earlier claims of that pool come first.
fn dispatch_pool(state: &mut State, name: &PoolName, now: Now) -> Option<()> {
    let Some(pool) = state.snapshot.pool(name).filter(|pool| !fits_nobody(pool)) else { return Some(()) };
    let waiting = if pool.free.is_empty() { OrdMap::new() } else { pool.waiting.clone() };
    let mut walk = Walk::default();
    for (place, id) in &waiting {
        let waits_on = !offer(state, name, id, &mut walk, now)?;
        if state.snapshot.pool(name).is_none_or(|pool| pool.free.is_empty()) {
            // The grant that took the last lock put the pool on the list again, for claims that may join a lock.
            return Some(());
        }
        if waits_on && holds_back_all(state, name, id, &mut walk) {
            for (_, id) in exceptions(state, name).split_off(&place.next()) {
                offer(state, name, &id, &mut walk, now)?;
            }
            return Some(());
        }
    }
    if waiting.is_empty() {
        let joining = state.snapshot.pool(name).map(joining).unwrap_or_default();
        for id in joining.values() {
            offer(state, name, id, &mut walk, now)?;
        }
    }
    Some(())
}

/// Whether locks are free, but none has the labels of any waiter: then no walk is needed.
fn fits_nobody(pool: &Pool) -> bool {
    let fits = |labels: &Labels| {
        pool.free.iter().any(|(_, name)| pool.locks.get(name).is_some_and(|lock| lock.matches(labels)))
    };
    // Who has a key may also join a held lock.
    !pool.free.is_empty()
        && pool.keyed.is_empty()
        && pool.wanted_labels().is_some_and(|wanted| !wanted.keys().any(fits))
}

/// Grants a waiting claim its locks if it is its turn and its client would learn of it. If the client has to take them
/// itself, notifies its parked requests. True when the claim no longer waits; `None` when another of its pools must be
/// walked first.
fn offer(state: &mut State, at: &PoolName, id: &ClaimId, walk: &mut Walk, now: Now) -> Option<bool> {
    let Some(claim) = state.claim(id).cloned() else { return Some(true) };
    if !claim.presence().is_some_and(Presence::listens) {
        return Some(false);
    }
    if claim.terms.ask.parts.iter().any(|part| part.pool != *at && state.to_dispatch.contains(&part.pool)) {
        return None;
    }
    let Some(locks) = turn_in(&state.snapshot, &claim, walk) else { return Some(false) };
    if claim.terms.confirm && claim.presence().is_some_and(Presence::hears) {
        // Each grant is a step of its own, so that no two grants share a fence.
        state.begin_step();
        claims::grant(state, &claim, locks, now);
        walk.granted(&state.snapshot);
        return Some(true);
    }
    for park in &claim.parks {
        state.notify(Notice::Park(*park));
    }
    Some(false)
}

/// Whether this waiter listens and every lock of the pool is one of its candidates.
fn holds_back_all(state: &State, pool: &PoolName, id: &ClaimId, walk: &mut Walk) -> bool {
    state.claim(id).is_some_and(|claim| {
        let all =
            |part: &Part| part.pool == *pool && matches!(&part.want, Want::Any { labels, .. } if labels.is_empty());
        claim.presence().is_some_and(Presence::listens)
            && claim.terms.ask.parts.iter().any(all)
            && state.snapshot.lacks(&claim.terms).is_none()
            && !state.snapshot.pool(pool).is_some_and(|pool| may_be_passed(&state.snapshot, pool, claim, walk))
    })
}

/// Waiting claims that may be served although an earlier waiter holds back all others: claims that may join a lock, and
/// claims whose build holds something that the earlier one may be waiting for.
fn exceptions(state: &State, pool: &PoolName) -> BTreeMap<Place, ClaimId> {
    let Some(pool) = state.snapshot.pool(pool) else { return BTreeMap::new() };
    let mut exceptions = joining(pool);
    for build in state.entangled.builds_waiting_in(&pool.name) {
        let waiting = state.snapshot.claims_of(build).filter(|claim| claim.waits());
        exceptions.extend(waiting.map(|claim| (pool.place(claim), claim.id.clone())));
    }
    exceptions
}

/// Waiting claims whose key opens a held lock: when no lock is free, only they can be served.
fn joining(pool: &Pool) -> BTreeMap<Place, ClaimId> {
    let mut joining = BTreeMap::new();
    let mut next = pool.shared.get_min().map(|(key, _)| key.clone());
    while let Some(key) = next {
        joining.extend(pool.waiting_with(&key).map(|(place, id)| (place, id.clone())));
        next = pool.shared.range((key.clone(), LockName::largest())..).next().map(|(key, _)| key.clone());
    }
    joining
}
