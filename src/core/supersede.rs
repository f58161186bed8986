//! `supersede`: a newer claim of a name ends older waiting ones (docs/design.md#supersede).
//!
//! Of two claims by builds of one Concourse, the one with the higher build id is the newer; claims of one build are
//! equally new. Of any other two, the one that came later is the newer. A claim that is held or granted never ends this
//! way, but it does end older ones. Where rights count, it ends those of others only with the right to.

use std::sync::Arc;

use super::claim::{Claim, Owner};
use super::names::ClaimId;
use super::origin::Origin;
use super::state::State;
use super::state::SupersedeGroup;

/// Whether a newer claim of its name is live, so that this claim, which waits or is about to, is outdated.
pub(super) fn is_outdated(state: &State, claim: &Claim) -> bool {
    rivals(state, claim).any(|rival| may_end(rival, claim))
}

/// The waiting claims that this one makes outdated.
pub(super) fn outdated_by(state: &State, claim: &Claim) -> Vec<Arc<Claim>> {
    rivals(state, claim).filter(|rival| rival.waits() && may_end(claim, rival)).cloned().collect()
}

fn rivals<'s>(state: &'s State, claim: &Claim) -> impl Iterator<Item = &'s Arc<Claim>> {
    let own = claim.id.clone();
    let ids = SupersedeGroup::of(claim).and_then(|group| state.supersede_groups.get(&group)).into_iter().flatten();
    ids.filter(move |id: &&ClaimId| **id != own).filter_map(|id| state.claim(id))
}

/// Whether `a` is the newer one, and may reach `b` at all.
fn may_end(a: &Claim, b: &Claim) -> bool {
    is_newer(a, b) && Origin::may_reach(a.origin.as_ref(), b.origin.as_ref())
}

fn is_newer(a: &Claim, b: &Claim) -> bool {
    let (of_a, of_b) = (&a.terms.owner, &b.terms.owner);
    match (number(of_a), number(of_b)) {
        (Some(a), Some(b)) if of_a.cluster == of_b.cluster => a > b,
        _ => a.ticket > b.ticket,
    }
}

/// The number of a build in its Concourse: later builds have higher numbers.
fn number(owner: &Owner) -> Option<u64> {
    owner.cluster.as_ref()?;
    owner.build_id.as_ref()?.as_str().parse().ok()
}
