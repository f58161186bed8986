//! Rows by their keys, as values that cost nothing to copy: what `memory:` keeps, and what a store in a file has committed
//! and not yet written into its tables. Readers see the layers above the tables first.

use std::cmp::Ordering;
use std::iter;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use super::rows::{Batch, EndedColumns, Place, Rows, Table};

/// The row of an ended claim without its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndedRow {
    pub how: String,
    pub forget: i64,
    pub span: i64,
    pub build: Option<(String, String)>,
    pub record: String,
}

impl EndedRow {
    pub fn of(columns: EndedColumns<'_>, record: String) -> Self {
        let EndedColumns { id: _, how, forget, span, build } = columns;
        let build = build.map(|(cluster, id)| (cluster.to_owned(), id.to_owned()));
        Self { how: how.to_owned(), forget, span, build, record }
    }

    pub fn columns<'r>(&'r self, id: &'r str) -> EndedColumns<'r> {
        let build = self.build.as_ref().map(|(cluster, id)| (cluster.as_str(), id.as_str()));
        EndedColumns { id, how: &self.how, forget: self.forget, span: self.span, build }
    }

    /// The same row with another time of forgetting.
    fn retimed(mut self, times: Option<(i64, i64)>) -> Self {
        if let Some(times) = times {
            (self.forget, self.span) = times;
        }
        self
    }
}

/// Metadata and record of a lock.
pub(super) type LockRow = (Vec<u8>, String);

/// Rows by key. `None` is a deleted row, which hides one below.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    /// There is nothing below, so that a deleted row is gone.
    is_lowest: bool,
    pub meta: OrdMap<Arc<str>, u64>,
    records: [OrdMap<Arc<str>, Option<Arc<str>>>; Table::ALL.len()],
    pub ended: OrdMap<Arc<str>, Option<Arc<EndedRow>>>,
    /// When ended claims are forgotten whose rows are below: `forget` and `span`.
    pub forget: OrdMap<Arc<str>, (i64, i64)>,
    pub locks: OrdMap<(Arc<str>, Arc<str>), Option<Arc<LockRow>>>,
    pub changes: OrdMap<Place, Option<Arc<str>>>,
}

impl Layer {
    /// A layer with nothing below.
    pub fn lowest() -> Self {
        Self { is_lowest: true, ..Self::default() }
    }

    /// The rows of a table of keys and records.
    pub fn records(&self, table: Table) -> &OrdMap<Arc<str>, Option<Arc<str>>> {
        &self.records[table as usize]
    }

    /// Puts a batch on top of what is there.
    pub fn put(&mut self, batch: Batch<'_>) {
        let lowest = self.is_lowest;
        for (key, value) in batch.meta {
            match self.meta.get_mut(key) {
                Some(kept) => *kept = value,
                None => drop(self.meta.insert(key.into(), value)),
            }
        }
        for (table, key, json) in batch.records {
            set(&mut self.records[table as usize], lowest, Arc::from(key), json.map(Arc::from));
        }
        for (id, row) in batch.ended {
            self.forget.remove(id);
            let row = row.map(|(columns, record)| Arc::new(EndedRow::of(columns, record)));
            set(&mut self.ended, lowest, Arc::from(id), row);
        }
        for (id, times) in batch.forget {
            self.retime(id, times);
        }
        for (pool, name, row) in batch.locks {
            let row = row.map(|(metadata, json)| Arc::new((metadata.to_vec(), json)));
            set(&mut self.locks, lowest, (pool.into(), name.into()), row);
        }
        for (place, json) in batch.changes {
            self.changes.insert(place, Some(Arc::from(json)));
        }
        for place in batch.pruned {
            set(&mut self.changes, lowest, place, None);
        }
    }

    fn retime(&mut self, id: &str, times: (i64, i64)) {
        match self.ended.get_mut(id) {
            Some(Some(row)) => *row = Arc::new(EndedRow::clone(row).retimed(Some(times))),
            // It is deleted, and what is forgotten has no time of forgetting.
            Some(None) => {}
            None if self.is_lowest => {}
            None => drop(self.forget.insert(id.into(), times)),
        }
    }

    /// Adds what a server loads of it.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn load(&self, rows: &mut Rows) -> anyhow::Result<()> {
        self.meta.iter().try_for_each(|(key, value)| rows.meta(key, &value.to_string()))?;
        for table in Table::ALL {
            for (key, json) in self.records(table) {
                json.iter().try_for_each(|json| rows.record(table, key, json))?;
            }
        }
        for ((pool, name), row) in &self.locks {
            row.iter().try_for_each(|row| rows.lock(pool, name, &row.0, &row.1))?;
        }
        Ok(())
    }
}

