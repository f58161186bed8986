//! Marked holds (docs/decisions/0023).
//!
//! A Concourse that runs builds again in place may run any step of a build once more while that build lasts, or take it
//! as done. So when a step releases a hold of its own build there, the hold is only *marked*: it lasts until the build is
//! over, and answers every further request of the build for the same. It makes way for other requests of the build.
//! Nothing clears a mark.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::candidates::candidates;
use super::claim::{BuildRef, Claim, End, Owner, Phase};
use super::claims::{self, Ending};
use super::command::{AskClaim, Command, Refusal, Reply};
use super::history::ChangeKind;
use super::limits;
use super::names::{ClaimId, Reason};
use super::origin::Origin;
use super::state::{Entry, Notice, State};
use super::time::Now;

/// A step of `build` releases this claim. A hold of that build is marked if `may_mark`, unless another waiting claim of
/// the build needs its locks. Everything else ends.
pub(super) fn release(
    state: &mut State,
    id: &ClaimId,
    build: Option<&BuildRef>,
    by: Option<Arc<Owner>>,
    may_mark: bool,
    now: Now,
) -> Result<Reply, Refusal> {
    let is_own = |claim: &Arc<Claim>| build.is_some() && claim.terms.owner.build().as_ref() == build;
    let by = by.filter(|_| !state.claim(id).is_some_and(is_own));
    let own = state.claim(id).filter(|claim| is_own(claim) && claim.build_over.is_none()).cloned();
    let held = own.filter(|claim| may_mark && matches!(claim.phase, Phase::Held { .. }));
    let (Some(claim), Some(build)) = (held, build) else { return claims::end(state, id, None, by, None, now) };
    let waiting: Vec<Arc<Claim>> = state.snapshot.claims_of(build).filter(|other| other.waits()).cloned().collect();
    let (same, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|other| is_same(other, &claim));
    let has_room = claim.aliases.len() + same.len() <= limits::ALIASES_PER_CLAIM;
    if !has_room || others.iter().any(|other| blocks(state, &claim, other)) {
        return claims::end(state, id, None, None, None, now);
    }
    state.update_claim(id, |c| {
        if let Phase::Held { marked, .. } = &mut c.phase {
            *marked = true;
        }
    });
    state.expect_answer(build, now);
    // Builds that wait for each other may do so because of this hold, which then ends after all.
    state.watch.stale = true;
    for other in same {
        let reason = Reason::parse("a step of its build has released the same locks, which now serve both").ok();
        claims::finish(state, &other, End::Cancelled, None, reason, now);
        add_alias(state, id, &other.id);
    }
    let reason = Reason::parse("a step of its build has released it: it ends when the build is over").ok();
    let locks = claim.locks().to_vec();
    let key = state.record(Entry { locks, reason, ..Entry::about(&claim, ChangeKind::Noted, None) }, now);
    let claim = claims::live(state, id, None)?;
    Ok(Reply::Marked { claim, revision: key.revision })
}

/// Whether both ask for the same. The digest also covers the build.
fn is_same(a: &Claim, b: &Claim) -> bool {
    a.terms.digest == b.terms.digest
}

/// Whether `holder` has a lock that could serve `claim`, but does not admit it.
fn blocks(state: &State, holder: &Claim, claim: &Claim) -> bool {
    let sharer = claim.terms.ask.sharer();
    claim.terms.ask.parts.iter().any(|part| {
        let pool = state.snapshot.pool(&part.pool);
        let mut locks = pool.into_iter().flat_map(|pool| candidates(pool, &part.want));
        locks.any(|lock| !lock.admits(sharer) && lock.holders.iter().any(|has| has.claim == holder.id))
    })
}

/// The marked hold that answers this request of its build, which comes under a new id. The id becomes an alias.
pub(super) fn lend(state: &mut State, ask: &AskClaim) -> Option<Arc<Claim>> {
    let build = ask.terms.owner.build()?;
    let origin = state.origin();
    let same = state.snapshot.marked_of(&build).filter(|claim| claim.terms.digest == ask.terms.digest);
    let same = same.filter(|claim| Origin::may_reach(origin.as_ref(), claim.origin.as_ref()));
    let free = same.filter(|claim| claim.aliases.len() < limits::ALIASES_PER_CLAIM);
    // Equal requests of one build get different holds, as far as there are enough of them.
    let id = free.min_by_key(|claim| claim.aliases.len())?.id.clone();
    add_alias(state, &id, &ask.id);
    state.claim(&id).cloned()
}

