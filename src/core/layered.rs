//! A persistent map in the order of its keys, in which what is used again and again costs the same however much else
//! there is (docs/decisions/0038).
//!
//! A persistent tree is searched from its root, and after each snapshot a change copies the nodes from there to the
//! entry. In a large tree both take a while, and each comparison of two names reads both. So what has changed lately is
//! also kept in a small layer above the large one, where it is found by its hash.

use std::cmp::Ordering;
use std::hash::{BuildHasher as _, Hash};
use std::ops::{Bound, Index, RangeBounds};
use std::sync::Arc;

use foldhash::fast::FixedState;
use imbl::OrdMap;

/// The most entries of the upper layer. Each snapshot that is followed by a change copies them.
const RECENT: usize = 16;

/// What the upper layer knows of a key.
#[derive(Debug, Clone)]
struct Recent<K, V> {
    key: K,
    /// `None` when the key was removed.
    value: Option<V>,
    /// Whether the lower layer has the key.
    is_settled: bool,
}

/// The upper layer: a few entries in no order.
#[derive(Debug)]
struct Upper<K, V> {
    /// The hash of each entry, by its place; the others mean nothing.
    hashes: [u32; RECENT],
    entries: Vec<Recent<K, V>>,
}

impl<K, V> Default for Upper<K, V> {
    fn default() -> Self {
        Self { hashes: [0; RECENT], entries: Vec::with_capacity(RECENT) }
    }
}

impl<K: Clone, V: Clone> Clone for Upper<K, V> {
    fn clone(&self) -> Self {
        let mut copy = Self { hashes: self.hashes, ..Self::default() };
        copy.entries.extend_from_slice(&self.entries);
        copy
    }
}

/// Keys of one hash only cost time, and there are few entries, so the hash needs no secret.
fn hash(key: &impl Hash) -> u32 {
    let [a, b, c, d, ..] = FixedState::default().hash_one(key).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

impl<K: Eq, V> Upper<K, V> {
    fn place(&self, hash: u32, key: &K) -> Option<usize> {
        // All are compared, without a branch for each: the compiler makes a few instructions of that.
        let same = |mask: u32, place: usize| mask | (u32::from(self.hashes[place] == hash) << place);
        let mut places = (0..RECENT).fold(0, same) & ((1 << self.entries.len()) - 1);
        while places != 0 {
            let place = places.trailing_zeros() as usize;
            if self.entries[place].key == *key {
                return Some(place);
            }
            places &= places - 1;
        }
        None
    }

    fn get(&self, hash: u32, key: &K) -> Option<&Recent<K, V>> {
        self.place(hash, key).map(|place| &self.entries[place])
    }

    fn get_mut(&mut self, hash: u32, key: &K) -> Option<&mut Recent<K, V>> {
        self.place(hash, key).map(|place| &mut self.entries[place])
    }

    fn push(&mut self, hash: u32, recent: Recent<K, V>) {
        self.hashes[self.entries.len()] = hash;
        self.entries.push(recent);
    }

    fn remove(&mut self, hash: u32, key: &K) -> Option<V> {
        let place = self.place(hash, key)?;
        self.hashes[place] = self.hashes[self.entries.len() - 1];
        self.entries.swap_remove(place).value
    }
}

/// The map. A clone copies only a few pointers.
#[derive(Debug, Clone)]
pub struct Layered<K: Ord, V> {
    /// Everything, as it was when the upper layer was last emptied.
    settled: OrdMap<K, V>,
    /// What has changed or was about to be changed since then.
    recent: Arc<Upper<K, V>>,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> Default for Layered<K, V> {
    fn default() -> Self {
        Self { settled: OrdMap::new(), recent: Arc::default(), len: 0 }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Layered<K, V> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        match self.recent.get(hash(key), key) {
            Some(recent) => recent.value.as_ref(),
            None => self.settled.get(key),
        }
    }

    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.raised(key)?;
        Arc::make_mut(&mut self.recent).entries[place].value.as_mut()
    }

    /// Brings an entry up that is about to be looked at again and again.
    pub fn raise(&mut self, key: &K) {
        self.raised(key);
    }

    /// Brings an entry up, unless it is there. Returns its place there.
    fn raised(&mut self, key: &K) -> Option<usize> {
        let hash = hash(key);
        self.recent.place(hash, key).or_else(|| {
            let value = self.settled.get(key)?.clone();
            Some(self.note(hash, Recent { key: key.clone(), value: Some(value), is_settled: true }))
        })
    }

    /// Adds or replaces the value of a key, and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = hash(&key);
        let before = if let Some(recent) = Arc::make_mut(&mut self.recent).get_mut(hash, &key) {
            recent.value.replace(value)
        } else {
            let before = self.settled.get(&key).cloned();
            self.note(hash, Recent { key, value: Some(value), is_settled: before.is_some() });
            before
        };
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes a key, and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let hash = hash(key);
        let upper = Arc::make_mut(&mut self.recent);
        let before = match upper.get_mut(hash, key) {
            Some(recent) if recent.is_settled => recent.value.take(),
            Some(_) => upper.remove(hash, key),
            None => {
                let before = self.settled.get(key).cloned()?;
                self.note(hash, Recent { key: key.clone(), value: None, is_settled: true });
                Some(before)
            }
        };
        self.len -= usize::from(before.is_some());
        before
    }

    /// Notes a key in the upper layer, and returns its place. What was there goes to the lower one when there is no room.
    fn note(&mut self, hash: u32, recent: Recent<K, V>) -> usize {
        if self.recent.entries.len() == RECENT {
            self.settle();
        }
        let upper = Arc::make_mut(&mut self.recent);
        upper.push(hash, recent);
        upper.entries.len() - 1
    }

    fn settle(&mut self) {
        for Recent { key, value, is_settled } in Arc::unwrap_or_clone(std::mem::take(&mut self.recent)).entries {
            match value {
                Some(value) => drop(self.settled.insert(key, value)),
                None if is_settled => drop(self.settled.remove(&key)),
                None => {}
            }
        }
    }

    /// All entries with keys in this range, in the order of the keys.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &V)> + use<'_, R, K, V> {
        let mut recent: Vec<_> = self.recent.entries.iter().filter(|recent| range.contains(&recent.key)).collect();
        recent.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut recent = recent.into_iter().peekable();
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let mut settled = self.settled.range(bounds).peekable();
        let next = move || {
            let first = match (settled.peek(), recent.peek()) {
                (Some((a, _)), Some(b)) => (*a).cmp(&b.key),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            if first == Ordering::Less {
                return settled.next().map(|(key, value)| (key, Some(value)));
            }
            if first == Ordering::Equal {
                settled.next();
            }
            recent.next().map(|recent| (&recent.key, recent.value.as_ref()))
        };
        std::iter::from_fn(next).filter_map(|(key, value)| Some((key, value?)))
    }

    /// All entries, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.range::<(Bound<K>, Bound<K>)>((Bound::Unbounded, Bound::Unbounded))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Index<&K> for Layered<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the key is in the map")
    }
}

