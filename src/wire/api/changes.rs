//! The history in our own HTTP API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LockRef, Owner};
use crate::core::history::ChangeKind as CoreKind;
use crate::wire::words::same_words;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Waiting,
    SelfWait,
    Deadlock,
    Granted,
    Claimed,
    Withdrawn,
    Released,
    Lost,
    Broken,
    Ended,
    Moved,
    Quarantined,
    Returned,
    Added,
    Removed,
    Updated,
    PoolSet,
    PoolRemoved,
    Noted,
    LatchCreated,
    LatchReleased,
    LatchDeleted,
    LatchExpired,
}

same_words!(
    ChangeKind,
    CoreKind {
        Waiting,
        SelfWait,
        Deadlock,
        Granted,
        Claimed,
        Withdrawn,
        Released,
        Lost,
        Broken,
        Ended,
        Moved,
        Quarantined,
        Returned,
        Added,
        Removed,
        Updated,
        PoolSet,
        PoolRemoved,
        Noted,
        LatchCreated,
        LatchReleased,
        LatchDeleted,
        LatchExpired
    }
);

/// The latch that an entry of the history is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LatchRef {
    pub id: String,
    pub workflow: String,
    pub namespace: String,
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeView {
    pub revision: u64,
    pub at: String,
    pub kind: ChangeKind,
    /// The pools whose history includes it.
    pub pools: Vec<String>,
    /// The locks it is about, in (pool, lock) order.
    pub locks: Vec<LockRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// How the claim ended, for entries that end one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    #[serde(default)]
    pub owner: Owner,
    /// How long the claim had waited, such as `1m5s`: for entries that give it locks or end its wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited: Option<String>,
    /// How long the claim had held its locks, such as `1h`: for entries that end a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The latch it is about. Such an entry belongs to no pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latch: Option<LatchRef>,
}
