//! The journal of a store in a file: batches that are committed, and may not be in the tables yet (docs/decisions/0035).
//!
//! A commit appends one record, which is durable then (`super::durable`). There are two files beside the store, which take
//! turns: while one takes records, those of the other are written into the tables. Then its bytes are used again. All bytes
//! of a file are written with zeros before they are used. So a sync writes the record and nothing else, above all not the
//! length of the file.
//!
//! A record is whole or it is not there: its checksum says so. Each has the number of its batch, and the *life* of the
//! server that wrote it, so that what an earlier use has left behind in a file is never taken for a record. Only the last
//! record may be torn, because nobody has been told of it. A record after a damaged one is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::iter;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::durable::Durable;
use super::rows::Batch;
use super::sidecar::sidecar;

/// What the names of the two files end with. SQLite would take `-journal` for one of its own.
pub(super) const SUFFIXES: [&str; 2] = ["-batches-a", "-batches-b"];

/// Bytes of a file that are used before the other's turn comes: enough for thousands of batches, so that a row that many
/// of them change is written into the tables once, and few enough to be read in a moment at a start. A file with a
/// larger record is larger until it is used again.
pub(super) const TURN: u64 = 4 << 20;
/// The first length of a file, bytes. It doubles up to [`TURN`]: a small store stays small.
const FIRST: u64 = 64 << 10;

/// What each record begins with, so that records can be told from other bytes.
const MAGIC: [u8; 4] = *b"LkBt";
/// The format of a record's content. A release reads those of the releases before it.
const FORMAT: u32 = 1;
const HEADER: usize = 32;
/// Records begin at multiples of this.
const ALIGN: usize = 8;

/// The place and the checksum of what a record contains.
struct Header {
    format: u32,
    length: usize,
    seq: u64,
    life: u64,
    sum: u32,
}

impl Header {
    /// Whatever stands at the beginning of these bytes, if it looks like a record.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_at_checked(HEADER)?;
        let word = |at: usize| header[at..].first_chunk().map(|word| u32::from_le_bytes(*word));
        let long = |at: usize| header[at..].first_chunk().map(|long| u64::from_le_bytes(*long));
        let length = usize::try_from(word(8)?).ok()?;
        let header = Self { format: word(4)?, length, sum: word(12)?, seq: long(16)?, life: long(24)? };
        (bytes.starts_with(&MAGIC)).then_some(header)
    }

    fn sum(&self, content: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.format.to_le_bytes());
        sum.update(&self.seq.to_le_bytes());
        sum.update(&self.life.to_le_bytes());
        sum.update(content);
        sum.finalize()
    }

    fn write(&self, to: &mut [u8]) {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        let parts: [&[u8]; 6] = [
            &MAGIC,
            &self.format.to_le_bytes(),
            &length.to_le_bytes(),
            &self.sum.to_le_bytes(),
            &self.seq.to_le_bytes(),
            &self.life.to_le_bytes(),
        ];
        to[..HEADER].copy_from_slice(&parts.concat());
    }
}

/// The journal of the server that uses the store.
#[derive(Debug)]
pub(super) struct Journal {
    files: [Segment; 2],
    /// Which of them takes records.
    current: usize,
    /// The number of the last batch.
    last: u64,
    life: u64,
    /// [`TURN`], unless a test makes it smaller.
    turn: u64,
    buffer: Vec<u8>,
}

/// Where there is room for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Here,
    /// The other file's turn has come: the first one is full.
    InOther,
    /// Both are full, until more batches are in the tables.
    None,
}

#[derive(Debug)]
struct Segment {
    file: Durable,
    path: PathBuf,
    /// How many bytes have been written, at least with zeros.
    length: u64,
    used: u64,
    /// The number of its last record.
    last: u64,
}

impl Journal {
    /// A new journal beside the store, after the batch `last`. What an earlier one contains must be in the tables.
    ///
    /// # Errors
    /// The files cannot be made.
    pub fn create(store: &Path, life: u64, last: u64, turn: u64) -> anyhow::Result<Self> {
        let make = |suffix| -> anyhow::Result<Segment> {
            let path = sidecar(store, suffix);
            let file = Durable::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
            Ok(Segment { file, path, length: 0, used: 0, last: 0 })
        };
        let [a, b] = SUFFIXES;
        let files = [make(a)?, make(b)?];
        // The names must survive power loss, like the content.
        let dir = store.parent().unwrap_or(Path::new("/"));
        let sync = || File::open(dir)?.sync_all();
        sync().with_context(|| format!("cannot sync the directory {}", dir.display()))?;
        Ok(Self { files, current: 0, last, life, turn, buffer: Vec::new() })
    }

