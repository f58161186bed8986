//! `supersede`: a newer claim of a name makes older waiting ones pointless (docs/design.md#supersede).
//!
//! Of two claims by builds of one Concourse, that of the higher build id is the newer; claims of one build are of one
//! age. Of any other two, the one that came later is the newer. Who holds or was granted something never ends by this,
//! but it makes others outdated as well.

use std::sync::Arc;

use super::claim::{Claim, Owner};
use super::names::ClaimId;
use super::state::State;
use super::state::SupersedeGroup;

/// Whether a newer claim of its name lives: then this one, which waits or is about to, is pointless.
pub(super) fn is_outdated(state: &State, claim: &Claim) -> bool {
    rivals(state, claim).any(|rival| is_newer(rival, claim))
}

/// The waiting claims that this one makes pointless.
pub(super) fn outdated_by(state: &State, claim: &Claim) -> Vec<Arc<Claim>> {
    rivals(state, claim).filter(|rival| rival.waits() && is_newer(claim, rival)).cloned().collect()
}

fn rivals<'s>(state: &'s State, claim: &Claim) -> impl Iterator<Item = &'s Arc<Claim>> {
    let own = claim.id.clone();
    let ids = SupersedeGroup::of(claim).and_then(|group| state.supersede_groups.get(&group)).into_iter().flatten();
    ids.filter(move |id: &&ClaimId| **id != own).filter_map(|id| state.claim(id))
}

fn is_newer(a: &Claim, b: &Claim) -> bool {
    let (of_a, of_b) = (&a.terms.owner, &b.terms.owner);
    match (number(of_a), number(of_b)) {
        (Some(a), Some(b)) if of_a.cluster == of_b.cluster => a > b,
        _ => a.ticket > b.ticket,
    }
}

/// The number of a build in its Concourse: later builds have higher ones.
fn number(owner: &Owner) -> Option<u64> {
    owner.cluster.as_ref()?;
    owner.build_id.as_ref()?.as_str().parse().ok()
}
