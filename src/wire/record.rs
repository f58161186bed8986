//! Stored records: the JSON that a store keeps, apart from the types of the core, so that neither changes the other
//! by accident. Each record has a conversion both ways; the golden texts in the tests are the format.
//!
//! The key of a record (a name, an id, a revision) is kept beside it by the store and is not repeated in it.
//! Whatever a record does not expect, it refuses: an unknown field, an unknown word, a name that breaks the rules.
//! A store that is misread would grant a lock twice; a store that is refused is only an outage. So a change of
//! the format is a new schema version with a migration (`docs/store.md`), never a field that old releases skip.
//!
//! Not in any record, because the next start makes it anew: parked requests and presence of a claim, holders and
//! newest entry of a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::claim::{
    Ask, BuildRef, Claim, End, Ended, Labels, LockSet, Owner, Part, Phase, Presence, Priority, Scope, Terms, Want,
};
use crate::core::history::{Change, ChangeKey, ChangeKind};
use crate::core::names::{
    ClaimId, Digest, Fence, InstanceVars, Label, LockName, OpId, PoolName, Reason, Revision, Run, Text, Ticket,
};
use crate::core::pool::{Lock, Order, Overtaking, Pick, Policy, Quarantine};
use crate::core::state::OpRecord;
use crate::core::time::{Deadline, EngineMs, Span, WallMs};

/// The JSON text of a record, in one line.
///
/// # Errors
/// None is known; a record that has no JSON must stop the commit, not the process.
pub fn encode(record: &impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string(record).context("a record has no JSON")
}

/// The record of a JSON text.
///
/// # Errors
/// Says what is wrong and where in the text. Control characters of a damaged text are escaped.
pub fn decode<T: DeserializeOwned>(json: &str) -> anyhow::Result<T> {
    serde_json::from_str(json).map_err(|error| {
        let shown: String = error.to_string().chars().flat_map(shown).collect();
        anyhow::anyhow!("bad record: {shown}")
    })
}

fn shown(c: char) -> impl Iterator<Item = char> {
    let escape = c.is_control().then(|| c.escape_default());
    let plain = escape.is_none().then_some(c);
    escape.into_iter().flatten().chain(plain)
}

/// A name or text of the core in a record: written as it is, parsed when it is read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parsed<T>(pub T);

impl<T: fmt::Display> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse<T>(PhantomData<T>);
        impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parse<T> {
            type Value = Parsed<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Parsed<T>, E> {
                text.parse().map(Parsed).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Parse(PhantomData))
    }
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn parsed<T: Clone>(value: Option<&T>) -> Option<Parsed<T>> {
    value.cloned().map(Parsed)
}

fn all_parsed<T: Clone>(values: &[T]) -> Vec<Parsed<T>> {
    values.iter().cloned().map(Parsed).collect()
}

fn plain<T, C: FromIterator<T>>(values: impl IntoIterator<Item = Parsed<T>>) -> C {
    values.into_iter().map(|Parsed(value)| value).collect()
}

/// A record's words for an enum of the core, one for one; a variant that is missing here does not compile.
macro_rules! words {
    ($record:ident for $core:ident { $($variant:ident),+ $(,)? }) => {
        #[doc = concat!("The stored words of [`", stringify!($core), "`].")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $record { $($variant),+ }

        impl From<$core> for $record {
            fn from(value: $core) -> Self {
                match value { $($core::$variant => Self::$variant),+ }
            }
        }

        impl From<$record> for $core {
            fn from(value: $record) -> Self {
                match value { $($record::$variant => Self::$variant),+ }
            }
        }
    };
}

words!(StoredScope for Scope { Flow, Person, Build, Lease });
words!(StoredEnd for End {
    Released, Cancelled, GaveUp, ListenerLost, Unconfirmed, Superseded, Removed, Lost, LeaseLost, BuildOver, Undelivered,
    Broken,
});
words!(StoredOrder for Order { Fifo, Priority, Lifo });
words!(StoredPick for Pick { LeastRecent, Random, Name });
words!(StoredKind for ChangeKind {
    Waiting, Granted, Claimed, Withdrawn, Released, Lost, Broken, Ended, Added, Removed, Updated, PoolSet, PoolRemoved,
    Noted, SelfWait, Deadlock, LatchCreated, LatchReleased, LatchDeleted, LatchExpired,
    Moved, Quarantined, Returned,
});

