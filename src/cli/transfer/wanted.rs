//! What a server should have, from any kind of input. Names are valid; nothing else has been checked.

use std::collections::BTreeMap;

use super::Named;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::wire::api::{ClaimBody, LockRef, Policy};
use crate::wire::latch::LatchView;

/// Everything that the server should have.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub pools: BTreeMap<PoolName, WantedPool>,
    pub holds: Vec<WantedHold>,
    pub latches: Vec<LatchView>,
}

impl Wanted {
    /// Whether the import contains something with that name.
    pub fn names(&self, named: &Named) -> bool {
        self.pools.get(&named.pool).is_some_and(|pool| {
            let is_there = |lock: &LockName| pool.locks.contains_key(lock);
            named.lock.as_ref().map_or(matches!(pool.policy, WantedPolicy::Exactly(_)), is_there)
        })
    }
}

/// A pool.
#[derive(Debug)]
pub(super) struct WantedPool {
    pub policy: WantedPolicy,
    /// If the pool does not exist, it gets the one lock that a pool has which was given none.
    pub default_lock: bool,
    pub locks: BTreeMap<LockName, WantedLock>,
}

/// The policy that a pool should have.
#[derive(Debug)]
pub(super) enum WantedPolicy {
    Exactly(Policy),
    /// Any policy will do. A pool that does not exist gets this one.
    IfNew(Policy),
}

/// A lock.
#[derive(Debug)]
pub(super) struct WantedLock {
    pub metadata: Vec<u8>,
    /// `None`: any labels will do.
    pub labels: Option<BTreeMap<String, String>>,
    /// Whether the input says that nobody holds the lock. `None`: the input lists holds separately.
    pub is_free: Option<bool>,
}

/// A hold.
#[derive(Debug)]
pub(super) struct WantedHold {
    pub id: ClaimId,
    pub locks: Vec<LockRef>,
    pub body: Box<ClaimBody>,
}
