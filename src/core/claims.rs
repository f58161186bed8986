//! The life of a claim after its request: the grant, the hold, the end (docs/design.md).

use std::collections::HashMap;
use std::sync::Arc;

use super::candidates::check_part;
use super::claim::{self, BuildRef, Claim, End, Ended, Fetched, LockSet, Owner, Part, Phase, Presence, Terms, Want};
use super::command::{Refusal, Reply};
use super::history::ChangeKind;
use super::limits;
use super::names::{ChangeKey, ClaimId, Fence, ParkId, PoolName, Reason, Revision, Run};
use super::pool::{Holder, Lock};
use super::runs;
use super::state::{Entry, Notice, State};
use super::supersede;
use super::time::{Deadline, Now, Span};
use super::turn;

pub(super) fn reply_of(state: &State, id: &ClaimId, parked: bool) -> Result<Reply, Refusal> {
    match state.claim(id) {
        Some(claim) => Ok(Reply::Claim { claim: Arc::clone(claim), parked }),
        None => Err(Refusal::NoSuchClaim { id: id.clone() }),
    }
}

/// Gives locks to a waiting claim. The fence is the revision of the grant, so it is newer than every earlier revision.
pub(super) fn grant(state: &mut State, claim: &Claim, locks: LockSet, now: Now) {
    let confirm = claim.terms.confirm;
    let kind = if confirm { ChangeKind::Granted } else { ChangeKind::Claimed };
    turn::count_passed(state, claim, &locks);
    let fence = Fence(state.step_revision().0);
    let sharer = claim.terms.ask.sharer().map(|(key, who)| (key.clone(), who.clone()));
    for (pool, lock) in &locks {
        let holder = Holder { claim: claim.id.clone(), fence, sharer: sharer.clone() };
        state.change_holders(pool, lock, |holders| holders.push(holder));
    }
    // After the holders: a free lock has its place by its newest entry.
    let key = state.record(Entry { locks: locks.clone(), ..Entry::about(claim, kind, None) }, now);
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
        begin_hold(state, claim, fence, key, locks, now)
    };
    state.update_claim(&claim.id, |c| {
        c.phase = phase;
        c.parks.clear();
    });
}

/// A hold that begins now. It lasts for the claim's ttl, and at most for the shortest `max_hold` of its pools.
fn begin_hold(state: &State, claim: &Claim, fence: Fence, claimed: ChangeKey, locks: LockSet, now: Now) -> Phase {
    let pools = claim.terms.ask.parts.iter().filter_map(|part| state.snapshot.pool(&part.pool));
    let max_hold = pools.filter_map(|pool| pool.policy.max_hold).min();
    Phase::Held {
        fence,
        claimed,
        locks,
        since: now.wall,
        until: claim.terms.ttl.map(|ttl| Deadline::after(now, ttl)),
        limit: max_hold.map(|span| Deadline::after(now, span)),
        fetched: Fetched::Never,
        marked: false,
    }
}

/// The client knows of its grant, so the grant becomes a hold.
pub(super) fn confirm(
    state: &mut State,
    id: &ClaimId,
    run: Option<&Run>,
    fence: Fence,
    now: Now,
) -> Result<Reply, Refusal> {
    let claim = live(state, id, run)?;
    runs::check(state, &claim, run)?;
    match &claim.phase {
        Phase::Waiting { .. } => Err(Refusal::NotGranted { id: id.clone() }),
        Phase::Granted { fence: f, .. } | Phase::Held { fence: f, .. } if *f != fence => {
            Err(Refusal::WrongFence { id: id.clone(), fence: *f, given: fence })
        }
        Phase::Held { .. } => {
            runs::note(state, &claim, run);
            reply_of(state, id, false)
        }
        Phase::Granted { locks, .. } => {
            runs::note(state, &claim, run);
            let locks = locks.clone();
            let entry = Entry { locks: locks.clone(), ..Entry::about(&claim, ChangeKind::Claimed, None) };
            let claimed = state.record(entry, now);
            let phase = begin_hold(state, &claim, fence, claimed, locks, now);
            state.update_claim(id, |c| c.phase = phase);
            reply_of(state, id, false)
        }
    }
}