fn set<K: Ord + Clone, V: Clone>(map: &mut OrdMap<K, Option<V>>, lowest: bool, key: K, value: Option<V>) {
    if value.is_none() && lowest {
        map.remove(&key);
    } else {
        map.insert(key, value);
    }
}

/// The layers above some tables as of one moment, the newest first.
#[derive(Debug, Clone)]
pub(super) struct View<const N: usize>(pub [Layer; N]);

/// Bounds of a walk through the history.
pub(super) type Places = (Bound<Place>, Bound<Place>);

impl<const N: usize> View<N> {
    /// Whether there is a record with this key, if the layers know.
    pub fn has_record(&self, table: Table, key: &str) -> Option<bool> {
        self.0.iter().find_map(|layer| layer.records(table).get(key)).map(Option::is_some)
    }

    /// The entry of the history at this place; `below` finds one in the tables.
    pub fn change(
        &self,
        place: Place,
        below: impl FnOnce() -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<Option<Arc<str>>> {
        match self.0.iter().find_map(|layer| layer.changes.get(&place)) {
            Some(found) => Ok(found.clone()),
            None => Ok(below()?.map(Arc::from)),
        }
    }

    /// The ended claim of this id; `below` finds one in the tables.
    pub fn ended(
        &self,
        id: &str,
        below: impl FnOnce() -> anyhow::Result<Option<EndedRow>>,
    ) -> anyhow::Result<Option<EndedRow>> {
        let mut times = None;
        for layer in &self.0 {
            if let Some(row) = layer.ended.get(id) {
                return Ok(row.as_deref().map(|row| row.clone().retimed(times)));
            }
            times = times.or(layer.forget.get(id).copied());
        }
        Ok(below()?.map(|row| row.retimed(times)))
    }

    /// Entries of the history in order; `below` are those in the tables.
    pub fn changes<'v>(
        &'v self,
        range: Places,
        newest_first: bool,
        below: impl Iterator<Item = (Place, anyhow::Result<String>)> + 'v,
    ) -> impl Iterator<Item = (Place, anyhow::Result<Arc<str>>)> + 'v {
        let below: Box<dyn Iterator<Item = _> + 'v> =
            Box::new(below.map(|(key, json)| (key, json.map(|j| Some(j.into())))));
        let all = self.0.iter().rev().fold(below, |below, layer| {
            let range = (!is_empty(range)).then(|| layer.changes.range(range));
            let rows = range.into_iter().flatten().map(|(place, json)| (*place, Ok(json.clone())));
            if newest_first {
                // A range of a map is read from both ends.
                let rows = rows.rev();
                Box::new(merge(rows, below, true)) as Box<dyn Iterator<Item = _>>
            } else {
                Box::new(merge(rows, below, false))
            }
        });
        all.filter_map(|(place, json)| Some((place, json.transpose()?)))
    }

    /// Ended claims after this id, in the order of their ids; `below` are those in the tables.
    pub fn all_ended<'v>(
        &'v self,
        after: &str,
        below: impl Iterator<Item = (Arc<str>, anyhow::Result<EndedRow>)> + 'v,
    ) -> impl Iterator<Item = (Arc<str>, anyhow::Result<EndedRow>)> + 'v {
        let below: Box<dyn Iterator<Item = _> + 'v> = Box::new(below.map(|(id, row)| (id, Some(row))));
        let all = self.0.iter().rev().fold(below, |below, layer| {
            let range = layer.ended.range::<_, str>((Bound::Excluded(after), Bound::Unbounded));
            Box::new(merge(range.map(|(id, _)| (Arc::clone(id), None)), below, false))
        });
        // The row of the tables is used only if no layer has the claim.
        all.filter_map(|(id, below)| {
            let row = self.ended(&id, || below.transpose()).transpose()?;
            Some((id, row))
        })
    }
}

/// Whether no key can be between these bounds. The range of a map would panic.
fn is_empty((from, to): Places) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}

/// Two sequences in the order of their keys as one. Of equal keys, the upper one counts.
fn merge<K: Ord, V>(
    upper: impl Iterator<Item = (K, V)>,
    lower: impl Iterator<Item = (K, V)>,
    descending: bool,
) -> impl Iterator<Item = (K, V)> {
    let (mut upper, mut lower) = (upper.peekable(), lower.peekable());
    iter::from_fn(move || {
        let order = match (upper.peek(), lower.peek()) {
            (Some((a, _)), Some((b, _))) if descending => b.cmp(a),
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
        };
        match order {
            Ordering::Less => upper.next(),
            Ordering::Greater => lower.next(),
            Ordering::Equal => {
                lower.next();
                upper.next()
            }
        }
    })
}