    /// Encodes a batch as the next record, which [`Self::append`] writes.
    pub fn encode(&mut self, batch: &Batch<'_>) -> anyhow::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.resize(HEADER, 0);
        let mut buffer = postcard::to_extend(batch, buffer).context("a batch cannot be encoded")?;
        let length = buffer.len() - HEADER;
        ensure!(u32::try_from(length).is_ok(), "a batch of {length} bytes is too large");
        let mut header = Header { format: FORMAT, length, seq: self.last + 1, life: self.life, sum: 0 };
        header.sum = header.sum(&buffer[HEADER..]);
        header.write(&mut buffer);
        buffer.resize(buffer.len().next_multiple_of(ALIGN), 0);
        self.buffer = buffer;
        Ok(())
    }

    /// Finds room for the encoded record, given that all batches up to `folded` are in the tables.
    pub fn room(&mut self, folded: u64) -> Room {
        for file in &mut self.files {
            if file.last <= folded {
                file.used = 0;
            }
        }
        let (file, other) = (&self.files[self.current], &self.files[1 - self.current]);
        if file.used == 0 || file.used + self.buffer.len() as u64 <= self.turn {
            Room::Here
        } else if other.used == 0 {
            self.current = 1 - self.current;
            Room::InOther
        } else {
            Room::None
        }
    }

    /// Writes the encoded record and syncs it. Returns its number.
    ///
    /// # Errors
    /// It is unknown whether the record is there.
    pub fn append(&mut self) -> anyhow::Result<u64> {
        let file = &mut self.files[self.current];
        let seq = self.last + 1;
        file.append(&self.buffer).with_context(|| format!("cannot write {}", file.path.display()))?;
        (file.last, self.last) = (seq, seq);
        Ok(seq)
    }

    /// The number of the last batch.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Removes the files, after everything has been written into the tables.
    pub fn remove(&self) {
        for file in &self.files {
            // What stays is found to be of an earlier life.
            let _ = fs::remove_file(&file.path);
        }
    }
}

impl Segment {
    fn append(&mut self, record: &[u8]) -> std::io::Result<()> {
        let end = self.used + record.len() as u64;
        if end > self.length {
            self.grow(end)?;
        }
        self.file.write(self.used, record)?;
        self.used = end;
        Ok(())
    }

    /// Writes zeros up to a length that is at least this.
    fn grow(&mut self, least: u64) -> std::io::Result<()> {
        let zeros = vec![0; 64 << 10];
        let length = (self.length * 2).clamp(FIRST, TURN).max(least.next_multiple_of(FIRST));
        let file = OpenOptions::new().write(true).open(&self.path)?;
        while self.length < length {
            file.write_all_at(&zeros, self.length)?;
            self.length += zeros.len() as u64;
        }
        file.sync_all()
    }
}

/// Batches are missing. While a server writes, it may have used a part of a file again before that was read.
#[derive(Debug, thiserror::Error)]
#[error("the journal ({}, {}) is damaged, and batches are lost: restore a backup", .0[0].display(), .0[1].display())]
pub(super) struct Damaged([PathBuf; 2]);

/// A record that was found.
#[derive(Debug)]
pub(super) struct Record {
    pub seq: u64,
    format: u32,
    content: Vec<u8>,
}

impl Record {
    /// The batch in it.
    ///
    /// # Errors
    /// It is of a newer release, or damaged in spite of its checksum.
    pub fn batch(&self) -> anyhow::Result<Batch<'_>> {
        ensure!(self.format == FORMAT, "batch {} was written by a newer release of locker: start that one", self.seq);
        postcard::from_bytes(&self.content).with_context(|| format!("batch {} is damaged: restore a backup", self.seq))
    }
}

