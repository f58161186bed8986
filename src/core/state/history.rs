//! The history that a state keeps: writing entries, listing them in their pools, pruning them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Notice, State};
use crate::core::claim::{Claim, End, LockSet, Owner};
use crate::core::history::{Change, ChangeKind, Outline};
use crate::core::latch::LatchRef;
use crate::core::limits;
use crate::core::names::{ChangeKey, ClaimId, LockName, PoolName, Reason};
use crate::core::origin::Origin;
use crate::core::pool::{Lock, Pool};
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
        let change = Change { key, at, kind, pools, locks, claim, end, who, origin, waited, held, reason, latch: None };
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
            origin: self.origin(),
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
        let key = change.key;
        let is_latch = change.latch.is_some();
        let outline = change.outline();
        self.dirty.history.push(Arc::new(change));
        self.list(&outline, is_latch);
        for pool in &outline.pools {
            self.prune(pool, now);
        }
        for pool in outline.pools {
            self.notify(Notice::Pool(pool));
        }
        // More than came in, so that this catches up when an entry must stay.
        for _ in 0..=limits::POOLS_PER_CLAIM {
            if self.histories.entries <= self.settings.changes || !self.prune_oldest(None) {
                break;
            }
        }
        key
    }

    /// Takes the oldest entry that may go out of one history. With a time, only if it is older. Returns whether there
    /// was one.
    fn prune_oldest(&mut self, older_than: Option<WallMs>) -> bool {
        let loose = self.histories.loose.first_key_value().map(|(key, at)| (*key, *at));
        let listed = self.histories.oldest.first().cloned();
        let (key, at, pool) = match (loose, listed) {
            (Some((key, at)), None) => (key, at, None),
            (Some((key, at)), Some((other, _))) if key < other => (key, at, None),
            (_, Some((key, pool))) => {
                let at = self.snapshot.pool(&pool).and_then(|p| p.changes.get(&key)).map(|listed| listed.at);
                (key, at.unwrap_or_default(), Some(pool))
            }
            (None, None) => return false,
        };
        if older_than.is_some_and(|time| at >= time) {
            return false;
        }
        match pool {
            Some(pool) => self.take_out_of_pool(&pool, key),
            None => self.forget_loose(key),
        }
        true
    }

    /// Removes entries that are too old, in each call at most a page of them.
    pub(in crate::core) fn prune_by_age(&mut self, now: Now) {
        let oldest = WallMs(now.wall.0.saturating_sub(self.settings.history_age.0));
        let _ = (0..limits::PAGE).all(|_| self.prune_oldest(Some(oldest)));
    }

    /// Lists a new entry in its pools, and makes it the newest of its locks.
    fn list(&mut self, entry: &Outline, is_latch: bool) {
        let mut pools = 0;
        for pool in listing_pools(entry) {
            let newest = |p: &mut Pool| {
                let mut outdated = Vec::new();
                let mut named = false;
                for (_, lock) in entry.locks.iter().filter(|(of, _)| of == pool) {
                    let Some(old) = p.locks.get(lock) else { continue };
                    let mut lock = Lock::clone(old);
                    outdated.extend(lock.newest.replace(entry.key));
                    p.put_lock(lock);
                    named = true;
                }
                if !named {
                    outdated.push(entry.key);
                }
                outdated
            };
            let Some(p) = self.pool_mut(pool) else { continue };
            p.list(entry);
            let outdated = newest(p);
            self.histories.entries += 1;
            pools += 1;
            outdated.into_iter().for_each(|key| self.offer_to_prune(pool, key));
        }
        self.count_listings(entry, pools, is_latch);
    }

    /// An entry of several pools, or of none, needs a note of its own.
    fn count_listings(&mut self, entry: &Outline, pools: usize, is_latch: bool) {
        if pools > 1 {
            self.histories.shared.insert(entry.key, pools);
        }
        if pools == 0 {
            self.histories.entries += 1;
            self.histories.loose.insert(entry.key, entry.listed.at);
        }
        if is_latch {
            self.histories.of_latches.push_back(entry.key);
            if self.histories.of_latches.len() > limits::LATCH_CHANGES
                && let Some(oldest) = self.histories.of_latches.pop_front()
            {
                self.forget_loose(oldest);
            }
        }
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
            self.histories.entries += 1;
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
        old.keys().for_each(|key| self.unlist(*key));
    }

    /// All stored entries are listed: finds the newest of each lock and what may be pruned, and prunes it.
    pub(in crate::core) fn end_of_history(&mut self, now: Now) {
        for (pool, locks) in std::mem::take(&mut self.histories.restored) {
            let Some(p) = self.pool_mut(&pool) else { continue };
            for (lock, newest) in locks {
                let Some(old) = p.locks.get(&lock) else { continue };
                let lock = Lock { newest: Some(newest), ..Lock::clone(old) };
                p.put_lock(lock);
            }
        }
        let pools: Vec<PoolName> = self.snapshot.pools.keys().cloned().collect();
        for pool in &pools {
            let Some(p) = self.snapshot.pools.get_mut(pool).map(Arc::make_mut) else { continue };
            let may_go = p.changes.keys().filter(|key| !p.is_newest(**key) && !self.claimed.contains(key));
            p.prunable = may_go.copied().collect();
            if let Some(oldest) = p.prunable.get_min() {
                self.histories.oldest.insert((*oldest, pool.clone()));
            }
            self.prune(pool, now);
        }
    }

    /// An entry may be pruned once it is neither the newest of a lock nor the `claimed` entry of a live hold.
    pub(super) fn offer_to_prune(&mut self, pool: &PoolName, key: ChangeKey) {
        let Some(p) = self.snapshot.pools.get_mut(pool) else { return };
        if p.changes.contains_key(&key) && !p.is_newest(key) && !self.claimed.contains(&key) {
            let p = Arc::make_mut(p);
            let before = p.prunable.get_min().copied();
            p.prunable.insert(key);
            let after = p.prunable.get_min().copied();
            self.histories.set_oldest(pool, before, after);
        }
    }

    /// Removes entries beyond the limits of number and age, oldest first. Entries that must stay take up at most half
    /// of the room, so that a pool with many locks keeps some other history.
    fn prune(&mut self, pool: &PoolName, now: Now) {
        let keep = self.settings.history;
        let oldest_wall = now.wall.0.saturating_sub(self.settings.history_age.0);
        while let Some(p) = self.snapshot.pool(pool) {
            let Some(oldest) = p.prunable.get_min().copied() else { return };
            let is_old = p.changes.get(&oldest).is_none_or(|listed| listed.at.0 < oldest_wall);
            let must_stay = p.changes.len().saturating_sub(p.prunable.len());
            if p.prunable.len() <= keep - must_stay.min(keep / 2) && !is_old {
                return;
            }
            self.take_out_of_pool(pool, oldest);
        }
    }

    pub(super) fn prune_after(&mut self, pool: &PoolName, key: ChangeKey, now: Now) {
        self.offer_to_prune(pool, key);
        self.prune(pool, now);
    }

    fn take_out_of_pool(&mut self, pool: &PoolName, key: ChangeKey) {
        let Some(p) = self.pool_mut(pool) else { return };
        let before = p.prunable.get_min().copied();
        p.prunable.remove(&key);
        let after = p.prunable.get_min().copied();
        let listed = p.changes.remove(&key).is_some();
        self.histories.set_oldest(pool, before, after);
        if listed {
            self.unlist(key);
        }
    }

    /// A pool is gone, and its history with it.
    pub(super) fn forget_history(&mut self, pool: &Pool) {
        self.histories.set_oldest(&pool.name, pool.prunable.get_min().copied(), None);
        pool.changes.keys().for_each(|key| self.unlist(*key));
    }

    /// One history less lists this entry. The last one to go takes the entry with it.
    fn unlist(&mut self, key: ChangeKey) {
        self.histories.entries -= 1;
        match self.histories.shared.get_mut(&key) {
            Some(pools) if *pools > 2 => *pools -= 1,
            Some(_) => drop(self.histories.shared.remove(&key)),
            None => self.dirty.pruned.push(key),
        }
    }

    /// Forgets an entry of no pool.
    fn forget_loose(&mut self, key: ChangeKey) {
        if self.histories.loose.remove(&key).is_some() {
            self.histories.entries -= 1;
            self.dirty.pruned.push(key);
        }
    }

    /// Whether there is no history at all.
    #[must_use]
    pub fn has_no_history(&self) -> bool {
        self.histories.entries == 0
    }
}

