//! What anybody may read, and what goes to and comes from a store.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::core::claim::{BuildRef, Claim, Concern, End, Ended, Part, Scope, Suspect};
use crate::core::history::Change;
use crate::core::latch::{Latch, LatchId};
use crate::core::layered::Layered;
use crate::core::names::{
    Asked, ChangeKey, ClaimId, Digest, LockName, OpId, PoolName, Revision, Text, Ticket, TokenName,
};
use crate::core::pool::{Lock, Policy, Pool};
use crate::core::state::Stuck;
use crate::core::time::{Deadline, EngineMs, WallMs};
use crate::core::token::Token;

/// Everything that can be read. A clone copies only a handful of pointers, so each batch publishes one.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub pools: Layered<PoolName, Arc<Pool>>,
    /// Live claims.
    pub claims: Layered<ClaimId, Arc<Claim>>,
    /// Live claims by their build.
    pub builds: OrdSet<(BuildRef, ClaimId)>,
    /// The claims among them whose build must be watched, with the reason ([`Claim::concern`]).
    pub watched: OrdMap<(BuildRef, ClaimId), Concern>,
    /// The claims whose build has no id yet ([`Claim::seeks_build`]).
    pub seeking: OrdSet<ClaimId>,
    /// Some builds of claims that ended a while ago and are remembered longer because nobody knows whether the build is
    /// over. After a while come the next.
    pub past_builds: Arc<[BuildRef]>,
    /// The claims with a marked hold, by their build.
    pub marked: OrdSet<(BuildRef, ClaimId)>,
    /// Ids that were answered with a marked hold, and the claim of that hold.
    pub aliases: OrdMap<ClaimId, ClaimId>,
    /// The URLs of installations of Concourse that run builds again in place, as they last said themselves.
    pub reruns: OrdSet<Text>,
    /// Builds of live claims whose state is unknown at present. Not stored: after a restart the watcher of builds
    /// reports them again.
    pub suspects: OrdMap<BuildRef, Arc<Suspect>>,
    /// Waiting claims that cannot go on by themselves, as of the last search (at most one every
    /// [`crate::core::settings::Settings::stuck_look`]).
    pub stuck: OrdMap<ClaimId, Arc<Stuck>>,
    pub latches: OrdMap<LatchId, Arc<Latch>>,
    /// Released latches, in the order of their release.
    pub released_latches: OrdSet<(Revision, LatchId)>,
    /// The tokens that this server has made, by the hash of their secret.
    pub tokens: OrdMap<Digest, Arc<Token>>,
    /// The newest revision so far.
    pub revision: Revision,
    /// How large the history is.
    pub history: Kept,
    /// From [`crate::core::settings::Settings::seed`].
    pub seed: u64,
}

impl Snapshot {
    #[must_use]
    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.pools.get(name).map(AsRef::as_ref)
    }

    #[must_use]
    pub fn lock(&self, pool: &PoolName, lock: &LockName) -> Option<&Lock> {
        self.pool(pool)?.locks.get(lock).map(AsRef::as_ref)
    }

    /// The live claim of this id, or the one whose marked hold has answered this id.
    #[must_use]
    pub fn claim(&self, id: &ClaimId) -> Option<&Arc<Claim>> {
        self.claims.get(self.aliases.get(id).unwrap_or(id))
    }

    /// The token of this name.
    #[must_use]
    pub fn token(&self, name: &TokenName) -> Option<&Arc<Token>> {
        self.tokens.values().find(|token| token.name == *name)
    }

    /// The claims of this build with a marked hold.
    pub fn marked_of(&self, build: &BuildRef) -> impl Iterator<Item = &Arc<Claim>> {
        let of = build.clone();
        let from = (build.clone(), ClaimId::smallest());
        let ids = self.marked.range(from..).take_while(move |(b, _)| *b == of);
        ids.filter_map(|(_, id)| self.claims.get(id))
    }

    /// Claims that have a lock of this pool, once for each of them.
    pub fn holding<'s>(&'s self, pool: &'s Pool) -> impl Iterator<Item = &'s Arc<Claim>> {
        let holders = pool.locks.values().flat_map(|lock| &lock.holders);
        holders.filter_map(|holder| self.claims.get(&holder.claim))
    }

    /// Since when the longest wait in this pool lasts.
    #[must_use]
    pub fn oldest_wait(&self, pool: &Pool) -> Option<WallMs> {
        pool.waiting.values().filter_map(|id| self.claims.get(id)).map(|claim| claim.asked_at).min()
    }

    /// Since when the longest hold in this pool lasts.
    #[must_use]
    pub fn oldest_hold(&self, pool: &Pool) -> Option<WallMs> {
        self.holding(pool).filter_map(|claim| claim.held_since()).min()
    }

    /// The scope of a claim for these parts that names none: of the scopes of its pools, the one with the most ways to
    /// end.
    #[must_use]
    pub fn default_scope(&self, parts: &[Part]) -> Scope {
        let pools = parts.iter().filter_map(|part| self.pool(&part.pool));
        pools.filter_map(|pool| pool.policy.scope).max().unwrap_or_default()
    }

    /// The builds to ask their Concourse about, each once, in order, with what their state means. The cost grows with
    /// the number of claims that they concern.
    pub fn builds_to_watch(&self) -> impl Iterator<Item = (&BuildRef, Concern)> {
        let mut claims = self.watched.iter().peekable();
        std::iter::from_fn(move || {
            let ((build, _), concern) = claims.next()?;
            let mut most = *concern;
            while let Some((_, concern)) = claims.next_if(|((other, _), _)| other == build) {
                most = most.max(*concern);
            }
            Some((build, most))
        })
    }

    /// Why the state of a claim's build is unknown, if it is.
    #[must_use]
    pub fn suspect(&self, claim: &Claim) -> Option<&Suspect> {
        if self.suspects.is_empty() || claim.build_over.is_some() {
            return None;
        }
        self.suspects.get(&claim.terms.owner.build()?).map(AsRef::as_ref)
    }

    /// Live claims of one build.
    pub fn claims_of(&self, build: &BuildRef) -> impl Iterator<Item = &Arc<Claim>> {
        let of = build.clone();
        self.builds
            .range((build.clone(), ClaimId::smallest())..)
            .take_while(move |(b, _)| *b == of)
            .filter_map(|(_, id)| self.claims.get(id))
    }
}

