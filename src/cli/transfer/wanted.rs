//! What a server should have, whatever it was read from. Names are checked; nothing else is decided here.

use std::collections::BTreeMap;

use super::Named;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::wire::api::{ClaimBody, LockRef, Policy};
use crate::wire::latch::LatchView;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub pools: BTreeMap<PoolName, WantedPool>,
    pub holds: Vec<WantedHold>,
    pub latches: Vec<LatchView>,
}

impl Wanted {
    /// Whether this is about something of that name.
    pub fn names(&self, named: &Named) -> bool {
        self.pools.get(&named.pool).is_some_and(|pool| {
            let is_there = |lock: &LockName| pool.locks.contains_key(lock);
            named.lock.as_ref().map_or(pool.policy.is_some(), is_there)
        })
    }
}

/// A pool.
#[derive(Debug, Default)]
pub(super) struct WantedPool {
    /// `None`: any will do.
    pub policy: Option<Policy>,
    pub locks: BTreeMap<LockName, WantedLock>,
}

/// A lock.
#[derive(Debug)]
pub(super) struct WantedLock {
    pub metadata: Vec<u8>,
    /// `None`: any will do.
    pub labels: Option<BTreeMap<String, String>>,
    /// What it was read from says that nobody has it. `None`: it says so elsewhere.
    pub is_free: Option<bool>,
}

/// A hold.
#[derive(Debug)]
pub(super) struct WantedHold {
    pub id: ClaimId,
    pub locks: Vec<LockRef>,
    pub body: Box<ClaimBody>,
}
