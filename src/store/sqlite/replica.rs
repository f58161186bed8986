//! A copy of what a log contains, in a file of its own: what a server on a shared log loads when it leads, and where it
//! reads history and ended claims. It is made again at each start, so nothing of it is ever synced.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use lz4_flex::block::{compress_prepend_size, decompress, uncompressed_size};
use rusqlite::OptionalExtension;
use tempfile::{NamedTempFile, TempDir};

use super::database::Database;
use super::writer::{begin_journal, journal_of};
use super::{Syncs, Tuning, connect, make_file, write_ahead};
use crate::store::copies::tables_copied;
use crate::store::journal::TURN;
use crate::store::layer::Layer;
use crate::store::lockfile::LockFile;
use crate::store::log::head::{Id, Record, Seq};
use crate::store::log::tail::{SetBack, Tail};
use crate::store::rows::Batch;
use crate::store::schema;

/// The format of a record's content, its first byte. It is raised with every change of the rows, of what is in them, and
/// of the tables. A release reads all formats from [`OLDEST`] on, and can write the one before its own, for servers that
/// have not been upgraded yet.
const FORMAT: u8 = 2;
/// The first format whose content is an LZ4 block, after its own length (docs/decisions/0045).
const COMPRESSED: u8 = 2;
/// The oldest format that can be written.
pub const OLDEST: u8 = 1;

/// The newest format that is read and can be written. The planted release has one more, with the same content.
#[must_use]
pub fn newest() -> u8 {
    #[cfg(feature = "plant")]
    if std::env::var_os("LOCKER_PLANT").is_some_and(|plant| plant == "next-format") {
        return FORMAT + 1;
    }
    FORMAT
}

/// How the name of a copy's directory begins.
const PREFIX: &str = "locker-copy-";
const FILE: &str = "copy.db";

/// Why a record was not applied.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    #[error(transparent)]
    SetBack(#[from] SetBack),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// What an LZ4 block of one byte can become at most, bytes: a longer content is damage, and no memory is taken for it.
const MOST_OF_ONE: usize = 255;

/// How many bytes a record has.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Length {
    /// In the log.
    pub record: usize,
    /// Before it was compressed.
    pub content: usize,
}

/// The bytes of the record of a batch.
///
/// # Errors
/// It cannot be encoded.
pub(in crate::store) fn encode(batch: &Batch<'_>, format: u8) -> anyhow::Result<(Vec<u8>, Length)> {
    let content = postcard::to_allocvec(batch).context("a batch cannot be encoded")?;
    let bytes = content.len();
    let packed = if format < COMPRESSED { content } else { compress_prepend_size(&content) };
    let record = [&[format], &*packed].concat();
    let length = Length { record: record.len(), content: bytes };
    Ok((record, length))
}

fn damaged(record: &Record) -> String {
    format!("record {} of the log is damaged", record.seq.0)
}

/// What a record contains: a batch, as it was before it was compressed.
fn content(record: &Record) -> anyhow::Result<Cow<'_, [u8]>> {
    let Seq(seq) = record.seq;
    let (format, content) = record.bytes.split_first().with_context(|| format!("record {seq} of the log is empty"))?;
    let known = OLDEST..=newest();
    ensure!(
        known.contains(format),
        "record {seq} of the log was written by another release of locker: upgrade this server"
    );
    if *format < COMPRESSED {
        return Ok(content.into());
    }
    let (length, block) = uncompressed_size(content).with_context(|| damaged(record))?;
    ensure!(length <= block.len().saturating_mul(MOST_OF_ONE), damaged(record));
    Ok(decompress(block, length).with_context(|| damaged(record))?.into())
}

/// The copy, as of the last record that was applied.
#[derive(Debug)]
pub struct Replica {
    /// `None` before the first record.
    database: Option<Database>,
    tail: Tail,
    /// Bytes of content that are not in the tables for sure, since the number in `asked`.
    unfolded: u64,
    asked: u64,
    /// Bytes of the records since the snapshot that it began with.
    since_snapshot: Arc<AtomicU64>,
    /// The newest revision of any record that was applied, here or to an earlier copy.
    seen: Arc<AtomicU64>,
    _lock: LockFile,
    dir: TempDir,
}

