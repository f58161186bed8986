//! `PUT` of a claim: identity, runs, lives, and the requests that are refused at once (docs/design.md).

use std::sync::Arc;

use super::candidates;
use super::claim::{self, Claim, End, Ended, LockSet, Part, Phase, Presence, Scope, Terms, Want};
use super::claims::{self, reply_of};
use super::command::{AskClaim, Refusal, Reply, Wait, check_limit};
use super::deadlock;
use super::history::ChangeKind;
use super::limits;
use super::marks;
use super::names::{PoolName, Run};
use super::origin::is_same_owner;
use super::pool::{Lock, Order, Policy, Pool};
use super::runs;
use super::state::{Entry, State};
use super::supersede;
use super::time::{Deadline, Now};
use super::turn::turn;

/// `PUT`: begins a claim, or finds an existing one and tries to serve it.
pub(super) fn ask(state: &mut State, ask: AskClaim, now: Now) -> Result<Reply, Refusal> {
    if let Wait::Park(park) | Wait::Over(park) = ask.wait {
        // That parked request is over. Only an accepted request keeps the claim listening.
        claims::left(state, park, now);
    }
    if let Some(claim) = state.claim(&ask.id).cloned() {
        ask_again(state, &claim, &ask)?;
        return serve(state, &ask, false, None, now);
    }
    if let Some(reply) = answered_by_mark(state, &ask)? {
        return Ok(reply);
    }
    state.raise_pools(ask.terms.ask.parts.iter().map(|part| &part.pool));
    let claim = new_life(state, &ask, now)?;
    if supersede::is_outdated(state, &claim) {
        state.insert_claim(claim.clone());
        let ended = claims::finish(state, &claim, End::Superseded, None, None, now);
        return Err(Refusal::Ended { ended });
    }
    let unmade = unmade_pools(state, &claim);
    let outdated = supersede::outdated_by(state, &claim);
    let mut free = could_have(state, &claim);
    if free.is_none() && marks::make_way(state, &claim, now) {
        free = could_have(state, &claim);
    }
    if free.is_none() {
        if !ask.queue {
            return Ok(Reply::Busy(Box::new(ask)));
        }
        check_queues(state, &claim, &outdated)?;
    }
    // What is changed below may change which locks it can have.
    let free = free.filter(|_| outdated.is_empty() && unmade.is_empty());
    for old in outdated {
        claims::finish(state, &old, End::Superseded, Some(Arc::clone(&claim.terms.owner)), None, now);
    }
    for pool in &unmade {
        make_own_pool(state, pool, &claim, now);
    }
    state.insert_claim(Claim { made: unmade.into(), ..claim });
    serve(state, &ask, true, free, now)
}

/// The marked hold of the same build that answers a new request for the same (docs/decisions/0023): the second run of a
/// build asks under another id.
fn answered_by_mark(state: &mut State, ask: &AskClaim) -> Result<Option<Reply>, Refusal> {
    if let Some(claim) = state.snapshot.aliases.get(&ask.id).and_then(|id| state.claim(id)) {
        if claim.terms.digest != ask.terms.digest {
            return Err(Refusal::DifferentRequest { id: ask.id.clone() });
        }
        return Ok(Some(Reply::Claim { claim: Arc::clone(claim), parked: false }));
    }
    life_and_runs(state, ask)?;
    Ok(marks::lend(state, ask).map(|claim| Reply::Claim { claim, parked: false }))
}

/// The locks that a claim would be served with at once, if it were in the state. A pool that the claim would make counts as
/// free, and is left out.
fn could_have(state: &State, claim: &Claim) -> Option<LockSet> {
    let is_known = |part: &Part| state.snapshot.pool(&part.pool).is_some();
    if claim.terms.ask.parts.iter().all(is_known) {
        return turn(&state.snapshot, claim);
    }
    let mut known = claim.clone();
    known.terms.ask.parts.retain(is_known);
    turn(&state.snapshot, &known)
}

/// Refuses a claim that would have to wait in a full queue. Claims that this one supersedes do not count.
fn check_queues(state: &State, claim: &Claim, outdated: &[Arc<Claim>]) -> Result<(), Refusal> {
    for pool in claim.terms.ask.parts.iter().filter_map(|part| state.snapshot.pool(&part.pool)) {
        let max = pool.policy.max_queue.map_or(limits::WAITERS_PER_POOL, |max| max as usize);
        let leaving = outdated.iter().filter(|old| old.terms.ask.parts.iter().any(|part| part.pool == pool.name));
        if pool.waiting.len() - leaving.count() >= max.min(limits::WAITERS_PER_POOL) {
            return Err(Refusal::QueueFull { pool: pool.name.clone(), max });
        }
    }
    Ok(())
}

