//! `memory:`: keeps everything until the process ends, as the same records that a file would contain. For tests and
//! demos.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rows::{self, Batch, Rows, Table};
use super::{Reader, Store};
use crate::core::history::{Change, Outline};
use crate::core::names::ChangeKey;
use crate::core::state::{Changes, Loaded};

/// A store without a disk. Clones share their contents, so a test can give one to the next life of a server.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    id: String,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    meta: BTreeMap<&'static str, u64>,
    records: BTreeMap<(Table, String), String>,
    /// Metadata and record.
    locks: BTreeMap<(String, String), (Vec<u8>, String)>,
    changes: BTreeMap<(i64, u32), String>,
}

/// Whether no key can be between these bounds. The range of a map would panic.
fn is_empty(from: Bound<ChangeKey>, to: Bound<ChangeKey>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl MemoryStore {
    /// An empty store with its own id.
    ///
    /// # Errors
    /// The operating system provides no random bytes.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { id: super::new_store_id()?, kept: Arc::default() })
    }

    /// A holder that panicked leaves a half-written batch, which its engine never answers.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        let kept = self.kept();
        let mut rows = Rows::default();
        kept.meta.iter().try_for_each(|(key, value)| rows.meta(key, &value.to_string()))?;
        kept.records.iter().try_for_each(|((table, key), json)| rows.record(*table, key, json))?;
        kept.locks.iter().try_for_each(|((pool, name), (data, json))| rows.lock(pool, name, data, json))?;
        rows.finish()
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        for (&(revision, seq), json) in &self.kept().changes {
            each(rows::outline(revision, seq.into(), json)?);
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.clone())
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let batch = Batch::of(changes)?;
        let mut kept = self.kept();
        kept.meta.extend(batch.meta);
        for (table, key, json) in batch.records {
            set(&mut kept.records, (table, key.into_owned()), json);
        }
        for (pool, name, row) in batch.locks {
            let row = row.map(|(metadata, json)| (metadata.to_vec(), json));
            set(&mut kept.locks, (pool.to_owned(), name.to_owned()), row);
        }
        kept.changes.extend(batch.changes);
        batch.pruned.iter().for_each(|place| drop(kept.changes.remove(place)));
        Ok(())
    }

    fn store_id(&self) -> &str {
        &self.id
    }
}

impl Reader for MemoryStore {
    fn entries(&self, keys: &[ChangeKey]) -> anyhow::Result<Vec<Change>> {
        let kept = self.kept();
        let mut found = Vec::new();
        for key in keys {
            let place @ (revision, seq) = rows::place(*key)?;
            let Some(json) = kept.changes.get(&place) else { continue };
            found.push(rows::change(revision, seq.into(), json)?);
        }
        Ok(found)
    }

    fn walk(
        &self,
        (from, to): (Bound<ChangeKey>, Bound<ChangeKey>),
        newest_first: bool,
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let place = |bound| -> anyhow::Result<_> {
            Ok(match bound {
                Bound::Included(key) => Bound::Included(rows::place(key)?),
                Bound::Excluded(key) => Bound::Excluded(rows::place(key)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        if is_empty(from, to) {
            return Ok(());
        }
        let kept = self.kept();
        let mut range = kept.changes.range((place(from)?, place(to)?));
        while let Some((&(revision, seq), json)) = if newest_first { range.next_back() } else { range.next() } {
            if each(rows::change(revision, seq.into(), json)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::store::conformance::conformance(|| {
            let store = MemoryStore::new().unwrap();
            Box::new(move || Box::new(store.clone()))
        });
    }
}
