//! Which entries of the history go, and when (docs/decisions/0027-a-busy-pool-loses-its-details-first.md).
//!
//! An entry goes when it is too old. When the history of all pools is too large, the pool with the largest one loses
//! entries, its details first. Entries that must stay are neither: the newest of each lock, and the `claimed` entries of
//! live holds. Each step removes a bounded number, and finds each of them in a time that does not grow with the history.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use imbl::OrdMap;

use super::State;
use crate::core::history::{Listed, Outline};
use crate::core::limits;
use crate::core::names::{ChangeKey, LockName, PoolName};
use crate::core::pool::Pool;
use crate::core::settings::Settings;
use crate::core::time::{Now, WallMs};

/// What the history of a pool may lose, and what it may not. Only steps need it, so that a snapshot does not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OfPool {
    /// The entries that may be pruned and are only steps on the way ([`crate::core::history::ChangeKind::is_detail`]).
    details: BTreeSet<ChangeKey>,
    /// The others that may be pruned.
    others: BTreeSet<ChangeKey>,
    /// The size of all that may be pruned.
    bytes: u64,
    /// The entries that are the newest of a lock, and of how many locks.
    newest: BTreeMap<ChangeKey, u32>,
}

impl OfPool {
    fn set_of(&mut self, listed: Listed) -> &mut BTreeSet<ChangeKey> {
        if listed.kind.is_detail() { &mut self.details } else { &mut self.others }
    }

    /// This entry may be pruned.
    fn insert(&mut self, key: ChangeKey, listed: Listed) {
        if self.set_of(listed).insert(key) {
            self.bytes += u64::from(listed.bytes);
        }
    }

    /// This entry may be pruned once it is neither the newest of a lock nor the `claimed` entry of a live hold.
    fn offer(&mut self, key: ChangeKey, listed: Listed, claimed: &BTreeSet<ChangeKey>) {
        if !self.is_newest(key) && !claimed.contains(&key) {
            self.insert(key, listed);
        }
    }

    /// This entry was pruned.
    fn remove(&mut self, key: ChangeKey, listed: Listed) {
        if self.set_of(listed).remove(&key) {
            self.bytes -= u64::from(listed.bytes);
        }
    }

    /// What may be pruned, its details first.
    #[cfg(test)]
    fn prunable(&self) -> impl Iterator<Item = &ChangeKey> {
        self.details.iter().chain(&self.others)
    }

    fn head(&self) -> Head {
        let oldest = self.details.first().into_iter().chain(self.others.first()).min();
        Head { oldest: oldest.copied(), entries: self.details.len() + self.others.len(), bytes: self.bytes }
    }

    /// Another entry is the newest of a lock.
    fn change_newest(&mut self, old: Option<ChangeKey>, new: Option<ChangeKey>) {
        if let Some(key) = new {
            *self.newest.entry(key).or_insert(0) += 1;
        }
        let Some(key) = old else { return };
        match self.newest.get_mut(&key) {
            Some(locks) if *locks > 1 => *locks -= 1,
            _ => drop(self.newest.remove(&key)),
        }
    }

    fn is_newest(&self, key: ChangeKey) -> bool {
        self.newest.contains_key(&key)
    }

    /// Which entry goes next: the oldest one, where a detail counts as many times as old ([`limits::DETAILS_AGE`]).
    fn next_to_go(&self, pool: &Pool, now: Now) -> Option<ChangeKey> {
        let age = |key| now.wall.0.saturating_sub(pool.changes.get(key).map_or(0, |listed| listed.at.0));
        match (self.details.first(), self.others.first()) {
            (Some(detail), Some(other)) if age(detail).saturating_mul(limits::DETAILS_AGE) < age(other) => Some(*other),
            (Some(detail), _) => Some(*detail),
            (None, other) => other.copied(),
        }
    }
}

/// What is known about the histories of all pools together.
#[derive(Debug, Clone, Default)]
pub(super) struct Histories {
    /// Those of the pools that there are. Their order is never asked for, and a search costs the same however many there are.
    of_pools: HashMap<PoolName, OfPool>,
    /// How many entries may be pruned, over all pools, and their size.
    prunable: usize,
    prunable_bytes: u64,
    /// The oldest entry of each pool that may be pruned.
    oldest: BTreeSet<(ChangeKey, PoolName)>,
    /// The pools with entries that may be pruned, by the size of these.
    heaviest: BTreeSet<(u64, PoolName)>,
    /// Entries that several pools still list, and how many.
    shared: BTreeMap<ChangeKey, usize>,
    /// Entries of no pool, about latches, tokens and removed pools, and their size. All of them may be pruned.
    loose: BTreeMap<ChangeKey, Listed>,
    loose_bytes: u64,
    /// The histories of removed pools. They go first.
    removed: VecDeque<OrdMap<ChangeKey, Listed>>,
    /// Entries about latches and tokens, oldest first; some may be pruned already.
    of_no_pool: VecDeque<ChangeKey>,
    /// During a restart: the newest entry about each lock so far.
    pub(super) restored: BTreeMap<PoolName, BTreeMap<LockName, ChangeKey>>,
}

