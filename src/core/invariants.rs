//! What must be true after every step. Each failed check names what is broken.

use std::collections::BTreeMap;

use super::claim::{Claim, Concern, Labels, Phase, Presence, Scope};
use super::deadlock::search;
use super::latch::Latch;
use super::names::{ChangeKey, LockName};
use super::state::Stuck;
use super::state::{State, Timer};
use super::turn::turn;

/// Above this many live claims and locks, debug builds leave the check to the tests, because it looks at everything.
#[cfg(debug_assertions)]
const SMALL: usize = 200;

/// Runs [`check`] where it is cheap.
#[cfg(debug_assertions)]
pub(super) fn check_if_small(state: &State) -> Result<(), String> {
    let locks: usize = state.snapshot.pools.values().map(|p| p.locks.len()).sum();
    if state.snapshot.claims.len() + state.snapshot.latches.len() + locks > SMALL { Ok(()) } else { check(state) }
}

/// Checks the whole state.
///
/// # Errors
/// Describes the first broken invariant.
pub fn check(state: &State) -> Result<(), String> {
    for claim in state.snapshot.claims.values() {
        check_claim(state, claim).map_err(|what| format!("claim {}: {what}", claim.id))?;
    }
    for pool in state.snapshot.pools.values() {
        check_pool(state, pool).map_err(|what| format!("pool {}: {what}", pool.name))?;
    }
    for latch in state.snapshot.latches.values() {
        check_latch(state, latch).map_err(|what| format!("latch {}: {what}", latch.id))?;
    }
    let released = state.snapshot.latches.values().filter(|l| l.released().is_some()).count();
    ensure(state.snapshot.released_latches.len() == released, || "a latch that is gone is listed as released".into())?;
    let watched = state.snapshot.claims.values().filter(|claim| claim.concern().is_some()).count();
    ensure(state.snapshot.watched.len() == watched, || "a build is watched without need".into())?;
    let seeking = state.snapshot.claims.values().filter(|claim| claim.seeks_build()).map(|claim| &claim.id);
    ensure(state.snapshot.seeking.iter().eq(seeking), || {
        "not exactly the claims without a build id are listed".into()
    })?;
    ensure(state.lists_all_tickets(), || "not exactly the tickets of the claims are listed".into())?;
    state.check_indexes()?;
    let marked = state.snapshot.claims.values().filter(|claim| claim.is_marked()).count();
    ensure(state.snapshot.marked.len() == marked, || "a claim is listed as marked that is not".into())?;
    ensure(state.expects_what_is_marked(), || "a marked hold may last for ever".into())?;
    let aliases: usize = state.snapshot.claims.values().map(|claim| claim.aliases.len()).sum();
    ensure(state.snapshot.aliases.len() == aliases, || "an alias of no claim is listed".into())?;
    for build in state.snapshot.suspects.keys() {
        ensure(state.snapshot.claims_of(build).next().is_some(), || {
            format!("{build:?} is suspect without a live claim")
        })?;
    }
    if !state.watch.stale {
        let stuck = search::stuck_claims(&state.snapshot, state.entangled.builds());
        let known = state.snapshot.stuck.iter().map(|(id, stuck)| (id.clone(), Stuck::clone(stuck))).collect();
        ensure(stuck == known, || format!("{stuck:?} are stuck, but the snapshot has {known:?}"))?;
    }
    if state.to_dispatch.is_empty() {
        check_nobody_is_forgotten(state)?;
    }
    Ok(())
}

