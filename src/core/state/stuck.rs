//! Waits that no other claim can end: a claim that waits for what its own build has (self-wait), and builds that wait
//! for each other (deadlock). The server only names them; no claim has to give up. [`crate::core::deadlock`] finds
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::claim::Owner;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::core::time::EngineMs;

/// Why a waiting claim cannot go on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stuck {
    /// Only locks of its own build could serve it.
    SelfWait {
        /// Those locks and the claims that have them; only the first few.
        own: Vec<(PoolName, LockName, ClaimId)>,
    },
    /// Builds wait for each other.
    Deadlock {
        /// The claim's own build and the following ones: each waits for the next, and the last for the first. Only the
        /// first few.
        builds: Vec<Arc<Owner>>,
    },
}

/// Which kind of wait it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Kind {
    SelfWait,
    Deadlock,
}

impl Stuck {
    pub(in crate::core) fn kind(&self) -> Kind {
        match self {
            Self::SelfWait { .. } => Kind::SelfWait,
            Self::Deadlock { .. } => Kind::Deadlock,
        }
    }
}

/// What is known about stuck claims in addition to `Snapshot::stuck`.
#[derive(Debug, Clone, Default)]
pub(in crate::core) struct Watch {
    /// A claim may wait for another claim than at the last search.
    pub stale: bool,
    pub last_look: Option<EngineMs>,
    /// What the last answer to a claim said, if it said more than that the claim waits.
    pub told: BTreeMap<ClaimId, Kind>,
}

impl Watch {
    /// The claim no longer waits.
    pub(in crate::core) fn forget(&mut self, id: &ClaimId) {
        self.told.remove(id);
    }
}
