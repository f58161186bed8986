//! A log in etcd, behind a prefix of keys. docs/cluster.md says how that etcd must be set up.
//!
//! - [`address`]: `etcd:...` as people write it. `gateway`: calls over HTTP. `keys`: keys and values.
//!
//! A write is one transaction that compares the whole value of the head. What an append or a beat does not care about (the
//! beat, mostly) is taken from the head as it was seen last; if that has changed, the transaction fails, the head is read,
//! and it is tried again if that one fits. So an answer that comes late changes nothing that has changed since.

use std::time::{Duration, Instant};

use super::head::{Change, Head, Id, Record, Reign, Seq, Write};
use super::{Cause, Log, Manifest, Room, Trouble, Written};
use address::Address;
use gateway::{Gateway, delete, is, put};
use keys::{Keys, Packed, Unpacked};

pub mod address;
mod gateway;
mod keys;

/// How often a write is tried while the head keeps changing under it. A beat and an append of one leader follow each
/// other, so even one more is rare.
const TRIES: usize = 16;
/// The most records that are read at once: with their parts left out, 4 MiB.
const RECORDS: usize = 16;
/// How old a revision is when it is compacted: whoever read it is done with it.
const KEPT: Duration = Duration::from_secs(300);
/// An etcd in which nothing was ever compacted after this many changes is never compacted: a day and a half of nothing but
/// beats, and minutes of work.
const UNCOMPACTED: u64 = 1_000_000;

/// A log in etcd.
pub struct EtcdLog {
    gateway: Gateway,
    keys: Keys,
    /// The head as it was seen last, with its value.
    seen: Option<(Vec<u8>, Head)>,
    /// Whether this program compacts it; then a revision, and when that was the newest one.
    compacts: bool,
    newest: Option<(u64, Instant)>,
}

impl std::fmt::Debug for EtcdLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdLog").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl EtcdLog {
    /// Connects. `patience` is how long each request may take.
    ///
    /// # Errors
    /// etcd cannot be reached, is too old, or is never compacted.
    pub fn open(address: Address, patience: Duration) -> Result<Self, Trouble> {
        let keys = Keys::of(&address.prefix);
        let compacts = address.compacts;
        let mut log = Self { gateway: Gateway::new(address, patience), keys, seen: None, compacts, newest: None };
        let version = log.gateway.version()?;
        if !is_new_enough(&version) {
            return Err(Trouble::new(
                Cause::Failed,
                format!("etcd {version:?} is not supported: 3.4 or newer is needed"),
            ));
        }
        if !compacts {
            log.check_compaction(UNCOMPACTED)?;
        }
        Ok(log)
    }

    /// Refuses an etcd that has never been compacted in more than `most` changes: deleted and overwritten values stay in it
    /// until it is full. That compaction is on cannot be asked for; that it has never happened can be seen.
    ///
    /// # Errors
    /// It is never compacted, or gives no answer.
    pub fn check_compaction(&mut self, most: u64) -> Result<(), Trouble> {
        let range = self.gateway.range(&self.keys.head, None, 1)?;
        let revision: u64 = range.header.revision.parse().unwrap_or_default();
        if revision <= most || self.gateway.is_compacted(&self.keys.head, 1)? {
            return Ok(());
        }
        Err(Trouble::new(
            Cause::NoSpace,
            format!(
                "none of its {revision} changes has ever been compacted, so it will be full one day: start every member with \
                 --auto-compaction-mode=periodic --auto-compaction-retention=5m, or the servers with --etcd-compact if \
                 nobody else uses it"
            ),
        ))
    }

    /// Removes what was deleted or overwritten before the newest revision of at least this time ago. To be called now and
    /// then: each call remembers where it was.
    ///
    /// # Errors
    /// It gives no answer, or refuses.
    pub fn compact_older(&mut self, age: Duration) -> Result<(), Trouble> {
        if self.newest.is_some_and(|(_, at)| at.elapsed() < age) {
            return Ok(());
        }
        let range = self.gateway.range(&self.keys.head, None, 1)?;
        let revision: u64 = range.header.revision.parse().unwrap_or_default();
        if let Some((before, _)) = self.newest.replace((revision, Instant::now())) {
            self.gateway.compact(before)?;
        }
        Ok(())
    }

    /// Reads the head, and remembers it.
    fn read_head(&mut self) -> Result<Option<Head>, Trouble> {
        let pair = self.gateway.range(&self.keys.head, None, 1)?.pairs()?.into_iter().next();
        self.seen = pair.map(|pair| Ok((keys::decode_head(&pair.value)?, pair.value))).transpose()?.map(swap);
        Ok(self.head_seen().cloned())
    }

    fn head_seen(&self) -> Option<&Head> {
        self.seen.as_ref().map(|(_, head)| head)
    }

    /// Stores the parts of a large record. They mean nothing before the record is there.
    fn put_parts(&mut self, record: &Record, packed: &Packed<'_>) -> Result<(), Trouble> {
        for (number, part) in packed.parts().enumerate() {
            self.gateway.put(&self.keys.part(record.seq, record.id, number), part)?;
        }
        Ok(())
    }

    /// Makes the changes if the leader of this term leads, in the same transaction. `also` is compared, too. False if it
    /// does not lead, or if that differs.
    fn as_leader(&mut self, by: Reign, also: Option<String>, changes: &[String]) -> Result<bool, Trouble> {
        let mut head = self.read_head()?;
        for _ in 0..TRIES {
            let Some((value, _)) = self.seen.as_ref().filter(|(_, seen)| seen.place().reign == by) else {
                return Ok(false);
            };
            let led = is(&self.keys.head, Some(value));
            let compare: Vec<_> = [Some(led), also.clone()].into_iter().flatten().collect();
            if self.gateway.compare_and(&compare, changes)? {
                return Ok(true);
            }
            let now = self.read_head()?;
            if now == head {
                return Ok(false);
            }
            head = now;
        }
        Err(keeps_changing())
    }
}