/// A deadline: engine time of its end and the span it was made from, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredDeadline {
    at: u64,
    span: u64,
}

impl From<Deadline> for StoredDeadline {
    fn from(deadline: Deadline) -> Self {
        Self { at: deadline.at.0, span: deadline.span.0 }
    }
}

impl From<StoredDeadline> for Deadline {
    fn from(stored: StoredDeadline) -> Self {
        Self { at: EngineMs(stored.at), span: Span(stored.span) }
    }
}

/// What stands for the presence of a loaded waiting claim until the restart sets it: a deadline that is over.
pub const NO_PRESENCE: Presence = Presence::Recent(Deadline { at: EngineMs(0), span: Span(0) });

/// Place of a history entry.
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

/// Who is behind a claim or a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOwner {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_vars: Option<Parsed<InstanceVars>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_id: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_name: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_url: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<Parsed<Text>>,
}

impl From<&Owner> for StoredOwner {
    fn from(owner: &Owner) -> Self {
        let Owner { cluster, team, pipeline, instance_vars, job, build_id, build_name, build_url, person, program } =
            owner;
        Self {
            cluster: parsed(cluster.as_ref()),
            team: parsed(team.as_ref()),
            pipeline: parsed(pipeline.as_ref()),
            instance_vars: parsed(instance_vars.as_ref()),
            job: parsed(job.as_ref()),
            build_id: parsed(build_id.as_ref()),
            build_name: parsed(build_name.as_ref()),
            build_url: parsed(build_url.as_ref()),
            person: parsed(person.as_ref()),
            program: parsed(program.as_ref()),
        }
    }
}

impl From<StoredOwner> for Owner {
    fn from(stored: StoredOwner) -> Self {
        Self {
            cluster: stored.cluster.map(|p| p.0),
            team: stored.team.map(|p| p.0),
            pipeline: stored.pipeline.map(|p| p.0),
            instance_vars: stored.instance_vars.map(|p| p.0),
            job: stored.job.map(|p| p.0),
            build_id: stored.build_id.map(|p| p.0),
            build_name: stored.build_name.map(|p| p.0),
            build_url: stored.build_url.map(|p| p.0),
            person: stored.person.map(|p| p.0),
            program: stored.program.map(|p| p.0),
        }
    }
}

/// A build: its cluster and its id there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredBuild {
    cluster: Parsed<Text>,
    id: Parsed<Text>,
}

impl From<&BuildRef> for StoredBuild {
    fn from(build: &BuildRef) -> Self {
        Self { cluster: Parsed(build.cluster.clone()), id: Parsed(build.id.clone()) }
    }
}

impl From<StoredBuild> for BuildRef {
    fn from(stored: StoredBuild) -> Self {
        Self { cluster: stored.cluster.0, id: stored.id.0 }
    }
}

type StoredLabels = BTreeMap<Parsed<Label>, Parsed<Label>>;

fn stored_labels(labels: &Labels) -> StoredLabels {
    labels.iter().map(|(name, value)| (Parsed(name.clone()), Parsed(value.clone()))).collect()
}

fn labels(stored: StoredLabels) -> Labels {
    stored.into_iter().map(|(name, value)| (name.0, value.0)).collect()
}

/// Locks as pairs of pool and name.
type StoredLocks = Vec<(Parsed<PoolName>, Parsed<LockName>)>;

fn stored_locks(locks: &[(PoolName, LockName)]) -> StoredLocks {
    locks.iter().map(|(pool, lock)| (Parsed(pool.clone()), Parsed(lock.clone()))).collect()
}

fn locks(stored: StoredLocks) -> LockSet {
    stored.into_iter().map(|(pool, lock)| (pool.0, lock.0)).collect()
}

/// SHA-256 in lower-case hexadecimal.
fn stored_digest(digest: Digest) -> String {
    digest.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|n| char::from_digit(n.into(), 16)).collect()
}

