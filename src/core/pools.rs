//! Declaring pools and locks (docs/design.md#pools). Nothing here evicts a holder.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::admission;
use super::claim::{Claim, Labels, LockSet, Phase};
use super::claims;
use super::command::{AskClaim, By, Refusal, check_limit};
use super::history::ChangeKind;
use super::limits;
use super::names::{ClaimId, LockName, PoolName};
use super::pool::{Lock, Order, Policy, PolicyChange, Pool};
use super::state::{Entry, State};
use super::time::Now;

pub(super) fn record(state: &mut State, kind: ChangeKind, pool: &PoolName, locks: &[LockName], by: &By, now: Now) {
    let locks: LockSet = locks.iter().map(|lock| (pool.clone(), lock.clone())).collect();
    let entry = Entry {
        kind,
        pools: vec![pool.clone()],
        locks,
        claim: None,
        end: None,
        who: Some(Arc::clone(&by.owner)),
        reason: by.reason.clone(),
        origin: None,
        waited_since: None,
        held_since: None,
    };
    state.record(entry, now);
}

fn existing<'s>(state: &'s State, pool: &PoolName) -> Result<&'s Pool, Refusal> {
    state.snapshot.pool(pool).ok_or_else(|| Refusal::NoSuchPool { pool: pool.clone() })
}

pub(super) fn existing_lock(state: &State, pool: &PoolName, lock: &LockName) -> Result<Lock, Refusal> {
    let found = existing(state, pool)?.locks.get(lock);
    found.map(|l| Lock::clone(l)).ok_or_else(|| Refusal::NoSuchLock { pool: pool.clone(), lock: lock.clone() })
}

/// Changes some rules of a pool. If there is no such pool, it is made, with its implicit lock unless a capacity gives it
/// others.
pub(super) fn change_pool(
    state: &mut State,
    name: &PoolName,
    change: &PolicyChange,
    capacity: Option<u32>,
    by: &By,
    now: Now,
) -> Result<(), Refusal> {
    let before = state.snapshot.pool(name).map(|pool| pool.policy.clone());
    let policy = before.clone().unwrap_or_default().changed(change);
    set_pool(state, name, policy, capacity, by, now)?;
    if before.is_none() && capacity.is_none() {
        let lock = Lock::implicit(name.own_lock());
        let added = lock.name.clone();
        state.put_lock(name, lock);
        record(state, ChangeKind::Added, name, &[added], by, now);
    }
    Ok(())
}

/// Declares a pool with its policy. With a capacity N it has the locks `1`..`N`: missing ones are added, free ones
/// above N are removed, and held ones above N are removed when their holders go. The implicit lock leaves in the same
/// way.
pub(super) fn set_pool(
    state: &mut State,
    name: &PoolName,
    policy: Policy,
    capacity: Option<u32>,
    by: &By,
    now: Now,
) -> Result<(), Refusal> {
    let is_named = |lock: &&Arc<Lock>| !lock.implicit && number(&lock.name).is_none();
    let named = state.snapshot.pool(name).map_or(0, |p| p.locks.values().filter(is_named).count());
    if capacity.is_some_and(|n| n as usize > limits::LOCKS_PER_POOL.saturating_sub(named)) {
        return Err(Refusal::Limit { what: "locks in a pool", max: limits::LOCKS_PER_POOL });
    }
    match state.snapshot.pool(name) {
        None => {
            check_limit("pools", state.snapshot.pools.len(), limits::POOLS)?;
            state.put_pool(Pool::new(name.clone(), policy));
            record(state, ChangeKind::PoolSet, name, &[], by, now);
        }
        Some(pool) if pool.policy != policy => {
            check_order(state, pool, policy.order)?;
            state.set_policy(name, policy);
            record(state, ChangeKind::PoolSet, name, &[], by, now);
        }
        Some(_) => {}
    }
    if let Some(capacity) = capacity {
        set_capacity(state, name, capacity, by, now);
    }
    claims::end_unservable(state, name, now);
    Ok(())
}

/// Refuses another order while a claim over several pools waits here, or may wait here again because its grant is not
/// confirmed yet: its places in all its queues must be the same.
fn check_order(state: &State, pool: &Pool, order: Order) -> Result<(), Refusal> {
    if order == pool.policy.order {
        return Ok(());
    }
    let holders = pool.locks.values().flat_map(|lock| lock.holders.iter().map(|holder| &holder.claim));
    let claims: BTreeSet<&ClaimId> = pool.waiting.values().chain(holders).collect();
    let claims = claims.into_iter().filter_map(|id| state.claim(id));
    let tied = claims.filter(|c| c.terms.ask.parts.len() > 1 && !matches!(c.phase, Phase::Held { .. })).count();
    if tied > 0 { Err(Refusal::OrderInUse { pool: pool.name.clone(), claims: tied }) } else { Ok(()) }
}

/// The number of a lock that a capacity has made or could make: `1`, `2`, ...
fn number(lock: &LockName) -> Option<u32> {
    lock.as_str().parse::<u32>().ok().filter(|n| *n > 0 && n.to_string() == lock.as_str())
}

