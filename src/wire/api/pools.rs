//! Pools and locks in our own HTTP API.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByBody, HolderView, Scope, WaiterView};
use crate::core::pool::{Order as CoreOrder, Pick as CorePick};
use crate::wire::words::same_words;

/// `POST /api/v1/pools/{pool}/locks/{lock}/quarantine`: take a lock out of service. `by.reason` is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineBody {
    /// It comes back by itself after this (1s to 30 days).
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
    pub by: ByBody,
}

/// `POST /api/v1/pools/{pool}/locks/{lock}/return`: put a lock back into service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReturnBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// Why a lock is out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineView {
    pub since: String,
    /// When it comes back by itself, as far as is known now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The rules by which a pool hands out its locks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Who comes first; `fifo` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Whether later claims may be served before earlier ones that listen: `strict` (they may not) when absent;
    /// `backfill`: while the earlier one cannot be served; `backfill:N`: the same, but past each claim at most N times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overtaking: Option<String>,
    /// Which of several free locks is given; `least_recent` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pick: Option<Pick>,
    /// How long a lock stays out of use after its holder was lost; the server's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<String>,
    /// The longest hold; none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hold: Option<String>,
    /// The longest queue; 10,000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<u32>,
    /// What ends a hold whose claim names no scope: `flow` (when absent), `build` or `person`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// The order of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First come, first served.
    Fifo,
    /// The claim with the highest `priority`; of several, the first that came.
    Priority,
    /// Last come, first served; only for claims of one pool.
    Lifo,
}

same_words!(Order, CoreOrder { Fifo, Priority, Lifo });

/// Which of several free locks is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The one that was used least recently.
    LeastRecent,
    /// Any.
    Random,
    /// The first by name.
    Name,
}

same_words!(Pick, CorePick { LeastRecent, Random, Name });

/// `PUT /api/v1/pools/{pool}`: declare a pool. The policy is replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolBody {
    pub policy: Policy,
    /// Declares the locks `1`..`N`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// The claim that a new lock comes with: it holds the lock from the first moment on, without a confirmation,
/// because nobody else could have been given it. Its owner and reason are those of `by`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FirstClaimBody {
    pub id: String,
    /// Random value of this client process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The hold is lost after this (1s to 30 days).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// `PUT` (a new lock) and `PATCH` (what is given changes) of `/api/v1/pools/{pool}/locks/{lock}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LockBody {
    /// Metadata that is text. Excludes `metadata_base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// `PUT` only: the lock comes claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<FirstClaimBody>,
    /// `PATCH` only: 409 `lock_held` while somebody has the lock.
    #[serde(skip_serializing_if = "super::is_false")]
    pub if_free: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// `DELETE` of a lock or a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RemoveBody {
    /// The claim whose hold ends with the lock; needed when it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// `POST /api/v1/pools/{pool}/changes`: write an entry `noted` that changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NoteBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// Whether a lock can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LockState {
    Free,
    /// Given to somebody who has not confirmed yet.
    Granted,
    Held,
    /// Out of use for a while after its holder was lost.
    Draining,
    /// Taken out of service; a held one is shown as held.
    Quarantined,
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockView {
    pub pool: String,
    pub lock: String,
    pub state: LockState,
    pub labels: BTreeMap<String, String>,
    pub holders: Vec<HolderView>,
    /// Leaves the pool with its present holder.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub leaving: bool,
    /// It is out of service, held or not: nobody else gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<QuarantineView>,
    /// Metadata that is text; only when one lock is asked for, not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// Metadata that is not UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_base64: Option<String>,
}

/// A pool in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolSummary {
    pub pool: String,
    pub locks: usize,
    pub free: usize,
    pub waiting: usize,
    pub policy: Policy,
}

/// A pool with its locks and its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    #[serde(flatten)]
    pub summary: PoolSummary,
    /// The first 1,000 locks after `after`, by name.
    pub items: Vec<LockView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The first 1,000 waiters, in their order.
    pub queue: Vec<WaiterView>,
}
