//! Reading beside the writer: connections of their own, which wait for nobody and which nobody waits for.

use std::fmt::Write as _;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::ended;
use super::pending::Pending;
use crate::core::claim::Ended;
use crate::core::history::Change;
use crate::core::names::{ChangeKey, ClaimId};
use crate::store::layer::{EndedRow, Places};
use crate::store::reading::{Below, ReadChanges, ReadEnded, Reading};
use crate::store::rows::Place;
use crate::store::{Found, READERS, Reader};

/// The connections for readers of one store: those for everybody, and the engine's own. They close when this is dropped,
/// after the reads that are going on.
#[derive(Debug)]
pub(in crate::store) struct Readers {
    shared: Arc<Slots>,
    own: Arc<Slots>,
}

#[derive(Debug)]
struct Slots {
    conns: Vec<Mutex<Option<Connection>>>,
    path: PathBuf,
    pending: Arc<Pending>,
}

impl Readers {
    /// Opens the connections.
    pub(super) fn open(path: &Path, pending: &Arc<Pending>, busy_timeout: Duration) -> anyhow::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |_| -> anyhow::Result<_> {
            let conn = Connection::open_with_flags(path, flags)?;
            conn.busy_timeout(busy_timeout)?;
            Ok(Mutex::new(Some(conn)))
        };
        let slots = |number: usize| -> anyhow::Result<_> {
            let conns = (0..number).map(open).collect::<anyhow::Result<_>>()?;
            Ok(Arc::new(Slots { conns, path: path.to_owned(), pending: Arc::clone(pending) }))
        };
        Ok(Self { shared: slots(READERS)?, own: slots(1)? })
    }

    pub fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.shared) as Arc<dyn Reader>
    }

    pub fn own_reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.own) as Arc<dyn Reader>
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for slot in self.shared.conns.iter().chain(&self.own.conns) {
            slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

impl Slots {
    /// A connection that nobody uses, or the first one after a while.
    fn free(&self) -> MutexGuard<'_, Option<Connection>> {
        for slot in &self.conns {
            match slot.try_lock() {
                Ok(free) => return free,
                Err(TryLockError::Poisoned(free)) => return free.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.conns[0].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let slot = self.free();
        let conn = slot.as_ref().context("the store is closed")?;
        read(conn).with_context(|| format!("cannot read from the store {}", self.path.display()))
    }
}

/// The tables as one connection sees them.
pub(in crate::store) struct Tables<'c>(pub &'c Connection);

impl Below for Tables<'_> {
    fn change(&self, (revision, seq): Place) -> anyhow::Result<Option<String>> {
        let mut find = self.0.prepare_cached("SELECT record FROM changes WHERE revision = ?1 AND seq = ?2")?;
        Ok(find.query_row(params![revision, seq], |row| row.get(0)).optional()?)
    }

    fn ended(&self, id: &str) -> anyhow::Result<Option<EndedRow>> {
        ended::find(self.0, id)
    }

    fn has_claim(&self, id: &str) -> anyhow::Result<bool> {
        Ok(self.0.prepare_cached("SELECT 1 FROM claims WHERE id = ?1")?.exists(params![id])?)
    }

    fn changes(&self, (from, to): Places, newest_first: bool, read: &mut ReadChanges<'_>) -> anyhow::Result<()> {
        let (from, first) = match from {
            Bound::Included(place) => (">=", place),
            Bound::Excluded(place) => (">", place),
            Bound::Unbounded => (">=", (i64::MIN, 0)),
        };
        let (to, last) = match to {
            Bound::Included(place) => ("<=", place),
            Bound::Excluded(place) => ("<", place),
            Bound::Unbounded => ("<=", (i64::MAX, 0)),
        };
        let mut sql = format!(
            "SELECT revision, seq, record FROM changes \
             WHERE (revision, seq) {from} (?1, ?2) AND (revision, seq) {to} (?3, ?4)"
        );
        // An error comes at once, as if it were the first row.
        let (order, start) =
            if newest_first { ("revision DESC, seq DESC", i64::MAX) } else { ("revision, seq", i64::MIN) };
        write!(sql, " ORDER BY {order}")?;
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map(params![first.0, first.1, last.0, last.1], |row| {
            Ok(((row.get(0)?, row.get(1)?), row.get(2)?))
        })?;
        read(
            &mut rows
                .map(|row| row.map_or_else(|error| ((start, 0), Err(error.into())), |(place, json)| (place, Ok(json)))),
        )
    }

    fn all_ended(&self, after: &str, read: &mut ReadEnded<'_>) -> anyhow::Result<()> {
        ended::after(self.0, after, read)
    }
}

impl Slots {
    /// Reads as of one moment: the layers first, since the tables may get rows of them meanwhile, but never lose one.
    fn reading<T>(&self, read: impl FnOnce(&Reading<Tables<'_>, 2>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let view = self.pending.view();
        self.read(|conn| {
            let tx = conn.unchecked_transaction()?;
            read(&Reading { view, below: Tables(&tx) })
        })
    }
}

impl Reader for Slots {
    fn entries(&self, keys: &[ChangeKey]) -> anyhow::Result<Vec<Change>> {
        self.reading(|reading| reading.entries(keys))
    }

    fn ended_claims(&self, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        self.reading(|reading| reading.ended_claims(ids))
    }

    fn find(&self, id: &ClaimId) -> anyhow::Result<Found> {
        self.reading(|reading| reading.find(id))
    }

    fn walk_ended(
        &self,
        after: Option<&ClaimId>,
        each: &mut dyn FnMut(Ended) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.reading(|reading| reading.walk_ended(after, each))
    }

    fn walk(
        &self,
        range: (Bound<ChangeKey>, Bound<ChangeKey>),
        newest_first: bool,
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.reading(|reading| reading.walk(range, newest_first, each))
    }
}