fn unmade_pools(state: &State, claim: &Claim) -> Vec<PoolName> {
    let pools = claim.terms.ask.parts.iter().map(|part| &part.pool);
    pools.filter(|pool| state.snapshot.pool(pool).is_none()).cloned().collect()
}

/// The same `PUT` again: the only thing that may change is the process that acts for the claim.
fn ask_again(state: &mut State, claim: &Claim, ask: &AskClaim) -> Result<(), Refusal> {
    if claim.terms.digest != ask.terms.digest {
        return Err(Refusal::DifferentRequest { id: claim.id.clone() });
    }
    runs::check(state, claim, ask.run.as_ref())?;
    runs::note(state, claim, ask.run.as_ref());
    Ok(())
}

/// The claim of the first `PUT` of an id, or of the first `PUT` of a new life of an ended id. It is not in the state
/// yet.
fn new_life(state: &mut State, ask: &AskClaim, now: Now) -> Result<Claim, Refusal> {
    let (life, runs) = life_and_runs(state, ask)?;
    for part in &ask.terms.ask.parts {
        check_part(state, part, &ask.terms)?;
    }
    check_orders(state, &ask.terms.ask.parts)?;
    begin(state, ask, life, runs, now)
}

/// The claim that comes with a new lock. Its id is new, or belongs to an ended claim that may begin again.
pub(super) fn first_holder(state: &mut State, ask: &AskClaim, now: Now) -> Result<Claim, Refusal> {
    if state.snapshot.claim(&ask.id).is_some() {
        return Err(Refusal::DifferentRequest { id: ask.id.clone() });
    }
    let (life, runs) = life_and_runs(state, ask)?;
    begin(state, ask, life, runs, now)
}

/// Whether somebody else has cancelled an id that nobody had used, where rights count: that keeps nobody out.
fn is_of_others(state: &State, ended: &Ended) -> bool {
    let origin = state.origin().filter(|origin| origin.is_confined && ended.digest.is_none());
    origin.is_some_and(|origin| !is_same_owner(origin.proved.as_ref(), ended.maker.as_ref()))
}

/// Which life of its id the claim would be, and the runs of all its lives.
fn life_and_runs(state: &State, ask: &AskClaim) -> Result<(u32, Vec<Run>), Refusal> {
    let (life, mut runs) = match state.ended(&ask.id) {
        None => (1, Vec::new()),
        Some(ended) if is_of_others(state, ended) => (1, Vec::new()),
        Some(ended) => next_life(ended, ask)?,
    };
    if let Some(run) = ask.run.as_ref().filter(|run| !runs.contains(run)) {
        if runs.len() >= limits::RUNS_PER_CLAIM {
            return Err(Refusal::TooManyRuns { id: ask.id.clone(), max: limits::RUNS_PER_CLAIM });
        }
        runs.push(run.clone());
    }
    Ok((life, runs))
}

/// Refuses a scope that the owner cannot have, and sets for this life what the request left open.
fn begin(state: &mut State, ask: &AskClaim, life: u32, runs: Vec<Run>, now: Now) -> Result<Claim, Refusal> {
    let scope = ask.scope.unwrap_or_else(|| state.snapshot.default_scope(&ask.terms.ask.parts));
    if scope == Scope::Build && ask.terms.owner.build().is_none() {
        return Err(Refusal::NoBuild { id: ask.id.clone() });
    }
    let mut terms = ask.terms.clone();
    if scope == Scope::Lease {
        terms.ttl.get_or_insert(state.settings.lease);
    }
    let ticket = state.give_ticket();
    let presence = Presence::Recent(Deadline::after(now, state.settings.listen));
    let give_up = ask.give_up_after.map(|span| Deadline::after(now, span));
    Ok(Claim {
        id: ask.id.clone(),
        life,
        terms,
        scope,
        build_over: None,
        runs,
        ticket,
        asked_at: now.wall,
        withdrawals: 0,
        passed: 0,
        phase: Phase::Waiting { presence, give_up },
        aliases: Vec::new(),
        origin: state.origin(),
        parks: Vec::new(),
        made: Box::default(),
    })
}

/// Whether an ended id may begin again, and if so with which life and runs (docs/design.md#lives).
fn next_life(ended: &Arc<Ended>, ask: &AskClaim) -> Result<(u32, Vec<Run>), Refusal> {
    if ended.digest.is_some_and(|digest| digest != ask.terms.digest) {
        return Err(Refusal::DifferentRequest { id: ended.id.clone() });
    }
    if ask.run.as_ref().is_some_and(|run| claim::is_earlier_run(&ended.runs, run)) {
        return Err(Refusal::SupersededRun { id: ended.id.clone() });
    }
    let new_run = ask.run.as_ref().is_some_and(|run| !ended.runs.contains(run));
    let may = match ended.how {
        End::ListenerLost => true,
        End::Unconfirmed | End::Cancelled | End::GaveUp | End::Released => new_run,
        End::Superseded | End::Removed => false,
        End::Lost | End::LeaseLost | End::BuildOver | End::Undelivered | End::Broken => false,
    };
    if may { Ok((ended.life + 1, ended.runs.clone())) } else { Err(Refusal::Ended { ended: Arc::clone(ended) }) }
}

