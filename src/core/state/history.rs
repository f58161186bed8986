//! The history that a state keeps: writing entries, and listing them in their pools. `retention` prunes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Notice, State};
use crate::core::claim::{Claim, End, LockSet, Owner};
use crate::core::history::{Change, ChangeKind, Outline};
use crate::core::latch::LatchRef;
use crate::core::limits;
use crate::core::names::{ChangeKey, ClaimId, PoolName, Reason, TokenName};
use crate::core::origin::Origin;
use crate::core::time::{Now, Span, WallMs};

/// What an entry of the history says, before it has its place.
#[derive(Debug, Clone)]
pub(in crate::core) struct Entry {
    pub kind: ChangeKind,
    pub pools: Vec<PoolName>,
    pub locks: LockSet,
    pub claim: Option<ClaimId>,
    pub end: Option<End>,
    pub who: Option<Arc<Owner>>,
    pub reason: Option<Reason>,
    /// The request that began the life of the claim.
    pub origin: Option<Arc<Origin>>,
    /// When the wait began that this entry ends.
    pub waited_since: Option<WallMs>,
    /// When the hold began that this entry ends.
    pub held_since: Option<WallMs>,
}

impl Entry {
    /// An entry about a claim, with all its pools and no locks yet.
    pub(in crate::core) fn about(claim: &Claim, kind: ChangeKind, by: Option<&Arc<Owner>>) -> Self {
        use ChangeKind::{Broken, Claimed, Ended, Granted, Lost, Released, Withdrawn};
        let who = Arc::clone(by.unwrap_or(&claim.terms.owner));
        let ends_hold = matches!(kind, Released | Lost | Broken);
        let ends_wait = matches!(kind, Granted | Claimed | Withdrawn | Ended);
        Self {
            kind,
            pools: claim.terms.ask.parts.iter().map(|part| part.pool.clone()).collect(),
            locks: LockSet::new(),
            claim: Some(claim.id.clone()),
            end: None,
            who: Some(who),
            reason: None,
            origin: claim.origin.clone(),
            waited_since: ends_wait.then_some(claim.asked_at),
            held_since: claim.held_since().filter(|_| ends_hold),
        }
    }
}

/// History.
impl State {
    /// Writes an entry, makes it the newest of each lock that it names, and prunes old entries.
    pub(in crate::core) fn record(&mut self, entry: Entry, now: Now) -> ChangeKey {
        let Entry { kind, pools, locks, claim, end, who, reason, origin, waited_since, held_since } = entry;
        let (key, at) = (self.next_key(), now.wall);
        let span = |since: Option<WallMs>| since.map(|since| Span(at.0.saturating_sub(since.0)));
        let (waited, held) = (span(waited_since), span(held_since));
        let is_of_another = claim.is_some() && self.asking != claim;
        let origin = if kind.is_asked_for() && is_of_another { origin } else { self.origin() };
        let (latch, token) = (None, None);
        let change =
            Change { key, at, kind, pools, locks, claim, end, who, origin, waited, held, reason, latch, token };
        self.write(change, now)
    }

    /// Writes an entry about a latch. It belongs to no pool.
    pub(in crate::core) fn record_latch(
        &mut self,
        kind: ChangeKind,
        latch: LatchRef,
        reason: Option<Reason>,
        now: Now,
    ) -> ChangeKey {
        let change = Change { reason, latch: Some(latch), ..self.of_no_pool(kind, now) };
        self.write(change, now)
    }

    /// Writes an entry about a token. It belongs to no pool.
    pub(in crate::core) fn record_token(&mut self, kind: ChangeKind, token: TokenName, now: Now) {
        let change = Change { token: Some(token), ..self.of_no_pool(kind, now) };
        self.write(change, now);
    }

    fn of_no_pool(&mut self, kind: ChangeKind, now: Now) -> Change {
        Change {
            key: self.next_key(),
            at: now.wall,
            kind,
            pools: Vec::new(),
            locks: LockSet::new(),
            claim: None,
            end: None,
            who: None,
            origin: self.origin(),
            waited: None,
            held: None,
            reason: None,
            latch: None,
            token: None,
        }
    }