/// The client renews: the ttl of its hold counts from now, whatever the scope. A renewal of a grant confirms it.
/// Nothing moves the `max_hold` of a pool, and a hold without a ttl stays as it is.
pub(super) fn renew(
    state: &mut State,
    id: &ClaimId,
    run: Option<&Run>,
    fence: Option<Fence>,
    now: Now,
) -> Result<Reply, Refusal> {
    let claim = live(state, id, run)?;
    let Some(present) = claim.fence() else {
        runs::check(state, &claim, run)?;
        return Err(Refusal::NotGranted { id: id.clone() });
    };
    confirm(state, id, run, fence.unwrap_or(present), now)?;
    if let Some(ttl) = claim.terms.ttl {
        state.update_claim(id, |c| {
            if let Phase::Held { until, .. } = &mut c.phase {
                *until = Some(Deadline::after(now, ttl));
            }
        });
    }
    reply_of(state, id, false)
}

/// An `in` of `build` has fetched the hold of this `claimed` entry. If that was another build than its own, its own
/// build may end. An unknown build counts as another: a hold that may be in use stays. Other holds of the claim are not
/// affected.
pub(super) fn deliver(
    state: &mut State,
    id: &ClaimId,
    revision: Revision,
    build: Option<&BuildRef>,
) -> Result<Reply, Refusal> {
    let claim = live(state, id, None)?;
    let is_own = build.is_some() && build == claim.terms.owner.build().as_ref();
    let by = if is_own { Fetched::ByItsBuild } else { Fetched::ByAnother };
    if matches!(&claim.phase, Phase::Held { claimed, fetched, .. } if claimed.revision == revision && *fetched < by) {
        state.update_claim(id, |c| {
            if let Phase::Held { fetched, .. } = &mut c.phase {
                *fetched = by;
            }
        });
    }
    reply_of(state, id, false)
}

/// The live claim of this id. If it has ended, the refusal says how; an earlier run is refused as superseded first.
pub(super) fn live(state: &State, id: &ClaimId, run: Option<&Run>) -> Result<Arc<Claim>, Refusal> {
    if let Some(claim) = state.claim(id) {
        return Ok(Arc::clone(claim));
    }
    match state.ended(id) {
        Some(ended) if run.is_some_and(|run| claim::is_earlier_run(&ended.runs, run)) => {
            Err(Refusal::SupersededRun { id: id.clone() })
        }
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
        runs::check(state, &claim, run.as_ref())?;
        runs::note(state, &claim, run.as_ref());
        let claim = live(state, id, None)?;
        let how = if matches!(claim.phase, Phase::Held { .. }) { End::Released } else { End::Cancelled };
        let ended = finish(state, &claim, how, by, reason, now);
        return Ok(Reply::Ended { ended, again: false });
    }
    let Some(ended) = state.ended(id).cloned() else {
        remember_unknown(state, id, run, by, now);
        return Err(Refusal::NoSuchClaim { id: id.clone() });
    };
    if run.as_ref().is_some_and(|run| claim::is_earlier_run(&ended.runs, run)) {
        return Err(Refusal::SupersededRun { id: id.clone() });
    }
    #[cfg(any(test, feature = "plant"))]
    if super::settings::planted!(state.settings, ReleaseUnchecked) {
        release_whoever_holds(state, &ended, now);
    }
    let ended = note_run_of_ended(state, ended, run);
    if ended.is_harmless() { Ok(Reply::Ended { ended, again: true }) } else { Err(Refusal::Ended { ended }) }
}

/// A cancel that overtakes its own `PUT` wins here too: a run that has cancelled begins no new life.
fn note_run_of_ended(state: &mut State, ended: Arc<Ended>, run: Option<Run>) -> Arc<Ended> {
    let Some(run) = run.filter(|run| !ended.runs.contains(run) && ended.runs.len() < limits::RUNS_PER_CLAIM) else {
        return ended;
    };
    let mut noted = Ended::clone(&ended);
    noted.runs.push(run);
    state.remember_ended(noted.clone());
    Arc::new(noted)
}

/// A cancel that overtakes its own `PUT` wins: the id is remembered as cancelled.
fn remember_unknown(state: &mut State, id: &ClaimId, run: Option<Run>, by: Option<Arc<Owner>>, now: Now) {
    state.remember_ended(Ended {
        id: id.clone(),
        life: 0,
        digest: None,
        runs: run.into_iter().collect(),
        how: End::Cancelled,
        by: by.as_deref().and_then(Owner::name).cloned(),
        reason: None,
        at: now.wall,
        revision: None,
        fence: None,
        build: None,
        forget: Deadline::after(now, state.settings.memory),
        maker: state.origin().and_then(|origin| origin.proved.clone()),
        credential: None,
        pools: Vec::new(),
    });
}