/// What the indexes know about one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Head {
    oldest: Option<ChangeKey>,
    entries: usize,
    bytes: u64,
}

impl Histories {
    /// Changes what is known about one pool.
    fn change(&mut self, pool: &PoolName, change: impl FnOnce(&mut OfPool)) {
        let kept = self.of_pools.entry(pool.clone()).or_default();
        let before = kept.head();
        change(kept);
        let after = kept.head();
        if before != after {
            self.update(pool, before, after);
        }
    }

    /// Another entry is the newest of a lock.
    pub(super) fn change_newest(&mut self, pool: &PoolName, old: Option<ChangeKey>, new: Option<ChangeKey>) {
        if old != new {
            self.change(pool, |kept| kept.change_newest(old, new));
        }
    }

    /// The entries of this pool that may be pruned have changed.
    fn update(&mut self, pool: &PoolName, before: Head, after: Head) {
        self.prunable = self.prunable + after.entries - before.entries;
        self.prunable_bytes = self.prunable_bytes + after.bytes - before.bytes;
        if before.oldest != after.oldest {
            if let Some(key) = before.oldest {
                self.oldest.remove(&(key, pool.clone()));
            }
            if let Some(key) = after.oldest {
                self.oldest.insert((key, pool.clone()));
            }
        }
        if before.entries > 0 {
            self.heaviest.remove(&(before.bytes, pool.clone()));
        }
        if after.entries > 0 {
            self.heaviest.insert((after.bytes, pool.clone()));
        }
    }

    /// A pool is gone, and its history with it.
    pub(super) fn remove(&mut self, history: OrdMap<ChangeKey, Listed>) {
        if !history.is_empty() {
            self.removed.push_back(history);
        }
    }

    /// Takes one entry out of the histories of removed pools.
    fn next_removed(&mut self) -> Option<(ChangeKey, Listed)> {
        let history = self.removed.front_mut()?;
        let next = history.get_min().copied();
        if let Some((key, _)) = &next {
            history.remove(key);
        }
        if history.is_empty() {
            self.removed.pop_front();
        }
        next
    }
}

/// How much of what may be pruned can stay: what must stay takes at most half of the room, so that pools with many locks
/// keep some other history.
fn room(limit: u64, must_stay: u64) -> u64 {
    limit - must_stay.min(limit / 2)
}

impl State {
    /// Counts an entry that so many pools list. An entry of several pools, or of none, needs a note of its own.
    pub(super) fn count_listings(&mut self, entry: &Outline, pools: usize, is_of_no_pool: bool) {
        let bytes = u64::from(entry.listed.bytes);
        self.snapshot.history.entries += pools.max(1);
        self.snapshot.history.bytes += bytes * pools.max(1) as u64;
        if pools > 1 {
            self.histories.shared.insert(entry.key, pools);
        }
        if pools == 0 && self.histories.loose.insert(entry.key, entry.listed).is_none() {
            self.histories.loose_bytes += bytes;
            self.histories.prunable += 1;
            self.histories.prunable_bytes += bytes;
        }
        if is_of_no_pool {
            self.histories.of_no_pool.push_back(entry.key);
            if self.histories.of_no_pool.len() > limits::LATCH_CHANGES
                && let Some(oldest) = self.histories.of_no_pool.pop_front()
            {
                self.forget_loose(oldest);
            }
        }
    }

    /// Offers one entry of a pool, if the pool still lists it.
    pub(super) fn offer_to_prune(&mut self, pool: &PoolName, key: ChangeKey) {
        let Self { snapshot, histories, claimed, .. } = self;
        let Some(listed) = snapshot.pool(pool).and_then(|p| p.changes.get(&key)).copied() else { return };
        histories.change(pool, |kept| kept.offer(key, listed, claimed));
    }