#[cfg(test)]
impl State {
    /// The entries since the last [`State::take_changes`].
    pub(in crate::core) fn new_entries(&self) -> &[Arc<Change>] {
        &self.dirty.history
    }

    /// Whether exactly these entries are listed.
    pub(in crate::core) fn check_has_all_entries<'k>(
        &self,
        kept: impl Iterator<Item = &'k ChangeKey>,
    ) -> Result<(), String> {
        let in_pools = self.snapshot.pools.values().flat_map(|pool| pool.changes.keys());
        let listed: BTreeSet<&ChangeKey> = in_pools.chain(self.histories.loose.keys()).collect();
        let kept: BTreeSet<&ChangeKey> = kept.collect();
        let differ: Vec<_> = kept.symmetric_difference(&listed).collect();
        let listings: usize = self.snapshot.pools.values().map(|pool| pool.changes.len()).sum();
        let entries = listings + self.histories.loose.len();
        if !differ.is_empty() || entries != self.histories.entries {
            return Err(format!("{entries} of {}; store and state differ about {differ:?}", self.histories.entries));
        }
        let heads = |pool: &Arc<Pool>| Some((*pool.prunable.get_min()?, pool.name.clone()));
        let oldest: BTreeSet<_> = self.snapshot.pools.values().filter_map(heads).collect();
        if oldest == self.histories.oldest {
            Ok(())
        } else {
            Err(format!("{:?} are oldest, not {oldest:?}", self.histories.oldest))
        }
    }
}

