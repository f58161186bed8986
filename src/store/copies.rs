//! Copies of a store in a file: [`backup`], [`restore`], and the [`check`] that both end with (docs/store.md).
//!
//! All three read through SQLite in their own process (decision 0008): a backup is one read transaction, which waits
//! for nobody and blocks nobody. A copy is written under another name, checked, synced and renamed, so that it is
//! either complete or absent.

use std::fs::{self, File};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tempfile::NamedTempFile;

use super::journal::Damaged;
use super::layer::{Layer, View};
use super::lockfile::LockFile;
use super::log::address::LogAddress;
use super::reading::Reading;
use super::schema::{self, Found};
use super::shared::moving;
use super::sidecar::sidecar;
use super::sqlite::{Tables, begin_journal, left_in_journal, load_all, resolved};
use crate::core::invariants;
use crate::core::names::Revision;
use crate::core::restart::Restart;
use crate::core::settings::Settings;
use crate::core::state::EndedOutline;
use crate::core::time::{EngineMs, Now, WallMs};

/// A writer's commit and a checkpoint take their locks only for moments; this is longer than any of them.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most problems of a file that are reported; more would say nothing new.
const PROBLEMS: usize = 5;
/// How often a copy or a check begins again because a server has written faster than its journal was read.
const ATTEMPTS: usize = 5;
const EMPTY: &str = "it is empty: no server has started on it";

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file is in the way, and was left as it is.
    #[error("{} exists: {advice}", path.display())]
    Exists { path: PathBuf, advice: &'static str },
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// What a sound store contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    pub store_id: String,
    /// The newest revision: no fence that this store has given is larger.
    pub revision: u64,
    /// `None`: the store has an earlier schema. The next server migrates it and then reads its records.
    pub records: Option<Records>,
    /// The size of its files.
    pub bytes: u64,
}

/// The number of records of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records {
    pub pools: usize,
    pub locks: usize,
    pub claims: usize,
    pub changes: usize,
}

/// The result of [`restore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub contents: Contents,
    /// Where the replaced store is now.
    pub aside: Option<PathBuf>,
    /// The newest revision of the replaced store could not be read, so fences rely on the clock.
    pub old_fences_unknown: bool,
}

/// Checks every page and every record of a store, even while a server uses it. Changes nothing.
///
/// # Errors
/// It is not sound, or cannot be read: the message says what is wrong.
pub fn check(uri: &str) -> anyhow::Result<Contents> {
    if let Some(address) = log_of(uri)? {
        let dir = tempfile::tempdir()?;
        let (_replica, path) = moving::copy_of(address, dir.path()).context(SHARED)?;
        return sound(&path).context(SHARED);
    }
    let path = resolved(file_of(uri)?)?;
    sound(&path).with_context(|| format!("store {}", path.display()))
}

/// Copies the store as it is at one moment into the new file `to`, even while a server uses it.
///
/// # Errors
/// `to` exists, or the store or the copy is not sound. A copy that is not sound is not kept.
pub fn backup(uri: &str, to: &Path) -> Result<Contents, CopyError> {
    let to = resolved(to)?;
    if to.exists() {
        return Err(CopyError::Exists { path: to, advice: "a backup never replaces a file: name a new one" });
    }
    let (from, _replica) = match log_of(uri)? {
        None => (resolved(file_of(uri)?)?, None),
        Some(address) => {
            let (replica, path) = moving::copy_of(address, directory(&to)).context(SHARED)?;
            (path, Some(replica))
        }
    };
    let copy = copied(&from, directory(&to))?;
    let contents = sound(copy.path()).with_context(|| format!("the copy of {} is not sound", from.display()))?;
    sync(copy.path())?;
    copy.persist_noclobber(&to).with_context(|| format!("cannot name the backup {}", to.display()))?;
    sync(directory(&to))?;
    Ok(contents)
}