fn add_alias(state: &mut State, id: &ClaimId, alias: &ClaimId) {
    state.forget_ended(alias);
    state.update_claim(id, |c| c.aliases.push(alias.clone()));
}

/// A claim would have to wait. Gives back the marked holds of its build that are in its way. False if there are none.
pub(super) fn make_way(state: &mut State, claim: &Claim, now: Now) -> bool {
    let Some(build) = claim.terms.owner.build() else { return false };
    let in_the_way = state.snapshot.marked_of(&build).filter(|marked| blocks(state, marked, claim));
    let in_the_way = in_the_way.filter(|marked| Origin::may_reach(claim.origin.as_ref(), marked.origin.as_ref()));
    let in_the_way: Vec<_> = in_the_way.cloned().collect();
    give_back(state, &in_the_way, "another step of its build needs the lock", now)
}

/// Gives back the marked holds that keep claims stuck, according to the last search. False if there are none.
pub(super) fn untangle(state: &mut State, now: Now) -> bool {
    if state.snapshot.marked.is_empty() || state.snapshot.stuck.is_empty() {
        return false;
    }
    let stuck: Vec<&Arc<Claim>> = state.snapshot.stuck.keys().filter_map(|id| state.claim(id)).collect();
    let builds: BTreeSet<BuildRef> = stuck.iter().filter_map(|claim| claim.terms.owner.build()).collect();
    let marked = builds.iter().flat_map(|build| state.snapshot.marked_of(build));
    let keeps: Vec<_> = marked.filter(|marked| stuck.iter().any(|claim| blocks(state, marked, claim))).collect();
    let keeps: Vec<_> = keeps.into_iter().cloned().collect();
    give_back(state, &keeps, "builds would wait for each other", now)
}

/// Releases marked holds, each in a step of its own.
fn give_back(state: &mut State, marked: &[Arc<Claim>], why: &str, now: Now) -> bool {
    for claim in marked {
        state.begin_step();
        claims::finish(state, claim, End::Released, None, Reason::parse(why).ok(), now);
        state.begin_step();
    }
    !marked.is_empty()
}

/// A build is known to be running, so its marked holds last.
pub(super) fn alive(state: &mut State, build: &BuildRef, now: Now) {
    if state.snapshot.marked_of(build).next().is_some() {
        state.expect_answer(build, now);
    }
}

/// There was no news of a build for too long. Its marked holds are given back, but its steps may still be running, so
/// the locks drain.
pub(super) fn give_up(state: &mut State, build: BuildRef, now: Now) {
    let marked: Vec<_> = state.snapshot.marked_of(&build).cloned().collect();
    for claim in marked {
        state.begin_step();
        let reason =
            "a step of its build had released it, and for too long nobody could tell whether the build is over";
        let reason = Reason::parse(reason).ok();
        claims::finish_as(state, &claim, Ending { how: End::Released, by: None, reason, drains: true }, now);
    }
    state.notify(Notice::Unanswered(build));
}

/// A step that was answered with a marked hold under this alias takes its request back. The hold stays as it is: it was
/// not that step's own.
pub(super) fn keep(state: &State, alias: &ClaimId) -> Result<Reply, Refusal> {
    match state.snapshot.claim(alias) {
        Some(claim) => Ok(Reply::Claim { claim: Arc::clone(claim), parked: false }),
        None => Err(Refusal::NoSuchClaim { id: alias.clone() }),
    }
}

/// The command with the own id of each claim that it names by an alias. The runs of the alias mean nothing to the claim.
pub(super) fn under_its_own_id(state: &State, mut command: Command) -> Command {
    let aliases = &state.snapshot.aliases;
    if aliases.is_empty() {
        return command;
    }
    let own = |id: &mut ClaimId| match aliases.get(id) {
        Some(claim) => {
            *id = claim.clone();
            true
        }
        None => false,
    };
    match &mut command {
        Command::Confirm { id, run, .. } | Command::Renew { id, run, .. } => {
            let is_alias = own(id);
            *run = run.take().filter(|_| !is_alias);
        }
        Command::Delivered { id, .. }
        | Command::Release { id, .. }
        | Command::Cancel { id, .. }
        | Command::Break { id, .. }
        | Command::Move { id, .. }
        | Command::RemoveLock { claim: Some(id), .. } => drop(own(id)),
        _ => {}
    }
    command
}
