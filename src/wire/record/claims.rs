//! Stored claims, both live and ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::{
    Parsed, StoredDeadline, StoredKey, StoredLabels, StoredLocks, StoredOrigin, StoredOwner, StoredScope, all_parsed,
    is_false, labels, locks, parsed, plain, stored_labels, stored_locks, words,
};
use crate::core::claim::{
    Ask, BuildEnd, BuildOver, BuildRef, Claim, End, Ended, Fetched, Part, Phase, Presence, Priority, Terms, Want,
};
use crate::core::names::{ClaimId, Digest, Fence, LockName, PoolName, Reason, Revision, Run, Text, Ticket};
use crate::core::origin::{Identity, Origin};
use crate::core::time::{Deadline, EngineMs, Span, WallMs};
use crate::env::hex;

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// The presence of a loaded waiting claim until the restart sets the real one: a deadline that has passed.
pub const NO_PRESENCE: Presence = Presence::Recent(Deadline { at: EngineMs(0), span: Span(0) });

words!(StoredBuildEnd for BuildEnd { Succeeded, Failed, Errored, Aborted, Gone });

/// How and when the build of a claim ended that outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredBuildEnded {
    how: StoredBuildEnd,
    at: u64,
}

/// SHA-256 in lower-case hexadecimal.
pub(super) fn stored_digest(digest: Digest) -> String {
    hex(&digest.0)
}

pub(super) fn digest(stored: &str) -> anyhow::Result<Digest> {
    let mut bytes = [0; 32];
    ensure!(stored.len() == 64, "a digest of {} characters instead of 64", stored.len());
    for (byte, pair) in bytes.iter_mut().zip(stored.as_bytes().chunks_exact(2)) {
        let digits = pair.iter().map(|&c| char::from(c).to_digit(16).filter(|_| !c.is_ascii_uppercase()));
        let value = digits.collect::<Option<Vec<u32>>>().context("a digest is not lower-case hexadecimal")?;
        *byte = value.into_iter().fold(0, |all, digit| all << 4 | u8::try_from(digit).unwrap_or_default());
    }
    Ok(Digest(bytes))
}

/// The request for one pool.
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

/// The phase of a live claim. The presence of a waiting claim is not stored.
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
        /// Another build has fetched it.
        #[serde(default, skip_serializing_if = "is_false")]
        delivered: bool,
        /// Only its own build has fetched it.
        #[serde(default, skip_serializing_if = "is_false")]
        fetched: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        marked: bool,
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
            Phase::Held { fence, claimed, locks, since, until, limit, fetched, marked } => Self::Held {
                fence: fence.0,
                claimed: (*claimed).into(),
                locks: stored_locks(locks),
                since: since.0,
                until: until.map(Into::into),
                limit: limit.map(Into::into),
                delivered: *fetched == Fetched::ByAnother,
                fetched: *fetched == Fetched::ByItsBuild,
                marked: *marked,
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
            StoredPhase::Held { fence, claimed, locks: given, since, until, limit, delivered, fetched, marked } => {
                Self::Held {
                    fence: Fence(fence),
                    claimed: claimed.into(),
                    locks: locks(given),
                    since: WallMs(since),
                    until: until.map(Into::into),
                    limit: limit.map(Into::into),
                    fetched: match (delivered, fetched) {
                        (true, _) => Fetched::ByAnother,
                        (_, true) => Fetched::ByItsBuild,
                        _ => Fetched::Never,
                    },
                    marked,
                }
            }
        }
    }
}

