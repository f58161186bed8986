//! Reading beside the writer: connections of their own, which wait for nobody and which nobody waits for.

use std::fmt::Write as _;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::ended;
use super::text;
use crate::core::claim::Ended;
use crate::core::history::Change;
use crate::core::names::{ChangeKey, ClaimId};
use crate::store::{Found, READERS, Reader, rows};

/// The connections for readers of one store: those for everybody, and the engine's own. They close when this is dropped,
/// after the reads that are going on.
#[derive(Debug)]
pub(super) struct Readers {
    shared: Arc<Slots>,
    own: Arc<Slots>,
}

#[derive(Debug)]
struct Slots {
    conns: Vec<Mutex<Option<Connection>>>,
    path: PathBuf,
}

impl Readers {
    /// Opens the connections.
    pub fn open(path: &Path, busy_timeout: Duration) -> anyhow::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |_| -> anyhow::Result<_> {
            let conn = Connection::open_with_flags(path, flags)?;
            conn.busy_timeout(busy_timeout)?;
            Ok(Mutex::new(Some(conn)))
        };
        let slots = |number: usize| -> anyhow::Result<_> {
            Ok(Arc::new(Slots { conns: (0..number).map(open).collect::<anyhow::Result<_>>()?, path: path.to_owned() }))
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

impl Reader for Slots {
    fn entries(&self, keys: &[ChangeKey]) -> anyhow::Result<Vec<Change>> {
        self.read(|conn| {
            // One moment for all of them.
            let tx = conn.unchecked_transaction()?;
            let mut find = tx.prepare_cached("SELECT record FROM changes WHERE revision = ?1 AND seq = ?2")?;
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                let (revision, seq) = rows::place(*key)?;
                let change = find.query_row(params![revision, seq], |row| {
                    Ok(text(row, 0).and_then(|json| rows::change(revision, seq.into(), json)))
                });
                found.extend(change.optional()?.transpose()?);
            }
            Ok(found)
        })
    }

    fn ended_claims(&self, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        self.read(|conn| ended::find(conn, ids))
    }

    fn find(&self, id: &ClaimId) -> anyhow::Result<Found> {
        self.read(|conn| {
            // One moment for both tables.
            let tx = conn.unchecked_transaction()?;
            if let Some(ended) = ended::find(&tx, std::slice::from_ref(id))?.pop() {
                return Ok(Found::Ended(Box::new(ended)));
            }
            let mut live = tx.prepare_cached("SELECT 1 FROM claims WHERE id = ?1")?;
            Ok(if live.exists(params![id.as_str()])? { Found::Live } else { Found::Nothing })
        })
    }

    fn walk_ended(
        &self,
        after: Option<&ClaimId>,
        each: &mut dyn FnMut(Ended) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.read(|conn| ended::walk(conn, after, each))
    }

    fn walk(
        &self,
        (from, to): (Bound<ChangeKey>, Bound<ChangeKey>),
        newest_first: bool,
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let (from, first) = match from {
            Bound::Included(key) => (">=", rows::place(key)?),
            Bound::Excluded(key) => (">", rows::place(key)?),
            Bound::Unbounded => (">=", (i64::MIN, 0)),
        };
        let (to, last) = match to {
            Bound::Included(key) => ("<=", rows::place(key)?),
            Bound::Excluded(key) => ("<", rows::place(key)?),
            Bound::Unbounded => ("<=", (i64::MAX, 0)),
        };
        let mut sql = format!(
            "SELECT revision, seq, record FROM changes \
             WHERE (revision, seq) {from} (?1, ?2) AND (revision, seq) {to} (?3, ?4)"
        );
        let order = if newest_first { "revision DESC, seq DESC" } else { "revision, seq" };
        write!(sql, " ORDER BY {order}")?;
        self.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query(params![first.0, first.1, last.0, last.1])?;
            while let Some(row) = rows.next()? {
                if each(rows::change(row.get(0)?, row.get(1)?, text(row, 2)?)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}