fn digest(stored: &str) -> anyhow::Result<Digest> {
    let mut bytes = [0; 32];
    ensure!(stored.len() == 64, "a digest of {} characters instead of 64", stored.len());
    for (byte, pair) in bytes.iter_mut().zip(stored.as_bytes().chunks_exact(2)) {
        let digits = pair.iter().map(|&c| char::from(c).to_digit(16).filter(|_| !c.is_ascii_uppercase()));
        let value = digits.collect::<Option<Vec<u32>>>().context("a digest is not lower-case hexadecimal")?;
        *byte = value.into_iter().fold(0, |all, digit| all << 4 | u8::try_from(digit).unwrap_or_default());
    }
    Ok(Digest(bytes))
}

/// What is asked of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredPart {
    pool: Parsed<PoolName>,
    want: StoredWant,
}

/// `{"any": {...}}` or `{"named": [...]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StoredWant {
    Any { count: u32, labels: StoredLabels },
    Named(BTreeSet<Parsed<LockName>>),
}

impl From<&Part> for StoredPart {
    fn from(part: &Part) -> Self {
        let want = match &part.want {
            Want::Any { count, labels } => StoredWant::Any { count: *count, labels: stored_labels(labels) },
            Want::Named(names) => StoredWant::Named(names.iter().cloned().map(Parsed).collect()),
        };
        Self { pool: Parsed(part.pool.clone()), want }
    }
}

impl TryFrom<StoredPart> for Part {
    type Error = anyhow::Error;
    fn try_from(stored: StoredPart) -> anyhow::Result<Self> {
        let want = match stored.want {
            StoredWant::Any { count, labels: wanted } => Want::Any { count, labels: labels(wanted) },
            StoredWant::Named(names) => {
                ensure!(!names.is_empty(), "a claim names no lock of a pool that it asks for");
                Want::Named(plain(names))
            }
        };
        Ok(Self { pool: stored.pool.0, want })
    }
}

/// Where a live claim is in its life; of a waiting one, presence is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StoredPhase {
    Waiting {
        #[serde(skip_serializing_if = "Option::is_none")]
        give_up: Option<StoredDeadline>,
    },
    Granted {
        fence: u64,
        locks: StoredLocks,
        confirm_by: StoredDeadline,
        #[serde(skip_serializing_if = "Option::is_none")]
        give_up: Option<StoredDeadline>,
    },
    Held {
        fence: u64,
        claimed: StoredKey,
        locks: StoredLocks,
        since: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<StoredDeadline>,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<StoredDeadline>,
        #[serde(default, skip_serializing_if = "is_false")]
        delivered: bool,
    },
}

impl From<&Phase> for StoredPhase {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Waiting { presence: _, give_up } => Self::Waiting { give_up: give_up.map(Into::into) },
            Phase::Granted { fence, locks, confirm_by, give_up } => Self::Granted {
                fence: fence.0,
                locks: stored_locks(locks),
                confirm_by: (*confirm_by).into(),
                give_up: give_up.map(Into::into),
            },
            Phase::Held { fence, claimed, locks, since, until, limit, delivered } => Self::Held {
                fence: fence.0,
                claimed: (*claimed).into(),
                locks: stored_locks(locks),
                since: since.0,
                until: until.map(Into::into),
                limit: limit.map(Into::into),
                delivered: *delivered,
            },
        }
    }
}

impl From<StoredPhase> for Phase {
    fn from(stored: StoredPhase) -> Self {
        match stored {
            StoredPhase::Waiting { give_up } => {
                Self::Waiting { presence: NO_PRESENCE, give_up: give_up.map(Into::into) }
            }
            StoredPhase::Granted { fence, locks: given, confirm_by, give_up } => Self::Granted {
                fence: Fence(fence),
                locks: locks(given),
                confirm_by: confirm_by.into(),
                give_up: give_up.map(Into::into),
            },
            StoredPhase::Held { fence, claimed, locks: given, since, until, limit, delivered } => Self::Held {
                fence: Fence(fence),
                claimed: claimed.into(),
                locks: locks(given),
                since: WallMs(since),
                until: until.map(Into::into),
                limit: limit.map(Into::into),
                delivered,
            },
        }
    }
}

