//! Waits that nobody else can end: a claim that waits for what its own build has, and builds that wait for each other
//! (self-wait). Naming them informs; nobody is made to give up. [`crate::core::deadlock`] finds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::claim::Owner;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::core::time::EngineMs;

/// Why a waiting claim cannot go on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stuck {
    /// Only locks that its own build has could serve it.
    SelfWait {
        /// Those locks and the claims that have them; the first few.
        own: Vec<(PoolName, LockName, ClaimId)>,
    },
    /// Builds wait for each other.
    Deadlock {
        /// The claim's own build and those after it: each waits for the next, the last for the first; the first few.
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

/// What is known about stuck claims beside `Snapshot::stuck`.
#[derive(Debug, Clone, Default)]
pub(in crate::core) struct Watch {
    /// Somebody may wait for somebody else than at the last look.
    pub stale: bool,
    pub last_look: Option<EngineMs>,
    /// What the last answer to a claim said, where that was not just that it waits.
    pub told: BTreeMap<ClaimId, Kind>,
}

impl Watch {
    /// The claim waits no more.
    pub(in crate::core) fn forget(&mut self, id: &ClaimId) {
        self.told.remove(id);
    }
}