/// Refuses a part that could never be served.
fn check_part(state: &State, part: &Part, terms: &Terms) -> Result<(), Refusal> {
    let Some(pool) = state.snapshot.pool(&part.pool) else {
        let makes_pool = match &part.want {
            Want::Any { count, labels } => *count == 1 && labels.is_empty(),
            Want::Named(names) => names.len() == 1 && names.contains(&part.pool.own_lock()),
        };
        if !makes_pool {
            return Err(Refusal::NoSuchPool { pool: part.pool.clone() });
        }
        if !state.settings.claim_may_make(&part.pool) {
            return Err(Refusal::MayNotMake { pool: part.pool.clone() });
        }
        return check_limit("pools", state.snapshot.pools.len(), limits::POOLS);
    };
    candidates::check_part(pool, &part.want, terms)?;
    let Want::Named(names) = &part.want else { return Ok(()) };
    let holders = names.iter().filter_map(|name| pool.locks.get(name)).map(|lock| lock.holders.len());
    check_limit("claims that share a lock", holders.max().unwrap_or(0), limits::HOLDERS_PER_LOCK)
}

/// Refuses a claim over pools of different orders: its places in their queues would contradict each other. A pool that
/// the claim makes is `fifo`.
fn check_orders(state: &State, parts: &[Part]) -> Result<(), Refusal> {
    let order = |pool| state.snapshot.pool(pool).map(|pool| pool.policy.order).unwrap_or_default();
    let mut orders = parts.iter().map(|part| (&part.pool, order(&part.pool)));
    let Some((first, first_order)) = orders.next() else { return Ok(()) };
    if parts.len() > 1 && first_order == Order::Lifo {
        return Err(Refusal::OrderOfOne { pool: first.clone(), order: first_order });
    }
    match orders.find(|(_, order)| *order != first_order) {
        None => Ok(()),
        Some((other, other_order)) => {
            let (pool, other) = (first.clone(), other.clone());
            Err(Refusal::MixedOrders { pool, order: first_order, other, other_order })
        }
    }
}

fn make_own_pool(state: &mut State, name: &PoolName, claim: &Claim, now: Now) {
    let lock = name.own_lock();
    state.put_pool(Pool::new(name.clone(), Policy::default()));
    state.put_lock(name, Lock::implicit(lock.clone()));
    let locks = vec![(name.clone(), lock)];
    state.record(Entry { pools: vec![name.clone()], locks, ..Entry::about(claim, ChangeKind::Added, None) }, now);
}

/// Gives the claim its locks if it is its turn: those that are known to be `free` for it, if somebody has looked already.
/// Otherwise the claim waits, in the way that its request allows.
fn serve(state: &mut State, ask: &AskClaim, is_new: bool, free: Option<LockSet>, now: Now) -> Result<Reply, Refusal> {
    let Some(claim) = state.claim(&ask.id).cloned() else {
        return Err(Refusal::NoSuchClaim { id: ask.id.clone() });
    };
    if !claim.waits() {
        return Ok(Reply::Claim { claim, parked: false });
    }
    if let Some(locks) = free.or_else(|| turn(&state.snapshot, &claim)) {
        claims::grant(state, &claim, locks, now);
        return reply_of(state, &ask.id, false);
    }
    if is_new {
        state.record(Entry::about(&claim, ChangeKind::Waiting, None), now);
    }
    // The client must learn that its claim got stuck, or is no longer stuck.
    let park = match ask.wait {
        Wait::Park(park) if !deadlock::is_news(state, &ask.id) && claim.parks.len() < limits::PARKS_PER_CLAIM => {
            Some(park)
        }
        _ => None,
    };
    let recent = Deadline::after(now, state.settings.listen);
    state.update_presence(&ask.id, |c| {
        c.parks.extend(park.filter(|park| !c.parks.contains(park)));
        let parked = !c.parks.is_empty();
        if let Phase::Waiting { presence, .. } = &mut c.phase {
            *presence = if parked { Presence::Parked } else { Presence::Recent(recent) };
        }
    });
    if let Some(park) = park {
        state.parks.insert(park, ask.id.clone());
    }
    reply_of(state, &ask.id, park.is_some())
}