/// Moves a store: makes what `from` contains the content of `to`, which must not exist yet, or be an empty log. No server
/// may use either of them. `from` stays as it is.
///
/// All fences that are given from now on are larger than those that `from` has given.
///
/// # Errors
/// A server uses one of them, `to` exists, or `from` is not sound. Then nothing has been changed.
pub fn move_store(from: &str, to: &str) -> Result<Contents, CopyError> {
    let dir = tempfile::tempdir().context("cannot make a directory for temporary files")?;
    let (from_log, to_log) = (log_of(from)?, log_of(to)?);
    // Kept until the end, so that no server begins to use it meanwhile.
    let (path, _file, _log) = match from_log {
        Some(address) => {
            let store = moving::take(address, dir.path()).with_context(|| format!("{SHARED} {}", scheme(from)))?;
            (store.folded()?, None, Some(store))
        }
        None => {
            let path = resolved(file_of(from)?)?;
            let lock = LockFile::acquire(&path)?;
            (path, Some(lock), None)
        }
    };
    let to_file = to_log.is_none().then(|| resolved(file_of(to)?)).transpose()?;
    if to_file.as_deref() == Some(&*path) {
        return Err(anyhow!("both names are those of the same store").into());
    }
    let _to_lock = to_file.as_deref().map(LockFile::acquire).transpose()?;
    if let Some(path) = to_file.as_ref().filter(|path| path.exists()) {
        return Err(CopyError::Exists {
            path: path.clone(),
            advice: "a store is moved to where there is none: name a new one",
        });
    }
    let copy = copied(&path, to_file.as_deref().map_or(dir.path(), directory))?;
    advance(copy.path(), 0)?;
    let contents = sound(copy.path()).with_context(|| format!("the copy of {} is not sound", scheme(from)))?;
    match (to_log, to_file) {
        (Some(address), _) => {
            moving::put(&address, copy.path()).with_context(|| format!("{SHARED} {}", scheme(to)))?;
        }
        (None, Some(path)) => {
            sync(copy.path())?;
            copy.persist_noclobber(&path).with_context(|| format!("cannot name the store {}", path.display()))?;
            sync(directory(&path))?;
        }
        (None, None) => {}
    }
    Ok(contents)
}

/// Makes the backup `from` the store `uri`, migrated to this release's schema. No server may use the store meanwhile.
///
/// The next server's fences are larger than all fences known to the backup, the replaced store (if it can be read) and
/// `fence_above`. `replace`: an existing store is moved aside, not deleted.
///
/// # Errors
/// A server uses the store, the store exists and `replace` is false, or the backup is not sound. Then nothing has been
/// changed, unless the message says where the old store is.
pub fn restore(from: &Path, uri: &str, replace: bool, fence_above: Option<u64>) -> Result<Restored, CopyError> {
    if log_of(uri)?.is_some() {
        let advice = "a backup comes into a shared store with: locker store copy sqlite:BACKUP STORE";
        return Err(anyhow::anyhow!("{SHARED} is not a file: {advice}").into());
    }
    let from = resolved(from)?;
    let path = resolved(file_of(uri)?)?;
    if from == path {
        return Err(anyhow::anyhow!("the backup and the store are the same file: {}", path.display()).into());
    }
    sound(&from).with_context(|| format!("backup {}", from.display()))?;
    let _lock = LockFile::acquire(&path)?;
    if path.exists() && !replace {
        return Err(CopyError::Exists {
            path,
            advice: "with --replace it is moved aside and the backup takes its place",
        });
    }
    let old_revision = path.exists().then(|| {
        let conn = reader(&path)?;
        newest_revision(&conn, &left_in_journal(&path, &conn)?.0)
    });
    let known = [fence_above, old_revision.as_ref().and_then(|found| found.as_ref().ok().copied())];
    let copy = copied(&from, directory(&path))?;
    advance(copy.path(), known.into_iter().flatten().max().unwrap_or_default())?;
    let contents = sound(copy.path()).with_context(|| format!("the copy of {} is not sound", from.display()))?;
    sync(copy.path())?;
    let aside = path.exists().then(|| move_aside(&path)).transpose()?;
    let named = copy.persist(&path).map_err(|error| error.error).and_then(|_| File::open(directory(&path))?.sync_all());
    named.with_context(|| match &aside {
        Some(aside) => format!("cannot put the backup at {}; the old store is {}", path.display(), aside.display()),
        None => format!("cannot put the backup at {}", path.display()),
    })?;
    Ok(Restored { contents, aside, old_fences_unknown: old_revision.is_some_and(|found| found.is_err()) })
}