/// The pools whose history shows an entry. The removal of a pool is not in the history of any pool, not even of a later
/// pool with the same name.
fn listing_pools(entry: &Outline) -> impl Iterator<Item = &PoolName> + Clone {
    entry.pools.iter().filter(|_| entry.listed.kind != ChangeKind::PoolRemoved)
}

/// What is known about the histories of all pools together.
#[derive(Debug, Clone, Default)]
pub(super) struct Histories {
    /// The number of entries in all histories. An entry of two pools counts twice.
    entries: usize,
    /// The oldest entry of each pool that may be pruned.
    oldest: BTreeSet<(ChangeKey, PoolName)>,
    /// Entries that several pools still list, and how many.
    shared: BTreeMap<ChangeKey, usize>,
    /// Entries of no pool: about latches and removed pools.
    loose: BTreeMap<ChangeKey, WallMs>,
    /// Entries about latches, oldest first; some may be pruned already.
    of_latches: VecDeque<ChangeKey>,
    /// During a restart: the newest entry about each lock so far.
    restored: BTreeMap<PoolName, BTreeMap<LockName, ChangeKey>>,
}

impl Histories {
    fn set_oldest(&mut self, pool: &PoolName, before: Option<ChangeKey>, after: Option<ChangeKey>) {
        if before == after {
            return;
        }
        if let Some(key) = before {
            self.oldest.remove(&(key, pool.clone()));
        }
        if let Some(key) = after {
            self.oldest.insert((key, pool.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::{By, Command};
    use crate::core::latch::{Ending, LatchId, NewLatch, Target};
    use crate::core::names::Revision;
    use crate::core::pool::Policy;
    use crate::core::settings::Settings;
    use crate::core::step::step;

    #[test]
    fn the_oldest_entry_goes_first_whether_it_is_about_a_latch_or_a_pool() {
        let pool = || PoolName::parse("p").unwrap();
        let note = || Command::Note { pool: pool(), lock: None, by: By::default() };
        let target =
            Target { workflow: "w".parse().unwrap(), namespace: "n".parse().unwrap(), workflow_uid: None, node: None };
        let latch = NewLatch { id: LatchId::smallest(), target, ending: Ending::default() };
        let commands = [
            Command::SetPool { pool: pool(), policy: Policy::default(), capacity: None, by: By::default() },
            Command::CreateLatch(Box::new(latch)),
            note(),
            note(),
            note(),
            note(),
        ];
        let mut state = State { settings: Settings { changes: 3, ..Settings::default() }, ..State::default() };
        let pruned = |command| {
            step(&mut state, command, Now::default()).unwrap();
            let changes = state.take_changes(Now::default());
            changes.pruned.iter().map(|key| key.revision).collect::<Vec<_>>()
        };
        let gone: Vec<Vec<Revision>> = commands.into_iter().map(pruned).collect();
        let first = Revision::default().0 + 1;
        let expected = [vec![], vec![], vec![], vec![first], vec![first + 1], vec![first + 2]];
        assert_eq!(gone, expected.map(|keys| keys.into_iter().map(Revision).collect::<Vec<_>>()));
    }
}
