//! Who is next: what a claim may take, who holds it back, and the dispatch of freed locks (design section 3).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use imbl::OrdMap;

use super::claim::{Claim, LockSet, Part, Presence, Want};
use super::claims;
use super::cycles::WaitsFor;
use super::names::{ClaimId, LockName, PoolName, Text};
use super::pool::{Lock, Overtaking, Pick, Place, Pool};
use super::state::{Notice, State, World};
use super::time::Now;

/// Grants, in every pool where something may have become grantable, what is grantable in the order of the queue.
pub(super) fn dispatch(state: &mut State, now: Now) {
    loop {
        state.dispatch_entangled();
        let Some(pool) = state.to_dispatch.pop_first() else { return };
        dispatch_pool(state, &pool, now);
    }
}

/// Walks the queue until nothing is free, or up to the first waiter that everybody behind it has to wait for: a
/// walk must not look at ten thousand waiters whenever the head of the queue cannot be served.
fn dispatch_pool(state: &mut State, name: &PoolName, now: Now) {
    let Some(pool) = state.world.pool(name) else { return };
    let waiting = if pool.free.is_empty() { OrdMap::new() } else { pool.waiting.clone() };
    for (place, id) in &waiting {
        let waits_on = !offer(state, id, now);
        if state.world.pool(name).is_none_or(|pool| pool.free.is_empty()) {
            // The grant that took the last one has put the pool on the list again: for those who may join a lock.
            return;
        }
        if waits_on && holds_back_all(state, name, id) {
            for (_, id) in exceptions(state, name).split_off(&place.next()) {
                offer(state, &id, now);
            }
            return;
        }
    }
    if waiting.is_empty() {
        let joining = state.world.pool(name).map(joining).unwrap_or_default();
        for id in joining.values() {
            offer(state, id, now);
        }
    }
}

/// Grants a waiting claim its locks if it is its turn and it hears of it; if it has to take them itself, says so to
/// its parked requests. True when it waits no more.
fn offer(state: &mut State, id: &ClaimId, now: Now) -> bool {
    let Some(claim) = state.claim(id).cloned() else { return true };
    if !claims::presence(&claim).is_some_and(Presence::listens) {
        return false;
    }
    let Some(locks) = turn(&state.world, &claim) else { return false };
    if claim.terms.confirm && claims::presence(&claim).is_some_and(Presence::hears) {
        // Each grant is a step of its own, so that no two share a fence.
        state.begin_step();
        claims::grant(state, &claim, locks, now);
        return true;
    }
    for park in &claim.parks {
        state.notify(Notice::Park(*park));
    }
    false
}

/// Whether this waiter listens and every lock of the pool is a candidate of it.
fn holds_back_all(state: &State, pool: &PoolName, id: &ClaimId) -> bool {
    state.claim(id).is_some_and(|claim| {
        let all =
            |part: &Part| part.pool == *pool && matches!(&part.want, Want::Any { labels, .. } if labels.is_empty());
        claims::presence(claim).is_some_and(Presence::listens)
            && claim.terms.ask.parts.iter().any(all)
            && !state.world.pool(pool).is_some_and(|pool| may_be_passed(&state.world, pool, claim))
    })
}

/// Waiting claims that may get in although an earlier waiter holds back all others: those that may join a lock, and
/// those whose build holds something that the earlier one may be waiting for.
fn exceptions(state: &State, pool: &PoolName) -> BTreeMap<Place, ClaimId> {
    let Some(pool) = state.world.pool(pool) else { return BTreeMap::new() };
    let mut exceptions = joining(pool);
    for build in state.entangled.builds_waiting_in(&pool.name) {
        let waiting = state.world.claims_of(build).filter(|claim| claim.waits());
        exceptions.extend(waiting.map(|claim| (pool.place(claim), claim.id.clone())));
    }
    exceptions
}

/// Waiting claims whose key opens a lock that is held: without a free lock, only they can be served.
fn joining(pool: &Pool) -> BTreeMap<Place, ClaimId> {
    let mut joining = BTreeMap::new();
    let mut next = pool.shared.get_min().map(|(key, _)| key.clone());
    while let Some(key) = next {
        joining.extend(pool.waiting_with(&key).map(|(place, id)| (place, id.clone())));
        next = pool.shared.range((key.clone(), LockName::largest())..).next().map(|(key, _)| key.clone());
    }
    joining
}

