//! The life of a claim: asking, waiting, being granted, holding, ending (design section 2).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claim::{self, Claim, End, Ended, LockSet, Owner, Part, Phase, Presence, Want};
use super::history::ChangeKind;
use super::limits;
use super::names::{ClaimId, Fence, LockName, ParkId, PoolName, Reason, Run};
use super::pool::{Holder, Lock, Policy, Pool};
use super::queue;
use super::settings::Plant;
use super::state::{Entry, Notice, State};
use super::step::{AskClaim, Refusal, Reply, Wait};
use super::time::{Deadline, Now, Span};

/// The presence of a waiting claim.
pub(super) fn presence(claim: &Claim) -> Option<Presence> {
    match &claim.phase {
        Phase::Waiting { presence, .. } => Some(*presence),
        Phase::Granted { .. } | Phase::Held { .. } => None,
    }
}

/// `PUT`: begins a claim, or finds it again and tries to serve it.
pub(super) fn ask(state: &mut State, ask: AskClaim, now: Now) -> Result<Reply, Refusal> {
    if let Wait::Park(park) | Wait::Over(park) = ask.wait {
        state.parks.remove(&park);
        if let Some(claim) = state.claim(&ask.id).filter(|c| c.parks.contains(&park)) {
            let id = claim.id.clone();
            state.update_presence(&id, |c| {
                c.parks.remove(&park);
            });
        }
    }
    if let Some(claim) = state.claim(&ask.id).cloned() {
        ask_again(state, &claim, &ask)?;
        return serve(state, &ask, false, now);
    }
    let claim = new_life(state, &ask, now)?;
    let unmade: Vec<PoolName> = unmade_pools(state, &claim);
    if !ask.queue && unmade.is_empty() && queue::turn(&state.world, &claim).is_none() {
        return Ok(Reply::Busy(Box::new(ask)));
    }
    for pool in &unmade {
        make_own_pool(state, pool, &claim, now);
    }
    state.insert_claim(claim);
    serve(state, &ask, true, now)
}

fn unmade_pools(state: &State, claim: &Claim) -> Vec<PoolName> {
    let pools = claim.terms.ask.parts.iter().map(|part| &part.pool);
    pools.filter(|pool| state.world.pool(pool).is_none()).cloned().collect()
}

/// The same `PUT` again: nothing changes but who speaks for the claim.
fn ask_again(state: &mut State, claim: &Claim, ask: &AskClaim) -> Result<(), Refusal> {
    if claim.terms.digest != ask.terms.digest {
        return Err(Refusal::DifferentRequest { id: claim.id.clone() });
    }
    admit_run(state, claim, ask.run.as_ref())
}

/// Refuses an earlier run, and notes a new one (design section 2, runs).
fn admit_run(state: &mut State, claim: &Claim, run: Option<&Run>) -> Result<(), Refusal> {
    let Some(run) = run else { return Ok(()) };
    if claim.runs.contains(run) {
        if claim.is_earlier_run(run) && state.settings.plant != Plant::EarlierRun {
            return Err(Refusal::SupersededRun { id: claim.id.clone() });
        }
        return Ok(());
    }
    if claim.runs.len() >= limits::RUNS_PER_CLAIM {
        return Err(Refusal::TooManyRuns { id: claim.id.clone(), max: limits::RUNS_PER_CLAIM });
    }
    state.update_claim(&claim.id, |c| c.runs.push(run.clone()));
    Ok(())
}

/// The claim of the first `PUT` of an id, or of the first of a new life of one that has ended. Not in the state yet.
fn new_life(state: &mut State, ask: &AskClaim, now: Now) -> Result<Claim, Refusal> {
    let (life, mut runs) = match state.world.ended.get(&ask.id) {
        None => (1, Vec::new()),
        Some(ended) => next_life(ended, ask)?,
    };
    if let Some(run) = ask.run.as_ref().filter(|run| !runs.contains(run)) {
        if runs.len() >= limits::RUNS_PER_CLAIM {
            return Err(Refusal::TooManyRuns { id: ask.id.clone(), max: limits::RUNS_PER_CLAIM });
        }
        runs.push(run.clone());
    }
    for part in &ask.terms.ask.parts {
        check_part(state, part)?;
    }
    let ticket = state.give_ticket();
    let presence = Presence::Recent(Deadline::after(now, state.settings.listen));
    let give_up = ask.give_up_after.map(|span| Deadline::after(now, span));
    Ok(Claim {
        id: ask.id.clone(),
        life,
        terms: ask.terms.clone(),
        runs,
        ticket,
        asked_at: now.wall,
        withdrawals: 0,
        phase: Phase::Waiting { presence, give_up },
        parks: BTreeSet::new(),
    })
}

