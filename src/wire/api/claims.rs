//! Claims in our own HTTP API: requests, holders and waiters.

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

/// A request for locks of one pool: a named lock, several named locks, or any `count` locks that carry the `labels`.
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
    /// This many locks, any that are free. 1 if no lock is named.
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
    /// Locks of more pools. The claim gets all of them or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<PartBody>,
    /// Claims with an equal key may hold the same lock together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Who shares the key. Defaults to the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<String>,
    /// What ends the hold besides a release. Defaults to the pool's `scope`, or to `flow` if the pool has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// In a pool with the order `priority`, claims with a higher value come first: -1000 to 1000, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
    /// Ends older waiting claims of this name. They must be from the same cluster, team, pipeline and job, unless the
    /// name begins with `/`. Of two claims by builds, the claim of the later build is the newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersede: Option<String>,
    #[serde(default)]
    pub owner: Owner,
    /// A random value that identifies this client process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// If true, a grant becomes a hold only once it is confirmed. If false, the grant is a hold at once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confirm: bool,
    /// Keep the request open this long (at most 60s) while the claim waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// False: grant now, or return 423 `locked` and do not join the queue.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub queue: bool,
    /// Wait while the pool has no lock at all. This is for claims for any one lock, in pools that have no `when_empty`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait_if_empty: bool,
    /// The claim ends after waiting this long without a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_after: Option<String>,
    /// The hold is lost this long after it began or was last renewed (1s to 30 days). Default for a `lease`: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Refuse with 421 unless the server's store has this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_store: Option<String>,
}

impl ClaimBody {
    /// A claim for any one lock of the pool. It has no owner, joins the queue, and needs no confirmation.
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
            wait_if_empty: false,
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
    /// Nothing else, unless its build is errored, aborted or gone before any `in` has fetched the hold.
    Flow,
    /// The end of its build. The owner must name `cluster` and `build_id` (422 otherwise).
    Build,
    /// No renewal within its ttl.
    Lease,
    /// Nothing else.
    Person,
}

same_words!(Scope, CoreScope { Flow, Build, Lease, Person });

/// `POST /api/v1/claims/{id}/confirm`: the client has received this grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    pub fence: u64,
}

/// `POST /api/v1/claims/{id}/renew`: the client is still alive. This also confirms a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RenewBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// 409 `wrong_fence` if it differs from the fence of the claim's present grant or hold. Not compared if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// `POST /api/v1/claims/{id}/deliver`: an `in` has fetched the hold of this version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliverBody {
    /// Revision of the `claimed` entry. The call has no effect if the present hold began with another revision.
    pub revision: u64,
    /// The build of that `in`. If it is the claim's own build, the hold is `fetched` but not `delivered`. Without it, the
    /// build counts as another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildBody>,
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildBody {
    /// The external URL of its Concourse (`ATC_EXTERNAL_URL`).
    pub cluster: String,
    /// Its `BUILD_ID`.
    pub build_id: String,
}

/// `POST /api/v1/claims/{id}/break`: end a grant or a hold by force. `by.reason` is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakBody {
    /// If true, its locks drain for the pool's `drain` time, as after a loss. If false, they are free at once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
    pub by: ByBody,
}

/// `POST /api/v1/claims/{id}/release`: a step of a build releases a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseBody {
    /// The build of the step. If it holds the claim and its Concourse runs builds again in place, the hold is only
    /// marked: it ends when the build is over. Everything else ends at once.
    pub owner: Owner,
}

/// What a release by a step has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseView {
    /// The claim, which has ended or is marked.
    pub claim: ClaimView,
    /// The version of the step: the revision of the claim's end, or of the `noted` entry that tells of the mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Whether the Concourse of the step runs builds again in place.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reruns: bool,
}

/// `POST /api/v1/claims/{id}/move`: give a waiting claim another place in its queues. Requires `by.reason`, and either
/// `to` or `before`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<QueueEnd>,
    /// Move it in front of this claim, which must wait in one of its pools.
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

/// The server does not know at present whether a build is still running. Its holds stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SuspectView {
    pub since: String,
    pub why: String,
}

