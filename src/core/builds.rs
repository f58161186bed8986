//! What is known of the builds behind claims (docs/design.md#ends-of-a-hold): that one is over, and that nobody knows.
//!
//! Somebody outside asks their Concourse about [`super::state::Snapshot::builds_to_watch`] and says what it answered.

use std::sync::Arc;

use super::claim::{BuildEnd, BuildRef, Claim, End, Phase, Scope, Suspect};
use super::claims;
use super::names::Reason;
use super::state::State;
use super::time::Now;

/// A build is over: what waits or was granted ends, its own holds are lost, and so are those that nobody can know of.
/// The others stay, and are not asked about again.
pub(super) fn over(state: &mut State, build: &BuildRef, how: BuildEnd, now: Now) {
    state.snapshot.suspects.remove(build);
    let claims: Vec<_> = state.snapshot.claims_of(build).cloned().collect();
    for claim in claims {
        match end_of(&claim, how) {
            None if claim.build_over => {}
            None => state.update_claim(&claim.id, |c| c.build_over = true),
            Some(end) => {
                let reason = Reason::parse(&format!("its build is over: {}", how.word())).ok();
                claims::finish(state, &claim, end, None, reason, now);
            }
        }
    }
    state.shorten_memory_of(build, now);
}

/// How a claim ends with its build, if it does.
fn end_of(claim: &Claim, how: BuildEnd) -> Option<End> {
    match (&claim.phase, claim.scope) {
        (Phase::Waiting { .. } | Phase::Granted { .. }, _) | (Phase::Held { .. }, Scope::Build) => Some(End::BuildOver),
        (Phase::Held { delivered, .. }, Scope::Flow) => {
            // What the build did not end before it was over, it ends no more.
            (!delivered && !claim.build_over && how.is_cut_short()).then_some(End::Undelivered)
        }
        (Phase::Held { .. }, Scope::Person | Scope::Lease) => None,
    }
}

/// Nobody knows about a build, or somebody does again. Of builds without a live claim nothing is kept.
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