/// I10: every claim that could have its locks now, and whose client would learn of it, has been given them.
fn check_nobody_is_forgotten(state: &State) -> Result<(), String> {
    for claim in state.snapshot.claims.values() {
        let hears = matches!(claim.phase, Phase::Waiting { presence, .. } if presence.hears());
        let forgotten = hears && claim.terms.confirm && turn(&state.snapshot, claim).is_some();
        ensure(!forgotten, || format!("claim {} waits for locks that it could have", claim.id))?;
    }
    Ok(())
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn check_claim(state: &State, claim: &Claim) -> Result<(), String> {
    ensure(!state.is_remembered(&claim.id), || "is both live and ended".into())?;
    if let Some(at) = claim.timer() {
        let timer = (at, Timer::Claim(claim.id.clone()));
        ensure(state.timers.contains(&timer), || format!("has no timer at {at:?}"))?;
    }
    for part in &claim.terms.ask.parts {
        let Some(pool) = state.snapshot.pool(&part.pool) else {
            return Err(format!("names the missing pool {}", part.pool));
        };
        let queued = pool.waiting.get(&pool.place(claim)) == Some(&claim.id);
        ensure(queued == claim.waits(), || format!("waits: {}, queued: {queued}", claim.waits()))?;
    }
    if let Some(build) = claim.terms.owner.build() {
        let listed = state.snapshot.builds.contains(&(build, claim.id.clone()));
        ensure(listed, || "is not listed under its build".into())?;
    }
    if let Some((build, concern)) = claim.terms.owner.build().zip(claim.concern()) {
        let listed = state.snapshot.watched.get(&(build, claim.id.clone()));
        ensure(listed == Some(&concern), || "is not listed among the claims whose build must be watched".into())?;
    }
    if let Some(build) = claim.terms.owner.build().filter(|_| claim.is_marked()) {
        let listed = state.snapshot.marked.contains(&(build, claim.id.clone()));
        ensure(listed, || "is not listed as marked".into())?;
    }
    ensure(!claim.is_marked() || claim.concern() == Some(Concern::Decides), || {
        "is marked, but its build is over".into()
    })?;
    ensure(claim.is_marked() || claim.aliases.is_empty(), || "has aliases, but no marked hold".into())?;
    for alias in &claim.aliases {
        let known = state.snapshot.aliases.get(alias) == Some(&claim.id) && !state.snapshot.claims.contains_key(alias);
        ensure(known, || format!("has the alias {alias}, which means something else"))?;
    }
    ensure(claim.scope != Scope::Build || claim.terms.owner.build().is_some(), || "belongs to no build".into())?;
    ensure(claim.scope != Scope::Lease || claim.terms.ttl.is_some(), || "is a lease without a ttl".into())?;
    ensure(claim.waits() || claim.parks.is_empty(), || "has parks but does not wait".into())?;
    if let Phase::Waiting { presence, .. } = &claim.phase {
        let parked = *presence == Presence::Parked;
        ensure(parked != claim.parks.is_empty(), || format!("is {presence:?} with parks {:?}", claim.parks))?;
    }
    let known = claim.parks.iter().all(|park| state.parks.get(park) == Some(&claim.id));
    ensure(known, || "has an unknown park".into())?;
    let fence = claim.fence();
    for (pool, lock) in claim.locks() {
        let Some(l) = state.snapshot.lock(pool, lock) else {
            return Err(format!("has the missing lock {pool}/{lock}"));
        };
        let listed = l.holders.iter().filter(|h| h.claim == claim.id && Some(h.fence) == fence).count();
        ensure(listed == 1, || format!("is listed {listed} times as holder of {pool}/{lock}"))?;
    }
    if let Phase::Held { claimed, until, .. } = &claim.phase {
        ensure(until.is_some() || claim.terms.ttl.is_none(), || "has a ttl that never ends".into())?;
        let pools = claim.terms.ask.parts.iter().filter_map(|part| state.snapshot.pool(&part.pool));
        for pool in pools {
            ensure(pool.changes.contains_key(claimed), || "has lost its claimed entry".into())?;
        }
    }
    Ok(())
}

fn check_latch(state: &State, latch: &Latch) -> Result<(), String> {
    let Some(released) = latch.released() else { return Ok(()) };
    let listed = state.snapshot.released_latches.contains(&(released.revision, latch.id));
    ensure(listed, || "is not listed as released".into())?;
    let timer = (released.forget.at, Timer::Latch(latch.id));
    ensure(state.timers.contains(&timer), || "would never be forgotten".into())
}

fn check_labels(state: &State, pool: &super::pool::Pool) -> Result<(), String> {
    let Some(wanted) = pool.wanted_labels() else { return Ok(()) };
    let mut counted: BTreeMap<&Labels, usize> = BTreeMap::new();
    for claim in pool.waiting.values().filter_map(|id| state.snapshot.claims.get(id)) {
        let labels = pool.labels_of(claim).ok_or_else(|| format!("{} wants no labels, but counts as if", claim.id))?;
        *counted.entry(labels).or_default() += 1;
    }
    let equal = wanted.iter().map(|(labels, count)| (labels, *count)).eq(counted);
    ensure(equal, || "the count of wanted labels is wrong".into())
}

fn check_pool(state: &State, pool: &super::pool::Pool) -> Result<(), String> {
    for (place, id) in &pool.waiting {
        let claim = state.snapshot.claims.get(id);
        ensure(claim.is_some_and(|c| c.waits() && pool.place(c) == *place), || {
            format!("the queue lists {id}, which does not wait there")
        })?;
    }
    let counted = pool.waiting.keys().enumerate().all(|(before, place)| pool.waiting_before(*place) == before);
    ensure(counted, || "the count of places in the queue is wrong".into())?;
    check_labels(state, pool)?;
    for lock in pool.locks.values() {
        let name = &lock.name;
        for holder in &lock.holders {
            let claim = state.snapshot.claims.get(&holder.claim);
            let has = claim.is_some_and(|c| c.locks().iter().any(|(p, l)| *p == pool.name && l == name));
            ensure(has, || format!("lock {name} lists the holder {}, which does not have it", holder.claim))?;
        }
        let shared = lock.holders.windows(2).all(|pair| match (&pair[0].sharer, &pair[1].sharer) {
            (Some((a, _)), Some((b, _))) => a == b,
            _ => false,
        });
        ensure(shared, || format!("I1: lock {name} is held twice without an equal key"))?;
        let free = pool.free.contains(&(lock.newest, name.clone()));
        ensure(free == lock.is_free(), || format!("lock {name} is free: {}, listed: {free}", lock.is_free()))?;
        let open = lock.open_to().is_some_and(|key| pool.shared.contains(&(key.clone(), name.clone())));
        ensure(open == lock.open_to().is_some(), || format!("lock {name} can be joined, but is not listed"))?;
        ensure(!lock.has_left(), || format!("lock {name} should have left"))?;
        if let Some(key) = lock.newest {
            ensure(pool.changes.contains_key(&key), || format!("the newest entry of lock {name} was pruned"))?;
        }
    }
    let implicit: Vec<&LockName> = pool.locks.values().filter(|l| l.implicit).map(|l| &l.name).collect();
    ensure(implicit.len() <= 1, || "has several implicit locks".into())?;
    let retiring = pool.locks.values().find(|lock| lock.implicit && lock.leaving).map(|lock| &lock.name);
    ensure(retiring == pool.retiring.as_ref(), || format!("the lock {retiring:?} retires, not {:?}", pool.retiring))?;
    ensure(pool.free.len() + pool.shared.len() <= pool.locks.len(), || "more open locks than locks".into())?;
    ensure(pool.keyed.len() <= pool.waiting.len(), || "more keys than waiters".into())?;
    let last: Option<ChangeKey> = pool.changes.get_max().map(|(key, _)| *key);
    let newest = last.is_none_or(|key| key.revision <= state.snapshot.revision);
    ensure(newest, || "I2: history is ahead of the revision".into())
}