/// How the build of a hold ended that outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildEndedView {
    /// `succeeded`, `failed`, `errored`, `aborted`, or `gone` (its Concourse no longer knows it).
    pub how: String,
    pub at: String,
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
#[allow(clippy::struct_excessive_bools, reason = "each is a member of the JSON")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimView {
    pub id: String,
    pub state: ClaimState,
    /// Which life of the id this is, counted from 1.
    pub life: u32,
    /// The request for each pool. Empty once the claim has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<PartBody>,
    /// The locks it was granted, in (pool, lock) order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<LockRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// Revision of the `claimed` entry of a hold, or of the claim's end. It is the version of the step.
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
    /// The reason, for people. For an ended claim, why it was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When this life made its first request.
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
    /// How long a hold lasts after it began or was last renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// An `in` has fetched the hold, perhaps that of its own build only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fetched: bool,
    /// An `in` of another build has fetched the hold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delivered: bool,
    /// A step of its build has released the hold. It lasts until the build is over, because the build may run again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub marked: bool,
    /// Other ids under which its build has asked for the same and was answered with this marked hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Only in answers to the claim's own client: its build may run again in place, and has another claim for the same.
    #[serde(default, skip_serializing_if = "is_false")]
    pub alike: bool,
    /// Only in answers to a request that ends a claim: it had ended before, and the request has changed nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
    /// Only in answers to the claim's own client: what other claims of its build hold in its pools (at most 10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<HolderView>,
    /// Its build is known to have ended, and the hold outlives it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub build_over: bool,
    /// How and when that build ended. Absent for builds whose end an earlier release of the server saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_ended: Option<BuildEndedView>,
    /// The server does not know whether its build is still running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<SuspectView>,
    /// How it ended: `released`, `cancelled`, `gave_up`, `listener_lost`, `unconfirmed`, `superseded`, `removed`,
    /// `broken` (someone ended it by force), `lost` (its ttl or the pool's `max_hold` expired), `lease_lost` (not
    /// renewed in time), `build_over`, `undelivered` (its build was errored, aborted or gone before
    /// another build had fetched the hold, or it failed before any `in` had).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Who ended it, if not its own client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// The place of a waiting claim in its queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueView>,
    /// The pools that this claim has made, as far as the server that answers has seen it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<MadePoolView>,
}

/// A pool that a claim or a new lock has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MadePoolView {
    pub pool: String,
    /// The most similar name of another pool, if one is similar: perhaps that one was meant. Not in the
    /// answers of lists and `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// The place of a waiting claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueView {
    /// 1 is the head of the queue of the claim's first pool.
    pub position: usize,
    /// The waiters directly ahead of it, nearest first (at most 5).
    pub ahead: Vec<WaiterView>,
    /// The holders of locks that could serve it (at most 10).
    pub holders: Vec<HolderView>,
    /// How many holders of such locks there are in all.
    #[serde(default)]
    pub holder_count: usize,
    /// False if its client has stopped asking. The claim is passed over until the client asks again.
    pub listening: bool,
    /// An estimate from how long recent holds of the pool lasted, once there are enough of them: `"4m"`. It is not a
    /// promise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_wait: Option<String>,
    /// `self_wait` or `deadlock` while the claim is in such a state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<Code>,
    /// What its pools do not have, for people. The claim waits until somebody adds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
}

/// A short view of a waiting claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaiterView {
    pub claim: String,
    #[serde(default)]
    pub owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestor: Option<String>,
    pub asked_at: String,
    pub listening: bool,
    /// `self_wait` or `deadlock` while the claim is in such a state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<Code>,
    /// As in `QueueView`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// As in `QueueView`. Present only in the queue of a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_wait: Option<String>,
}

/// The holder of a lock.
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
    /// An `in` has fetched the hold, perhaps that of its own build only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fetched: bool,
    /// An `in` of another build has fetched the hold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delivered: bool,
    /// Its build has ended like this, and the hold outlives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_ended: Option<BuildEndedView>,
    /// A step of its build has released the hold, which ends when the build is over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub marked: bool,
    /// The server does not know whether its build is still running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<SuspectView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to a waiting claim (423), and to a try-lock that found no free lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingView {
    pub error: String,
    /// `waiting`; `self_wait` if only locks that its own build holds could serve it; `deadlock` if builds wait for each
    /// other; `locked` for a try-lock.
    pub code: Code,
    /// True: the request stayed open for its whole `wait`; repeat it at once. False: back off first.
    pub parked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimView>,
    /// The holders of locks that could serve it (at most 10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<HolderView>,
    /// How many holders of such locks there are in all.
    #[serde(default)]
    pub holder_count: usize,
    /// With `self_wait`: the locks that its own build holds (at most 10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<HolderView>,
    /// With `deadlock`: the builds of the cycle (at most 10). Each waits for the next, and the last waits for the
    /// first, which is this claim's build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<Owner>,
}

/// `GET /api/v1/verify`: a present holder has this fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyView {
    pub holder: HolderView,
}