fn file_of(uri: &str) -> anyhow::Result<&Path> {
    match uri.strip_prefix("sqlite:") {
        Some(file) if !file.is_empty() => Ok(Path::new(file)),
        _ => bail!(
            "store {:?} cannot be used: only sqlite:FILE can be copied and checked, and etcd:... and postgres:...",
            scheme(uri)
        ),
    }
}

/// The log that has the store, if it is shared.
fn log_of(uri: &str) -> anyhow::Result<Option<LogAddress>> {
    LogAddress::parse(uri).transpose().map_err(anyhow::Error::msg)
}

/// A shared store in messages, which do not quote its address.
const SHARED: &str = "the shared store";

/// How a store is named in messages: a file in full, a log by what it begins with.
fn scheme(uri: &str) -> &str {
    if uri.starts_with("sqlite:") { uri } else { uri.split_once(':').map_or(uri, |(scheme, _)| scheme) }
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn sync(path: &Path) -> anyhow::Result<()> {
    File::open(path).and_then(|file| file.sync_all()).with_context(|| format!("cannot sync {}", path.display()))
}

/// A connection that only reads: a server may be writing.
fn reader(path: &Path) -> anyhow::Result<Connection> {
    ensure!(path.exists(), "there is no file {}", path.display());
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// A copy of the store in a new private file in `dir`, complete without a log or a journal.
fn copied(from: &Path, dir: &Path) -> anyhow::Result<NamedTempFile> {
    let run = || -> anyhow::Result<NamedTempFile> {
        let (copy, mut target) = tables_copied(from, dir)?;
        let (layer, _) = left_in_journal(from, &target)?;
        begin_journal(&mut target, &layer, None)?;
        Ok(copy)
    };
    again(run).with_context(|| format!("cannot copy {}", from.display()))
}

/// A copy of the tables of a store in a new private file in `dir`, complete without a log.
pub(super) fn tables_copied(from: &Path, dir: &Path) -> anyhow::Result<(NamedTempFile, Connection)> {
    let copy = NamedTempFile::new_in(dir).with_context(|| format!("cannot make a file in {}", dir.display()))?;
    let source = reader(from)?;
    ensure!(schema::inspect(&source)? != Found::New, EMPTY);
    let mut target = Connection::open(copy.path())?;
    // All pages in one step are one read transaction: one moment of the store, whatever is written meanwhile.
    match Backup::new(&source, &mut target)?.step(-1)? {
        StepResult::Done => {}
        other => bail!("it is locked by another process ({other:?}): try again"),
    }
    let mode: String = target.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    ensure!(mode == "delete", "the copy still has a log (SQLite says {mode:?})");
    Ok((copy, target))
}

/// Runs it again if a server has used a part of its journal again before it was read.
fn again<T>(run: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut attempts = 1;
    loop {
        match run() {
            Err(error) if error.is::<Damaged>() && attempts < ATTEMPTS => attempts += 1,
            done => return done,
        }
    }
}

/// Migrates a copy to this release's schema, and sets its newest revision to the epoch after its own and after `known`,
/// so that no fence given since the backup is given again.
fn advance(copy: &Path, known: u64) -> anyhow::Result<()> {
    let mut conn = Connection::open(copy)?;
    let found = schema::inspect(&conn)?;
    schema::migrate(&mut conn, found, "")?;
    let Revision(revision) =
        Revision::start_of(Revision(newest_revision(&conn, &Layer::default())?.max(known)).epoch() + 1);
    conn.execute("UPDATE meta SET value = ?1 WHERE key = 'revision'", [revision.to_string()])?;
    Ok(())
}

/// The newest revision of a store: of its tables and of what is left in its journal.
fn newest_revision(conn: &Connection, left: &Layer) -> anyhow::Result<u64> {
    ensure!(schema::inspect(conn)? != Found::New, EMPTY);
    let mut found = conn.prepare("SELECT value FROM meta WHERE key = 'revision'")?;
    let values: Result<Vec<String>, _> = found.query_map([], |row| row.get(0))?.collect();
    let stored = values?.first().map(|value| value.parse().context("its revision is not a number")).transpose()?;
    left.meta.get("revision").copied().max(stored).context(EMPTY)
}

/// Renames a store, including its log and its journal, to the first free `FILE.replaced-N`.
fn move_aside(path: &Path) -> anyhow::Result<PathBuf> {
    let free = (1..10_000_u32).map(|n| sidecar(path, &format!(".replaced-{n}"))).find(|aside| !aside.exists());
    let aside = free.context("no free name for the old store")?;
    let advice = || format!("cannot move {} aside: run this again before a server starts", path.display());
    // A log or a journal must never stay next to another database; with its own database under the new name it is
    // complete. So the database goes last.
    for (from, to) in super::files(path).into_iter().zip(super::files(&aside)).rev() {
        if from.exists() {
            fs::rename(&from, to).with_context(advice)?;
        }
    }
    Ok(aside)
}

/// Checks the pages, then the records, then whether the records agree.
fn sound(path: &Path) -> anyhow::Result<Contents> {
    again(|| sound_now(path))
}

fn sound_now(path: &Path) -> anyhow::Result<Contents> {
    let conn = reader(path)?;
    let tx = conn.unchecked_transaction()?;
    let found = schema::inspect(&tx)?;
    ensure!(found != Found::New, EMPTY);
    // The sooner the journal is read, the less of it has been used again.
    let (left, _) = left_in_journal(path, &tx)?;
    pages_are_sound(&tx).context("the file is damaged: restore a backup")?;
    let store_id = tx.query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| row.get(0));
    let store_id = store_id.context("it is damaged: it has no store id. Restore a backup")?;
    let revision = newest_revision(&tx, &left)?;
    let records = if found == schema::newest() { Some(sound_records(&tx, left)?) } else { None };
    let bytes = super::files(path).iter().map(|file| fs::metadata(file).map_or(0, |metadata| metadata.len())).sum();
    Ok(Contents { store_id, revision, records, bytes })
}

fn pages_are_sound(conn: &Connection) -> anyhow::Result<()> {
    let mut check = conn.prepare(&format!("PRAGMA integrity_check({PROBLEMS})"))?;
    let problems: Result<Vec<String>, _> = check.query_map([], |row| row.get(0))?.collect();
    let problems = problems?;
    ensure!(problems == ["ok"], "{}", problems.join("; "));
    Ok(())
}

/// Loads the records like a server, then checks the invariants.
fn sound_records(conn: &Connection, left: Layer) -> anyhow::Result<Records> {
    let loaded = load_all(conn, &left)?;
    let newest = loaded.meta.map_or(Revision::default(), |meta| meta.revision);
    let mut records =
        Records { pools: loaded.pools.len(), locks: loaded.locks.len(), claims: loaded.claims.len(), changes: 0 };
    let engine = loaded.meta.map_or(EngineMs::default(), |meta| meta.engine);
    let mut restart = Restart::begin(loaded, Settings::default(), 0, Now { engine, wall: WallMs(0) });
    let reading = Reading { view: View([left]), below: Tables(conn) };
    reading.walk_ended(None, &mut |ended| {
        restart.ended.take(&EndedOutline::from(&ended));
        ControlFlow::Continue(())
    })?;
    let mut given = Revision::default();
    reading.walk((Bound::Unbounded, Bound::Unbounded), false, &mut |change| {
        (given, records.changes) = (given.max(change.key.revision), records.changes + 1);
        restart.history.take(&change.outline());
        ControlFlow::Continue(())
    })?;
    ensure!(
        given <= newest,
        "it is damaged: an entry has revision {given}, but the newest is {newest}. Restore a backup"
    );
    invariants::check(&restart.finish())
        .map_err(|what| anyhow::anyhow!("its records contradict each other: {what}"))?;
    Ok(records)
}