/// How a claim ends.
pub(super) struct Ending {
    pub how: End,
    /// Who ends it, if not its own client.
    pub by: Option<Arc<Owner>>,
    pub reason: Option<Reason>,
    /// The locks of a hold stay out of use for a while.
    pub drains: bool,
}

/// Ends a live claim in any phase.
pub(super) fn finish(
    state: &mut State,
    claim: &Claim,
    how: End,
    by: Option<Arc<Owner>>,
    reason: Option<Reason>,
    now: Now,
) -> Arc<Ended> {
    finish_as(state, claim, Ending { how, by, reason, drains: how.is_loss() }, now)
}

/// The same, but the caller decides about the drain.
pub(super) fn finish_as(state: &mut State, claim: &Claim, ending: Ending, now: Now) -> Arc<Ended> {
    let Ending { how, by, reason, drains } = ending;
    state.raise_pools(claim.pools());
    let held = matches!(claim.phase, Phase::Held { .. });
    let kind = match (how, &claim.phase) {
        (_, Phase::Waiting { .. } | Phase::Granted { .. }) => ChangeKind::Ended,
        (End::Broken, Phase::Held { .. }) => ChangeKind::Broken,
        (how, Phase::Held { .. }) if how.is_loss() => ChangeKind::Lost,
        (_, Phase::Held { .. }) => ChangeKind::Released,
    };
    let locks = claim.locks().to_vec();
    let why = reason.clone();
    let key = state.record(Entry { locks, end: Some(how), reason: why, ..Entry::about(claim, kind, by.as_ref()) }, now);
    // After the entry: a free lock has its place by its newest entry.
    put_back_locks(state, claim, (held && drains).then_some(now));
    leave(state, claim);
    // A step of the build may ask again as long as the build may still be running.
    let may_go_on = claim.terms.owner.build().is_some() && claim.build_over.is_none();
    let memory = if may_go_on { state.settings.build_memory } else { state.settings.memory };
    let ended = Ended {
        id: claim.id.clone(),
        life: claim.life,
        digest: Some(claim.terms.digest),
        runs: claim.runs.clone(),
        how,
        by: by.as_deref().and_then(Owner::name).cloned(),
        reason,
        at: now.wall,
        revision: Some(key.revision),
        fence: claim.fence(),
        build: claim.terms.owner.build(),
        forget: Deadline::after(now, memory),
        maker: claim.maker().cloned(),
        credential: claim.origin.as_ref().and_then(|origin| origin.credential),
        pools: claim.pools().cloned().collect(),
    };
    state.remove_claim(&claim.id, ended.clone(), now);
    for alias in &claim.aliases {
        state.remember_ended(Ended { id: alias.clone(), ..ended.clone() });
    }
    take_out_leaving(state, claim, now);
    Arc::new(ended)
}

/// Takes the claim out of its queues and notifies its parked requests.
fn leave(state: &mut State, claim: &Claim) {
    if claim.waits() {
        state.leave_queues(claim);
    }
    for park in &claim.parks {
        state.notify(Notice::Park(*park));
    }
}

/// Takes the claim off its locks. They are free, or drain first when the holder was lost.
fn put_back_locks(state: &mut State, claim: &Claim, lost: Option<Now>) {
    for (pool, lock) in claim.locks() {
        let drain = state.snapshot.pool(pool).and_then(|p| p.policy.drain).unwrap_or(state.settings.drain);
        state.change_holders(pool, lock, |holders| holders.retain(|h| h.claim != claim.id));
        if let Some(now) = lost.filter(|_| drain > Span(0))
            && let Some(l) = state.snapshot.lock(pool, lock).cloned()
        {
            state.put_lock(pool, Lock { drain: Some(Deadline::after(now, drain)), ..l });
        }
        state.to_dispatch.insert(pool.clone());
    }
}

/// Removes locks that leave the pool once their last holder has gone. A lock whose holder was lost leaves when its
/// drain is over; if the pool grows again before that, the lock still drains.
fn take_out_leaving(state: &mut State, claim: &Claim, now: Now) {
    let gone = |(pool, lock): &&(PoolName, _)| state.snapshot.lock(pool, lock).is_some_and(Lock::has_left);
    let gone: Vec<_> = claim.locks().iter().filter(gone).cloned().collect();
    for (pool, lock) in gone {
        let entry = Entry {
            pools: vec![pool.clone()],
            locks: vec![(pool.clone(), lock.clone())],
            claim: None,
            ..Entry::about(claim, ChangeKind::Removed, None)
        };
        state.record(entry, now);
        state.remove_lock(&pool, &lock, now);
    }
}

