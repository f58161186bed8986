//! What a person does to other people's claims and to locks: break a hold, take a lock out of service, move a waiter.
//! The history records each action, with who did it and why.

use std::sync::Arc;

use super::claim::{Claim, End, Owner};
use super::claims::{self, Ending};
use super::command::{By, MoveTo, Refusal, Reply};
use super::history::ChangeKind;
use super::names::{ClaimId, LockName, PoolName, Reason};
use super::pool::{Lock, Order, Pool, Quarantine};
use super::pools::{existing_lock, record};
use super::state::{Entry, State};
use super::time::{Deadline, Now, Span};

/// Ends a grant or a hold by force. Its locks are free at once, or drain first. A repeat is harmless.
pub(super) fn break_claim(
    state: &mut State,
    id: &ClaimId,
    drains: bool,
    by: Arc<Owner>,
    reason: Reason,
    now: Now,
) -> Result<Reply, Refusal> {
    if let Some(ended) = state.ended(id).filter(|ended| ended.how == End::Broken) {
        return Ok(Reply::Ended { ended: Arc::clone(ended), again: true });
    }
    let claim = claims::live(state, id, None)?;
    if claim.waits() {
        return Err(Refusal::NotGranted { id: id.clone() });
    }
    let ending = Ending { how: End::Broken, by: Some(by), reason: Some(reason), drains };
    Ok(Reply::Ended { ended: claims::finish_as(state, &claim, ending, now), again: false })
}

/// Cancels a waiting claim. A repeat is harmless.
pub(super) fn cancel(
    state: &mut State,
    id: &ClaimId,
    by: Arc<Owner>,
    reason: Option<Reason>,
    now: Now,
) -> Result<Reply, Refusal> {
    if state.claim(id).is_some_and(|claim| !claim.waits()) {
        return Err(Refusal::NotWaiting { id: id.clone() });
    }
    claims::end(state, id, None, Some(by), reason, now)
}

/// Takes a lock out of service until somebody puts it back, or for a while. Its holder keeps it. It is granted to no
/// other claim, and claims for it go on waiting. If the lock is out of service already, the new reason and end replace
/// the old ones.
pub(super) fn quarantine(
    state: &mut State,
    pool: &PoolName,
    lock: &LockName,
    span: Option<Span>,
    by: &By,
    now: Now,
) -> Result<(), Refusal> {
    let old = existing_lock(state, pool, lock)?;
    let until = span.map(|span| Deadline::after(now, span));
    let by_name = by.owner.name().cloned();
    let quarantine = Quarantine { since: now.wall, until, by: by_name, reason: by.reason.clone() };
    replace_quarantine(state, pool, old, Some(quarantine), by, now);
    Ok(())
}

/// Puts a lock back into service. If it is in service already, the history gets a note.
pub(super) fn put_back(state: &mut State, pool: &PoolName, lock: &LockName, by: &By, now: Now) -> Result<(), Refusal> {
    let old = existing_lock(state, pool, lock)?;
    replace_quarantine(state, pool, old, None, by, now);
    Ok(())
}

/// Ends a quarantine whose time is over.
pub(super) fn end_quarantine(state: &mut State, pool: &PoolName, lock: &LockName, now: Now) {
    let Some(old) = state.snapshot.lock(pool, lock).cloned() else { return };
    let is_over = |q: &Quarantine| q.until.is_some_and(|until| until.is_over(now));
    if old.quarantine.as_ref().is_some_and(is_over) {
        state.begin_step();
        let by = By { reason: Reason::parse("the time of its quarantine is over").ok(), ..By::default() };
        replace_quarantine(state, pool, old, None, &by, now);
    }
}

/// Takes a lock out of service or puts it back, and records it in the history.
fn replace_quarantine(
    state: &mut State,
    pool: &PoolName,
    old: Lock,
    quarantine: Option<Quarantine>,
    by: &By,
    now: Now,
) {
    let kind = match (&old.quarantine, &quarantine) {
        (_, Some(_)) => ChangeKind::Quarantined,
        (Some(_), None) => ChangeKind::Returned,
        (None, None) => ChangeKind::Noted,
    };
    let name = old.name.clone();
    state.put_lock(pool, Lock { quarantine, ..old });
    record(state, kind, pool, &[name], by, now);
    // Some waiters may be served now, and others may now be passed.
    state.to_dispatch.insert(pool.clone());
}

/// Gives a waiting claim another place in its queues; all other claims keep their order. In pools ordered by priority,
/// the claim takes over the priority of its new neighbour.
pub(super) fn move_claim(state: &mut State, id: &ClaimId, to: &MoveTo, by: &By, now: Now) -> Result<(), Refusal> {
    let claim = claims::live(state, id, None)?;
    if !claim.waits() {
        return Err(Refusal::NotWaiting { id: id.clone() });
    }
    if let Some((beside, side)) = neighbour(state, &claim, to)? {
        let order = claim.terms.ask.parts.first().and_then(|part| state.snapshot.pool(&part.pool));
        let order = order.map(|pool| pool.policy.order).unwrap_or_default();
        if order == Order::Priority {
            state.update_waiting(id, |c| c.terms.priority = beside.terms.priority);
        }
        let earlier_ticket = (side == Side::Before) != (order == Order::Lifo);
        state.move_ticket(id, beside.ticket, earlier_ticket);
    }
    let entry = Entry::about(&claim, ChangeKind::Moved, Some(&by.owner));
    state.record(Entry { reason: by.reason.clone(), ..entry }, now);
    state.to_dispatch.extend(claim.terms.ask.parts.iter().map(|part| part.pool.clone()));
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// The claim that this one is put next to, and on which side, in the order of its queues; `None` when no other claim
/// waits there.
fn neighbour(state: &State, claim: &Claim, to: &MoveTo) -> Result<Option<(Arc<Claim>, Side)>, Refusal> {
    let pools: Vec<&Pool> = claim.terms.ask.parts.iter().filter_map(|part| state.snapshot.pool(&part.pool)).collect();
    let other = |id: &&ClaimId| **id != claim.id;
    let found = match to {
        MoveTo::First => {
            let heads = pools.iter().filter_map(|pool| pool.waiting.values().find(other));
            let heads = heads.filter_map(|id| state.claim(id));
            heads.min_by_key(|head| pools[0].place(head)).map(|head| (Arc::clone(head), Side::Before))
        }
        MoveTo::Last => {
            let tails = pools.iter().filter_map(|pool| pool.waiting.values().rev().find(other));
            let tails = tails.filter_map(|id| state.claim(id));
            tails.max_by_key(|tail| pools[0].place(tail)).map(|tail| (Arc::clone(tail), Side::After))
        }
        MoveTo::Before(id) => {
            let beside = claims::live(state, id, None)?;
            let waits_there = |pool: &&Pool| pool.waiting.get(&pool.place(&beside)) == Some(id);
            if !beside.waits() || !pools.iter().any(waits_there) {
                return Err(Refusal::NotWaiting { id: id.clone() });
            }
            Some((beside, Side::Before)).filter(|_| *id != claim.id)
        }
    };
    Ok(found)
}