/// The locks that this waiting claim may take now, in its turn; `None` when it has to wait.
pub(super) fn turn(world: &World, claim: &Claim) -> Option<LockSet> {
    let locks = available(world, claim)?;
    if joins_own_hold(world, claim, &locks) || !is_held_back(world, claim) {
        return Some(locks);
    }
    None
}

/// A full set of locks that the claim could have now, the queue aside.
fn available(world: &World, claim: &Claim) -> Option<LockSet> {
    let sharer = claim.terms.ask.sharer();
    let mut locks = LockSet::new();
    for Part { pool: name, want } in &claim.terms.ask.parts {
        let picked = pick(world, world.pool(name)?, want, sharer)?;
        locks.extend(picked.into_iter().map(|lock| (name.clone(), lock)));
    }
    Some(locks)
}

/// Locks of one pool for this want, by name; `None` when there are not enough now. Those that the requestor has
/// already come first, then others of its key, then the free ones in the order of the pool's policy.
pub(super) fn pick(
    world: &World,
    pool: &Pool,
    want: &Want,
    sharer: Option<(&Text, &Text)>,
) -> Option<BTreeSet<LockName>> {
    match want {
        Want::Named(names) => {
            let admits = |name: &LockName| pool.locks.get(name).is_some_and(|l| l.admits(sharer));
            names.iter().all(admits).then(|| names.clone())
        }
        Want::Any { count, labels } => {
            let joinable: Vec<&Lock> = sharer.map(|(key, _)| pool.shared_with(key).collect()).unwrap_or_default();
            let is_own = |lock: &&&Lock| sharer.is_some_and(|sharer| lock.is_held_by(sharer));
            let own = joinable.iter().filter(is_own);
            let others = joinable.iter().filter(|lock| !is_own(lock));
            let shared = own.chain(others).copied();
            let fits = |lock: &&Lock| lock.matches(labels);
            let free = pool.free.iter().filter_map(|(_, name)| pool.locks.get(name)).map(AsRef::as_ref);
            let picked: BTreeSet<LockName> = match pool.policy.pick {
                Pick::LeastRecent => names(shared.chain(free).filter(fits), *count),
                Pick::Name => {
                    let mut free: Vec<&Lock> = free.collect();
                    free.sort_by(|a, b| a.name.cmp(&b.name));
                    names(shared.chain(free).filter(fits), *count)
                }
                Pick::Random => {
                    let mut free: Vec<&Lock> = free.collect();
                    free.sort_by_key(|lock| dice(world, pool, &lock.name));
                    names(shared.chain(free).filter(fits), *count)
                }
            };
            (picked.len() == *count as usize).then_some(picked)
        }
    }
}

/// The names of the first few.
fn names<'p>(locks: impl Iterator<Item = &'p Lock>, count: u32) -> BTreeSet<LockName> {
    locks.take(count as usize).map(|lock| lock.name.clone()).collect()
}