/// Whether an ended id may begin again, and with which life and runs (design section 2, lives).
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
        End::Removed | End::Lost => false,
    };
    if may { Ok((ended.life + 1, ended.runs.clone())) } else { Err(Refusal::Ended { ended: Arc::clone(ended) }) }
}

/// Refuses what could never be served (design section 3).
fn check_part(state: &State, part: &Part) -> Result<(), Refusal> {
    let Some(pool) = state.world.pool(&part.pool) else {
        let makes_pool = match &part.want {
            Want::Any { count, labels } => *count == 1 && labels.is_empty(),
            Want::Named(names) => names.len() == 1 && names.contains(&part.pool.own_lock()),
        };
        if state.settings.declared_only || !makes_pool {
            return Err(Refusal::NoSuchPool { pool: part.pool.clone() });
        }
        return check_limit("pools", state.world.pools.len(), limits::POOLS);
    };
    let max_queue = pool.policy.max_queue.map_or(limits::WAITERS_PER_POOL, |max| max as usize);
    if pool.waiting.len() >= max_queue {
        return Err(Refusal::QueueFull { pool: part.pool.clone(), max: max_queue });
    }
    check_want(pool, &part.want)?;
    let Want::Named(names) = &part.want else { return Ok(()) };
    let holders = names.iter().filter_map(|name| pool.locks.get(name)).map(|lock| lock.holders.len());
    check_limit("claims that share a lock", holders.max().unwrap_or(0), limits::HOLDERS_PER_LOCK)
}

/// Whether the pool has, held or not, what is wanted of it.
fn check_want(pool: &Pool, want: &Want) -> Result<(), Refusal> {
    match want {
        Want::Named(names) => {
            let stays = |name: &LockName| pool.locks.get(name).is_some_and(|l| !l.leaving);
            match names.iter().find(|name| !stays(name)) {
                Some(lock) => Err(Refusal::NoSuchLock { pool: pool.name.clone(), lock: lock.clone() }),
                None => Ok(()),
            }
        }
        Want::Any { count, .. } => {
            let has = queue::candidates(pool, want).filter(|l| !l.leaving).take(*count as usize).count();
            if has < *count as usize {
                let has = u32::try_from(has).unwrap_or(u32::MAX);
                return Err(Refusal::TooMany { pool: pool.name.clone(), asked: *count, has });
            }
            Ok(())
        }
    }
}

pub(super) fn check_limit(what: &'static str, has: usize, max: usize) -> Result<(), Refusal> {
    if has >= max { Err(Refusal::Limit { what, max }) } else { Ok(()) }
}

fn make_own_pool(state: &mut State, name: &PoolName, claim: &Claim, now: Now) {
    let lock = name.own_lock();
    state.put_pool(Pool::new(name.clone(), Policy::default()));
    state.put_lock(name, Lock::new(lock.clone(), Arc::from([]), Arc::default()));
    let locks = vec![(name.clone(), lock)];
    state.record(Entry { pools: vec![name.clone()], locks, ..entry_about(claim, ChangeKind::Added, None) }, now);
}

