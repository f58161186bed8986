//! Pools and locks in our own HTTP API.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ByBody, HolderView, Scope, WaiterView};
use crate::core::pool::{
    CutShort as CoreCutShort, Order as CoreOrder, Pick as CorePick, Rule as CoreRule, WhenEmpty as CoreWhenEmpty,
};
use crate::wire::words::same_words;

/// `POST /api/v1/pools/{pool}/locks/{lock}/quarantine`: take a lock out of service. `by.reason` is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineBody {
    /// The lock returns to service automatically after this (1s to 30 days).
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
    /// When it returns to service automatically, as far as is known now.
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
    /// Which claim comes first. Default: `fifo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Whether later claims may be served before earlier ones that listen. `strict` (default): they may not.
    /// `backfill`: they may while the earlier claim cannot be served. `backfill:N`: the same, but at most N times past
    /// each claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overtaking: Option<String>,
    /// Which of several free locks is granted. Default: `least_recent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pick: Option<Pick>,
    /// How long a lock stays out of use after its holder was lost. Default: that of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<String>,
    /// The longest hold. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hold: Option<String>,
    /// The longest queue. Default: 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<u32>,
    /// What ends a hold whose claim names no scope: `flow` (default), `build` or `person`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What becomes of claims for locks that the pool does not have. Default: an `acquire` of the resource waits while
    /// the pool has no lock at all, and all others are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_empty: Option<WhenEmpty>,
    /// What becomes of a `flow` hold that no other build has fetched when its build is errored, aborted or gone.
    /// Default: `end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_short: Option<CutShort>,
}

/// The order of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First come, first served.
    Fifo,
    /// The claim with the highest `priority` first; equal ones in order of arrival.
    Priority,
    /// Last come, first served. Only for claims on a single pool.
    Lifo,
}

same_words!(Order, CoreOrder { Fifo, Priority, Lifo });

/// Which of several free locks is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The least recently used one.
    LeastRecent,
    /// A random one.
    Random,
    /// The first by name.
    Name,
}

same_words!(Pick, CorePick { LeastRecent, Random, Name });

/// What becomes of claims for locks that the pool does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenEmpty {
    /// They wait until the locks are added, and hold back no other claim.
    Wait,
    /// They are refused.
    Fail,
}

same_words!(WhenEmpty, CoreWhenEmpty { Wait, Fail });

/// What becomes of a hold whose build was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutShort {
    /// It is lost, and its locks drain.
    End,
    /// It stays until somebody releases it.
    Keep,
}

same_words!(CutShort, CoreCutShort { End, Keep });

/// `PUT /api/v1/pools/{pool}`: declare a pool. The policy is replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolBody {
    pub policy: Policy,
    /// Declares the locks `1`..`N`. Without it the pool keeps its locks, and a new pool has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// The name of one rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    Order,
    Overtaking,
    Pick,
    Drain,
    MaxHold,
    MaxQueue,
    Scope,
    WhenEmpty,
    CutShort,
}

same_words!(Rule, CoreRule { Order, Overtaking, Pick, Drain, MaxHold, MaxQueue, Scope, WhenEmpty, CutShort });

impl Rule {
    pub const ALL: [Self; 9] = [
        Self::Order,
        Self::Overtaking,
        Self::Pick,
        Self::Drain,
        Self::MaxHold,
        Self::MaxQueue,
        Self::Scope,
        Self::WhenEmpty,
        Self::CutShort,
    ];
}

impl Policy {
    /// The rules that it names, with their values as people see them, by their names in the API.
    #[must_use]
    pub fn shown(&self) -> BTreeMap<String, String> {
        let Ok(Value::Object(members)) = serde_json::to_value(self) else { return BTreeMap::new() };
        let shown = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        members.into_iter().map(|(rule, value)| (rule, shown(value))).collect()
    }

    /// The rules that it names.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let Self { order, overtaking, pick, drain, max_hold, max_queue, scope, when_empty, cut_short } = self;
        let named = [
            order.map(|_| Rule::Order),
            overtaking.as_ref().map(|_| Rule::Overtaking),
            pick.map(|_| Rule::Pick),
            drain.as_ref().map(|_| Rule::Drain),
            max_hold.as_ref().map(|_| Rule::MaxHold),
            max_queue.map(|_| Rule::MaxQueue),
            scope.map(|_| Rule::Scope),
            when_empty.map(|_| Rule::WhenEmpty),
            cut_short.map(|_| Rule::CutShort),
        ];
        named.into_iter().flatten().collect()
    }
}

/// `PATCH /api/v1/pools/{pool}`: change some rules of a pool and keep the others. A pool that does not exist is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolChangeBody {
    /// The rules to set.
    pub policy: Policy,
    /// The rules that go back to their defaults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub defaults: Vec<Rule>,
    /// All rules that `policy` does not name go back to their defaults.
    #[serde(skip_serializing_if = "super::is_false")]
    pub reset: bool,
    /// Declares the locks `1`..`N`. Without it the pool keeps its locks, and a new pool gets one, named like the pool,
    /// which leaves when the pool is given others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// The claim that a new lock is created with. It holds the lock from the first moment, without a confirmation, because
/// nobody else could have received the lock. Its owner and reason are those of `by`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FirstClaimBody {
    pub id: String,
    /// A random value that identifies this client process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The hold is lost after this time (1s to 30 days).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// `PUT` (add a lock) and `PATCH` (change the given members) of `/api/v1/pools/{pool}/locks/{lock}`.
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
    /// `PUT` only: add the lock already claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<FirstClaimBody>,
    /// `PATCH` only: return 409 `lock_held` if somebody holds the lock.
    #[serde(skip_serializing_if = "super::is_false")]
    pub if_free: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// `POST /api/v1/pools/{pool}/locks/{lock}/move`: move a lock to another pool, in one step. What is not given stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveLockBody {
    /// The other pool; it is created if it does not exist.
    pub to: String,
    /// The claim that holds the lock. Its hold ends, and the lock is free in the other pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Metadata that is text. Excludes `metadata_base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// `DELETE` of a lock or a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RemoveBody {
    /// The claim whose hold ends with the lock. Required if the lock is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ByBody>,
}

/// `POST /api/v1/pools/{pool}/changes`: write a `noted` entry, which changes nothing else.
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
    /// Granted, but not confirmed yet.
    Granted,
    Held,
    /// Out of use for a while after its holder was lost.
    Draining,
    /// Taken out of service. A lock that is also held shows as `held`.
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
    /// The lock will leave the pool when its present hold ends.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub leaving: bool,
    /// The pool has this lock because it was given none; it leaves when the pool is given others.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub implicit: bool,
    /// The lock is out of service, held or not: nobody else can get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<QuarantineView>,
    /// Metadata that is text. Present only for a single lock, not in lists.
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
    /// How many locks can be taken now: one less than are free while the lock leaves that the pool had because it was
    /// given none.
    pub free: usize,
    pub waiting: usize,
    /// When the waiter that has waited longest began to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_wait: Option<String>,
    /// When the oldest present hold began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_hold: Option<String>,
    /// How many holds are not known to have a running build. Absent when it is 0, like the next two.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub suspect: usize,
    /// How many holds outlive their build.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub build_over: usize,
    /// How many locks are out of service.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub quarantined: usize,
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