impl Replica {
    /// An empty copy in a new directory in `dir`. It raises `seen` to each revision that it sees. Copies that servers have left there when they were killed are removed.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn empty(dir: &Path, seen: &Arc<AtomicU64>) -> anyhow::Result<Self> {
        sweep(dir);
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir);
        let dir = made.with_context(|| {
            format!("cannot make a directory in {} for a copy of the store: name another with --cache", dir.display())
        })?;
        let lock = LockFile::acquire_new(&dir.path().join(FILE))?;
        Ok(Self {
            database: None,
            tail: Tail::default(),
            unfolded: 0,
            asked: 0,
            since_snapshot: Arc::default(),
            seen: Arc::clone(seen),
            _lock: lock,
            dir,
        })
    }

    /// A copy that begins with a snapshot: its pieces one after the other, and the last record that it contains.
    ///
    /// # Errors
    /// The snapshot is damaged, or nothing can be written.
    pub fn of_snapshot(
        dir: &Path,
        seen: &Arc<AtomicU64>,
        tail: Tail,
        mut pieces: impl FnMut(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut replica = Self::empty(dir, seen)?;
        let path = replica.path();
        make_file(&path)?;
        pieces(&path)?;
        replica.open(tail.seq, "").context("the snapshot in the log is damaged")?;
        replica.tail = tail;
        Ok(replica)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    fn open(&mut self, last: Seq, new_id: &str) -> anyhow::Result<()> {
        let path = self.path();
        make_file(&path)?;
        let mut conn = connect(&path, Tuning::default().busy_timeout)?;
        let found = schema::inspect(&conn)?;
        write_ahead(&conn, Syncs::Off)?;
        schema::migrate(&mut conn, found, new_id)?;
        let revision =
            conn.query_row("SELECT value FROM meta WHERE key = 'revision'", [], |row| row.get(0)).optional()?;
        let revision = revision.map(|text: String| text.parse().context("its revision is not a number")).transpose()?;
        self.seen.fetch_max(revision.unwrap_or_default(), Ordering::Relaxed);
        self.database = Some(Database::start(&path, conn, last.0, Syncs::Off, Tuning::default())?);
        Ok(())
    }

    /// The last record that was applied.
    #[must_use]
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// Bytes of the records since the snapshot that it began with.
    #[must_use]
    pub fn since_snapshot(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.since_snapshot)
    }

    /// The tables and what is above them.
    ///
    /// # Errors
    /// There is no record yet.
    pub(in crate::store) fn database(&self) -> anyhow::Result<&Database> {
        self.database.as_ref().context("the log has no record yet")
    }

    /// Writes everything into the tables, and returns the file that they are in.
    ///
    /// # Errors
    /// There is no record yet, or the disk has failed.
    pub(in crate::store) fn folded(&self) -> anyhow::Result<PathBuf> {
        drop(self.database()?.folded()?);
        Ok(self.path())
    }

    /// Applies the next record.
    ///
    /// # Errors
    /// It does not follow the last one, it is damaged or of a newer release, or the disk has failed.
    pub fn apply(&mut self, record: &Record) -> Result<(), NotApplied> {
        let mut tail = self.tail;
        tail.follow(record)?;
        let content = content(record)?;
        let batch = postcard::from_bytes(&content).with_context(|| damaged(record))?;
        let length = Length { record: record.bytes.len(), content: content.len() };
        self.put(record.seq, record.id, length, batch)?;
        Ok(())
    }

    /// Puts a batch that the log has under this number and id.
    ///
    /// # Errors
    /// The disk has failed.
    pub(in crate::store) fn put(&mut self, seq: Seq, id: Id, length: Length, batch: Batch<'_>) -> anyhow::Result<()> {
        if self.database.is_none() {
            // The id of the store is that of its first record.
            self.open(Seq(seq.0.saturating_sub(1)), &id.to_string())?;
        }
        let revision = batch.meta.iter().find(|(key, _)| *key == "revision").map_or(0, |(_, revision)| *revision);
        self.seen.fetch_max(revision, Ordering::Relaxed);
        let pending = &self.database()?.pending;
        pending.put(seq.0, batch);
        let (mut unfolded, mut asked) = (self.unfolded.saturating_add(length.content as u64), self.asked);
        if unfolded > TURN {
            // The disk must not fall behind without bound.
            pending.fold_through(asked)?;
            pending.ask_to_fold();
            (unfolded, asked) = (0, seq.0);
        }
        (self.unfolded, self.asked) = (unfolded, asked);
        self.since_snapshot.fetch_add(length.record as u64, Ordering::Relaxed);
        self.tail = Tail { seq, record: id };
        Ok(())
    }

    /// Whether its rows cannot be written any more, for example because the disk is full. It must be made again.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.database.as_ref().is_some_and(|database| database.pending.folded().is_err())
    }

    /// What happens when the disk is full.
    #[cfg(test)]
    pub(in crate::store) fn break_disk(&self) {
        self.database().unwrap().pending.fail(&anyhow::anyhow!("the disk is full"));
    }

    /// Where its tables are, for [`copy`].
    #[must_use]
    pub fn source(&self) -> Source {
        Source { path: self.path(), dir: self.dir.path().to_owned() }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // What is not written is in the log.
        if let Some(mut database) = self.database.take() {
            let _ = database.stop();
        }
    }
}