/// A live claim; its id is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredClaim {
    life: u32,
    parts: Vec<StoredPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requestor: Option<Parsed<Text>>,
    /// As asked, else as its pools had it when it began.
    scope: StoredScope,
    #[serde(default, skip_serializing_if = "is_false")]
    build_over: bool,
    digest: String,
    owner: StoredOwner,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Parsed<Reason>>,
    confirm: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    /// Missing when it is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supersede: Option<Parsed<Text>>,
    runs: Vec<Parsed<Run>>,
    ticket: u64,
    asked_at: u64,
    withdrawals: u8,
    /// Missing when it is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    passed: u32,
    phase: StoredPhase,
}

impl From<&Claim> for StoredClaim {
    fn from(claim: &Claim) -> Self {
        let Claim {
            id: _,
            life,
            terms,
            scope,
            build_over,
            runs,
            ticket,
            asked_at,
            withdrawals,
            passed,
            phase,
            parks: _,
        } = claim;
        let Terms { ask, digest, owner, reason, confirm, ttl, priority, supersede } = terms;
        let Ask { parts, key, requestor } = ask;
        Self {
            life: *life,
            parts: parts.iter().map(Into::into).collect(),
            key: parsed(key.as_ref()),
            requestor: parsed(requestor.as_ref()),
            scope: (*scope).into(),
            build_over: *build_over,
            digest: stored_digest(*digest),
            owner: (&**owner).into(),
            reason: parsed(reason.as_ref()),
            confirm: *confirm,
            ttl: ttl.map(|span| span.0),
            priority: Some(priority.get()).filter(|priority| *priority != 0),
            supersede: parsed(supersede.as_ref()),
            runs: all_parsed(runs),
            ticket: ticket.0,
            asked_at: asked_at.0,
            withdrawals: *withdrawals,
            passed: *passed,
            phase: phase.into(),
        }
    }
}

impl StoredClaim {
    /// The claim with this id, as it was stored: nobody parked, [`NO_PRESENCE`].
    ///
    /// # Errors
    /// The record breaks a rule of the core.
    pub fn into_claim(self, id: ClaimId) -> anyhow::Result<Claim> {
        let parts = self.parts.into_iter().map(Part::try_from).collect::<anyhow::Result<Vec<Part>>>()?;
        ensure!(!parts.is_empty(), "a claim asks for nothing");
        ensure!(parts.is_sorted_by(|a, b| a.pool < b.pool), "the pools of a claim are not in order");
        let ask = Ask { parts, key: self.key.map(|p| p.0), requestor: self.requestor.map(|p| p.0) };
        let terms = Terms {
            ask,
            digest: digest(&self.digest)?,
            owner: Arc::new(self.owner.into()),
            reason: self.reason.map(|p| p.0),
            confirm: self.confirm,
            ttl: self.ttl.map(Span),
            priority: Priority::new(self.priority.unwrap_or_default()).context("a priority out of bounds")?,
            supersede: self.supersede.map(|p| p.0),
        };
        Ok(Claim {
            id,
            life: self.life,
            terms,
            scope: self.scope.into(),
            build_over: self.build_over,
            runs: plain(self.runs),
            ticket: Ticket(self.ticket),
            asked_at: WallMs(self.asked_at),
            withdrawals: self.withdrawals,
            passed: self.passed,
            phase: self.phase.into(),
            parks: BTreeSet::new(),
        })
    }
}

/// An ended claim; its id is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEnded {
    life: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    runs: Vec<Parsed<Run>>,
    how: StoredEnd,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Parsed<Reason>>,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<StoredBuild>,
    forget: StoredDeadline,
}

impl From<&Ended> for StoredEnded {
    fn from(ended: &Ended) -> Self {
        let Ended { id: _, life, digest, runs, how, by, reason, at, revision, fence, build, forget } = ended;
        Self {
            life: *life,
            digest: digest.map(stored_digest),
            runs: all_parsed(runs),
            how: (*how).into(),
            by: parsed(by.as_ref()),
            reason: parsed(reason.as_ref()),
            at: at.0,
            revision: revision.map(|r| r.0),
            fence: fence.map(|f| f.0),
            build: build.as_ref().map(Into::into),
            forget: (*forget).into(),
        }
    }
}

