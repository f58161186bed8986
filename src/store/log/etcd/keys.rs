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

use std::io::Read as _;

use flate2::read::DeflateDecoder;
use serde::{Deserialize, Serialize};

use crate::core::time::{EngineMs, Span};
use crate::store::log::head::{Head, Id, Leader, Record, Reign, Seq};
use crate::store::log::{Cause, Manifest, Trouble};

/// The format of the values.
const FORMAT: u32 = 1;
/// The most bytes of a record in one value. A request may have 1.5 MiB; several small ones wait less for each other.
const PART_BYTES: usize = 256 * 1024;

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
    /// How many bytes there are when they are inflated. Only records of the formats whose content was not compressed yet
    /// have it, and not all of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inflated: Option<usize>,
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

/// A record as it is stored.
#[derive(Debug)]
pub(super) struct Packed<'r> {
    bytes: &'r [u8],
    stored: StoredRecord,
}

impl<'r> Packed<'r> {
    pub fn of(record: &'r Record) -> Self {
        let Record { id, before, term, bytes, .. } = record;
        let parts = if bytes.len() <= PART_BYTES { 0 } else { bytes.len().div_ceil(PART_BYTES) };
        let stored =
            StoredRecord { id: id.to_string(), before: before.to_string(), term: *term, parts, inflated: None };
        Self { bytes, stored }
    }

    /// What is stored apart from its value.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = if self.stored.parts == 0 { &[] } else { self.bytes };
        bytes.chunks(PART_BYTES)
    }

    pub fn value(&self) -> Result<Vec<u8>, Trouble> {
        let mut value = json(&self.stored)?;
        value.push(b'\n');
        if self.stored.parts == 0 {
            value.extend_from_slice(self.bytes);
        }
        Ok(value)
    }
}

/// A record of which parts may be missing yet.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub record: Record,
    /// How many parts follow.
    pub parts: usize,
    inflated: Option<usize>,
}

impl Unpacked {
    pub fn of(key: &str, value: &[u8]) -> Result<Self, Trouble> {
        let broken = || damaged(key);
        let seq = key.rsplit('/').next().and_then(|digits| digits.parse().ok()).ok_or_else(broken)?;
        let end = value.iter().position(|byte| *byte == b'\n').ok_or_else(broken)?;
        let stored: StoredRecord = serde_json::from_slice(&value[..end]).map_err(|_| broken())?;
        let (id, before) = (id(&stored.id, key)?, id(&stored.before, key)?);
        let bytes = value[end + 1..].to_vec();
        let record = Record { seq: Seq(seq), id, before, term: stored.term, bytes };
        Ok(Self { record, parts: stored.parts, inflated: stored.inflated })
    }

    /// The record, once all its parts have been added.
    pub fn whole(self) -> Result<Record, Trouble> {
        let Some(length) = self.inflated else { return Ok(self.record) };
        let mut bytes = Vec::new();
        let inflated = DeflateDecoder::new(&self.record.bytes[..]).take(length as u64 + 1).read_to_end(&mut bytes);
        if inflated.is_err() || bytes.len() != length {
            return Err(damaged(&format!("record {}", self.record.seq.0)));
        }
        Ok(Record { bytes, ..self.record })
    }
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn record(bytes: Vec<u8>) -> Record {
        Record { seq: Seq(7), id: Id(70), before: Id(60), term: 3, bytes }
    }

    /// What is read from the value and the parts of a record, and how many parts there are.
    fn stored(record: &Record) -> (Record, usize) {
        let packed = Packed::of(record);
        let mut unpacked = Unpacked::of("locker/record/00000000000000000007", &packed.value().unwrap()).unwrap();
        packed.parts().for_each(|part| unpacked.record.bytes.extend_from_slice(part));
        assert_eq!(unpacked.parts, packed.parts().count());
        (unpacked.whole().unwrap(), packed.parts().count())
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for (length, parts) in [(0, 0), (1, 0), (PART_BYTES, 0), (PART_BYTES + 1, 2), (3 * PART_BYTES, 3)] {
            let record = record(vec![b'x'; length]);
            assert_eq!(stored(&record), (record, parts), "{length} bytes");
        }
    }

    #[test]
    fn a_deflated_record_is_read_and_refused_if_something_is_missing() {
        let bytes = vec![b'x'; 4096];
        let mut deflater = DeflateEncoder::new(Vec::new(), Compression::fast());
        deflater.write_all(&bytes).unwrap();
        let line = format!(r#"{{"id":"{}","before":"{}","term":3,"parts":0,"inflated":4096}}"#, Id(70), Id(60));
        let value = [format!("{line}\n").as_bytes(), &deflater.finish().unwrap()].concat();
        let whole = |value: &[u8]| Unpacked::of("record/7", value).and_then(Unpacked::whole);
        assert_eq!(whole(&value), Ok(record(bytes)));
        for cut in 1..=4 {
            whole(&value[..value.len() - cut]).unwrap_err();
        }
    }
}
