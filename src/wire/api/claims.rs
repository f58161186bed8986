//! Claims in our own HTTP API: what is asked, and who holds and waits.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByBody, LockRef, Owner, is_false};
use crate::core::claim::Scope as CoreScope;
use crate::wire::errors::Code;
use crate::wire::words::same_words;

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

/// What is wanted of one pool: a named lock, several named ones, or any `count` of those that carry the `labels`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PartBody {
    pub pool: String,
    /// This lock. Excludes `locks`, `count` and `labels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// All of these locks. Excludes `lock`, `count` and `labels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<Vec<String>>,
    /// This many locks, any that are free; 1 when nothing is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Only locks that carry all of these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// `PUT /api/v1/claims/{id}`: ask for locks, or ask again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimBody {
    pub pool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// More pools, all or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<PartBody>,
    /// Claims with an equal key may hold the same lock together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Who shares the key; the key itself when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<String>,
    /// What ends the hold besides a release; what the pool says when left out, and `flow` if it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Where the pool's order is `priority`, higher ones come first: -1000 to 1000, 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
    /// Ends older waiting claims of this name: those of the same cluster, team, pipeline and job, or everybody's
    /// when the name begins with `/`. Of two claims by builds, the one of the later build is the newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersede: Option<String>,
    #[serde(default)]
    pub owner: Owner,
    /// Random value of this client process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// A grant must be confirmed before it is a hold; without it the grant is one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confirm: bool,
    /// Hold the request this long (at most 60s) while the claim waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// False: granted now, or 423 `locked` without a place in the queue.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub queue: bool,
    /// The wait ends after this time, even without a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_after: Option<String>,
    /// The hold is lost this long after it began or was last renewed (1s to 30 days); 60s for a `lease` that names
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Refuse with 421 unless the server's store has this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_store: Option<String>,
}

impl ClaimBody {
    /// A claim for any one lock of the pool, by nobody in particular, that queues and needs no confirmation.
    #[must_use]
    pub fn of_pool(pool: String) -> Self {
        Self {
            pool,
            lock: None,
            locks: None,
            count: None,
            labels: BTreeMap::new(),
            also: Vec::new(),
            key: None,
            requestor: None,
            scope: None,
            priority: None,
            supersede: None,
            owner: Owner::default(),
            run: None,
            confirm: false,
            wait: None,
            queue: true,
            give_up_after: None,
            ttl: None,
            reason: None,
            expect_store: None,
        }
    }
}

/// What ends a hold besides a release, its ttl and the pool's `max_hold`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Nothing more, unless its build is cut short before any `in` has fetched the hold.
    Flow,
    /// The end of its build. The owner must name `cluster` and `build_id` (422 otherwise).
    Build,
    /// No renewal within its ttl.
    Lease,
    /// Nothing more.
    Person,
}

same_words!(Scope, CoreScope { Flow, Build, Lease, Person });

/// `POST /api/v1/claims/{id}/confirm`: the client has heard of this grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    pub fence: u64,
}

/// `POST /api/v1/claims/{id}/renew`: the client goes on. A grant is confirmed by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RenewBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// 409 `wrong_fence` when it is not that of the claim's present grant or hold; not compared when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// `POST /api/v1/claims/{id}/deliver`: an `in` has fetched the hold of this version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliverBody {
    /// Revision of the `claimed` entry; nothing happens when the present hold began with another one.
    pub revision: u64,
}

/// `POST /api/v1/claims/{id}/break`: end a grant or a hold by force. `by.reason` is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakBody {
    /// Its locks stay out of use for the pool's `drain`, as after a loss; free at once when left out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
    pub by: ByBody,
}

/// `POST /api/v1/claims/{id}/move`: give a waiting claim another place in its queues. Needs `by.reason`, and `to` or
/// `before`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<QueueEnd>,
    /// Before this claim, which waits in one of its pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    pub by: ByBody,
}

/// An end of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueEnd {
    First,
    Last,
}

/// It is not known at present whether a build goes on; its holds stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SuspectView {
    pub since: String,
    pub why: String,
}

/// Where a claim is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    Waiting,
    Granted,
    Held,
    Ended,
}

/// A claim as anybody may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimView {
    pub id: String,
    pub state: ClaimState,
    /// Which life of the id this is, from 1.
    pub life: u32,
    /// What was asked of each pool. Empty once ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<PartBody>,
    /// What it was given, in (pool, lock) order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<LockRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// Revision of the `claimed` entry of a hold, or of the end: the version of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Absent when it is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersede: Option<String>,
    #[serde(default)]
    pub owner: Owner,
    /// Why, for people; of an ended claim, why it was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When this life began to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<String>,
    /// When the hold began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<String>,
    /// When the hold will be lost by ttl or `max_hold`, as far as is known now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<String>,
    /// The same as a duration from this answer on, by a clock of the server that no change of the time moves. A client
    /// that must stop in time counts it from before it asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_for: Option<String>,
    /// How long a hold lasts after it began or was renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// An `in` has fetched the hold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delivered: bool,
    /// Its build is known to be over, and the hold outlives it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub build_over: bool,
    /// It is not known whether its build goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<SuspectView>,
    /// How it ended: `released`, `cancelled`, `gave_up`, `listener_lost`, `unconfirmed`, `superseded`, `removed`,
    /// `broken` (by somebody, by force), `lost` (its ttl or the pool's `max_hold` was over), `lease_lost` (not renewed in time), `build_over`,
    /// `undelivered` (its build was cut short before any `in` had fetched the hold).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Who ended it, when it was not its own client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Where a waiting claim is in its queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueView>,
}

/// Where a waiting claim is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueView {
    /// 1 is the head of the queue of the claim's first pool.
    pub position: usize,
    /// The next few waiters before it, nearest first (at most 5).
    pub ahead: Vec<WaiterView>,
    /// Who has the locks it could be served by (at most 10).
    pub holders: Vec<HolderView>,
    /// False when it is passed over until it asks again.
    pub listening: bool,
    /// A guess from how long recent holds of the pool lasted, once there are enough of them: `"4m"`. Nothing is
    /// promised by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_wait: Option<String>,
    /// `self_wait` or `deadlock` while the claim is in such a state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<Code>,
}

/// A waiting claim, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaiterView {
    pub claim: String,
    #[serde(default)]
    pub owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<String>,
    pub asked_at: String,
    pub listening: bool,
    /// `self_wait` or `deadlock` when its wait cannot end by what others do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<Code>,
}

/// Who has a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HolderView {
    pub pool: String,
    pub lock: String,
    pub claim: String,
    /// `granted` until confirmed, then `held`.
    pub state: ClaimState,
    pub fence: u64,
    #[serde(default)]
    pub owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// An `in` has fetched the hold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delivered: bool,
    /// It is not known whether its build goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<SuspectView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to a claim that waits (423), and to a try-lock that found no lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingView {
    pub error: String,
    /// `waiting`; `self_wait` when only locks of its own build could serve it; `deadlock` when builds wait for each
    /// other; `locked` for a try-lock.
    pub code: Code,
    /// True: the request was held for its whole `wait`; ask again at once. False: back off.
    pub parked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimView>,
    /// Who has the locks it could be served by (at most 10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<HolderView>,
    /// With `self_wait`: what its own build has (at most 10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<HolderView>,
    /// With `deadlock`: builds of which each waits for the next, and the last for the first, which is this claim's
    /// (the first 10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<Owner>,
}

/// `GET /api/v1/verify`: this fence is a present holder's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyView {
    pub holder: HolderView,
}
