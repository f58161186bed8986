//! Stored pools and locks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Parsed, StoredDeadline, StoredLabels, StoredScope, is_false, labels, parsed, stored_labels, words};
use crate::core::names::{LockName, Reason, Text};
use crate::core::pool::{CutShort, Lock, Order, Overtaking, Pick, Policy, Quarantine, WhenEmpty};
use crate::core::time::{Span, WallMs};

words!(StoredOrder for Order { Fifo, Priority, Lifo });
words!(StoredPick for Pick { LeastRecent, Random, Name });
words!(StoredWhenEmpty for WhenEmpty { Wait, Fail });
words!(StoredCutShort for CutShort { End, Keep });

/// Later claims may be served before earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredBackfill {
    /// The most grants that may pass each earlier claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<u32>,
}

/// The policy of a pool. The pool's name is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredPolicy {
    /// Missing if it is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<StoredOrder>,
    /// Missing if later claims may not pass earlier ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    backfill: Option<StoredBackfill>,
    /// Missing if it is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pick: Option<StoredPick>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_hold: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_queue: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<StoredScope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    when_empty: Option<StoredWhenEmpty>,
    /// Missing if it is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_short: Option<StoredCutShort>,
}

impl From<&Policy> for StoredPolicy {
    fn from(policy: &Policy) -> Self {
        let Policy { order, overtaking, pick, drain, max_hold, max_queue, scope, when_empty, cut_short } = policy;
        Self {
            order: Some((*order).into()).filter(|_| *order != Order::default()),
            backfill: match overtaking {
                Overtaking::Strict => None,
                Overtaking::Backfill(most) => Some(StoredBackfill { most: *most }),
            },
            pick: Some((*pick).into()).filter(|_| *pick != Pick::default()),
            drain: drain.map(|s| s.0),
            max_hold: max_hold.map(|s| s.0),
            max_queue: *max_queue,
            scope: scope.map(Into::into),
            when_empty: when_empty.map(Into::into),
            cut_short: Some((*cut_short).into()).filter(|_| *cut_short != CutShort::default()),
        }
    }
}

impl From<StoredPolicy> for Policy {
    fn from(stored: StoredPolicy) -> Self {
        Self {
            order: stored.order.map(Into::into).unwrap_or_default(),
            overtaking: stored.backfill.map_or(Overtaking::Strict, |backfill| Overtaking::Backfill(backfill.most)),
            pick: stored.pick.map(Into::into).unwrap_or_default(),
            drain: stored.drain.map(Span),
            max_hold: stored.max_hold.map(Span),
            max_queue: stored.max_queue,
            scope: stored.scope.map(Into::into),
            when_empty: stored.when_empty.map(Into::into),
            cut_short: stored.cut_short.map(Into::into).unwrap_or_default(),
        }
    }
}

/// A lock without its metadata, which the store keeps separately as bytes. Pool and name are the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredLock {
    labels: StoredLabels,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<StoredDeadline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantine: Option<StoredQuarantine>,
    leaving: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    implicit: bool,
}

/// A lock that is out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredQuarantine {
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<StoredDeadline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Parsed<Reason>>,
}

impl From<&Quarantine> for StoredQuarantine {
    fn from(quarantine: &Quarantine) -> Self {
        let Quarantine { since, until, by, reason } = quarantine;
        let (by, reason) = (parsed(by.as_ref()), parsed(reason.as_ref()));
        Self { since: since.0, until: until.map(Into::into), by, reason }
    }
}

impl From<StoredQuarantine> for Quarantine {
    fn from(stored: StoredQuarantine) -> Self {
        Self {
            since: WallMs(stored.since),
            until: stored.until.map(Into::into),
            by: stored.by.map(|p| p.0),
            reason: stored.reason.map(|p| p.0),
        }
    }
}

impl From<&Lock> for StoredLock {
    fn from(lock: &Lock) -> Self {
        let Lock { name: _, metadata: _, labels, holders: _, drain, quarantine, leaving, implicit, newest: _ } = lock;
        let quarantine = quarantine.as_ref().map(Into::into);
        let (labels, drain) = (stored_labels(labels), drain.map(Into::into));
        Self { labels, drain, quarantine, leaving: *leaving, implicit: *implicit }
    }
}

impl StoredLock {
    /// The lock with this name and metadata, without holders yet.
    #[must_use]
    pub fn into_lock(self, name: LockName, metadata: &[u8]) -> Lock {
        Lock {
            drain: self.drain.map(Into::into),
            quarantine: self.quarantine.map(Into::into),
            leaving: self.leaving,
            implicit: self.implicit,
            ..Lock::new(name, Arc::from(metadata), Arc::new(labels(self.labels)))
        }
    }
}
