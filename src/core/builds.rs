//! What is known about the builds behind claims (docs/design.md#ends-of-a-hold): that one has ended, or that its state
//! is unknown.
//!
//! The server asks each Concourse about [`super::state::Snapshot::builds_to_watch`] and reports the answers here.

use std::sync::Arc;

use super::claim::{BuildEnd, BuildOver, BuildRef, Claim, End, Fetched, Phase, Scope, Suspect};
use super::claims;
use super::names::{ClaimId, Reason, Text};
use super::pool::CutShort;
use super::state::State;
use super::time::{Now, WallMs};

/// A build is over, since `at` if its Concourse says when. Its waiting and granted claims end, its marked holds are
/// released, its holds of scope `build` are lost, and so are holds that no other step can know about. The other holds
/// stay and show how the build ended, and nobody asks about this build again.
pub(super) fn over(state: &mut State, build: &BuildRef, how: BuildEnd, at: Option<WallMs>, now: Now) {
    let ended = BuildOver::Ended { how, at: at.unwrap_or(now.wall).min(now.wall) };
    state.snapshot.suspects.remove(build);
    let claims: Vec<_> = state.snapshot.claims_of(build).cloned().collect();
    for claim in claims {
        match end_of(state, &claim, how) {
            None if matches!(claim.build_over, Some(BuildOver::Ended { .. })) => {}
            None => state.update_claim(&claim.id, |c| c.build_over = Some(ended)),
            Some(end) => {
                let reason = Reason::parse(&format!("its build is over: {}", how.word())).ok();
                claims::finish(state, &claim, end, None, reason, now);
            }
        }
    }
    state.shorten_memory_of(build, now);
}

/// How a claim ends when its build does; `None` if it stays.
fn end_of(state: &State, claim: &Claim, how: BuildEnd) -> Option<End> {
    match (&claim.phase, claim.scope) {
        (Phase::Held { marked: true, .. }, _) => Some(End::Released),
        (Phase::Waiting { .. } | Phase::Granted { .. }, _) | (Phase::Held { .. }, Scope::Build) => Some(End::BuildOver),
        // A hold that did not end with its build never ends because of it later.
        (Phase::Held { .. }, Scope::Flow) if claim.build_over.is_some() => None,
        (Phase::Held { fetched, .. }, Scope::Flow) => {
            let is_lost = match how {
                // A later job fetches it, perhaps days later.
                BuildEnd::Succeeded => false,
                // People leave an environment claimed to examine it, if they have got it at all.
                BuildEnd::Failed => *fetched == Fetched::Never,
                BuildEnd::Errored | BuildEnd::Aborted | BuildEnd::Gone => {
                    *fetched != Fetched::ByAnother && !is_kept(state, claim)
                }
            };
            is_lost.then_some(End::Undelivered)
        }
        (Phase::Held { .. }, Scope::Person | Scope::Lease) => None,
    }
}

/// Whether a pool of this hold keeps what a build leaves that was cut short.
fn is_kept(state: &State, claim: &Claim) -> bool {
    let policy = |pool| state.snapshot.pool(pool).map(|pool| pool.policy.cut_short);
    claim.locks().iter().any(|(pool, _)| policy(pool) == Some(CutShort::Keep))
}

/// The id of the build that a claim has named by its place alone. From now on that build is watched as any other.
pub(super) fn found(state: &mut State, id: &ClaimId, build_id: Text) {
    if state.claim(id).is_some_and(|claim| claim.seeks_build()) {
        state.set_build(id, build_id);
    }
}

/// Nobody knows the state of a build, or somebody knows it again. Nothing is kept about builds without a live claim.
pub(super) fn suspect(state: &mut State, build: BuildRef, why: Option<Reason>, now: Now) {
    let lives = state.snapshot.claims_of(&build).next().is_some();
    let suspects = &mut state.snapshot.suspects;
    let Some(why) = why.filter(|_| lives) else {
        suspects.remove(&build);
        return;
    };
    let since = suspects.get(&build).map_or(now.wall, |known| known.since);
    suspects.insert(build, Arc::new(Suspect { since, why }));
}
