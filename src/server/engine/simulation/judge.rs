//! Decides what is wrong. It relies only on what the clients were told, never on what the server believes.

use std::collections::BTreeMap;

use super::Ms;
use crate::core::claim::LockSet;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::core::state::State;

/// A claim whose client believes that it holds a lock.
#[derive(Debug, Clone)]
struct Belief {
    claim: String,
    key: Option<String>,
    fence: u64,
    /// For a lease: how long its client may rely on it. Counted from before the client sent the last renewal that was
    /// acknowledged.
    until: Option<Ms>,
}

#[derive(Debug, Default)]
pub(super) struct Judge {
    believers: BTreeMap<(PoolName, LockName), Vec<Belief>>,
    /// The claim that each fence was given to.
    fences: BTreeMap<u64, String>,
    /// The newest fence of a lock that is never shared.
    newest: BTreeMap<(PoolName, LockName), u64>,
    pub grants: u64,
    /// Set when the faults have stopped.
    pub calm_since: Option<Ms>,
    turns: u64,
    /// During the calm: the turn in which each claim first appeared.
    arrived: BTreeMap<String, u64>,
    /// During the calm: the claims for the single lock of `solo`, in the order in which they got it.
    served: Vec<String>,
}

impl Judge {
    /// A client was told that it holds. It may be told again, as long as the answer is the same.
    pub fn believe(&mut self, claim: &str, key: Option<&str>, locks: &LockSet, fence: u64, until: Option<Ms>) {
        let owner = self.fences.entry(fence).or_insert_with(|| claim.to_owned());
        assert_eq!(owner, claim, "I2: fence {fence} was given to two claims");
        let mut is_new = false;
        for lock in locks {
            let believers = self.believers.entry(lock.clone()).or_default();
            if let Some(old) = believers.iter_mut().find(|belief| belief.claim == claim) {
                assert_eq!(old.fence, fence, "I8: {claim} was told two fences for one hold");
                old.until = old.until.max(until);
                continue;
            }
            let rival = believers.iter().find(|other| key.is_none() || other.key.as_deref() != key);
            assert!(rival.is_none(), "I1: {lock:?} is held by {claim} (fence {fence}) and {rival:?}");
            is_new = true;
            believers.push(Belief { claim: claim.to_owned(), key: key.map(str::to_owned), fence, until });
            if key.is_none() {
                let newest = self.newest.entry(lock.clone()).or_default();
                assert!(*newest <= fence, "I2: {lock:?} had fence {newest} before {fence}");
                *newest = fence;
            }
        }
        if is_new {
            self.grants += 1;
            if self.calm_since.is_some() && locks.len() == 1 && locks[0].0.as_str() == "solo" {
                self.served.push(claim.to_owned());
            }
        }
    }

    /// Drops leases that were not renewed: their clients no longer believe that they hold.
    pub fn pass(&mut self, now: Ms) {
        for believers in self.believers.values_mut() {
            believers.retain(|belief| belief.until.is_none_or(|until| now < until));
        }
    }

    /// Whether the claim's client knows that it holds.
    pub fn believes(&self, claim: &str) -> bool {
        self.believers.values().flatten().any(|belief| belief.claim == claim)
    }

    /// A client has begun to release its locks: from now on another client may have them.
    pub fn give_up(&mut self, claim: &str) {
        for believers in self.believers.values_mut() {
            believers.retain(|belief| belief.claim != claim);
        }
    }

    /// Checks after each turn of the engine that every hold that a client relies on exists: I4, and I9 for leases.
    pub fn look(&mut self, state: &State, now: Ms) {
        self.pass(now);
        self.turns += 1;
        if self.calm_since.is_some() {
            for id in state.snapshot.claims.keys() {
                self.arrived.entry(id.to_string()).or_insert(self.turns);
            }
        }
        for (claim, fence) in self.believers.values().flatten().map(|belief| (&belief.claim, belief.fence)) {
            let live = ClaimId::parse(claim).ok().and_then(|id| state.snapshot.claims.get(&id).cloned());
            let found = live.as_ref().and_then(|claim| claim.fence()).map(|fence| fence.0);
            assert_eq!(found, Some(fence), "I4: the acknowledged hold of {claim} no longer exists");
        }
    }

    /// I5: during the calm, of two claims for the single lock, the one that came first gets it first. Claims that
    /// existed when the calm began are left out, because not all of their clients were listening.
    pub fn check_order(&self) {
        let first = self.arrived.values().min().copied().unwrap_or_default();
        let turns = self.served.iter().filter_map(|claim| self.arrived.get(claim)).filter(|turn| **turn > first);
        let turns: Vec<u64> = turns.copied().collect();
        assert!(turns.is_sorted(), "I5: served out of order: {:?}", self.served);
    }
}
