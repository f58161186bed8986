//! The stored history and the remembered operations.

use std::sync::Arc;

use anyhow::ensure;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{
    Parsed, StoredDeadline, StoredEnd, StoredLatchRef, StoredLocks, StoredOrigin, StoredOwner, all_parsed, locks,
    parsed, plain, stored_locks, words,
};
use crate::core::history::{Change, ChangeKind, Listed, Outline};
use crate::core::names::{Asked, ChangeKey, ClaimId, OpId, PoolName, Reason, Revision, TokenName};
use crate::core::state::OpRecord;
use crate::core::time::{Span, WallMs};

words!(StoredKind for ChangeKind {
    Waiting, Granted, Claimed, Withdrawn, Released, Lost, Broken, Ended, Added, Removed, Updated, PoolSet, PoolRemoved,
    Noted, SelfWait, Deadlock, LatchCreated, LatchReleased, LatchDeleted, LatchExpired,
    Moved, Quarantined, Returned, TokenCreated, TokenRevoked,
});

/// The key of a history entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    revision: u64,
    seq: u32,
}

impl From<ChangeKey> for StoredKey {
    fn from(key: ChangeKey) -> Self {
        Self { revision: key.revision.0, seq: key.seq }
    }
}

impl From<StoredKey> for ChangeKey {
    fn from(stored: StoredKey) -> Self {
        Self { revision: Revision(stored.revision), seq: stored.seq }
    }
}

/// A remembered operation. Its id is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOp {
    revision: u64,
    /// Missing in records from older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<u64>,
    forget: StoredDeadline,
}

impl From<&OpRecord> for StoredOp {
    fn from(record: &OpRecord) -> Self {
        let OpRecord { op: _, revision, asked, forget } = record;
        Self { revision: revision.0, asked: asked.map(|asked| asked.0), forget: (*forget).into() }
    }
}

impl StoredOp {
    /// The operation with this id.
    #[must_use]
    pub fn into_op(self, op: OpId) -> OpRecord {
        OpRecord { op, revision: Revision(self.revision), asked: self.asked.map(Asked), forget: self.forget.into() }
    }
}

/// A history entry. The store keeps its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredChange {
    at: u64,
    kind: StoredKind,
    pools: Vec<Parsed<PoolName>>,
    locks: StoredLocks,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<Parsed<ClaimId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<StoredEnd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<StoredOwner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<StoredOrigin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Parsed<Reason>>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waited: Option<u64>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latch: Option<StoredLatchRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Parsed<TokenName>>,
    /// Its size as the core counts it, bytes, so that a start need not read the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
}

impl From<&Change> for StoredChange {
    fn from(change: &Change) -> Self {
        let Change { key: _, at, kind, pools, locks, claim, end, who, origin, waited, held, reason, latch, token } =
            change;
        Self {
            at: at.0,
            kind: (*kind).into(),
            pools: all_parsed(pools),
            locks: stored_locks(locks),
            claim: parsed(claim.as_ref()),
            end: end.map(Into::into),
            who: who.as_deref().map(Into::into),
            origin: origin.as_deref().map(Into::into),
            reason: parsed(reason.as_ref()),
            waited: waited.map(|span| span.0),
            held: held.map(|span| span.0),
            latch: latch.as_ref().map(Into::into),
            token: parsed(token.as_ref()),
            size: Some(change.bytes()),
        }
    }
}

impl StoredChange {
    /// The entry with this key.
    ///
    /// # Errors
    /// The record breaks a rule of the core.
    pub fn into_change(self, key: ChangeKey) -> anyhow::Result<Change> {
        let of_others = usize::from(self.latch.is_some()) + usize::from(self.token.is_some());
        ensure!(
            of_others == usize::from(self.pools.is_empty()),
            "a history entry is about pools, or a latch, or a token, and not about several of these"
        );
        Ok(Change {
            key,
            at: WallMs(self.at),
            kind: self.kind.into(),
            pools: plain(self.pools),
            locks: locks(self.locks),
            claim: self.claim.map(|p| p.0),
            end: self.end.map(Into::into),
            who: self.who.map(|who| Arc::new(who.into())),
            origin: self.origin.map(|origin| Arc::new(origin.into())),
            reason: self.reason.map(|p| p.0),
            waited: self.waited.map(Span),
            held: self.held.map(Span),
            latch: self.latch.map(Into::into),
            token: self.token.map(|p| p.0),
        })
    }
}

/// The part of a [`StoredChange`] that a start reads. The rest is only skipped, because a store may have millions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOutline {
    at: u64,
    kind: StoredKind,
    pools: Vec<Parsed<PoolName>>,
    locks: StoredLocks,
    #[serde(default, rename = "claim")]
    _claim: IgnoredAny,
    #[serde(default, rename = "end")]
    _end: IgnoredAny,
    #[serde(default, rename = "who")]
    _who: IgnoredAny,
    #[serde(default, rename = "origin")]
    _origin: IgnoredAny,
    #[serde(default, rename = "reason")]
    _reason: IgnoredAny,
    #[serde(default, rename = "waited")]
    _waited: IgnoredAny,
    #[serde(default)]
    held: Option<u64>,
    #[serde(default, rename = "latch")]
    _latch: IgnoredAny,
    #[serde(default, rename = "token")]
    _token: IgnoredAny,
    #[serde(default)]
    size: Option<u32>,
}

impl StoredOutline {
    /// The outline of the entry with this key, whose record has this length. Older records do not say their size.
    #[must_use]
    pub fn into_outline(self, key: ChangeKey, length: usize) -> Outline {
        let bytes = self.size.unwrap_or_else(|| u32::try_from(length).unwrap_or(u32::MAX));
        let listed = Listed { kind: self.kind.into(), at: WallMs(self.at), bytes };
        Outline { key, listed, pools: plain(self.pools), locks: locks(self.locks), held: self.held.map(Span) }
    }
}