    /// Another entry is the newest of some locks of a pool. Those before it, if there were any, may be pruned then.
    pub(super) fn succeed(&mut self, pool: &PoolName, outdated: &[Option<ChangeKey>], newest: ChangeKey) {
        if outdated.is_empty() {
            return;
        }
        let Self { snapshot, histories, claimed, .. } = self;
        let Some(p) = snapshot.pool(pool) else { return };
        histories.change(pool, |kept| {
            outdated.iter().for_each(|old| kept.change_newest(*old, Some(newest)));
            for old in outdated.iter().flatten() {
                if let Some(listed) = p.changes.get(old) {
                    kept.offer(*old, *listed, claimed);
                }
            }
        });
    }

    /// Offers all entries of a pool, in a restart.
    pub(super) fn offer_all_to_prune(&mut self, pool: &PoolName) {
        let Self { snapshot, histories, claimed, .. } = self;
        let Some(p) = snapshot.pool(pool).filter(|p| !p.changes.is_empty()) else { return };
        histories.change(pool, |kept| {
            for (key, listed) in &p.changes {
                kept.offer(*key, *listed, claimed);
            }
        });
    }

    pub(super) fn prune_after(&mut self, pool: &PoolName, key: ChangeKey, now: Now) {
        self.offer_to_prune(pool, key);
        self.prune(limits::PRUNED_PER_ENTRY, now);
    }

    /// Removes entries that are beyond the limits, at most so many.
    pub(in crate::core) fn prune(&mut self, most: usize, now: Now) {
        let _ = (0..most).all(|_| self.prune_removed() || self.prune_old(now) || self.prune_largest(now));
    }

    fn prune_removed(&mut self) -> bool {
        let Some((key, listed)) = self.histories.next_removed() else { return false };
        self.unlist(key, listed);
        true
    }

    /// Removes the oldest entry, if it is too old.
    fn prune_old(&mut self, now: Now) -> bool {
        let oldest_wall = WallMs(now.wall.0.saturating_sub(self.settings.history_age.0));
        let is_old = |listed: &Listed| listed.at < oldest_wall;
        let loose = self.histories.loose.first_key_value();
        let listed = self.histories.oldest.first();
        match (loose, listed) {
            (Some((key, at)), other) if other.is_none_or(|(other, _)| key < other) => {
                let (key, is_old) = (*key, is_old(at));
                is_old && self.forget_loose(key)
            }
            (_, Some((key, pool))) => {
                let (key, pool) = (*key, pool.clone());
                let at = self.snapshot.pool(&pool).and_then(|p| p.changes.get(&key));
                at.is_none_or(is_old) && self.take_out_of_pool(&pool, key)
            }
            _ => false,
        }
    }

    /// Removes an entry of the largest history, if there are too many entries or bytes.
    fn prune_largest(&mut self, now: Now) -> bool {
        let (kept, histories) = (self.snapshot.history, &self.histories);
        let stay = kept.entries.saturating_sub(histories.prunable) as u64;
        let bytes_stay = kept.bytes.saturating_sub(histories.prunable_bytes);
        let Settings { changes, history_bytes, .. } = &self.settings;
        let fits = histories.prunable as u64 <= room(*changes as u64, stay)
            && histories.prunable_bytes <= room(*history_bytes, bytes_stay);
        if fits {
            return false;
        }
        match histories.heaviest.last() {
            Some((bytes, pool)) if *bytes >= histories.loose_bytes => {
                let pool = pool.clone();
                let of_pool = self.histories.of_pools.get(&pool).zip(self.snapshot.pool(&pool));
                let next = of_pool.and_then(|(kept, pool)| kept.next_to_go(pool, now));
                next.is_some_and(|key| self.take_out_of_pool(&pool, key))
            }
            _ => {
                let oldest = histories.loose.keys().next().copied();
                oldest.is_some_and(|key| self.forget_loose(key))
            }
        }
    }

    /// Takes an entry out of the history of a pool. Returns whether it was there.
    fn take_out_of_pool(&mut self, pool: &PoolName, key: ChangeKey) -> bool {
        let Some(p) = self.pool_mut(pool) else { return false };
        let Some(listed) = p.changes.remove(&key) else { return false };
        p.pruned = p.pruned.max(key.revision);
        self.histories.change(pool, |kept| kept.remove(key, listed));
        self.snapshot.history.pruned = self.snapshot.history.pruned.max(key.revision);
        self.unlist(key, listed);
        true
    }

    /// A pool is gone, and its history with it.
    pub(super) fn forget_history(&mut self, pool: &Pool) {
        self.histories.change(&pool.name, |kept| *kept = OfPool::default());
        self.histories.of_pools.remove(&pool.name);
        self.histories.remove(pool.changes.clone());
    }

