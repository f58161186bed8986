//! History: what happened, in one order across all pools. The entries are in the store; a state knows where each is
//! listed, how large it is, and which may be pruned.

use std::sync::Arc;

use super::claim::{End, LockSet, Owner};
use super::latch::LatchRef;
use super::names::{ChangeKey, ClaimId, PoolName, Reason, TokenName};
use super::origin::Origin;
use super::time::{Span, WallMs};

/// What each entry takes, bytes: its key, time and kind, and its share of the pages that it is on.
const ENTRY_BYTES: usize = 100;
/// What each member takes beside its text, bytes: its name and punctuation.
const MEMBER_BYTES: usize = 14;
/// A span, in digits.
const NUMBER_BYTES: usize = 6;
/// The id of a latch, and the names of its members.
const LATCH_ID_BYTES: usize = 60;

/// What happened. Each word is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// A claim began to wait.
    Waiting,
    /// A claim waits for locks that its own build has.
    SelfWait,
    /// A claim is part of a cycle of builds that wait for each other.
    Deadlock,
    /// A claim was given locks and must confirm.
    Granted,
    /// A claim holds its locks.
    Claimed,
    /// A grant was not confirmed in time.
    Withdrawn,
    /// A claim's own client ended its hold.
    Released,
    /// A hold was lost: its ttl, its lease, its build or a limit of its pool ended it.
    Lost,
    /// A hold was ended by force.
    Broken,
    /// A waiting or granted claim ended.
    Ended,
    /// A waiting claim was given another place.
    Moved,
    /// A lock was taken out of service.
    Quarantined,
    /// A lock came back into service.
    Returned,
    /// A lock came into the pool.
    Added,
    /// A lock left the pool.
    Removed,
    /// Metadata or labels of a lock changed.
    Updated,
    /// A pool was made or its policy changed.
    PoolSet,
    /// A pool was removed.
    PoolRemoved,
    /// A request had no effect; the entry is the version of a step that changed nothing.
    Noted,
    /// A latch was made.
    LatchCreated,
    /// A latch was released.
    LatchReleased,
    /// A latch was deleted.
    LatchDeleted,
    /// A released latch that nobody deleted was forgotten.
    LatchExpired,
    /// A token was made.
    TokenCreated,
    /// A token was revoked.
    TokenRevoked,
}

impl ChangeKind {
    /// Whether it happens to a claim because the claim asked for it, whoever's request is being carried out.
    #[must_use]
    pub fn is_asked_for(self) -> bool {
        matches!(self, Self::Waiting | Self::SelfWait | Self::Deadlock | Self::Granted | Self::Claimed)
    }

    /// Whether it is only a step on the way. The other kinds say who held what, from when to when, and why that ended, or
    /// how the locks of a pool changed; they are kept longer ([`super::limits::DETAILS_AGE`]).
    #[must_use]
    pub fn is_detail(self) -> bool {
        use ChangeKind::{Deadlock, Granted, Moved, Noted, SelfWait, Waiting, Withdrawn};
        matches!(self, Waiting | SelfWait | Deadlock | Granted | Withdrawn | Moved | Noted)
    }

    /// Whether `check` lists it as a version (docs/design.md#versions).
    #[must_use]
    pub fn is_version(self) -> bool {
        use ChangeKind::{Added, Broken, Claimed, Lost, Quarantined, Released, Removed, Returned, Updated};
        matches!(self, Claimed | Released | Lost | Broken | Added | Removed | Updated | Quarantined | Returned)
    }
}

/// What a pool keeps of each entry in its history. The store has the whole entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub kind: ChangeKind,
    pub at: WallMs,
    /// Its size, as far as retention counts it ([`Change::bytes`]).
    pub bytes: u32,
}

/// The part of a stored entry from which a restart rebuilds the histories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    pub key: ChangeKey,
    pub listed: Listed,
    /// As in [`Change`].
    pub pools: Vec<PoolName>,
    /// As in [`Change`].
    pub locks: LockSet,
    /// As in [`Change`].
    pub held: Option<Span>,
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: ChangeKey,
    pub at: WallMs,
    pub kind: ChangeKind,
    /// The pools whose history shows the entry, ordered; empty only for entries about a latch or a token.
    pub pools: Vec<PoolName>,
    /// The locks that it is about, over all its pools, in (pool, name) order.
    pub locks: LockSet,
    pub claim: Option<ClaimId>,
    /// How the claim ended, for entries that end a claim.
    pub end: Option<End>,
    /// Who did it, as the client says, if known.
    pub who: Option<Arc<Owner>>,
    /// The request behind it: of the claim itself for its wait, grant and hold, otherwise of whoever did it. `None` for
    /// what the server did by itself.
    pub origin: Option<Arc<Origin>>,
    /// How long the claim had waited, by the wall clock: for entries that give it locks or end its wait.
    pub waited: Option<Span>,
    /// How long the claim had held its locks, by the wall clock: for entries that end a hold.
    pub held: Option<Span>,
    /// Why or how, as text for people.
    pub reason: Option<Reason>,
    /// The latch that it is about; such an entry belongs to no pool.
    pub latch: Option<LatchRef>,
    /// The token that it is about; such an entry belongs to no pool.
    pub token: Option<TokenName>,
}

impl Change {
    /// What a pool keeps of this entry.
    #[must_use]
    pub fn listed(&self) -> Listed {
        Listed { kind: self.kind, at: self.at, bytes: self.bytes() }
    }

    /// About how many bytes a store needs for this entry: the core knows no store, so it counts texts and members.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        let Self { key: _, at: _, kind: _, pools, locks, claim, end, who, origin, waited, held, reason, latch, token } =
            self;
        let mut bytes = ENTRY_BYTES;
        let mut member = |length: Option<usize>| bytes += length.map_or(0, |length| length + MEMBER_BYTES);
        pools.iter().for_each(|pool| member(Some(pool.as_str().len())));
        locks.iter().for_each(|(pool, lock)| member(Some(pool.as_str().len() + lock.as_str().len())));
        member(claim.as_ref().map(|claim| claim.as_str().len()));
        member(end.map(|end| end.word().len()));
        if let Some(who) = who {
            who.texts().into_iter().for_each(|text| member(text.map(str::len)));
        }
        if let Some(origin) = origin {
            member(origin.proved.as_ref().map(|proved| proved.bytes()));
            member(origin.address.as_ref().map(String::len));
            member(origin.rule.as_ref().map(|rule| rule.len()));
        }
        member(waited.map(|_| NUMBER_BYTES));
        member(held.map(|_| NUMBER_BYTES));
        member(reason.as_ref().map(|reason| reason.as_str().len()));
        member(
            latch.as_ref().map(|latch| LATCH_ID_BYTES + latch.workflow.as_str().len() + latch.namespace.as_str().len()),
        );
        member(token.as_ref().map(|token| token.as_str().len()));
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// What a restart needs of this entry.
    #[must_use]
    pub fn outline(&self) -> Outline {
        Outline {
            key: self.key,
            listed: self.listed(),
            pools: self.pools.clone(),
            locks: self.locks.clone(),
            held: self.held,
        }
    }
}
