//! A persistent map in the order of its keys, in which what is used again and again costs the same however much else
//! there is (docs/decisions/0038).
//!
//! A persistent tree is searched from its root, and after each snapshot a change copies the nodes from there to the
//! entry. In a large tree both take a while. So what has changed lately is also kept in a small tree above the large one.

use std::cmp::Ordering;
use std::ops::{Bound, Index, RangeBounds};

use imbl::OrdMap;

/// The most entries of the upper layer: as many as one node of its tree has room for.
const RECENT: usize = 16;

/// What the upper layer knows of a key.
#[derive(Debug, Clone)]
struct Recent<V> {
    /// `None` when the key was removed.
    value: Option<V>,
    /// Whether the lower layer has the key.
    is_settled: bool,
}

/// The map. A clone copies only a few pointers.
#[derive(Debug, Clone)]
pub struct Layered<K: Ord, V> {
    /// Everything, as it was when the upper layer was last emptied.
    settled: OrdMap<K, V>,
    /// What has changed or was about to be changed since then.
    recent: OrdMap<K, Recent<V>>,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> Default for Layered<K, V> {
    fn default() -> Self {
        Self { settled: OrdMap::new(), recent: OrdMap::new(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> Layered<K, V> {
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
        match self.recent.get(key) {
            Some(recent) => recent.value.as_ref(),
            None => self.settled.get(key),
        }
    }

    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.recent.contains_key(key) {
            let value = self.settled.get(key)?.clone();
            self.note(key.clone(), Recent { value: Some(value), is_settled: true });
        }
        self.recent.get_mut(key)?.value.as_mut()
    }

    /// Adds or replaces the value of a key, and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = if let Some(recent) = self.recent.get_mut(&key) {
            recent.value.replace(value)
        } else {
            let before = self.settled.get(&key).cloned();
            self.note(key, Recent { value: Some(value), is_settled: before.is_some() });
            before
        };
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes a key, and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let before = match self.recent.get_mut(key) {
            Some(recent) if recent.is_settled => recent.value.take(),
            Some(_) => self.recent.remove(key).and_then(|recent| recent.value),
            None => {
                let before = self.settled.get(key).cloned()?;
                self.note(key.clone(), Recent { value: None, is_settled: true });
                Some(before)
            }
        };
        self.len -= usize::from(before.is_some());
        before
    }

    /// Notes a key in the upper layer. What was there goes to the lower one when there is no room.
    fn note(&mut self, key: K, recent: Recent<V>) {
        if self.recent.len() >= RECENT {
            self.settle();
        }
        self.recent.insert(key, recent);
    }

    fn settle(&mut self) {
        for (key, Recent { value, is_settled }) in std::mem::take(&mut self.recent) {
            match value {
                Some(value) => drop(self.settled.insert(key, value)),
                None if is_settled => drop(self.settled.remove(&key)),
                None => {}
            }
        }
    }

    /// All entries with keys in this range, in the order of the keys.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &V)> + use<'_, R, K, V> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let (mut settled, mut recent) =
            (self.settled.range(bounds.clone()).peekable(), self.recent.range(bounds).peekable());
        let next = move || {
            let first = match (settled.peek(), recent.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
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
            recent.next().map(|(key, recent)| (key, recent.value.as_ref()))
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

impl<K: Ord + Clone, V: Clone> Index<&K> for Layered<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the key is in the map")
    }
}

impl<'m, K: Ord + Clone, V: Clone> IntoIterator for &'m Layered<K, V> {
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
        Snapshot,
    }

    fn op() -> impl Strategy<Value = Op> {
        // Few keys, so that most are there, and more of them than the upper layer takes.
        let key = 0..48_u8;
        prop_oneof![
            4 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Op::Insert(key, value)),
            3 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Op::Change(key, value)),
            4 => key.prop_map(Op::Remove),
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
        assert!(map.recent.len() <= RECENT);
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
                    Op::Snapshot => snapshots.push((map.clone(), model.clone())),
                }
                is_same(&map, &model);
            }
            snapshots.iter().for_each(|(map, model)| is_same(map, model));
        }
    }
}