impl StoredEnded {
    /// The ended claim with this id.
    ///
    /// # Errors
    /// The record breaks a rule of the core.
    pub fn into_ended(self, id: ClaimId) -> anyhow::Result<Ended> {
        Ok(Ended {
            id,
            life: self.life,
            digest: self.digest.as_deref().map(digest).transpose()?,
            runs: plain(self.runs),
            how: self.how.into(),
            by: self.by.map(|p| p.0),
            reason: self.reason.map(|p| p.0),
            at: WallMs(self.at),
            revision: self.revision.map(Revision),
            fence: self.fence.map(Fence),
            build: self.build.map(Into::into),
            forget: self.forget.into(),
        })
    }
}

/// Later claims may pass earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredBackfill {
    /// At most so often past each.
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<u32>,
}

/// The policy of a pool; the pool's name is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredPolicy {
    /// Missing when it is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<StoredOrder>,
    /// Missing when later claims may not pass earlier ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    backfill: Option<StoredBackfill>,
    /// Missing when it is the default.
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
}

impl From<&Policy> for StoredPolicy {
    fn from(policy: &Policy) -> Self {
        let Policy { order, overtaking, pick, drain, max_hold, max_queue, scope } = policy;
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
        }
    }
}

/// A lock but for its metadata, which is kept beside it as bytes; pool and name are the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredLock {
    labels: StoredLabels,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<StoredDeadline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantine: Option<StoredQuarantine>,
    leaving: bool,
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
        let Lock { name: _, metadata: _, labels, holders: _, drain, quarantine, leaving, newest: _ } = lock;
        let quarantine = quarantine.as_ref().map(Into::into);
        Self { labels: stored_labels(labels), drain: drain.map(Into::into), quarantine, leaving: *leaving }
    }
}

impl StoredLock {
    /// The lock with this name and metadata, held by nobody yet.
    #[must_use]
    pub fn into_lock(self, name: LockName, metadata: &[u8]) -> Lock {
        Lock {
            drain: self.drain.map(Into::into),
            quarantine: self.quarantine.map(Into::into),
            leaving: self.leaving,
            ..Lock::new(name, Arc::from(metadata), Arc::new(labels(self.labels)))
        }
    }
}

/// A remembered operation; its id is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOp {
    revision: u64,
    forget: StoredDeadline,
}

impl From<&OpRecord> for StoredOp {
    fn from(record: &OpRecord) -> Self {
        let OpRecord { op: _, revision, forget } = record;
        Self { revision: revision.0, forget: (*forget).into() }
    }
}

impl StoredOp {
    /// The operation with this id.
    #[must_use]
    pub fn into_op(self, op: OpId) -> OpRecord {
        OpRecord { op, revision: Revision(self.revision), forget: self.forget.into() }
    }
}

/// A history entry; its place is the key.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Parsed<Reason>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latch: Option<StoredLatchRef>,
}

impl From<&Change> for StoredChange {
    fn from(change: &Change) -> Self {
        let Change { key: _, at, kind, pools, locks, claim, end, who, reason, latch } = change;
        Self {
            at: at.0,
            kind: (*kind).into(),
            pools: all_parsed(pools),
            locks: stored_locks(locks),
            claim: parsed(claim.as_ref()),
            end: end.map(Into::into),
            who: who.as_deref().map(Into::into),
            reason: parsed(reason.as_ref()),
            latch: latch.as_ref().map(Into::into),
        }
    }
}

impl StoredChange {
    /// The entry at this place.
    ///
    /// # Errors
    /// The record breaks a rule of the core.
    pub fn into_change(self, key: ChangeKey) -> anyhow::Result<Change> {
        ensure!(self.pools.is_empty() == self.latch.is_some(), "a history entry of no pool, or of a pool and a latch");
        Ok(Change {
            key,
            at: WallMs(self.at),
            kind: self.kind.into(),
            pools: plain(self.pools),
            locks: locks(self.locks),
            claim: self.claim.map(|p| p.0),
            end: self.end.map(Into::into),
            who: self.who.map(|who| Arc::new(who.into())),
            reason: self.reason.map(|p| p.0),
            latch: self.latch.map(Into::into),
        })
    }
}

mod latch;
pub use latch::{StoredLatch, StoredLatchRef};

#[cfg(test)]
mod tests;