/// Reads the batches of this life after the number `folded`, oldest first. If a server is writing, the newest ones may be
/// missing.
///
/// # Errors
/// The files cannot be read, or are [`Damaged`].
pub(super) fn read(store: &Path, life: u64, folded: u64) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for suffix in SUFFIXES {
        let path = sidecar(store, suffix);
        let bytes = bytes_of(&path).with_context(|| format!("cannot read {}", path.display()))?;
        records.extend(records_in(&bytes, life).filter(|record| record.seq > folded));
    }
    records.sort_by_key(|record| record.seq);
    if records.iter().zip(folded + 1..).any(|(record, seq)| record.seq != seq) {
        bail!(Damaged(SUFFIXES.map(|suffix| sidecar(store, suffix))));
    }
    Ok(records)
}

fn bytes_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes).map(|_| bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(bytes),
        Err(error) => Err(error),
    }
}

/// All whole records of this life, in the order of their places.
fn records_in(bytes: &[u8], life: u64) -> impl Iterator<Item = Record> {
    let mut at = 0;
    iter::from_fn(move || {
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let found = record(rest, life);
            at += found.as_ref().map_or(ALIGN, |found| (HEADER + found.content.len()).next_multiple_of(ALIGN));
            if found.is_some() {
                return found;
            }
        }
        None
    })
}

