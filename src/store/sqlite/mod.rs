//! `sqlite:FILE`: the default store (docs/store.md).
//!
//! `database`: the tables and the layers above them, which a [`replica`] of a shared log has, too.
//!
//! A commit appends to the journal (`super::journal`) and syncs it. Its rows stay in memory (`pending`) until a thread
//! writes them into the tables (`writer`), many commits in one transaction. `synchronous=FULL` in WAL mode syncs SQLite's
//! log before that transaction returns. The lock file, not SQLite's exclusive mode, keeps other servers out, so a `sqlite3`
//! shell may read at the same time.
//!
//! Only SQLite may open the database file: closing any other descriptor of it would drop the locks that SQLite holds on
//! it (POSIX locks belong to the process). So this module makes the file before SQLite opens it, and later uses only
//! its path.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, OpenFlags, Row};

use super::checkpoint::CHECKPOINT_PAGES;
use super::journal::{self, Journal, Room, TURN};
use super::layer::Layer;
use super::lockfile::LockFile;
use super::rows::{Batch, Rows, Table};
use super::sidecar::PRIVATE;
use super::{Reader, Store, schema};
use crate::core::history::Outline;
use crate::core::state::{Changes, EndedOutline, Loaded};

mod database;
mod ended;
mod past;
mod pending;
mod readers;
pub mod replica;
mod writer;

use database::Database;
use pending::FOLD_AFTER;
pub(super) use readers::Tables;
pub(super) use writer::begin_journal;
use writer::{FOLDED, LIFE, journal_of};

/// Page cache of the writer, KiB: keeps most of the index of a million ended claims in memory.
const CACHE_KIB: i64 = 32 * 1024;
/// Prepared statements that are kept: all of them.
const STATEMENTS: usize = 32;

/// Values that a test makes smaller.
#[derive(Debug, Clone, Copy)]
struct Tuning {
    /// A `sqlite3` shell takes locks only for moments; this is longer than any of them, and shorter than clients wait.
    busy_timeout: Duration,
    checkpoint_pages: i32,
    journal_turn: u64,
    fold_after: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(5),
            checkpoint_pages: CHECKPOINT_PAGES,
            journal_turn: TURN,
            fold_after: FOLD_AFTER,
        }
    }
}

/// A store in a file. While it lives, no other server can use that file.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order: the last connection closes, which finishes the log, then the next server may start.
    database: Database,
    _lock: LockFile,
    journal: Journal,
}

impl SqliteStore {
    /// Opens the store in `file`, makes it if there is none, and migrates it to the newest schema. First it copies what
    /// an earlier life left in the log into the database and syncs it, so that nothing builds on pages that never
    /// reached the disk. What that life left in its journal comes into the tables.
    ///
    /// # Errors
    /// The file is in use, belongs to another program or a newer release, is damaged or is not writable. It has not
    /// been changed, except that the log of a damaged file may have been copied.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        Self::open_with(file, Tuning::default())
    }

    fn open_with(file: &Path, tuning: Tuning) -> anyhow::Result<Self> {
        let path = resolved(file)?;
        let lock = LockFile::acquire(&path)?;
        make_file(&path)?;
        let open = || -> anyhow::Result<Self> {
            let mut conn = connect(&path, tuning.busy_timeout)?;
            let found = schema::inspect(&conn)?;
            make_private(&path)?;
            write_ahead(&conn, Syncs::Full)?;
            finish_log(&conn)?;
            schema::migrate(&mut conn, found, &super::new_store_id()?)?;
            let journal = new_journal(&path, &mut conn, tuning.journal_turn)?;
            let database = Database::start(&path, conn, journal.last(), Syncs::Full, tuning)?;
            Ok(Self { database, _lock: lock, journal })
        };
        open().with_context(|| format!("cannot use the store {}", path.display()))
    }

    fn append(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let batch = Batch::of(changes)?;
        self.journal.encode(&batch)?;
        let pending = &self.database.pending;
        loop {
            let folded = pending.folded()?;
            match self.journal.room(folded) {
                Room::Here => break,
                Room::InOther => {
                    // So that the first file is free again before this one is full.
                    pending.ask_to_fold();
                    break;
                }
                // The disk has not kept up.
                Room::None => pending.fold_through(folded + 1)?,
            }
        }
        let seq = self.journal.append()?;
        pending.put(seq, batch);
        Ok(())
    }
}

/// Writes what an earlier life left in its journal into the tables, and begins another journal.
fn new_journal(path: &Path, conn: &mut Connection, turn: u64) -> anyhow::Result<Journal> {
    let (layer, last) = left_in_journal(path, conn)?;
    let mut life = [0; 8];
    getrandom::fill(&mut life).context("no random bytes for a journal")?;
    let life = u64::from_le_bytes(life);
    begin_journal(conn, &layer, Some((life, last)))?;
    Journal::create(path, life, last, turn)
}

/// What is in the journal beside the store and not in the tables that `conn` sees, and the number of the last batch.
pub(super) fn left_in_journal(path: &Path, conn: &Connection) -> anyhow::Result<(Layer, u64)> {
    let (life, mut last) = journal_of(conn)?;
    let mut layer = Layer::default();
    for record in life.map(|life| journal::read(path, life, last)).transpose()?.unwrap_or_default() {
        layer.put(record.batch()?);
        last = record.seq;
    }
    Ok((layer, last))
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Without success the journal has what is left, for the next server.
        if self.database.stop().is_ok() {
            self.journal.remove();
        }
    }
}