    /// One history less lists this entry. The last one to go takes the entry with it.
    fn unlist(&mut self, key: ChangeKey, listed: Listed) {
        self.snapshot.history.entries -= 1;
        self.snapshot.history.bytes -= u64::from(listed.bytes);
        match self.histories.shared.get_mut(&key) {
            Some(pools) if *pools > 2 => *pools -= 1,
            Some(_) => drop(self.histories.shared.remove(&key)),
            None => self.dirty.pruned.push(key),
        }
    }

    /// Forgets an entry of no pool. Returns whether it was there.
    fn forget_loose(&mut self, key: ChangeKey) -> bool {
        let Some(listed) = self.histories.loose.remove(&key) else { return false };
        let bytes = u64::from(listed.bytes);
        self.histories.loose_bytes -= bytes;
        self.histories.prunable -= 1;
        self.histories.prunable_bytes -= bytes;
        self.snapshot.history.pruned = self.snapshot.history.pruned.max(key.revision);
        self.unlist(key, listed);
        true
    }

    /// Whether there is no history at all.
    #[must_use]
    pub fn has_no_history(&self) -> bool {
        self.snapshot.history.entries == 0
    }
}

#[cfg(test)]
impl State {
    /// The entries of a pool that may be pruned.
    pub(crate) fn prunable(&self, pool: &PoolName) -> Vec<ChangeKey> {
        self.histories.of_pools.get(pool).into_iter().flat_map(OfPool::prunable).copied().collect()
    }

    /// Whether exactly these entries are listed, and all counts and indexes are right.
    pub(in crate::core) fn check_has_all_entries<'k>(
        &self,
        kept: impl Iterator<Item = &'k ChangeKey>,
    ) -> Result<(), String> {
        let pools = || self.snapshot.pools.values();
        let lists = || pools().map(|pool| &pool.changes).chain(&self.histories.removed);
        let listed: BTreeSet<&ChangeKey> =
            lists().flat_map(|list| list.keys()).chain(self.histories.loose.keys()).collect();
        let kept: BTreeSet<&ChangeKey> = kept.collect();
        let differ: Vec<_> = kept.symmetric_difference(&listed).collect();
        if !differ.is_empty() {
            return Err(format!("store and state differ about {differ:?}"));
        }
        let all = || lists().flat_map(|list| list.values()).chain(self.histories.loose.values());
        let bytes =
            |entries: &mut dyn Iterator<Item = &Listed>| entries.map(|listed| u64::from(listed.bytes)).sum::<u64>();
        let counted = (all().count(), bytes(&mut all()));
        let history = self.snapshot.history;
        if counted != (history.entries, history.bytes) {
            return Err(format!("{counted:?} are kept, but {history:?} are counted"));
        }
        let mut of_pools = HashMap::<PoolName, OfPool>::new();
        let newest = pools().flat_map(|pool| pool.locks.values().filter_map(|lock| Some((&pool.name, lock.newest?))));
        newest.for_each(|(pool, key)| of_pools.entry(pool.clone()).or_default().change_newest(None, Some(key)));
        for (name, kept) in &self.histories.of_pools {
            let newest = of_pools.remove(name).unwrap_or_default().newest;
            let listed = |key| self.snapshot.pool(name).and_then(|pool| pool.changes.get(key));
            let bytes = bytes(&mut kept.prunable().filter_map(listed));
            of_pools.insert(name.clone(), OfPool { bytes, newest, ..kept.clone() });
        }
        let loose = bytes(&mut self.histories.loose.values());
        let heads = || of_pools.iter().map(|(name, kept)| (name.clone(), kept.head()));
        let right = Histories {
            prunable: heads().map(|(_, head)| head.entries).sum::<usize>() + self.histories.loose.len(),
            prunable_bytes: heads().map(|(_, head)| head.bytes).sum::<u64>() + loose,
            oldest: heads().filter_map(|(name, head)| Some((head.oldest?, name))).collect(),
            heaviest: heads().filter(|(_, head)| head.entries > 0).map(|(name, head)| (head.bytes, name)).collect(),
            loose_bytes: loose,
            of_pools,
            ..self.histories.clone()
        };
        let indexes = |histories: &Histories| {
            let Histories { of_pools, prunable, prunable_bytes, oldest, heaviest, loose_bytes, .. } = histories.clone();
            (of_pools, prunable, prunable_bytes, oldest, heaviest, loose_bytes)
        };
        let (right, found) = (indexes(&right), indexes(&self.histories));
        if right == found { Ok(()) } else { Err(format!("the indexes of the history are {found:?}, not {right:?}")) }
    }
}

#[cfg(test)]
mod tests;