impl<'m, K: Ord + Hash + Clone, V: Clone> IntoIterator for &'m Layered<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'm>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u8, u32),
        Change(u8, u32),
        Remove(u8),
        Raise(u8),
        Snapshot,
    }

    fn op() -> impl Strategy<Value = Op> {
        // Few keys, so that most are there, and more of them than the upper layer takes.
        let key = 0..48_u8;
        prop_oneof![
            4 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Op::Insert(key, value)),
            3 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Op::Change(key, value)),
            4 => key.clone().prop_map(Op::Remove),
            2 => key.prop_map(Op::Raise),
            1 => Just(Op::Snapshot),
        ]
    }

    fn is_same(map: &Layered<u8, u32>, model: &BTreeMap<u8, u32>) {
        assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
        assert!(map.iter().eq(model), "{map:?} {model:?}");
        assert!(map.keys().eq(model.keys()) && map.values().eq(model.values()) && map.into_iter().eq(model));
        for from in 0..50 {
            assert_eq!((map.get(&from), map.contains_key(&from)), (model.get(&from), model.contains_key(&from)));
            let (after, up_to) = (Bound::Excluded(from), Bound::Included(from + 9));
            assert!(map.range((after, up_to)).eq(model.range((after, up_to))));
        }
        assert!(map.recent.entries.len() <= RECENT);
    }

    proptest! {
        #[test]
        fn a_layered_map_is_a_map(ops in vec(op(), 0..200)) {
            let (mut map, mut model) = (Layered::default(), BTreeMap::new());
            let mut snapshots = Vec::new();
            for op in ops {
                match op {
                    Op::Insert(key, value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    Op::Change(key, value) => {
                        prop_assert_eq!(map.get_mut(&key).map(|old| *old = value), model.get_mut(&key).map(|old| *old = value));
                    }
                    Op::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Op::Raise(key) => map.raise(&key),
                    Op::Snapshot => snapshots.push((map.clone(), model.clone())),
                }
                is_same(&map, &model);
            }
            snapshots.iter().for_each(|(map, model)| is_same(map, model));
        }
    }
}