fn set_capacity(state: &mut State, name: &PoolName, capacity: u32, by: &By, now: Now) {
    let Some(pool) = state.snapshot.pool(name) else { return };
    let too_many = |lock: &Lock| match number(&lock.name) {
        Some(number) => number > capacity,
        None => lock.implicit,
    };
    let above: Vec<Arc<Lock>> = pool.locks.values().filter(|lock| too_many(lock)).cloned().collect();
    let wanted = (1..=capacity).filter_map(|n| LockName::parse(&n.to_string()).ok());
    // The implicit lock of a pool that is named like a number is one of those.
    let missing = |lock: &LockName| pool.locks.get(lock).is_none_or(|lock| lock.leaving || lock.implicit);
    let missing: Vec<LockName> = wanted.filter(missing).collect();
    for lock in missing {
        match state.snapshot.lock(name, &lock).cloned() {
            Some(old) => state.put_lock(name, Lock { leaving: false, implicit: false, ..old }),
            None => {
                state.put_lock(name, Lock::new(lock.clone(), Arc::from([]), Arc::default()));
                record(state, ChangeKind::Added, name, &[lock], by, now);
            }
        }
    }
    for lock in above {
        let_go(state, name, &lock, by, now);
    }
    state.to_dispatch.insert(name.clone());
}

/// Removes a lock, or lets it leave with its holder.
fn let_go(state: &mut State, name: &PoolName, lock: &Lock, by: &By, now: Now) {
    if lock.holders.is_empty() && lock.drain.is_none() {
        record(state, ChangeKind::Removed, name, std::slice::from_ref(&lock.name), by, now);
        state.remove_lock(name, &lock.name, now);
    } else {
        state.put_lock(name, Lock { leaving: true, ..lock.clone() });
    }
}

/// The implicit lock leaves, because the pool gets a lock of its own.
fn retire_implicit(state: &mut State, name: &PoolName, by: &By, now: Now) {
    let own = name.own_lock();
    if let Some(lock) = state.snapshot.lock(name, &own).filter(|lock| lock.implicit && !lock.leaving).cloned() {
        let_go(state, name, &lock, by, now);
    }
}

/// Removes a pool that no claim uses, with its locks and its history. Its fences are never used again.
pub(super) fn remove_pool(state: &mut State, name: &PoolName, by: &By, now: Now) -> Result<(), Refusal> {
    let pool = existing(state, name)?;
    let claims = pool.waiting.len() + pool.locks.values().map(|l| l.holders.len()).sum::<usize>();
    if claims > 0 {
        return Err(Refusal::PoolInUse { pool: name.clone(), claims });
    }
    state.remove_pool(name);
    record(state, ChangeKind::PoolRemoved, name, &[], by, now);
    Ok(())
}

/// Adds a new lock to a pool, and makes the pool if there is none. The implicit lock of the pool leaves. With a claim,
/// that claim holds the lock in the same step, so the lock is never free and no waiter of the pool can take it first.
pub(super) fn add_lock(
    state: &mut State,
    name: &PoolName,
    lock: Lock,
    claim: Option<&AskClaim>,
    by: &By,
    now: Now,
) -> Result<(), Refusal> {
    let takes_over = claim.is_none() && state.snapshot.lock(name, &lock.name).is_some_and(|known| known.implicit);
    if !takes_over {
        check_room(state, name, &lock.name)?;
    }
    let claim = claim.map(|asked| admission::first_holder(state, asked, now)).transpose()?;
    if state.snapshot.pool(name).is_none() {
        state.put_pool(Pool::new(name.clone(), Policy::default()));
    }
    let added = lock.name.clone();
    // Whoever adds the implicit lock by its name keeps it, with its holder.
    let lock = match state.snapshot.lock(name, &added).cloned() {
        Some(own) => Lock { metadata: lock.metadata, labels: lock.labels, leaving: false, implicit: false, ..own },
        None => lock,
    };
    state.put_lock(name, lock);
    record(state, ChangeKind::Added, name, std::slice::from_ref(&added), by, now);
    retire_implicit(state, name, by, now);
    if let Some(claim) = claim {
        state.insert_claim(claim.clone());
        claims::grant(state, &claim, vec![(name.clone(), added)], now);
    }
    claims::end_unservable(state, name, now);
    state.to_dispatch.insert(name.clone());
    Ok(())
}

/// What changes about a lock; everything else stays.
pub(super) struct LockChanges {
    pub metadata: Option<Arc<[u8]>>,
    pub labels: Option<Arc<Labels>>,
    /// Refuse while the lock is held.
    pub if_free: bool,
}