/// A live claim. Its id is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredClaim {
    life: u32,
    parts: Vec<StoredPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requestor: Option<Parsed<Text>>,
    /// The requested scope, or else that of its pools when the claim began.
    scope: StoredScope,
    /// Its build is over; written by releases that did not store `build_ended`.
    #[serde(default, skip_serializing_if = "is_false")]
    build_over: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    build_ended: Option<StoredBuildEnded>,
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
    /// Missing when it is false.
    #[serde(default, skip_serializing_if = "is_false")]
    waits_if_empty: bool,
    runs: Vec<Parsed<Run>>,
    ticket: u64,
    asked_at: u64,
    withdrawals: u8,
    /// Missing when it is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    passed: u32,
    phase: StoredPhase,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<Parsed<ClaimId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<StoredOrigin>,
    /// The hash of the token of the process that acts for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
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
            aliases,
            origin,
            parks: _,
            made: _,
        } = claim;
        let Terms { ask, digest, owner, reason, confirm, ttl, priority, supersede, waits_if_empty } = terms;
        let Ask { parts, key, requestor } = ask;
        Self {
            life: *life,
            parts: parts.iter().map(Into::into).collect(),
            key: parsed(key.as_ref()),
            requestor: parsed(requestor.as_ref()),
            scope: (*scope).into(),
            build_over: *build_over == Some(BuildOver::Unknown),
            build_ended: match build_over {
                Some(BuildOver::Ended { how, at }) => Some(StoredBuildEnded { how: (*how).into(), at: at.0 }),
                Some(BuildOver::Unknown) | None => None,
            },
            digest: stored_digest(*digest),
            owner: (&**owner).into(),
            reason: parsed(reason.as_ref()),
            confirm: *confirm,
            ttl: ttl.map(|span| span.0),
            priority: Some(priority.get()).filter(|priority| *priority != 0),
            supersede: parsed(supersede.as_ref()),
            waits_if_empty: *waits_if_empty,
            runs: all_parsed(runs),
            ticket: ticket.0,
            asked_at: asked_at.0,
            withdrawals: *withdrawals,
            passed: *passed,
            phase: phase.into(),
            aliases: all_parsed(aliases),
            origin: origin.as_deref().map(Into::into),
            credential: origin.as_deref().and_then(|origin| origin.credential).map(stored_digest),
        }
    }
}

impl StoredClaim {
    /// The claim with this id, as it was stored: without parked requests, with [`NO_PRESENCE`].
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
            waits_if_empty: self.waits_if_empty,
        };
        let credential = self.credential.as_deref().map(digest).transpose()?;
        let origin = self.origin.map(|origin| Arc::new(Origin { credential, ..origin.into() }));
        Ok(Claim {
            id,
            life: self.life,
            terms,
            scope: self.scope.into(),
            build_over: match self.build_ended {
                Some(StoredBuildEnded { how, at }) => Some(BuildOver::Ended { how: how.into(), at: WallMs(at) }),
                None => self.build_over.then_some(BuildOver::Unknown),
            },
            runs: plain(self.runs),
            ticket: Ticket(self.ticket),
            asked_at: WallMs(self.asked_at),
            withdrawals: self.withdrawals,
            passed: self.passed,
            phase: self.phase.into(),
            aliases: plain(self.aliases),
            origin,
            parks: Vec::new(),
            made: Box::default(),
        })
    }
}

/// What only the store remembers of an ended claim. Its id is the key, and the row has the rest in columns of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEnded {
    life: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    runs: Vec<Parsed<Run>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Parsed<Reason>>,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<u64>,
    /// Who proved to be behind its first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maker: Option<Parsed<Identity>>,
    /// The hash of the token that its last process began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    /// The pools that it asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pools: Vec<Parsed<PoolName>>,
}

impl From<&Ended> for StoredEnded {
    fn from(ended: &Ended) -> Self {
        let Ended {
            id: _,
            life,
            digest,
            runs,
            how: _,
            by,
            reason,
            at,
            revision,
            fence,
            build: _,
            forget: _,
            maker,
            credential,
            pools,
        } = ended;
        Self {
            life: *life,
            digest: digest.map(stored_digest),
            runs: all_parsed(runs),
            by: parsed(by.as_ref()),
            reason: parsed(reason.as_ref()),
            at: at.0,
            revision: revision.map(|r| r.0),
            fence: fence.map(|f| f.0),
            maker: parsed(maker.as_ref()),
            credential: credential.map(stored_digest),
            pools: all_parsed(pools),
        }
    }
}

impl StoredEnded {
    /// The ended claim with this id and the values of the other columns.
    ///
    /// # Errors
    /// The record breaks a rule of the core.
    pub fn into_ended(self, id: ClaimId, how: End, build: Option<BuildRef>, forget: Deadline) -> anyhow::Result<Ended> {
        Ok(Ended {
            id,
            life: self.life,
            digest: self.digest.as_deref().map(digest).transpose()?,
            runs: plain(self.runs),
            how,
            by: self.by.map(|p| p.0),
            reason: self.reason.map(|p| p.0),
            at: WallMs(self.at),
            revision: self.revision.map(Revision),
            fence: self.fence.map(Fence),
            build,
            forget,
            maker: self.maker.map(|p| p.0),
            credential: self.credential.as_deref().map(digest).transpose()?,
            pools: plain(self.pools),
        })
    }
}
