//! The history in our own HTTP API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LockRef, Owner, Page};
use crate::core::history::ChangeKind as CoreKind;
use crate::wire::problems::unknown;
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
    TokenCreated,
    TokenRevoked,
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
        LatchExpired,
        TokenCreated,
        TokenRevoked
    }
);

impl ChangeKind {
    /// All kinds.
    pub const ALL: [Self; 25] = [
        Self::Waiting,
        Self::SelfWait,
        Self::Deadlock,
        Self::Granted,
        Self::Claimed,
        Self::Withdrawn,
        Self::Released,
        Self::Lost,
        Self::Broken,
        Self::Ended,
        Self::Moved,
        Self::Quarantined,
        Self::Returned,
        Self::Added,
        Self::Removed,
        Self::Updated,
        Self::PoolSet,
        Self::PoolRemoved,
        Self::Noted,
        Self::LatchCreated,
        Self::LatchReleased,
        Self::LatchDeleted,
        Self::LatchExpired,
        Self::TokenCreated,
        Self::TokenRevoked,
    ];

    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::SelfWait => "self_wait",
            Self::Deadlock => "deadlock",
            Self::Granted => "granted",
            Self::Claimed => "claimed",
            Self::Withdrawn => "withdrawn",
            Self::Released => "released",
            Self::Lost => "lost",
            Self::Broken => "broken",
            Self::Ended => "ended",
            Self::Moved => "moved",
            Self::Quarantined => "quarantined",
            Self::Returned => "returned",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Updated => "updated",
            Self::PoolSet => "pool_set",
            Self::PoolRemoved => "pool_removed",
            Self::Noted => "noted",
            Self::LatchCreated => "latch_created",
            Self::LatchReleased => "latch_released",
            Self::LatchDeleted => "latch_deleted",
            Self::LatchExpired => "latch_expired",
            Self::TokenCreated => "token_created",
            Self::TokenRevoked => "token_revoked",
        }
    }

    /// The kinds in a list such as `lost,broken`.
    ///
    /// # Errors
    /// Names the first word that is not a kind, and the nearest one.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let known = || Self::ALL.map(Self::word);
        let one = |word: &str| Self::ALL.into_iter().find(|kind| kind.word() == word);
        text.split(',').map(|word| one(word).ok_or_else(|| unknown("kind", word, &known()))).collect()
    }
}

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
    /// Who did it, as the client says about itself.
    #[serde(default)]
    pub owner: Owner,
    /// Who proved to be behind it: `user:NAME`, `certificate:SUBJECT` or
    /// `build:ISSUER/TEAM/PIPELINE/JOB`. Of the claim's own request for its wait, grant and
    /// hold, otherwise of whoever did it. Absent for what the server did by itself, and where it asks for no proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<String>,
    /// The address that the same request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The rule of the access file that allowed that request, by its name or line; `own` for what belongs to whoever asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
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
    /// The token it is about, by its name. Such an entry belongs to no pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// One page of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ChangePage {
    #[serde(flatten)]
    pub page: Page<ChangeView>,
    /// Whoever asks with `after` or `from` a revision may lack earlier entries than this revision, because some of them
    /// were pruned meanwhile. Absent when all are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_before: Option<u64>,
}

/// The data of the event `missing`: some earlier entries than this revision were pruned before they could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MissingView {
    pub missing_before: u64,
}

/// The data of the event `now`: everything up to this revision has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NowView {
    pub revision: u64,
}

/// The data of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EventView {
    /// Of the event `change`.
    Change(Box<ChangeView>),
    /// Of the event `now`.
    Now(NowView),
    /// Of the event `missing`.
    Missing(MissingView),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json() {
        for kind in ChangeKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
        assert_eq!(ChangeKind::parse_list("lost,self_wait"), Ok(vec![ChangeKind::Lost, ChangeKind::SelfWait]));
        assert!(ChangeKind::parse_list("lost,brokn").unwrap_err().contains("did you mean"));
        assert!(ChangeKind::parse_list("").is_err());
    }
}