/// How large the history of all pools is. An entry of two pools counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    pub entries: usize,
    /// As [`Change::bytes`] counts them.
    pub bytes: u64,
    /// The newest revision of which an entry was pruned, in any pool: earlier ones may be missing.
    pub pruned: Revision,
}

/// Counters that outlive the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The newest revision so far; its upper bits are the epoch.
    pub revision: Revision,
    /// The next ticket to give out.
    pub next_ticket: Ticket,
    /// The engine time when this was stored.
    pub engine: EngineMs,
    /// As in [`Kept`].
    pub pruned: Revision,
}

/// A remembered operation and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpRecord {
    pub op: OpId,
    /// The revision of its answer.
    pub revision: Revision,
    /// Missing when an older release, which did not store it, gave the answer.
    pub asked: Option<Asked>,
    pub forget: Deadline,
}

/// The changes of one batch, for the store: `None` deletes.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub meta: Option<Meta>,
    pub pools: Vec<(PoolName, Option<Policy>)>,
    /// Of a lock, the store keeps name, metadata, labels, drain and `leaving`; holders follow from the claims.
    pub locks: Vec<(PoolName, LockName, Option<Arc<Lock>>)>,
    pub claims: Vec<(ClaimId, Option<Arc<Claim>>)>,
    pub ended: Vec<(ClaimId, Option<Arc<Ended>>)>,
    /// Other ended claims of which only this changes: when they are forgotten.
    pub forget: Vec<(ClaimId, Deadline)>,
    pub ops: Vec<(OpId, Option<OpRecord>)>,
    pub latches: Vec<(LatchId, Option<Arc<Latch>>)>,
    /// Whether these installations of Concourse run builds again.
    pub reruns: Vec<(Text, bool)>,
    pub tokens: Vec<(TokenName, Option<Arc<Token>>)>,
    /// New entries, oldest first.
    pub history: Vec<Arc<Change>>,
    /// Entries to delete.
    pub pruned: Vec<ChangeKey>,
}

impl Changes {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.is_none()
            && self.pools.is_empty()
            && self.locks.is_empty()
            && self.claims.is_empty()
            && self.ended.is_empty()
            && self.forget.is_empty()
            && self.ops.is_empty()
            && self.latches.is_empty()
            && self.reruns.is_empty()
            && self.tokens.is_empty()
            && self.history.is_empty()
            && self.pruned.is_empty()
    }
}

/// The part of a stored [`Ended`] from which a restart learns what is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedOutline {
    pub id: ClaimId,
    /// Whether its own client released it.
    pub released: bool,
    pub forget: Deadline,
    pub build: Option<BuildRef>,
}

impl From<&Ended> for EndedOutline {
    fn from(ended: &Ended) -> Self {
        let (id, released) = (ended.id.clone(), ended.how == End::Released);
        Self { id, released, forget: ended.forget, build: ended.build.clone() }
    }
}

impl EndedOutline {
    /// When its memory began.
    pub(super) fn since(&self) -> EngineMs {
        EngineMs(self.forget.at.0.saturating_sub(self.forget.span.0))
    }
}

/// Everything that a store has kept except ended claims and the history, in no particular order.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Missing in a new store.
    pub meta: Option<Meta>,
    pub pools: Vec<(PoolName, Policy)>,
    pub locks: Vec<(PoolName, Lock)>,
    pub claims: Vec<Claim>,
    pub ops: Vec<OpRecord>,
    pub latches: Vec<Latch>,
    /// The installations of Concourse that run builds again.
    pub reruns: Vec<Text>,
    pub tokens: Vec<Token>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::Span;

    #[test]
    fn whatever_must_be_stored_is_a_change() {
        fn name<T: std::str::FromStr<Err: std::fmt::Debug>>() -> T {
            "n".parse().unwrap()
        }
        let deadline = Deadline { at: EngineMs(1), span: Span(1) };
        let meta = Meta { revision: Revision(1), next_ticket: Ticket(1), engine: EngineMs(1), pruned: Revision(0) };
        let key = ChangeKey { revision: Revision(1), seq: 0 };
        let state = crate::core::scenarios::entries_of("- pool p capacity=1");
        let none = Changes::default;
        let all = [
            Changes { meta: Some(meta), ..none() },
            Changes { pools: vec![(name(), None)], ..none() },
            Changes { locks: vec![(name(), name(), None)], ..none() },
            Changes { claims: vec![(name(), None)], ..none() },
            Changes { ended: vec![(name(), None)], ..none() },
            Changes { forget: vec![(name(), deadline)], ..none() },
            Changes { ops: vec![(name(), None)], ..none() },
            Changes { latches: vec![(LatchId::from_random([1; 16]), None)], ..none() },
            Changes { reruns: vec![(name(), true)], ..none() },
            Changes { tokens: vec![(name(), None)], ..none() },
            Changes { history: vec![Arc::new(state[0].clone())], ..none() },
            Changes { pruned: vec![key], ..none() },
        ];
        assert!(none().is_empty());
        assert_eq!(all.iter().position(Changes::is_empty), None);
    }
}
