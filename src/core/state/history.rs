//! The history that a state keeps: writing entries, listing them in their pools, pruning them.

use std::ops::Bound;
use std::sync::Arc;

use super::{Notice, State};
use crate::core::claim::{Claim, End, LockSet, Owner, Phase};
use crate::core::history::{Change, ChangeKind};
use crate::core::latch::LatchRef;
use crate::core::limits;
use crate::core::names::{ChangeKey, ClaimId, LockName, PoolName, Reason};
use crate::core::pool::Lock;
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
        let held_since = match claim.phase {
            Phase::Held { since, .. } if matches!(kind, Released | Lost | Broken) => Some(since),
            _ => None,
        };
        let ends_wait = matches!(kind, Granted | Claimed | Withdrawn | Ended);
        Self {
            kind,
            pools: claim.terms.ask.parts.iter().map(|part| part.pool.clone()).collect(),
            locks: LockSet::new(),
            claim: Some(claim.id.clone()),
            end: None,
            who: Some(who),
            reason: None,
            waited_since: ends_wait.then_some(claim.asked_at),
            held_since,
        }
    }
}

/// History.
impl State {
    /// Writes an entry, makes it the newest of each lock that it names, and prunes old entries.
    pub(in crate::core) fn record(&mut self, entry: Entry, now: Now) -> ChangeKey {
        let Entry { kind, pools, locks, claim, end, who, reason, waited_since, held_since } = entry;
        let (key, at) = (self.next_key(), now.wall);
        let span = |since: Option<WallMs>| since.map(|since| Span(at.0.saturating_sub(since.0)));
        let (waited, held) = (span(waited_since), span(held_since));
        self.write(Change { key, at, kind, pools, locks, claim, end, who, waited, held, reason, latch: None }, now)
    }

    /// Writes an entry about a latch. It belongs to no pool.
    pub(in crate::core) fn record_latch(
        &mut self,
        kind: ChangeKind,
        latch: LatchRef,
        reason: Option<Reason>,
        now: Now,
    ) -> ChangeKey {
        let (key, at) = (self.next_key(), now.wall);
        let change = Change {
            key,
            at,
            kind,
            pools: Vec::new(),
            locks: LockSet::new(),
            claim: None,
            end: None,
            who: None,
            waited: None,
            held: None,
            reason,
            latch: Some(latch),
        };
        self.write(change, now)
    }

    pub(super) fn next_key(&mut self) -> ChangeKey {
        let revision = self.step_revision();
        let seq = self.step.map_or(0, |(_, seq)| seq);
        self.step = Some((revision, seq + 1));
        ChangeKey { revision, seq }
    }

    pub(super) fn write(&mut self, change: Change, now: Now) -> ChangeKey {
        let change = Arc::new(change);
        let key = change.key;
        self.dirty.history.push(Arc::clone(&change));
        self.add_change(&change);
        for pool in &change.pools {
            self.prune(pool, now);
        }
        for pool in &change.pools {
            self.notify(Notice::Pool(pool.clone()));
        }
        // Two removals for one entry: this catches up when a page contained too few entries that may go.
        for _ in 0..2 {
            if self.snapshot.changes.len() > self.settings.changes {
                self.prune_oldest();
            }
        }
        key
    }

    /// Removes the oldest entry that may go. Each call examines one page of entries and continues where the last call
    /// ended, so entries that must stay do not hide those that may go.
    fn prune_oldest(&mut self) {
        let from = self.oldest_kept.map_or(Bound::Unbounded, Bound::Included);
        let may_go = |change: &&Arc<Change>| {
            let pools = change.pools.iter().filter_map(|p| self.snapshot.pool(p));
            pools.clone().all(|p| p.prunable.contains(&change.key) || !p.changes.contains_key(&change.key))
        };
        let page = || self.snapshot.changes.range((from, Bound::Unbounded)).map(|(_, change)| change);
        let oldest = page().take(limits::PAGE).find(may_go).cloned();
        let end = || page().nth(limits::PAGE).map(|change| change.key);
        self.oldest_kept = oldest.as_ref().map_or_else(end, |change| Some(change.key));
        if let Some(oldest) = oldest {
            self.take_out_of_history(&oldest);
        }
    }

    /// Removes entries that are too old. Each call examines one page of them and continues where the last call ended.
    /// When it reaches younger entries, it starts again at the beginning.
    pub(in crate::core) fn prune_by_age(&mut self, now: Now) {
        let oldest_wall = now.wall.0.saturating_sub(self.settings.history_age.0);
        let (page, end) = self.page_from(self.oldest_young);
        let young = page.iter().position(|change| change.at.0 >= oldest_wall);
        self.oldest_young = if young.is_some() { None } else { end };
        for change in page.iter().take(young.unwrap_or(page.len())) {
            let stays = |p: &PoolName| {
                let pool = self.snapshot.pool(p);
                pool.is_some_and(|p| p.changes.contains_key(&change.key) && !p.prunable.contains(&change.key))
            };
            let (stay, go): (Vec<_>, Vec<_>) = change.pools.iter().partition(|pool| stays(pool));
            for pool in go {
                self.take_out_of_pool(pool, change.key);
            }
            if stay.is_empty() {
                self.forget_change(change.key);
            }
        }
    }