impl Store for SqliteStore {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        self.database.load()
    }

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.database.ended(each)
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        self.database.history(each)
    }

    fn past(
        &mut self,
        ended: &mut (dyn FnMut(EndedOutline) + Send),
        entry: &mut (dyn FnMut(Outline) + Send),
    ) -> anyhow::Result<()> {
        self.database.past(ended, entry)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.database.readers.reader()
    }

    fn own_reader(&self) -> Arc<dyn Reader> {
        self.database.readers.own_reader()
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.append(changes)
            .inspect_err(|error| self.database.pending.fail(error))
            .with_context(|| format!("cannot write to the store {}", self.database.path.display()))
    }

    fn store_id(&self) -> &str {
        &self.database.id
    }
}

/// The file itself, with links resolved: two names of one store must have one lock file.
pub(super) fn resolved(file: &Path) -> anyhow::Result<PathBuf> {
    match fs::canonicalize(file) {
        Ok(path) => {
            ensure!(!path.is_dir(), "the store {} is a directory: name a file", path.display());
            ensure!(path.is_file(), "the store {} is not a regular file: name another file", path.display());
            Ok(path)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = file.file_name().with_context(|| format!("the store {} names no file", file.display()))?;
            let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let dir = fs::canonicalize(dir).with_context(|| {
                format!("the directory {} of the store does not exist: create it first", dir.display())
            })?;
            Ok(dir.join(name))
        }
        Err(error) => Err(error).with_context(|| format!("the store {} cannot be used", file.display())),
    }
}

/// Makes the file if there is none. SQLite gives the log and its index the mode of the database.
fn make_file(path: &Path) -> anyhow::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Ok(_) => {
            // The name of the file must survive power loss, like its content.
            let dir = path.parent().unwrap_or(Path::new("/"));
            let sync = || File::open(dir)?.sync_all();
            sync().with_context(|| format!("cannot sync the directory {}", dir.display()))?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make the store {}", path.display())),
    }
    Ok(())
}

/// Takes other users' permissions away: a copy that was restored by hand has those that its copier gave it.
fn make_private(path: &Path) -> anyhow::Result<()> {
    for file in super::files(path).into_iter().chain([LockFile::path(path)]) {
        let Ok(found) = fs::metadata(&file) else { continue };
        if found.permissions().mode() & 0o777 != PRIVATE {
            fs::set_permissions(&file, Permissions::from_mode(PRIVATE))
                .with_context(|| format!("cannot set mode 0600 on {}: make this user its owner", file.display()))?;
        }
    }
    Ok(())
}

fn connect(path: &Path, busy_timeout: Duration) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(conn)
}

/// Whether what is written must survive the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syncs {
    Full,
    /// It is a copy, which is made again.
    Off,
}

/// Commits through a write-ahead log that we checkpoint ourselves.
fn write_ahead(conn: &Connection, syncs: Syncs) -> anyhow::Result<()> {
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    ensure!(
        mode == "wal",
        "its file system does not support shared memory for a write-ahead log (SQLite says {mode:?})"
    );
    conn.pragma_update(None, "synchronous", if syncs == Syncs::Full { "FULL" } else { "OFF" })?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(())
}

/// Copies what an earlier life left in the log into the database, syncs it, and begins an empty log.
fn finish_log(conn: &Connection) -> anyhow::Result<()> {
    let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        bail!(
            "another process is reading it (a sqlite3 shell?), so its log cannot be finished: end that process first"
        );
    }
    Ok(())
}

/// What a server loads: from the tables, with this layer above them.
pub(super) fn load_all(conn: &Connection, layer: &Layer) -> anyhow::Result<Loaded> {
    let mut rows = Rows::default();
    let sql = format!("SELECT key, value FROM meta WHERE key NOT IN ('store_id', '{LIFE}', '{FOLDED}')");
    each_row(conn, "meta", &sql, |row| rows.meta(text(row, 0)?, text(row, 1)?))?;
    for table in Table::ALL {
        let (name, key) = columns(table);
        let sql = format!("SELECT {key}, record FROM {name}");
        each_row(conn, name, &sql, |row| match layer.records(table).get(text(row, 0)?) {
            Some(_) => Ok(()),
            None => rows.record(table, text(row, 0)?, text(row, 1)?),
        })?;
    }
    each_row(conn, "locks", "SELECT pool, name, metadata, record FROM locks", |row| {
        match layer.locks.get(&(text(row, 0)?.into(), text(row, 1)?.into())) {
            Some(_) => Ok(()),
            None => rows.lock(text(row, 0)?, text(row, 1)?, row.get_ref(2)?.as_blob()?, text(row, 3)?),
        }
    })?;
    layer.load(&mut rows)?;
    rows.finish()
}

/// Passes each row of the history to `each`, oldest first.
pub(super) fn each_change(
    conn: &Connection,
    mut each: impl FnMut(i64, i64, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    each_row(conn, "changes", "SELECT revision, seq, record FROM changes ORDER BY revision, seq", |row| {
        each(row.get(0)?, row.get(1)?, text(row, 2)?)
    })
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> anyhow::Result<&'r str> {
    Ok(row.get_ref(column)?.as_str()?)
}

fn each_row(
    conn: &Connection,
    table: &str,
    sql: &str,
    mut each: impl FnMut(&Row<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut read = || -> anyhow::Result<()> {
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(row)?;
        }
        Ok(())
    };
    read().with_context(|| format!("cannot read table {table}"))
}

/// The name of a table and of its key.
fn columns(table: Table) -> (&'static str, &'static str) {
    match table {
        Table::Pools => ("pools", "name"),
        Table::Claims => ("claims", "id"),
        Table::Ops => ("ops", "id"),
        Table::Latches => ("latches", "id"),
        Table::Concourses => ("concourses", "url"),
        Table::Tokens => ("tokens", "name"),
    }
}

#[cfg(test)]
mod tests;
