//! `memory:`: keeps everything until the process ends, as the same records that a file would contain. For tests and
//! demos.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rows::{self, Batch, EndedColumns, Rows, Table};
use super::{Found, Reader, Store};
use crate::core::claim::Ended;
use crate::core::history::{Change, Outline};
use crate::core::names::{ChangeKey, ClaimId};
use crate::core::state::{Changes, EndedOutline, Loaded};

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
    ended: BTreeMap<String, EndedRow>,
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

#[derive(Debug)]
struct EndedRow {
    how: String,
    forget: i64,
    span: i64,
    build: Option<(String, String)>,
    record: String,
}

impl EndedRow {
    fn of(columns: EndedColumns<'_>, record: String) -> Self {
        let EndedColumns { id: _, how, forget, span, build } = columns;
        let build = build.map(|(cluster, id)| (cluster.to_owned(), id.to_owned()));
        Self { how: how.to_owned(), forget, span, build, record }
    }

    fn columns<'r>(&'r self, id: &'r str) -> EndedColumns<'r> {
        let build = self.build.as_ref().map(|(cluster, id)| (cluster.as_str(), id.as_str()));
        EndedColumns { id, how: &self.how, forget: self.forget, span: self.span, build }
    }
}

impl Kept {
    fn ended_claims(&self, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        let rows = ids.iter().filter_map(|id| self.ended.get_key_value(id.as_str()));
        rows.map(|(id, row)| row.columns(id).ended(&row.record)).collect()
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

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.kept().ended.iter().try_for_each(|(id, row)| {
            each(row.columns(id).outline()?);
            Ok(())
        })
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
        for (id, row) in batch.ended {
            set(&mut kept.ended, id.to_owned(), row.map(|(columns, record)| EndedRow::of(columns, record)));
        }
        for (id, (forget, span)) in batch.forget {
            kept.ended.entry(id.to_owned()).and_modify(|row| (row.forget, row.span) = (forget, span));
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

    fn ended_claims(&self, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        self.kept().ended_claims(ids)
    }

    fn find(&self, id: &ClaimId) -> anyhow::Result<Found> {
        let kept = self.kept();
        if kept.records.contains_key(&(Table::Claims, id.as_str().to_owned())) {
            return Ok(Found::Live);
        }
        let ended = kept.ended_claims(std::slice::from_ref(id))?.pop();
        Ok(ended.map_or(Found::Nothing, |ended| Found::Ended(Box::new(ended))))
    }

    fn walk_ended(
        &self,
        after: Option<&ClaimId>,
        each: &mut dyn FnMut(Ended) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str()));
        for (id, row) in self.kept().ended.range::<str, _>((from, Bound::Unbounded)) {
            if each(row.columns(id).ended(&row.record)?).is_break() {
                break;
            }
        }
        Ok(())
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