    /// A page of the history from this entry on, and where the next page begins; `None` is the beginning.
    fn page_from(&self, from: Option<ChangeKey>) -> (Vec<Arc<Change>>, Option<ChangeKey>) {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let mut page: Vec<Arc<Change>> = self
            .snapshot
            .changes
            .range((from, Bound::Unbounded))
            .take(limits::PAGE + 1)
            .map(|(_, c)| Arc::clone(c))
            .collect();
        let next = if page.len() > limits::PAGE { page.pop().map(|change| change.key) } else { None };
        (page, next)
    }

    fn take_out_of_history(&mut self, change: &Change) {
        for pool in &change.pools {
            self.take_out_of_pool(pool, change.key);
        }
        self.forget_change(change.key);
    }

    fn take_out_of_pool(&mut self, pool: &PoolName, key: ChangeKey) {
        if let Some(p) = self.pool_mut(pool) {
            p.prunable.remove(&key);
            p.changes.remove(&key);
        }
    }

    /// Lists an entry in its pools. A restart also rebuilds the history with it.
    pub(in crate::core) fn add_change(&mut self, change: &Arc<Change>) {
        self.snapshot.changes.insert(change.key, Arc::clone(change));
        if change.latch.is_some() {
            self.latch_changes.push_back(change.key);
            if self.latch_changes.len() > limits::LATCH_CHANGES
                && let Some(oldest) = self.latch_changes.pop_front()
            {
                self.forget_change(oldest);
            }
        }
        // The removal of a pool is not in the history of any pool, not even of a later pool with the same name.
        for pool in change.pools.iter().filter(|_| change.kind != ChangeKind::PoolRemoved) {
            let Some(p) = self.pool_mut(pool) else { continue };
            p.changes.insert(change.key, Arc::clone(change));
            let mut named = false;
            let mut outdated = Vec::new();
            for (_, lock) in change.locks.iter().filter(|(of, _)| of == pool) {
                let Some(old) = p.locks.get(lock) else { continue };
                let mut lock = Lock::clone(old);
                outdated.extend(lock.newest.replace(change.key));
                p.put_lock(lock);
                named = true;
            }
            if !named {
                outdated.push(change.key);
            }
            for key in outdated {
                self.offer_to_prune(pool, key);
            }
        }
    }

    /// A restart has reached the removal of this pool: the pool that has the name now was made later, and its history
    /// starts after this.
    pub(in crate::core) fn begin_history_again(&mut self, pool: &PoolName) {
        let Some(p) = self.pool_mut(pool) else { return };
        p.changes.clear();
        p.prunable.clear();
        let named: Vec<Lock> = p.locks.values().filter(|l| l.newest.is_some()).map(|l| Lock::clone(l)).collect();
        named.into_iter().for_each(|lock| p.put_lock(Lock { newest: None, ..lock }));
    }

    /// An entry may be pruned once it is neither the newest of a lock nor the `claimed` entry of a live hold.
    pub(super) fn offer_to_prune(&mut self, pool: &PoolName, key: ChangeKey) {
        let Some(p) = self.snapshot.pool(pool) else { return };
        let Some(change) = p.changes.get(&key) else { return };
        let newest =
            |(of, lock): &(PoolName, LockName)| of == pool && p.locks.get(lock).is_some_and(|l| l.newest == Some(key));
        let live = change.kind == ChangeKind::Claimed
            && change
                .claim
                .as_ref()
                .and_then(|id| self.snapshot.claims.get(id))
                .is_some_and(|claim| matches!(&claim.phase, Phase::Held { claimed, .. } if *claimed == key));
        if !live
            && !change.locks.iter().any(newest)
            && let Some(p) = self.pool_mut(pool)
        {
            p.prunable.insert(key);
        }
    }

    /// Removes entries beyond the limits of number and age, oldest first. Entries that must stay take up at most half
    /// of the room, so that a pool with many locks keeps some other history.
    pub(in crate::core) fn prune(&mut self, pool: &PoolName, now: Now) {
        let keep = self.settings.history;
        let oldest_wall = now.wall.0.saturating_sub(self.settings.history_age.0);
        while let Some(p) = self.snapshot.pool(pool) {
            let Some(oldest) = p.prunable.get_min().copied() else { return };
            let is_old = p.changes.get(&oldest).is_none_or(|c| c.at.0 < oldest_wall);
            let must_stay = p.changes.len().saturating_sub(p.prunable.len());
            if p.prunable.len() <= keep - must_stay.min(keep / 2) && !is_old {
                return;
            }
            self.take_out_of_pool(pool, oldest);
            self.forget_change(oldest);
        }
    }

    /// Forgets an entry that is no longer in the history of any pool.
    pub(super) fn forget_change(&mut self, key: ChangeKey) {
        let Some(change) = self.snapshot.changes.get(&key) else { return };
        let shown = |pool: &PoolName| self.snapshot.pool(pool).is_some_and(|p| p.changes.contains_key(&key));
        if !change.pools.iter().any(shown) {
            self.snapshot.changes.remove(&key);
            self.dirty.pruned.push(key);
        }
    }
}