/// Withdraws a grant that was not confirmed: the claim goes back to its old place in the queue, not listening. The
/// third withdrawal ends the claim.
pub(super) fn withdraw(state: &mut State, claim: &Claim, now: Now) {
    if claim.withdrawals + 1 >= state.settings.withdrawals {
        finish(state, claim, End::Unconfirmed, None, None, now);
        return;
    }
    let Phase::Granted { give_up, .. } = claim.phase else { return };
    put_back_locks(state, claim, None);
    let locks = claim.locks().to_vec();
    state.record(Entry { locks, ..Entry::about(claim, ChangeKind::Withdrawn, None) }, now);
    let presence = Presence::Away(Deadline::after(now, state.settings.place));
    state.update_claim(&claim.id, |c| {
        c.withdrawals += 1;
        c.phase = Phase::Waiting { presence, give_up };
    });
    take_out_leaving(state, claim, now);
    let Some(claim) = state.claim(&claim.id).cloned() else { return };
    if claim.terms.ask.parts.iter().any(|part| !may_wait(state, part, &claim.terms)) {
        // Meanwhile a lock that it asked for was changed or removed.
        finish(state, &claim, End::Removed, None, None, now);
    } else if supersede::is_outdated(state, &claim) {
        // A newer claim came while this one was granted.
        finish(state, &claim, End::Superseded, None, None, now);
    }
}

/// Sets the presence of a waiting claim. When it stops listening, the queues behind it may move.
pub(super) fn set_presence(state: &mut State, claim: &Claim, new: Presence) {
    state.update_presence(&claim.id, |c| {
        if let Phase::Waiting { presence, .. } = &mut c.phase {
            *presence = new;
        }
    });
    if !new.listens() {
        state.to_dispatch.extend(claim.terms.ask.parts.iter().map(|part| part.pool.clone()));
    }
}

/// A parked request has ended. After the last one the claim keeps its turn for a short time.
pub(super) fn left(state: &mut State, park: ParkId, now: Now) {
    let claim = state.parks.remove(&park).and_then(|id| state.claim(&id).cloned());
    let Some(claim) = claim.filter(|c| c.parks.contains(&park)) else { return };
    state.update_presence(&claim.id, |c| {
        c.parks.retain(|other| *other != park);
    });
    if claim.parks.len() == 1 && claim.waits() {
        let grace = Presence::Grace(Deadline::after(now, state.settings.grace));
        set_presence(state, &claim, grace);
    }
}

/// Whether the pool has the locks for this part of a claim, held or not, or the claim may wait for them to be added.
fn may_wait(state: &State, part: &Part, terms: &Terms) -> bool {
    state.snapshot.pool(&part.pool).is_some_and(|pool| check_part(pool, &part.want, terms).is_ok())
}

/// Ends claims that wait for locks that a pool no longer has, unless they may wait for new ones.
pub(super) fn end_unservable(state: &mut State, pool: &PoolName, now: Now) {
    let Some(p) = state.snapshot.pool(pool) else { return };
    let mut may_wait: HashMap<(&Want, bool), bool> = HashMap::new();
    let mut waiting: Vec<Arc<Claim>> = Vec::new();
    for claim in p.waiting.values().filter_map(|id| state.claim(id)) {
        let Some(part) = claim.terms.ask.parts.iter().find(|part| part.pool == *pool) else { continue };
        let kind = (&part.want, claim.terms.waits_if_empty);
        if !*may_wait.entry(kind).or_insert_with(|| check_part(p, &part.want, &claim.terms).is_ok()) {
            waiting.push(Arc::clone(claim));
        }
    }
    for claim in waiting {
        finish(state, &claim, End::Removed, None, None, now);
    }
}

/// Planted bug: a late release ends the present hold of the lock.
#[cfg(any(test, feature = "plant"))]
fn release_whoever_holds(state: &mut State, ended: &Ended, now: Now) {
    let Some(fence) = ended.fence else { return };
    let newer = state.snapshot.claims.values().find(|c| c.fence().is_some_and(|f| f > fence)).cloned();
    if let Some(claim) = newer {
        finish(state, &claim, End::Released, None, None, now);
    }
}
