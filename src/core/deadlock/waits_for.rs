//! Which claims wait for which (docs/design.md#turn-order). Holder edges and order edges never close a cycle, because
//! claims that wait for a claim's own build do not hold it back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::core::candidates::{Overlaps, candidates, pick, rivals};
use crate::core::claim::{BuildRef, Claim, Part, Want};
use crate::core::limits::CYCLE_SEARCH;
use crate::core::names::{ClaimId, PoolName, Text};
use crate::core::pool::Place;
use crate::core::state::Snapshot;

/// Finds the claims that wait, directly or through others, for a lock that one build has. It remembers its results, so
/// asking about many waiters is cheap.
pub(in crate::core) struct WaitsFor<'w> {
    snapshot: &'w Snapshot,
    build: &'w BuildRef,
    /// Claims that wait for the build.
    found: HashSet<&'w ClaimId>,
    overlaps: HashMap<&'w PoolName, Overlaps>,
}

/// Two claims that have all of this in common wait for the same holders.
type Wish<'w> = (&'w PoolName, &'w Want, Option<(&'w Text, &'w Text)>);

/// One walk over the edges.
#[derive(Default)]
struct Walk<'w> {
    todo: Vec<&'w Arc<Claim>>,
    seen: HashSet<&'w ClaimId>,
    /// Wishes whose holders have been visited.
    asked: HashSet<Wish<'w>>,
    /// Up to which place in the queue the rivals of a want have been visited.
    ahead: HashMap<(&'w PoolName, &'w Want), Place>,
}

impl<'w> WaitsFor<'w> {
    pub(in crate::core) fn new(snapshot: &'w Snapshot, build: &'w BuildRef) -> Self {
        Self { snapshot, build, found: HashSet::new(), overlaps: HashMap::new() }
    }

    /// Whether `from` waits for the build. Edges: a waiting claim waits for the holders of the locks that it lacks and
    /// for the earlier waiters that hold it back; a holder waits for what other claims of its build wait for. The walk
    /// is bounded; past the bound the answer is no, which keeps the order.
    pub(in crate::core) fn is_true_of(&mut self, from: &'w Arc<Claim>) -> bool {
        let mut walk = Walk { todo: vec![from], ..Walk::default() };
        walk.seen.insert(&from.id);
        while let Some(claim) = walk.todo.pop() {
            if self.found.contains(&claim.id) || self.follow(&mut walk, claim) {
                self.found.insert(&from.id);
                return true;
            }
            if walk.seen.len() > CYCLE_SEARCH {
                return false;
            }
        }
        false
    }

    /// Adds to the walk what `claim` waits for; true when that includes the build itself.
    ///
    /// A claim of the build itself waits for no earlier waiter that waits for the build: that waiter does not hold it
    /// back. So its order edges lead nowhere, and following them would let a later claim of the build pass an earlier
    /// one.
    fn follow(&mut self, walk: &mut Walk<'w>, claim: &'w Arc<Claim>) -> bool {
        let sharer = claim.terms.ask.sharer();
        let own = claim.terms.owner.build().is_some_and(|build| build == *self.build);
        for Part { pool: name, want } in &claim.terms.ask.parts {
            let Some(pool) = self.snapshot.pool(name) else { continue };
            if walk.asked.insert((name, want, sharer)) && pick(self.snapshot, pool, want, sharer).is_none() {
                let lacking = candidates(pool, want).filter(|lock| !lock.admits(sharer));
                // While the implicit lock leaves, its holder keeps one of the free locks from everybody.
                let retiring = pool.retiring.as_ref().and_then(|name| pool.locks.get(name)).map(AsRef::as_ref);
                for holder in lacking.chain(retiring).flat_map(|lock| &lock.holders) {
                    let holder = self.snapshot.claims.get(&holder.claim);
                    let Some(build) = holder.and_then(|claim| claim.terms.owner.build()) else { continue };
                    if build == *self.build {
                        return true;
                    }
                    walk.add(self.snapshot.claims_of(&build).filter(|c| c.waits()));
                }
            }
            if own {
                continue;
            }
            let place = pool.place(claim);
            let known = walk.ahead.entry((name, want)).or_insert(Place::FIRST);
            if *known < place {
                let from = std::mem::replace(known, place);
                walk.add(rivals(self.snapshot, pool, want, from..place, self.overlaps.entry(name).or_default()));
            }
        }
        false
    }
}

impl<'w> Walk<'w> {
    fn add(&mut self, claims: impl Iterator<Item = &'w Arc<Claim>>) {
        for claim in claims {
            if self.seen.insert(&claim.id) {
                self.todo.push(claim);
            }
        }
    }
}
