//! Who is next: what a claim may take, who holds it back, and the dispatch of freed locks (design section 3).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::claim::{Claim, LockSet, Part, Party, Want};
use super::claims;
use super::limits::CYCLE_SEARCH;
use super::names::{ClaimId, LockName, PoolName};
use super::pool::{Lock, Pool};
use super::state::{Notice, State, World};
use super::time::Now;

/// Grants, in every pool where something may have become grantable, what is grantable in the order of the queue.
pub(super) fn dispatch(state: &mut State, now: Now) {
    while let Some(pool) = state.to_dispatch.pop_first() {
        dispatch_pool(state, &pool, now);
    }
}

fn dispatch_pool(state: &mut State, name: &PoolName, now: Now) {
    let Some(pool) = state.world.pool(name) else { return };
    let waiting = pool.waiting.clone();
    for id in waiting.values() {
        if !state.world.pool(name).is_some_and(Pool::has_room) {
            return;
        }
        let Some(claim) = state.claim(id).cloned() else { continue };
        if !claims::presence(&claim).is_some_and(super::claim::Presence::listens) {
            continue;
        }
        let Some(locks) = turn(&state.world, &claim) else { continue };
        if claim.terms.confirm && claims::presence(&claim).is_some_and(super::claim::Presence::hears) {
            // Each grant is a step of its own, so that no two share a fence.
            state.begin_step();
            claims::grant(state, &claim, locks, now);
        } else {
            for park in &claim.parks {
                state.notify(Notice::Park(*park));
            }
        }
    }
}

/// The locks that this waiting claim may take now, in its turn; `None` when it has to wait.
pub(super) fn turn(world: &World, claim: &Claim) -> Option<LockSet> {
    let locks = available(world, claim)?;
    if joins_own_hold(world, claim, &locks) || !is_held_back(world, claim) {
        return Some(locks);
    }
    None
}

/// A full set of locks that the claim could have now, the queue aside: locks of its own key first, then the free
/// ones that were used least recently.
fn available(world: &World, claim: &Claim) -> Option<LockSet> {
    let sharer = claim.terms.ask.sharer();
    let mut locks = LockSet::new();
    for Part { pool: name, want } in &claim.terms.ask.parts {
        let pool = world.pool(name)?;
        match want {
            Want::Named(names) => {
                if !names.iter().all(|n| pool.locks.get(n).is_some_and(|l| l.admits(sharer))) {
                    return None;
                }
                locks.extend(names.iter().map(|n| (name.clone(), n.clone())));
            }
            Want::Any { count, labels } => {
                let joinable = pool.shared.iter().filter_map(|n| pool.locks.get(n)).filter(|l| l.admits(sharer));
                let free = pool.free.iter().filter_map(|(_, n)| pool.locks.get(n));
                let fitting = joinable.chain(free).filter(|l| l.matches(labels)).take(*count as usize);
                let mut picked: Vec<_> = fitting.map(|l| (name.clone(), l.name.clone())).collect();
                if picked.len() < *count as usize {
                    return None;
                }
                picked.sort();
                locks.append(&mut picked);
            }
        }
    }
    Some(locks)
}

/// A requestor that already holds the very locks, with the same key, always gets in.
fn joins_own_hold(world: &World, claim: &Claim, locks: &LockSet) -> bool {
    let Some(sharer) = claim.terms.ask.sharer() else { return false };
    locks.iter().all(|(pool, lock)| world.lock(pool, lock).is_some_and(|l| l.is_held_by(sharer)))
}

/// Strict: an earlier waiter holds back a later one if it listens, their candidate locks overlap, and it does not
/// itself wait for a lock that the later one's build holds.
fn is_held_back(world: &World, claim: &Claim) -> bool {
    let holds_something = holds_something(world, claim);
    earlier_rivals(world, claim).any(|rival| !(holds_something && waits_for(world, rival, &claim.party())))
}

/// Listening waiters before `claim` whose candidate locks overlap with its own.
pub(super) fn earlier_rivals<'w>(world: &'w World, claim: &Claim) -> impl Iterator<Item = &'w Arc<Claim>> {
    let ticket = claim.ticket;
    let parts: Vec<(&'w Pool, Part)> =
        claim.terms.ask.parts.iter().filter_map(|part| Some((world.pool(&part.pool)?, part.clone()))).collect();
    parts.into_iter().flat_map(move |(pool, part)| {
        pool.waiting
            .range(..ticket)
            .filter_map(|(_, id)| world.claims.get(id))
            .filter(|rival| claims::presence(rival).is_some_and(super::claim::Presence::listens))
            .filter(move |rival| {
                let theirs = rival.terms.ask.parts.iter().find(|p| p.pool == part.pool);
                theirs.is_some_and(|theirs| overlap(pool, &part.want, &theirs.want))
            })
    })
}

/// Whether some lock of the pool is a candidate of both.
fn overlap(pool: &Pool, a: &Want, b: &Want) -> bool {
    match (a, b) {
        (Want::Named(a), Want::Named(b)) => !a.is_disjoint(b),
        (Want::Named(names), any @ Want::Any { .. }) | (any @ Want::Any { .. }, Want::Named(names)) => {
            names.iter().filter_map(|n| pool.locks.get(n)).any(|l| is_candidate(any, l))
        }
        (Want::Any { labels: a, .. }, Want::Any { labels: b, .. }) => {
            (a.is_empty() && b.is_empty()) || pool.locks.values().any(|l| l.matches(a) && l.matches(b))
        }
    }
}

/// Whether this lock could ever serve what is wanted of its pool.
fn is_candidate(want: &Want, lock: &Lock) -> bool {
    match want {
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

fn holds_something(world: &World, claim: &Claim) -> bool {
    claim.terms.owner.build().is_some_and(|build| world.claims_of(&build).any(|c| !c.waits()))
}

/// Whether `from` waits, directly or through others, for a lock that `party` has. Edges: a waiting claim waits for
/// the holders of its candidates and for the earlier waiters that hold it back; a holder waits for what the other
/// claims of its build wait for. The search is bounded; past the bound the answer is no, which keeps the order.
fn waits_for(world: &World, from: &Claim, party: &Party) -> bool {
    let mut seen: HashSet<ClaimId> = HashSet::from([from.id.clone()]);
    let mut todo: Vec<Arc<Claim>> = world.claims.get(&from.id).cloned().into_iter().collect();
    while let Some(claim) = todo.pop() {
        if seen.len() > CYCLE_SEARCH {
            return false;
        }
        for part in &claim.terms.ask.parts {
            let Some(pool) = world.pool(&part.pool) else { continue };
            for holder in candidates(pool, &part.want).flat_map(|l| &l.holders) {
                let Some(holder) = world.claims.get(&holder.claim) else { continue };
                if holder.party() == *party {
                    return true;
                }
                let Some(build) = holder.terms.owner.build() else { continue };
                let waiting = world.claims_of(&build).filter(|c| c.waits() && seen.insert(c.id.clone()));
                todo.extend(waiting.cloned());
            }
        }
        todo.extend(earlier_rivals(world, &claim).filter(|c| seen.insert(c.id.clone())).cloned());
    }
    false
}