fn swap((head, value): (Head, Vec<u8>)) -> (Vec<u8>, Head) {
    (value, head)
}

fn keeps_changing() -> Trouble {
    Trouble::new(Cause::Failed, "the head keeps changing")
}

/// Whether it has the gateway at the path that is used, and compares values.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    major.zip(minor).is_some_and(|version| version >= (3, 4))
}

impl Log for EtcdLog {
    fn head(&mut self) -> Result<Option<Head>, Trouble> {
        self.read_head()
    }

    fn write(&mut self, write: &Write<'_>) -> Result<Written, Trouble> {
        // What was seen last saves a read if it fits; if it does not, it may just be old.
        if self.seen.is_none() || !write.fits(self.head_seen()) {
            self.read_head()?;
        }
        let mut changes = Vec::new();
        if let Change::Append { record, .. } = &write.change
            && write.fits(self.head_seen())
        {
            let packed = Packed::of(record);
            self.put_parts(record, &packed)?;
            changes.push(put(&self.keys.record(record.seq), &packed.value()?));
        }
        for _ in 0..TRIES {
            let seen = self.head_seen();
            let made = write.made_of(seen).filter(|_| write.fits(seen));
            let Some(made) = made else { return Ok(Written::Refused(seen.cloned())) };
            let value = keys::encode_head(&made)?;
            let compare = is(&self.keys.head, self.seen.as_ref().map(|(value, _)| value.as_slice()));
            changes.push(put(&self.keys.head, &value));
            if self.gateway.compare_and(&[compare], &changes)? {
                let place = made.place();
                self.seen = Some((value, made));
                return Ok(Written::Done(place));
            }
            self.read_head()?;
            changes.pop();
        }
        Err(keeps_changing())
    }