/// A number that differs for each lock after each change, and that nobody outside can foresee: FNV-1a over the
/// seed of this life, the revision and the names, with the finish of `SplitMix64`.
fn dice(world: &World, pool: &Pool, lock: &LockName) -> u64 {
    let numbers = [world.seed, world.revision.0].into_iter().flat_map(u64::to_le_bytes);
    let names = pool.name.as_str().bytes().chain([b'/']).chain(lock.as_str().bytes());
    let hash = numbers
        .chain(names)
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A requestor that already holds the very locks, with the same key, always gets in.
fn joins_own_hold(world: &World, claim: &Claim, locks: &LockSet) -> bool {
    let Some(sharer) = claim.terms.ask.sharer() else { return false };
    locks.iter().all(|(pool, lock)| world.lock(pool, lock).is_some_and(|l| l.is_held_by(sharer)))
}

/// Strict: an earlier waiter holds back a later one if it listens, their candidate locks overlap, and it does not
/// itself wait for a lock that the later one's build holds.
fn is_held_back(world: &World, claim: &Claim) -> bool {
    let mut rivals = earlier_rivals(world, claim).peekable();
    if rivals.peek().is_none() {
        return false;
    }
    let build = claim.terms.owner.build().filter(|build| world.claims_of(build).any(|c| !c.waits()));
    let Some(build) = build else { return true };
    let mut waits_for_build = WaitsFor::new(world, &build);
    rivals.any(|rival| !waits_for_build.is_true_of(rival))
}

/// Whether later claims may be served before this waiting one in this pool: where backfilling is allowed, while it
/// cannot be served itself, and not too often.
fn may_be_passed(world: &World, pool: &Pool, claim: &Claim) -> bool {
    match pool.policy.overtaking {
        Overtaking::Strict => false,
        Overtaking::Backfill(most) => most.is_none_or(|most| claim.passed < most) && available(world, claim).is_none(),
    }
}

/// Before a claim is given locks: counts it for those earlier waiters past which it is served, where that is limited.
/// A requestor that joins what it has already passes nobody.
pub(super) fn count_passed(state: &mut State, claim: &Claim, locks: &LockSet) {
    if joins_own_hold(&state.world, claim, locks) {
        return;
    }
    let counts = |pool: &Pool| matches!(pool.policy.overtaking, Overtaking::Backfill(Some(_)));
    let parts = claim.terms.ask.parts.iter().filter_map(|part| Some((state.world.pool(&part.pool)?, &part.want)));
    let passed = parts.filter(|(pool, _)| counts(pool)).flat_map(|(pool, want)| {
        rivals(&state.world, pool, want, Place::FIRST..pool.place(claim)).map(|rival| rival.id.clone())
    });
    let passed: BTreeSet<ClaimId> = passed.collect();
    for id in passed {
        state.update_claim(&id, |c| c.passed = c.passed.saturating_add(1));
    }
}

/// Listening waiters before `claim` whose candidate locks overlap with its own.
fn earlier_rivals<'w>(world: &'w World, claim: &Claim) -> impl Iterator<Item = &'w Arc<Claim>> {
    let parts = claim.terms.ask.parts.iter().filter_map(|part| Some((world.pool(&part.pool)?, &part.want)));
    parts.flat_map(move |(pool, want)| {
        let rivals = rivals(world, pool, want, Place::FIRST..pool.place(claim));
        rivals.filter(move |rival| !may_be_passed(world, pool, rival))
    })
}

/// Listening waiters at these places whose candidate locks in this pool overlap with those of `want`.
pub(super) fn rivals<'w, 'a>(
    world: &'w World,
    pool: &'w Pool,
    want: &'a Want,
    places: Range<Place>,
) -> impl Iterator<Item = &'w Arc<Claim>> + use<'w, 'a> {
    pool.waiting
        .range(places)
        .filter_map(|(_, id)| world.claims.get(id))
        .filter(|rival| claims::presence(rival).is_some_and(Presence::listens))
        .filter(move |rival| {
            let theirs = rival.terms.ask.parts.iter().find(|part| part.pool == pool.name);
            theirs.is_some_and(|theirs| overlap(pool, want, &theirs.want))
        })
}

/// Whether some lock of the pool is a candidate of both.
fn overlap(pool: &Pool, a: &Want, b: &Want) -> bool {
    match (a, b) {
        (Want::Named(a), Want::Named(b)) => !a.is_disjoint(b),
        (Want::Named(_), any) => candidates(pool, a).any(|lock| is_candidate(any, lock)),
        (any, Want::Named(_)) => candidates(pool, b).any(|lock| is_candidate(any, lock)),
        (Want::Any { labels: a_labels, .. }, Want::Any { labels: b_labels, .. }) => {
            // Everybody's candidates are among those of a want without labels, and none are of a claim that waits
            // for what the pool does not have.
            a_labels.is_empty() || b_labels.is_empty() || candidates(pool, a).any(|lock| is_candidate(b, lock))
        }
    }
}

/// Whether this lock could ever serve what is wanted of its pool.
fn is_candidate(want: &Want, lock: &Lock) -> bool {
    !lock.leaving
        && match want {
            Want::Named(names) => names.contains(&lock.name),
            Want::Any { labels, .. } => lock.matches(labels),
        }
}

/// Locks of one pool that could serve what is wanted of it.
pub(super) fn candidates<'p>(pool: &'p Pool, want: &'p Want) -> impl Iterator<Item = &'p Lock> {
    let named: Option<&BTreeSet<LockName>> = match want {
        Want::Named(names) => Some(names),
        Want::Any { .. } => None,
    };
    let by_name = named.into_iter().flatten().filter_map(|n| pool.locks.get(n));
    let all = named.is_none().then(|| pool.locks.values()).into_iter().flatten();
    by_name.chain(all).map(AsRef::as_ref).filter(move |l| is_candidate(want, l))
}