    pub(super) fn next_key(&mut self) -> ChangeKey {
        let revision = self.step_revision();
        let seq = self.step.map_or(0, |(_, seq)| seq);
        self.step = Some((revision, seq + 1));
        ChangeKey { revision, seq }
    }

    pub(super) fn write(&mut self, change: Change, now: Now) -> ChangeKey {
        let key = change.key;
        let is_of_no_pool = change.pools.is_empty();
        let outline = change.outline();
        self.dirty.history.push(Arc::new(change));
        self.list(&outline, is_of_no_pool);
        self.prune(limits::PRUNED_PER_ENTRY, now);
        for pool in outline.pools {
            self.notify(Notice::Pool(pool));
        }
        key
    }

    /// Lists a new entry in its pools, and makes it the newest of its locks.
    fn list(&mut self, entry: &Outline, is_of_no_pool: bool) {
        let mut pools = 0;
        for pool in listing_pools(entry) {
            let Some(p) = self.pool_mut(pool) else { continue };
            p.list(entry);
            let locks = entry.locks.iter().filter(|(of, _)| of == pool);
            let outdated: Vec<_> = locks.filter_map(|(_, lock)| p.set_newest(lock, entry.key)).collect();
            pools += 1;
            if outdated.is_empty() {
                self.offer_to_prune(pool, entry.key);
            }
            self.succeed(pool, &outdated, entry.key);
        }
        self.count_listings(entry, pools, is_of_no_pool);
    }

    /// Lists a stored entry at a restart. Entries come in their order. [`State::end_of_history`] does the rest.
    pub(in crate::core) fn list_stored(&mut self, entry: &Outline) {
        if entry.listed.kind == ChangeKind::PoolRemoved {
            // The pool that has the name now was made later, and its history starts after this.
            entry.pools.iter().for_each(|pool| self.begin_history_again(pool));
        }
        let mut pools = 0;
        for pool in listing_pools(entry) {
            let Some(p) = self.pool_mut(pool) else { continue };
            p.list(entry);
            pools += 1;
        }
        for (pool, lock) in listing_pools(entry).flat_map(|pool| entry.locks.iter().filter(move |(of, _)| of == pool)) {
            if let Some(newest) = self.histories.restored.get_mut(pool) {
                newest.insert(lock.clone(), entry.key);
            } else {
                self.histories.restored.insert(pool.clone(), BTreeMap::from([(lock.clone(), entry.key)]));
            }
        }
        self.count_listings(entry, pools, entry.pools.is_empty());
    }

    fn begin_history_again(&mut self, pool: &PoolName) {
        self.histories.restored.remove(pool);
        let Some(p) = self.pool_mut(pool) else { return };
        let old = std::mem::take(&mut p.changes);
        self.histories.remove(old);
    }

    /// All stored entries are listed: finds the newest of each lock and what may be pruned, and prunes it.
    pub(in crate::core) fn end_of_history(&mut self, now: Now) {
        for (pool, locks) in std::mem::take(&mut self.histories.restored) {
            let Some(p) = self.pool_mut(&pool) else { continue };
            let set = |(lock, newest)| p.set_newest(&lock, newest).map(|old| (old, newest));
            let changed: Vec<_> = locks.into_iter().filter_map(set).collect();
            changed.into_iter().for_each(|(old, new)| self.histories.change_newest(&pool, old, Some(new)));
        }
        let pools: Vec<PoolName> = self.snapshot.pools.keys().cloned().collect();
        for pool in &pools {
            self.offer_all_to_prune(pool);
        }
        self.prune(limits::PAGE, now);
    }
}

#[cfg(test)]
impl State {
    /// The entries since the last [`State::take_changes`].
    pub(in crate::core) fn new_entries(&self) -> &[Arc<Change>] {
        &self.dirty.history
    }
}

/// The pools whose history shows an entry. The removal of a pool is not in the history of any pool, not even of a later
/// pool with the same name.
fn listing_pools(entry: &Outline) -> impl Iterator<Item = &PoolName> + Clone {
    entry.pools.iter().filter(|_| entry.listed.kind != ChangeKind::PoolRemoved)
}