/// Changes metadata or labels of a lock, held or not. A holder keeps its hold, and a release writes nothing back. A
/// request that changes nothing is noted, so that it has a version.
pub(super) fn update_lock(
    state: &mut State,
    name: &PoolName,
    lock: &LockName,
    changes: LockChanges,
    by: &By,
    now: Now,
) -> Result<(), Refusal> {
    let old = existing_lock(state, name, lock)?;
    if let Some(holder) = old.holders.first().filter(|_| changes.if_free) {
        return Err(Refusal::LockHeld { pool: name.clone(), lock: lock.clone(), holder: holder.claim.clone() });
    }
    let new = Lock {
        metadata: changes.metadata.unwrap_or_else(|| Arc::clone(&old.metadata)),
        labels: changes.labels.unwrap_or_else(|| Arc::clone(&old.labels)),
        // Whoever gives it content wants to keep it.
        implicit: old.implicit && old.leaving,
        ..old.clone()
    };
    if new == (Lock { implicit: new.implicit, ..old.clone() }) {
        record(state, ChangeKind::Noted, name, std::slice::from_ref(lock), by, now);
    } else {
        state.put_lock(name, new);
        record(state, ChangeKind::Updated, name, std::slice::from_ref(lock), by, now);
        claims::end_unservable(state, name, now);
        state.to_dispatch.insert(name.clone());
    }
    Ok(())
}

/// Removes a lock from its pool. Only its holder can remove a held lock, and its hold ends in the same step.
pub(super) fn remove_lock(
    state: &mut State,
    name: &PoolName,
    lock: &LockName,
    claim: Option<&ClaimId>,
    by: &By,
    now: Now,
) -> Result<(), Refusal> {
    let (_, holder) = removable(state, name, lock, claim)?;
    take_out(state, name, lock, holder, by, now);
    Ok(())
}

/// Moves a lock to another pool, in one step: at no moment is it in both pools, or in none. A held lock moves only with
/// its holder, whose hold ends. In the other pool the lock is free.
pub(super) fn move_lock(
    state: &mut State,
    (name, lock): (&PoolName, &LockName),
    to: &PoolName,
    claim: Option<&ClaimId>,
    changes: LockChanges,
    by: &By,
    now: Now,
) -> Result<(), Refusal> {
    let (old, holder) = removable(state, name, lock, claim)?;
    check_room(state, to, lock)?;
    take_out(state, name, lock, holder, by, now);
    if state.snapshot.pool(to).is_none() {
        state.put_pool(Pool::new(to.clone(), Policy::default()));
    }
    let moved = Lock {
        metadata: changes.metadata.unwrap_or_else(|| Arc::clone(&old.metadata)),
        labels: changes.labels.unwrap_or_else(|| Arc::clone(&old.labels)),
        drain: old.drain,
        quarantine: old.quarantine,
        ..Lock::new(lock.clone(), Arc::from([]), Arc::default())
    };
    state.put_lock(to, moved);
    record(state, ChangeKind::Added, to, std::slice::from_ref(lock), by, now);
    retire_implicit(state, to, by, now);
    claims::end_unservable(state, to, now);
    Ok(())
}

/// A lock that may leave its pool, and the hold that ends with it.
fn removable(
    state: &State,
    name: &PoolName,
    lock: &LockName,
    claim: Option<&ClaimId>,
) -> Result<(Lock, Option<Arc<Claim>>), Refusal> {
    let old = existing_lock(state, name, lock)?;
    if let Some(stranger) = old.holders.iter().find(|h| Some(&h.claim) != claim) {
        let holder = stranger.claim.clone();
        return Err(Refusal::LockHeld { pool: name.clone(), lock: lock.clone(), holder });
    }
    let Some(id) = claim else { return Ok((old, None)) };
    let holder = state.claim(id).filter(|c| matches!(c.phase, Phase::Held { .. }) && !old.holders.is_empty()).cloned();
    match holder {
        Some(holder) => Ok((old, Some(holder))),
        None => Err(Refusal::NotHolder { pool: name.clone(), lock: lock.clone(), claim: id.clone() }),
    }
}

/// Ends the hold, and takes the lock out of its pool.
fn take_out(state: &mut State, name: &PoolName, lock: &LockName, holder: Option<Arc<Claim>>, by: &By, now: Now) {
    if let Some(holder) = holder {
        claims::finish(state, &holder, super::claim::End::Released, None, by.reason.clone(), now);
    }
    // If the lock was leaving the pool anyway, it went with its holder.
    if state.snapshot.lock(name, lock).is_some() {
        record(state, ChangeKind::Removed, name, std::slice::from_ref(lock), by, now);
        state.remove_lock(name, lock, now);
    }
    claims::end_unservable(state, name, now);
}

/// Refuses a lock that the pool has already, or has no room for.
fn check_room(state: &State, name: &PoolName, lock: &LockName) -> Result<(), Refusal> {
    match state.snapshot.pool(name) {
        None => check_limit("pools", state.snapshot.pools.len(), limits::POOLS),
        Some(pool) if pool.locks.contains_key(lock) => {
            Err(Refusal::LockExists { pool: name.clone(), lock: lock.clone() })
        }
        Some(pool) => check_limit("locks in a pool", pool.locks.len(), limits::LOCKS_PER_POOL),
    }
}

/// Writes an entry for a step that changed nothing, so that the step has a version.
pub(super) fn note(
    state: &mut State,
    name: &PoolName,
    lock: Option<LockName>,
    by: &By,
    now: Now,
) -> Result<(), Refusal> {
    existing(state, name)?;
    let locks: Vec<LockName> = lock.into_iter().collect();
    record(state, ChangeKind::Noted, name, &locks, by, now);
    Ok(())
}
