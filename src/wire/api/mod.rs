//! The JSON of our own HTTP API (`docs/api.md`). Unknown fields are refused, durations are `"90s"` or `"1h30m"`, times
//! are RFC 3339 UTC with milliseconds, and absent values are left out.
//!
//! Names of requests end in `Body`, names of answers in `View`. `openapi.json` is generated from these types. This file
//! has what all parts share, such as the owner. The parts:
//!
//! - `claims`: requests, holders and waiters.
//! - `pools`: pools and locks.
//! - `changes`: the history.
//! - `stats`: figures over a span of it.
//! - `info`: the server itself. `tokens`: the tokens that it makes.

mod changes;
mod claims;
mod info;
mod pools;
mod stats;
mod tokens;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::errors::Code;

pub use changes::{ChangeKind, ChangePage, ChangeView, EventView, LatchRef, MissingView, NowView};
pub use claims::{
    BreakBody, BuildBody, BuildEndedView, ClaimBody, ClaimState, ClaimView, ConfirmBody, DeliverBody, HolderView,
    MadePoolView, MoveBody, PartBody, QueueEnd, QueueView, ReleaseBody, ReleaseView, RenewBody, Scope, SuspectView,
    VerifyView, WaiterView, WaitingView,
};
pub use info::{ConcourseState, ConcourseView, InfoView, IssuerView, LeaderView, LogView, ServerView, SessionView};
pub use pools::{
    CutShort, FirstClaimBody, LockBody, LockState, LockView, MoveLockBody, NoteBody, Order, Pick, Policy, PoolBody,
    PoolChangeBody, PoolSummary, PoolView, QuarantineBody, QuarantineView, RemoveBody, ReturnBody, Rule, WhenEmpty,
};
pub use stats::{GroupView, PoolStatsView, SpreadView, StatsView, TeamStatsView};
pub use tokens::{NewTokenView, TokenBody, TokenView};

fn is_zero(value: &usize) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// Who makes a request. The client supplies this about itself; it is data, not proof.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Owner {
    /// `ATC_EXTERNAL_URL`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Instance vars of the pipeline: JSON as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_vars: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// `BUILD_ID`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// `BUILD_NAME`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// A lock with its pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct LockRef {
    pub pool: String,
    pub lock: String,
}

/// Locks with their pools, as people and logs read them.
#[must_use]
pub fn locks_text(locks: &[LockRef], separator: &str) -> String {
    let locks: Vec<String> = locks.iter().map(|LockRef { pool, lock }| format!("{pool}: {lock}")).collect();
    locks.join(separator)
}

/// Every error that is not a [`WaitingView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorView {
    pub error: String,
    pub code: Code,
    /// All problems of a bad request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The ended claim, with code `ended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimView>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Pass this as `after` to get the next page. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Members of every call that makes a change and is not about a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ByBody {
    /// Id of this operation. A repeated id gets the same answer and changes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    pub owner: Owner,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to a change that is not about a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoneView {
    pub revision: u64,
    /// The pool that a new or moved lock has made, as far as the server that answers has seen it. A repeated request is
    /// not told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<MadePoolView>,
}