/// Where the tables of a [`Replica`] are. It may be used while the replica lives.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    dir: PathBuf,
}

/// A copy of the tables in one file, and the last record that it contains: at most about a second old. `None`: there is
/// nothing yet.
///
/// # Errors
/// The tables cannot be read or copied.
pub fn copy(source: &Source) -> anyhow::Result<Option<(NamedTempFile, Seq)>> {
    if !source.path.exists() {
        return Ok(None);
    }
    let (file, mut target) = tables_copied(&source.path, &source.dir)?;
    let (_, seq) = journal_of(&target)?;
    begin_journal(&mut target, &Layer::default(), None)?;
    Ok((seq > 0).then_some((file, Seq(seq))))
}

/// Removes copies whose servers have ended without removing them. What cannot be removed stays. So does a directory without
/// a lock file: its server is about to lock it. (How old it is says nothing, because wall clocks jump.)
fn sweep(dir: &Path) {
    for left in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_copy = left.file_name().to_string_lossy().starts_with(PREFIX);
        // The type of the entry itself, not of what a link names.
        let is_dir = left.file_type().is_ok_and(|kind| kind.is_dir());
        if is_copy && is_dir && LockFile::acquire_left(&left.path().join(FILE)).is_ok() {
            let _ = fs::remove_dir_all(left.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::samples;

    fn record(bytes: Vec<u8>) -> Record {
        Record { seq: Seq(7), id: Id(1), before: Id::NONE, term: 1, bytes }
    }

    proptest! {
        #[test]
        fn a_record_contains_its_batch_in_every_format(changes in samples::changes()) {
            let batch = Batch::of(&changes).unwrap();
            let plain = postcard::to_allocvec(&batch).unwrap();
            for format in OLDEST..=FORMAT {
                let (bytes, length) = encode(&batch, format).unwrap();
                prop_assert_eq!((length.record, length.content), (bytes.len(), plain.len()));
                prop_assert_eq!(bytes[0], format);
                let record = record(bytes);
                prop_assert_eq!(&*content(&record).unwrap(), &*plain);
            }
        }
    }

    #[test]
    fn damaged_records_are_refused_and_take_no_memory() {
        let (whole, _) = encode(&Batch::default(), FORMAT).unwrap();
        let block = &whole[5..];
        let cases = [
            (vec![], "record 7 of the log is empty"),
            (vec![FORMAT + 1], "was written by another release of locker: upgrade this server"),
            (vec![FORMAT], "record 7 of the log is damaged"),
            (whole[..whole.len() - 1].to_vec(), "record 7 of the log is damaged"),
            // 4 GiB, it says.
            ([&[FORMAT, 255, 255, 255, 255], block].concat(), "record 7 of the log is damaged"),
        ];
        for (bytes, says) in cases {
            let error = format!("{:#}", content(&record(bytes.clone())).unwrap_err());
            assert!(error.contains(says), "{bytes:?}: {error}");
        }
    }
}
