//! The tables of a file, and the rows above them that are not there yet.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use rusqlite::Connection;

use super::pending::{Folder, Pending};
use super::readers::Readers;
use super::writer::Writer;
use super::{Syncs, Tuning, connect, ended, load_all, past, write_ahead};
use crate::core::history::Outline;
use crate::core::state::{EndedOutline, Loaded};
use crate::store::checkpoint::Checkpointer;
use crate::store::layer::Layer;

/// An open file with the newest schema. Whoever has it puts batches into `pending`, from where they come into the tables.
#[derive(Debug)]
pub(in crate::store) struct Database {
    // Dropped in this order, after the folder has ended: first reads end, then the last connection closes, which finishes
    // the log.
    pub readers: Readers,
    folder: Folder,
    writer: Arc<Mutex<Writer>>,
    pub(super) pending: Arc<Pending>,
    pub(super) path: PathBuf,
    pub id: String,
}

impl Database {
    /// Starts the threads and opens the other connections. `last` is the number of the last batch in the tables.
    pub(super) fn start(
        path: &Path,
        conn: Connection,
        last: u64,
        syncs: Syncs,
        tuning: Tuning,
    ) -> anyhow::Result<Self> {
        let id = conn.query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| row.get(0));
        let id = id.context("it is damaged: it has no store id. Restore a backup")?;
        let helper = connect(path, tuning.busy_timeout)?;
        write_ahead(&helper, syncs)?;
        let checkpointer = Checkpointer::start(helper, tuning.checkpoint_pages)?;
        let writer = Arc::new(Mutex::new(Writer { checkpointer, conn }));
        let pending = Arc::new(Pending::new(last, tuning.fold_after));
        let folder = Folder::start(Arc::clone(&pending), Arc::clone(&writer))?;
        let readers = Readers::open(path, &pending, tuning.busy_timeout)?;
        Ok(Self { readers, folder, writer, pending, path: path.to_owned(), id })
    }

    /// The connection that writes, after everything that was committed has reached the tables.
    pub(super) fn folded(&self) -> anyhow::Result<MutexGuard<'_, Writer>> {
        self.pending.fold_all()?;
        Ok(self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what is left, unless something has failed.
    ///
    /// # Errors
    /// Something has failed, and what is left is not in the tables.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        self.folder.stop()
    }

    /// As [`crate::store::Store::load`].
    pub fn load(&self) -> anyhow::Result<Loaded> {
        let load = || -> anyhow::Result<Loaded> {
            let writer = self.folded()?;
            let tx = writer.conn.unchecked_transaction()?;
            let loaded = load_all(&tx, &Layer::default())?;
            tx.commit()?;
            Ok(loaded)
        };
        load().with_context(|| self.unreadable())
    }

    /// As [`crate::store::Store::ended`].
    pub fn ended(&self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        let mut read = || ended::outlines(&self.folded()?.conn, each);
        read().with_context(|| self.unreadable())
    }

    /// As [`crate::store::Store::history`].
    pub fn history(&self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        let mut read = || past::history(&self.folded()?.conn, each);
        read().with_context(|| self.unreadable())
    }

    /// As [`crate::store::Store::past`].
    pub fn past(
        &self,
        ended: &mut (dyn FnMut(EndedOutline) + Send),
        entry: &mut (dyn FnMut(Outline) + Send),
    ) -> anyhow::Result<()> {
        let mut read = || past::both(&mut self.folded()?.conn, &self.path, ended, entry);
        read().with_context(|| self.unreadable())
    }

    fn unreadable(&self) -> String {
        format!("cannot load the store {}", self.path.display())
    }
}