/// Gives the claim its locks if it is its turn; else it waits as its request is prepared to.
fn serve(state: &mut State, ask: &AskClaim, is_new: bool, now: Now) -> Result<Reply, Refusal> {
    let Some(claim) = state.claim(&ask.id).cloned() else {
        return Err(Refusal::NoSuchClaim { id: ask.id.clone() });
    };
    if !claim.waits() {
        return Ok(Reply::Claim { claim, parked: false });
    }
    if let Some(locks) = queue::turn(&state.world, &claim) {
        grant(state, &claim, locks, now);
        return reply_of(state, &ask.id, false);
    }
    if is_new {
        state.record(entry_about(&claim, ChangeKind::Waiting, None), now);
    }
    let park = match ask.wait {
        Wait::Park(park) if claim.parks.len() < limits::PARKS_PER_CLAIM => Some(park),
        _ => None,
    };
    let recent = Deadline::after(now, state.settings.listen);
    state.update_presence(&ask.id, |c| {
        c.parks.extend(park);
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

fn reply_of(state: &State, id: &ClaimId, parked: bool) -> Result<Reply, Refusal> {
    match state.claim(id) {
        Some(claim) => Ok(Reply::Claim { claim: Arc::clone(claim), parked }),
        None => Err(Refusal::NoSuchClaim { id: id.clone() }),
    }
}

/// Gives locks to a waiting claim. Its grant's revision is its fence: newer than every revision before.
pub(super) fn grant(state: &mut State, claim: &Claim, locks: LockSet, now: Now) {
    let confirm = claim.terms.confirm;
    let kind = if confirm { ChangeKind::Granted } else { ChangeKind::Claimed };
    let key = state.record(Entry { locks: locks.clone(), ..entry_about(claim, kind, None) }, now);
    let fence = Fence(key.revision.0);
    let sharer = claim.terms.ask.sharer().map(|(key, who)| (key.clone(), who.clone()));
    for (pool, lock) in &locks {
        let holder = Holder { claim: claim.id.clone(), fence, sharer: sharer.clone() };
        state.change_holders(pool, lock, |l| l.holders.push(holder));
    }
    state.leave_queues(claim);
    for park in &claim.parks {
        state.notify(Notice::Park(*park));
    }
    let give_up = match &claim.phase {
        Phase::Waiting { give_up, .. } => *give_up,
        Phase::Granted { .. } | Phase::Held { .. } => None,
    };
    let phase = if confirm {
        Phase::Granted { fence, locks, confirm_by: Deadline::after(now, state.settings.confirm), give_up }
    } else {
        Phase::Held { fence, claimed: key, locks, since: now.wall, until: hold_limit(state, claim, now) }
    };
    state.update_claim(&claim.id, |c| {
        c.phase = phase;
        c.parks.clear();
    });
}

/// The end of a hold that begins now: the claim's ttl or the shortest `max_hold` of its pools.
fn hold_limit(state: &State, claim: &Claim, now: Now) -> Option<Deadline> {
    let pools = claim.terms.ask.parts.iter().filter_map(|part| state.world.pool(&part.pool));
    let spans = pools.filter_map(|pool| pool.policy.max_hold).chain(claim.terms.ttl);
    spans.min().map(|span| Deadline::after(now, span))
}

/// The client has heard of its grant: from here on it is a hold.
pub(super) fn confirm(
    state: &mut State,
    id: &ClaimId,
    run: Option<&Run>,
    fence: Fence,
    now: Now,
) -> Result<Reply, Refusal> {
    let claim = live(state, id)?;
    admit_run(state, &claim, run)?;
    match &claim.phase {
        Phase::Waiting { .. } => Err(Refusal::NotGranted { id: id.clone() }),
        Phase::Granted { fence: f, .. } | Phase::Held { fence: f, .. } if *f != fence => {
            Err(Refusal::WrongFence { id: id.clone(), fence: *f, given: fence })
        }
        Phase::Held { .. } => Ok(Reply::Claim { claim, parked: false }),
        Phase::Granted { locks, .. } => {
            let locks = locks.clone();
            let entry = Entry { locks: locks.clone(), ..entry_about(&claim, ChangeKind::Claimed, None) };
            let claimed = state.record(entry, now);
            let until = hold_limit(state, &claim, now);
            state.update_claim(id, |c| c.phase = Phase::Held { fence, claimed, locks, since: now.wall, until });
            reply_of(state, id, false)
        }
    }
}

fn live(state: &State, id: &ClaimId) -> Result<Arc<Claim>, Refusal> {
    if let Some(claim) = state.claim(id) {
        return Ok(Arc::clone(claim));
    }
    match state.world.ended.get(id) {
        Some(ended) => Err(Refusal::Ended { ended: Arc::clone(ended) }),
        None => Err(Refusal::NoSuchClaim { id: id.clone() }),
    }
}

/// `DELETE`: cancels or releases. Only its own id ends a claim, so this never touches the present holder (I7).
pub(super) fn end(
    state: &mut State,
    id: &ClaimId,
    run: Option<Run>,
    by: Option<Arc<Owner>>,
    reason: Option<Reason>,
    now: Now,
) -> Result<Reply, Refusal> {
    if let Some(claim) = state.claim(id).cloned() {
        admit_run(state, &claim, run.as_ref())?;
        let how = if matches!(claim.phase, Phase::Held { .. }) { End::Released } else { End::Cancelled };
        let ended = finish(state, &claim, how, by, reason, now);
        return Ok(Reply::Ended { ended, again: false });
    }
    let Some(ended) = state.world.ended.get(id).cloned() else {
        remember_unknown(state, id, run, by, now);
        return Err(Refusal::NoSuchClaim { id: id.clone() });
    };
    if run.as_ref().is_some_and(|run| claim::is_earlier_run(&ended.runs, run)) {
        return Err(Refusal::SupersededRun { id: id.clone() });
    }
    if state.settings.plant == Plant::ReleaseUnchecked {
        release_whoever_holds(state, &ended, now);
    }
    if ended.how.is_harmless() { Ok(Reply::Ended { ended, again: true }) } else { Err(Refusal::Ended { ended }) }
}

/// A cancel that overtakes its own `PUT` must win: the id is remembered as cancelled.
fn remember_unknown(state: &mut State, id: &ClaimId, run: Option<Run>, by: Option<Arc<Owner>>, now: Now) {
    state.remember_ended(Ended {
        id: id.clone(),
        life: 0,
        digest: None,
        runs: run.into_iter().collect(),
        how: End::Cancelled,
        by: by.as_deref().and_then(Owner::name).cloned(),
        at: now.wall,
        revision: None,
        fence: None,
        build: None,
        forget: Deadline::after(now, state.settings.memory),
    });
}

/// Ends a live claim in whatever phase it is.
pub(super) fn finish(
    state: &mut State,
    claim: &Claim,
    how: End,
    by: Option<Arc<Owner>>,
    reason: Option<Reason>,
    now: Now,
) -> Arc<Ended> {
    let kind = match (how, &claim.phase) {
        (_, Phase::Waiting { .. } | Phase::Granted { .. }) => ChangeKind::Ended,
        (End::Lost, Phase::Held { .. }) => ChangeKind::Lost,
        (_, Phase::Held { .. }) => ChangeKind::Released,
    };
    let drain = (how == End::Lost).then_some(());
    put_back_locks(state, claim, drain.map(|()| now));
    let locks = claim.locks().to_vec();
    let key = state.record(Entry { locks, end: Some(how), reason, ..entry_about(claim, kind, by.as_ref()) }, now);
    leave(state, claim);
    let memory = if claim.terms.owner.build().is_some() { state.settings.build_memory } else { state.settings.memory };
    let ended = Ended {
        id: claim.id.clone(),
        life: claim.life,
        digest: Some(claim.terms.digest),
        runs: claim.runs.clone(),
        how,
        by: by.as_deref().and_then(Owner::name).cloned(),
        at: now.wall,
        revision: Some(key.revision),
        fence: claim.fence(),
        build: claim.terms.owner.build(),
        forget: Deadline::after(now, memory),
    };
    state.remove_claim(&claim.id, ended.clone());
    take_out_leaving(state, claim, now);
    Arc::new(ended)
}

/// Out of the queues, with a notice to whoever is parked.
fn leave(state: &mut State, claim: &Claim) {
    if claim.waits() {
        state.leave_queues(claim);
    }
    for park in &claim.parks {
        state.notify(Notice::Park(*park));
    }
}

/// Takes the claim off its locks; they are free, or drain first when the holder was lost.
fn put_back_locks(state: &mut State, claim: &Claim, lost: Option<Now>) {
    for (pool, lock) in claim.locks() {
        let drain = state.world.pool(pool).and_then(|p| p.policy.drain).unwrap_or(state.settings.drain);
        state.change_holders(pool, lock, |l| l.holders.retain(|h| h.claim != claim.id));
        if let Some(now) = lost.filter(|_| drain > Span(0))
            && let Some(l) = state.world.lock(pool, lock).cloned()
        {
            state.put_lock(pool, Lock { drain: Some(Deadline::after(now, drain)), ..l });
        }
        state.to_dispatch.insert(pool.clone());
    }
}

/// Locks that were only waiting for their last holder to go.
fn take_out_leaving(state: &mut State, claim: &Claim, now: Now) {
    let gone =
        |(pool, lock): &&(PoolName, _)| state.world.lock(pool, lock).is_some_and(|l| l.leaving && l.holders.is_empty());
    let gone: Vec<_> = claim.locks().iter().filter(gone).cloned().collect();
    for (pool, lock) in gone {
        let entry = Entry {
            pools: vec![pool.clone()],
            locks: vec![(pool.clone(), lock.clone())],
            claim: None,
            ..entry_about(claim, ChangeKind::Removed, None)
        };
        state.record(entry, now);
        state.remove_lock(&pool, &lock);
    }
}

/// A grant that nobody confirmed: back to the old place in the queue, not listening; the third ends the claim.
pub(super) fn withdraw(state: &mut State, claim: &Claim, now: Now) {
    if claim.withdrawals + 1 >= state.settings.withdrawals {
        finish(state, claim, End::Unconfirmed, None, None, now);
        return;
    }
    let Phase::Granted { give_up, .. } = claim.phase else { return };
    put_back_locks(state, claim, None);
    let locks = claim.locks().to_vec();
    state.record(Entry { locks, ..entry_about(claim, ChangeKind::Withdrawn, None) }, now);
    let presence = Presence::Away(Deadline::after(now, state.settings.place));
    state.update_claim(&claim.id, |c| {
        c.withdrawals += 1;
        c.phase = Phase::Waiting { presence, give_up };
    });
}

/// Sets the presence of a waiting claim; the queues behind it may move.
pub(super) fn set_presence(state: &mut State, claim: &Claim, new: Presence) {
    state.update_presence(&claim.id, |c| {
        if let Phase::Waiting { presence, .. } = &mut c.phase {
            *presence = new;
        }
    });
    for part in &claim.terms.ask.parts {
        state.to_dispatch.insert(part.pool.clone());
    }
}

/// The client of a parked request has gone: that park ends, and after the last one the claim listens a little more.
pub(super) fn left(state: &mut State, park: ParkId, now: Now) -> Result<Reply, Refusal> {
    let claim = state.parks.remove(&park).and_then(|id| state.claim(&id).cloned());
    let Some(claim) = claim.filter(|c| c.parks.contains(&park)) else { return Ok(Reply::Nothing) };
    state.update_presence(&claim.id, |c| {
        c.parks.remove(&park);
    });
    if claim.parks.len() == 1 && claim.waits() {
        let grace = Presence::Grace(Deadline::after(now, state.settings.grace));
        set_presence(state, &claim, grace);
    }
    Ok(Reply::Nothing)
}

/// An entry about a claim, with all its pools and no locks yet.
pub(super) fn entry_about(claim: &Claim, kind: ChangeKind, by: Option<&Arc<Owner>>) -> Entry {
    let who = Arc::clone(by.unwrap_or(&claim.terms.owner));
    Entry {
        kind,
        pools: claim.terms.ask.parts.iter().map(|part| part.pool.clone()).collect(),
        locks: LockSet::new(),
        claim: Some(claim.id.clone()),
        end: None,
        who: Some(who),
        reason: None,
    }
}

/// Ends claims that wait for what a pool no longer has.
pub(super) fn end_unservable(state: &mut State, pool: &PoolName, now: Now) {
    let Some(p) = state.world.pool(pool) else { return };
    let unservable = |claim: &Arc<Claim>| {
        let part = claim.terms.ask.parts.iter().find(|part| part.pool == *pool);
        part.is_some_and(|part| check_want(p, &part.want).is_err())
    };
    let waiting = p.waiting.values().filter_map(|id| state.claim(id)).filter(|c| unservable(c));
    let waiting: Vec<_> = waiting.cloned().collect();
    for claim in waiting {
        finish(state, &claim, End::Removed, None, None, now);
    }
}

/// Planted bug: a late release ends whatever hold the lock has.
fn release_whoever_holds(state: &mut State, ended: &Ended, now: Now) {
    let Some(fence) = ended.fence else { return };
    let newer = state.world.claims.values().find(|c| c.fence().is_some_and(|f| f > fence)).cloned();
    if let Some(claim) = newer {
        finish(state, &claim, End::Released, None, None, now);
    }
}
