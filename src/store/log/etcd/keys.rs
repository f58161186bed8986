//! Keys and values of a log. Numbers in keys have 20 digits, so that keys and numbers have the same order.
//!
//! | key, behind the prefix | value |
//! |---|---|
//! | `head` | [`StoredHead`] |
//! | `record/SEQ` | a line of JSON, [`StoredRecord`]; then the bytes, if they are not in parts |
//! | `part/SEQ/ID/N` | bytes of a large record; valid once its record is there |
//! | `piece/SNAPSHOT/N` | bytes of a snapshot; valid once the manifest names it |
//! | `manifest` | [`StoredManifest`] |
//! | `note/NAME` | bytes |

use serde::{Deserialize, Serialize};

use crate::core::time::{EngineMs, Span};
use crate::store::log::head::{Head, Id, Leader, Record, Reign, Seq};
use crate::store::log::{Cause, Manifest, Trouble};

/// The format of the values.
const FORMAT: u32 = 1;
/// The most bytes of a record in one value. A request may have 1.5 MiB; several small ones wait less for each other.
pub(super) const PART_BYTES: usize = 256 * 1024;

/// The keys behind one prefix.
#[derive(Debug)]
pub(super) struct Keys {
    pub head: String,
    pub manifest: String,
    prefix: String,
}

impl Keys {
    pub fn of(prefix: &str) -> Self {
        Self { head: format!("{prefix}head"), manifest: format!("{prefix}manifest"), prefix: prefix.to_owned() }
    }

    pub fn record(&self, seq: Seq) -> String {
        format!("{}record/{:020}", self.prefix, seq.0)
    }

    /// Behind all records. `0` follows `/` in the order of bytes.
    pub fn after_records(&self) -> String {
        format!("{}record0", self.prefix)
    }

    /// The parts of the records from this number on.
    pub fn parts(&self, seq: Seq) -> String {
        format!("{}part/{:020}/", self.prefix, seq.0)
    }

    pub fn part(&self, seq: Seq, id: Id, number: usize) -> String {
        format!("{}{id}/{number:06}", self.parts(seq))
    }

    /// Where the notes are whose names begin like this.
    pub fn note(&self, name: &str) -> String {
        format!("{}note/{name}", self.prefix)
    }

    pub fn pieces(&self) -> String {
        format!("{}piece/", self.prefix)
    }

    pub fn after_pieces(&self) -> String {
        format!("{}piece0", self.prefix)
    }

    pub fn pieces_of(&self, snapshot: Id) -> String {
        format!("{}piece/{snapshot}/", self.prefix)
    }

    pub fn after_pieces_of(&self, snapshot: Id) -> String {
        format!("{}piece/{snapshot}0", self.prefix)
    }

    pub fn piece(&self, snapshot: Id, number: u32) -> String {
        format!("{}{number:010}", self.pieces_of(snapshot))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHead {
    format: u32,
    term: u64,
    name: String,
    run: String,
    seq: u64,
    record: String,
    beat: u64,
    /// Milliseconds.
    span: u64,
    /// Milliseconds.
    engine: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRecord {
    id: String,
    before: String,
    term: u64,
    /// How many parts it has; 0 if the bytes follow.
    parts: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredManifest {
    snapshot: String,
    term: u64,
    run: String,
    seq: u64,
    record: String,
    pieces: u32,
}

fn damaged(what: &str) -> Trouble {
    Trouble::new(Cause::Damaged, format!("the value of {what} was not written by this release of locker"))
}

fn id(text: &str, what: &str) -> Result<Id, Trouble> {
    text.parse().map_err(|_| damaged(what))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Trouble> {
    serde_json::to_vec(value).map_err(|error| Trouble::new(Cause::Failed, error.to_string()))
}

pub(super) fn encode_head(head: &Head) -> Result<Vec<u8>, Trouble> {
    json(&StoredHead {
        format: FORMAT,
        term: head.term,
        name: head.leader.name.clone(),
        run: head.leader.run.to_string(),
        seq: head.seq.0,
        record: head.record.to_string(),
        beat: head.beat,
        span: head.span.0,
        engine: head.engine.0,
    })
}

pub(super) fn decode_head(bytes: &[u8]) -> Result<Head, Trouble> {
    let stored: StoredHead = serde_json::from_slice(bytes).map_err(|_| damaged("head"))?;
    if stored.format != FORMAT {
        return Err(damaged("head"));
    }
    Ok(Head {
        term: stored.term,
        leader: Leader { name: stored.name, run: id(&stored.run, "head")? },
        seq: Seq(stored.seq),
        record: id(&stored.record, "head")?,
        beat: stored.beat,
        span: Span(stored.span),
        engine: EngineMs(stored.engine),
    })
}

/// How many parts a record has beside its value: none if its bytes fit.
pub(super) fn parts(record: &Record) -> usize {
    if record.bytes.len() <= PART_BYTES { 0 } else { record.bytes.len().div_ceil(PART_BYTES) }
}

pub(super) fn encode_record(record: &Record) -> Result<Vec<u8>, Trouble> {
    let Record { id, before, term, .. } = record;
    let parts = parts(record);
    let stored = StoredRecord { id: id.to_string(), before: before.to_string(), term: *term, parts };
    let mut value = json(&stored)?;
    value.push(b'\n');
    if parts == 0 {
        value.extend_from_slice(&record.bytes);
    }
    Ok(value)
}

/// The record with the bytes of its value, and how many parts it has.
pub(super) fn decode_record(key: &str, value: &[u8]) -> Result<(Record, usize), Trouble> {
    let broken = || damaged(key);
    let seq = key.rsplit('/').next().and_then(|digits| digits.parse().ok()).ok_or_else(broken)?;
    let end = value.iter().position(|byte| *byte == b'\n').ok_or_else(broken)?;
    let stored: StoredRecord = serde_json::from_slice(&value[..end]).map_err(|_| broken())?;
    let (id, before) = (id(&stored.id, key)?, id(&stored.before, key)?);
    let bytes = value[end + 1..].to_vec();
    Ok((Record { seq: Seq(seq), id, before, term: stored.term, bytes }, stored.parts))
}

pub(super) fn encode_manifest(manifest: &Manifest) -> Result<Vec<u8>, Trouble> {
    let Manifest { snapshot, by, seq, record, pieces } = manifest;
    json(&StoredManifest {
        snapshot: snapshot.to_string(),
        term: by.term,
        run: by.run.to_string(),
        seq: seq.0,
        record: record.to_string(),
        pieces: *pieces,
    })
}

pub(super) fn decode_manifest(bytes: &[u8]) -> Result<Manifest, Trouble> {
    let stored: StoredManifest = serde_json::from_slice(bytes).map_err(|_| damaged("manifest"))?;
    Ok(Manifest {
        snapshot: id(&stored.snapshot, "manifest")?,
        by: Reign { term: stored.term, run: id(&stored.run, "manifest")? },
        seq: Seq(stored.seq),
        record: id(&stored.record, "manifest")?,
        pieces: stored.pieces,
    })
}