/// The record of this life at the beginning of these bytes, if there is a whole one.
fn record(bytes: &[u8], life: u64) -> Option<Record> {
    let header = Header::read(bytes).filter(|header| header.life == life)?;
    let content = bytes[HEADER..].get(..header.length)?;
    let whole = header.sum(content) == header.sum;
    whole.then(|| Record { seq: header.seq, format: header.format, content: content.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::Table;

    const LIFE: u64 = 7;

    struct Place {
        dir: tempfile::TempDir,
        journal: Journal,
    }

    impl Place {
        /// A journal after batch 100 whose files take turns after a few batches.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let journal = Journal::create(&dir.path().join("db"), LIFE, 100, 600).unwrap();
            Self { dir, journal }
        }

        fn store(&self) -> PathBuf {
            self.dir.path().join("db")
        }

        /// Appends a batch that says its number, if there is room.
        fn append(&mut self, folded: u64) -> bool {
            let key = (self.journal.last + 1).to_string();
            let batch = Batch { records: vec![(Table::Pools, key.into(), None)], ..Batch::default() };
            self.journal.encode(&batch).unwrap();
            let room = self.journal.room(folded) != Room::None;
            if room {
                self.journal.append().unwrap();
            }
            room
        }

        fn read(&self, folded: u64) -> anyhow::Result<Vec<u64>> {
            let records = read(&self.store(), LIFE, folded)?;
            Ok(records
                .iter()
                .map(|record| {
                    let batch = record.batch().unwrap();
                    assert_eq!(batch.records[0].1, record.seq.to_string(), "the content of another batch");
                    record.seq
                })
                .collect())
        }

        /// Changes the bytes of a file.
        fn change(&self, file: usize, change: impl FnOnce(&mut Vec<u8>)) {
            let path = sidecar(&self.store(), SUFFIXES[file]);
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    }

    /// Where the content of the first record with this number is.
    fn content_of(bytes: &[u8], seq: u64) -> usize {
        let is = |at: &usize| record(&bytes[*at..], LIFE).is_some_and(|record| record.seq == seq);
        (0..bytes.len()).step_by(ALIGN).find(is).unwrap() + HEADER
    }

    #[test]
    fn batches_are_read_as_they_were_written() {
        let mut place = Place::new();
        assert!(place.read(100).unwrap().is_empty());
        let mut folded = 100;
        for last in 101..400 {
            if !place.append(folded) {
                // Both files are full, so that much is left.
                assert!(last - folded > 10, "{folded} {last}");
                folded = last - 5;
                assert!(place.append(folded));
            }
            assert_eq!(place.read(folded).unwrap(), (folded + 1..=last).collect::<Vec<_>>());
        }
        assert!(place.read(399).unwrap().is_empty());
    }

    #[test]
    fn a_file_is_used_again_only_when_its_batches_are_in_the_tables() {
        let mut place = Place::new();
        while place.append(100) {}
        let last = place.journal.last;
        let second = place.journal.files[0].last + 1;
        for folded in 100..second - 1 {
            assert!(!place.append(folded), "batch {folded} of the file is not in the tables");
        }
        assert!(place.append(second - 1));
        assert_eq!(place.read(second - 1).unwrap(), (second..=last + 1).collect::<Vec<_>>());
    }

    /// Nobody has been told of the last batch, so it may be torn. Everything before it must be there.
    #[test]
    fn only_the_last_batch_may_be_torn() {
        let mut place = Place::new();
        while place.append(100) {}
        let last = place.journal.last;
        let in_second = place.journal.files[1].last - place.journal.files[0].last;
        for seq in 101..=last {
            let file = usize::from(seq > last - in_second);
            let whole = fs::read(sidecar(&place.store(), SUFFIXES[file])).unwrap();
            place.change(file, |bytes| {
                let at = content_of(bytes, seq);
                bytes[at] ^= 1;
            });
            match place.read(100) {
                Ok(found) => assert!(seq == last && found.len() as u64 == last - 101, "{seq} {found:?}"),
                Err(error) => assert!(seq < last && error.is::<Damaged>(), "{seq} {error:#}"),
            }
            assert_eq!(place.read(seq).unwrap(), (seq + 1..=last).collect::<Vec<_>>(), "it is in the tables already");
            place.change(file, |bytes| *bytes = whole);
        }
    }

    #[test]
    fn any_part_of_the_last_batch_may_be_missing() {
        let mut place = Place::new();
        (0..5).for_each(|_| assert!(place.append(100)));
        let mut whole = Vec::new();
        place.change(0, |bytes| whole.clone_from(bytes));
        let at = content_of(&whole, 105) - HEADER;
        for length in at..at + HEADER + 8 {
            place.change(0, |bytes| {
                bytes.clone_from(&whole);
                bytes[length..].fill(0);
            });
            let found = place.read(100).unwrap();
            assert!(found == [101, 102, 103, 104] || (found == [101, 102, 103, 104, 105] && length > at + HEADER));
        }
    }

    #[test]
    fn what_another_server_has_left_is_not_read() {
        let mut place = Place::new();
        (0..5).for_each(|_| assert!(place.append(100)));
        assert!(read(&place.store(), LIFE + 1, 100).unwrap().is_empty());
        assert!(read(&place.dir.path().join("other"), LIFE, 100).unwrap().is_empty());
    }

    /// The bytes that this and later releases must be able to read.
    #[test]
    fn the_format_stays() {
        let mut place = Place::new();
        let columns =
            crate::store::rows::EndedColumns { id: "c", how: "x", forget: -1, span: 2, build: Some(("u", "7")) };
        let batch = Batch {
            meta: vec![("revision", 300)],
            records: vec![(Table::Pools, "p".into(), Some("{}".to_owned())), (Table::Tokens, "t".into(), None)],
            ended: vec![("c", Some((columns, "{}".to_owned()))), ("d", None)],
            forget: vec![("e", (1, 2))],
            locks: vec![("p", "l", Some((b"\0\xff", "{}".to_owned()))), ("p", "m", None)],
            changes: vec![((1, 0), "{}".to_owned())],
            pruned: vec![(1, 2)],
        };
        place.journal.encode(&batch).unwrap();
        let (header, content) = place.journal.buffer.split_at(HEADER);
        let expected = concat!(
            r"LkBt\x01\x00\x00\x00L\x00\x00\x00\xf2\xa1t\x88",
            r"e\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00",
        );
        assert_eq!(header.escape_ascii().to_string(), expected);
        let expected = concat!(
            r"\x01\x08revision\xac\x02",
            r"\x02\x00\x01p\x01\x02{}\x05\x01t\x00",
            r"\x02\x01c\x01\x01c\x01x\x01\x04\x01\x01u\x017\x02{}\x01d\x00",
            r"\x01\x01e\x02\x04",
            r"\x02\x01p\x01l\x01\x02\x00\xff\x02{}\x01p\x01m\x00",
            r"\x01\x02\x00\x02{}",
            r"\x01\x02\x02\x00\x00\x00\x00",
        );
        assert_eq!(content.escape_ascii().to_string(), expected);
        place.journal.append().unwrap();
        let records = read(&place.store(), LIFE, 100).unwrap();
        assert_eq!(format!("{:?}", records[0].batch().unwrap()), format!("{batch:?}"));
    }
}