    fn records(&mut self, from: Seq, most: usize) -> Result<Vec<Record>, Trouble> {
        let before = self.keys.after_records();
        let pairs = self.gateway.range(&self.keys.record(from), Some(&before), most.min(RECORDS))?.pairs()?;
        let mut records = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let mut unpacked = Unpacked::of(&pair.key, &pair.value)?;
            let Record { seq, id, .. } = unpacked.record;
            for number in 0..unpacked.parts {
                let key = self.keys.part(seq, id, number);
                let part = self.gateway.range(&key, None, 1)?.pairs()?.into_iter().next();
                let Some(part) = part else {
                    // Trimmed meanwhile, if anything; then the reader finds a snapshot.
                    return Err(Trouble::new(Cause::Damaged, format!("{key} is not there")));
                };
                unpacked.record.bytes.extend_from_slice(&part.value);
            }
            records.push(unpacked.whole()?);
        }
        Ok(records)
    }

    fn put_piece(&mut self, snapshot: Id, number: u32, bytes: &[u8]) -> Result<(), Trouble> {
        self.gateway.put(&self.keys.piece(snapshot, number), bytes)
    }

    fn put_manifest(&mut self, manifest: &Manifest) -> Result<bool, Trouble> {
        let current = self.manifest()?;
        if current.is_some_and(|current| current.seq > manifest.seq) {
            return Ok(false);
        }
        let current = current.map(|current| keys::encode_manifest(&current)).transpose()?;
        let also = is(&self.keys.manifest, current.as_deref());
        let change = put(&self.keys.manifest, &keys::encode_manifest(manifest)?);
        self.as_leader(manifest.by, Some(also), &[change])
    }

    fn manifest(&mut self) -> Result<Option<Manifest>, Trouble> {
        let pairs = self.gateway.range(&self.keys.manifest, None, 1)?.pairs()?;
        pairs.first().map(|pair| keys::decode_manifest(&pair.value)).transpose()
    }

    fn piece(&mut self, snapshot: Id, number: u32) -> Result<Option<Vec<u8>>, Trouble> {
        let pairs = self.gateway.range(&self.keys.piece(snapshot, number), None, 1)?.pairs()?;
        Ok(pairs.into_iter().next().map(|pair| pair.value))
    }

    fn trim(&mut self, by: Reign) -> Result<(), Trouble> {
        let (manifest, keys) = (self.manifest()?, &self.keys);
        let changes = match &manifest {
            None => vec![delete(&keys.pieces(), &keys.after_pieces())],
            Some(Manifest { snapshot, seq, .. }) => vec![
                delete(&keys.record(Seq(0)), &keys.record(seq.next())),
                delete(&keys.parts(Seq(0)), &keys.parts(seq.next())),
                delete(&keys.pieces(), &keys.pieces_of(*snapshot)),
                delete(&keys.after_pieces_of(*snapshot), &keys.after_pieces()),
            ],
        };
        let manifest = manifest.map(|manifest| keys::encode_manifest(&manifest)).transpose()?;
        let also = is(&keys.manifest, manifest.as_deref());
        self.as_leader(by, Some(also), &changes).map(drop)
    }

    fn notes(&mut self, under: &str) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
        let all = self.keys.note("");
        let pairs = self.gateway.under(&self.keys.note(under))?.pairs()?;
        Ok(pairs.into_iter().map(|pair| (pair.key[all.len()..].to_owned(), pair.value)).collect())
    }

    fn put_note(&mut self, name: &str, bytes: &[u8], by: Option<Reign>) -> Result<bool, Trouble> {
        let key = self.keys.note(name);
        match by {
            None => self.gateway.put(&key, bytes).map(|()| true),
            Some(by) => self.as_leader(by, None, &[put(&key, bytes)]),
        }
    }

    fn drop_note(&mut self, name: &str) -> Result<(), Trouble> {
        self.gateway.delete(&self.keys.note(name))
    }

    fn room(&mut self) -> Result<Room, Trouble> {
        self.gateway.room()
    }

    fn tidy(&mut self) -> Result<(), Trouble> {
        if self.compacts { self.compact_older(KEPT) } else { Ok(()) }
    }
}
