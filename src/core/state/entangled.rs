//! Which builds hold something while they wait for something else.
//!
//! Such a build may pass an earlier waiter that waits for it, and whether it does can change by anything that
//! happens in any pool. So the pools where such builds wait are looked at again after each change; there are few.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::claim::{BuildRef, Claim};
use crate::core::names::PoolName;

/// What the live claims of one build come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Stake {
    /// Claims that are granted or held.
    has: usize,
    /// Claims that wait, by pool.
    waits: BTreeMap<PoolName, usize>,
}

/// The index: kept true by counting each claim in and out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::core) struct Entangled {
    stakes: BTreeMap<BuildRef, Stake>,
    both: BTreeSet<BuildRef>,
}

impl Entangled {
    /// Counts a claim in.
    pub(in crate::core) fn add(&mut self, claim: &Claim) {
        self.count(claim, |n| *n += 1);
    }

    /// Counts a claim out, as it was when it was counted in.
    pub(in crate::core) fn remove(&mut self, claim: &Claim) {
        self.count(claim, |n| *n = n.saturating_sub(1));
    }

    /// Whether no build both has and awaits something.
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.both.is_empty()
    }

    /// Builds that both have and await something.
    pub(in crate::core) fn builds(&self) -> impl Iterator<Item = &BuildRef> {
        self.both.iter()
    }

    /// The pools in which entangled builds wait.
    pub(in crate::core) fn pools(&self) -> impl Iterator<Item = &PoolName> {
        self.both.iter().filter_map(|build| self.stakes.get(build)).flat_map(|stake| stake.waits.keys())
    }

    /// Entangled builds that wait in this pool.
    pub(in crate::core) fn builds_waiting_in(&self, pool: &PoolName) -> impl Iterator<Item = &BuildRef> {
        let waits = move |build: &&BuildRef| self.stakes.get(build).is_some_and(|s| s.waits.contains_key(pool));
        self.both.iter().filter(waits)
    }

    fn count(&mut self, claim: &Claim, change: impl Fn(&mut usize)) {
        let Some(build) = claim.terms.owner.build() else { return };
        let stake = self.stakes.entry(build.clone()).or_default();
        if claim.waits() {
            for part in &claim.terms.ask.parts {
                change(stake.waits.entry(part.pool.clone()).or_default());
            }
            stake.waits.retain(|_, n| *n > 0);
        } else {
            change(&mut stake.has);
        }
        let (has, waits) = (stake.has > 0, !stake.waits.is_empty());
        if has && waits {
            self.both.insert(build);
        } else {
            self.both.remove(&build);
            if !has && !waits {
                self.stakes.remove(&build);
            }
        }
    }
}
