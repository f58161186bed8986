//! Which builds hold something while they wait for something else: entangled builds.
//!
//! Such a build may pass an earlier waiter that waits for it, and any change in any pool can decide whether that waiter
//! does. So each change makes the pools where such builds wait due for another look; there are few of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::claim::{BuildRef, Claim};
use crate::core::names::PoolName;

/// What the live claims of one build add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Stake {
    /// The number of claims that are granted or held.
    has: usize,
    /// The number of claims that wait, for each pool in which any does, in their order: mostly one pool, for which a
    /// tree would be large.
    waits: Vec<(PoolName, usize)>,
}

impl Stake {
    /// The number of claims that wait in this pool.
    fn waits_in(&mut self, pool: &PoolName) -> &mut usize {
        let at = self.waits.binary_search_by(|(known, _)| known.cmp(pool)).unwrap_or_else(|at| {
            self.waits.insert(at, (pool.clone(), 0));
            at
        });
        &mut self.waits[at].1
    }
}

/// The index. It stays correct because each claim is counted when it comes and when it goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::core) struct Entangled {
    stakes: BTreeMap<BuildRef, Stake>,
    both: BTreeSet<BuildRef>,
    /// The builds of `both`, by the pools in which they wait.
    waiting_in: BTreeMap<PoolName, BTreeSet<BuildRef>>,
}

impl Entangled {
    /// Adds a claim to the counts.
    pub(in crate::core) fn add(&mut self, claim: &Claim) {
        self.count(claim, |n| *n += 1);
    }

    /// Removes a claim from the counts, in the form in which it was added.
    pub(in crate::core) fn remove(&mut self, claim: &Claim) {
        self.count(claim, |n| *n = n.saturating_sub(1));
    }

    /// Whether no build both has something and waits for something.
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.both.is_empty()
    }

    /// Builds that both have something and wait for something.
    pub(in crate::core) fn builds(&self) -> impl Iterator<Item = &BuildRef> {
        self.both.iter()
    }

    /// The pools in which entangled builds wait.
    pub(in crate::core) fn pools(&self) -> impl Iterator<Item = &PoolName> {
        self.waiting_in.keys()
    }

    /// Entangled builds that wait in this pool.
    pub(in crate::core) fn builds_waiting_in(&self, pool: &PoolName) -> impl Iterator<Item = &BuildRef> {
        self.waiting_in.get(pool).into_iter().flatten()
    }

    /// Whether a claim of this build is granted or held.
    pub(in crate::core) fn has_something(&self, build: &BuildRef) -> bool {
        self.stakes.get(build).is_some_and(|stake| stake.has > 0)
    }

    fn count(&mut self, claim: &Claim, change: impl Fn(&mut usize)) {
        let Some(build) = claim.terms.owner.build() else { return };
        self.unlist(&build);
        let stake = self.stakes.entry(build.clone()).or_default();
        if claim.waits() {
            for part in &claim.terms.ask.parts {
                change(stake.waits_in(&part.pool));
            }
            stake.waits.retain(|(_, n)| *n > 0);
        } else {
            change(&mut stake.has);
        }
        match (stake.has > 0, !stake.waits.is_empty()) {
            (true, true) => self.list(build),
            (false, false) => drop(self.stakes.remove(&build)),
            _ => {}
        }
    }

    fn list(&mut self, build: BuildRef) {
        for (pool, _) in self.stakes.get(&build).into_iter().flat_map(|stake| &stake.waits) {
            self.waiting_in.entry(pool.clone()).or_default().insert(build.clone());
        }
        self.both.insert(build);
    }

    fn unlist(&mut self, build: &BuildRef) {
        if !self.both.remove(build) {
            return;
        }
        for (pool, _) in self.stakes.get(build).into_iter().flat_map(|stake| &stake.waits) {
            if let Some(builds) = self.waiting_in.get_mut(pool) {
                builds.remove(build);
                if builds.is_empty() {
                    self.waiting_in.remove(pool);
                }
            }
        }
    }
}
