//! A log in this process, for tests: it loses and repeats writes as told, and can be set back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::head::{Change, Head, Id, Record, Reign, Seq, Write};
use super::{Cause, Log, Manifest, Room, Trouble, Written};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None: it happens, and its answer arrives.
    None,
    /// It never arrives.
    Lost,
    /// It happens, and its answer is lost.
    Unanswered,
    /// It happens twice; the first answer is lost, the second one arrives.
    Twice,
    /// A write arrives only when [`MemoryLog::deliver`] is called. Its caller gets no answer.
    Late,
}

/// A handle to a log; its clones share it.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    contents: Contents,
    /// What happens to the next calls.
    faults: VecDeque<Fault>,
    /// Writes that are under way.
    late: Vec<Late>,
}

type Late = Box<dyn FnOnce(&mut Contents) + Send>;

impl std::fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLog").field("head", &self.shared().contents.head).finish_non_exhaustive()
    }
}

/// Everything in a log, to set it back to.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    head: Option<Head>,
    records: BTreeMap<Seq, Record>,
    pieces: BTreeMap<(Id, u32), Vec<u8>>,
    manifest: Option<Manifest>,
    notes: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    fn write(&mut self, write: &Write<'_>) -> Written {
        if !write.fits(self.head.as_ref()) {
            return Written::Refused(self.head.clone());
        }
        let Some(made) = write.made_of(self.head.as_ref()) else { return Written::Refused(None) };
        if let Change::Append { record, .. } = &write.change {
            self.records.insert(record.seq, (*record).clone());
        }
        let place = made.place();
        self.head = Some(made);
        Written::Done(place)
    }

    fn leads(&self, reign: Reign) -> bool {
        self.head.as_ref().is_some_and(|head| head.place().reign == reign)
    }
}

impl MemoryLog {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next calls have these faults, one each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared().faults.extend(faults);
    }

    /// Whether all faults have happened.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared().faults.is_empty()
    }

    /// Delivers all writes that are late.
    pub fn deliver(&self) {
        let mut shared = self.shared();
        for write in std::mem::take(&mut shared.late) {
            write(&mut shared.contents);
        }
    }

    /// How many pieces of snapshots it has, also of those that nobody has finished.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.shared().contents.pieces.len()
    }

    /// Everything in it.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.shared().contents.clone()
    }

    /// Sets it back.
    pub fn set_back(&self, to: Contents) {
        self.shared().contents = to;
    }

    fn call<T>(&self, call: impl Fn(&mut Contents) -> T) -> Result<T, Trouble> {
        let mut shared = self.shared();
        let trouble = |text: &str| Err(Trouble::new(Cause::NoAnswer, text));
        match shared.faults.pop_front() {
            None | Some(Fault::None) => Ok(call(&mut shared.contents)),
            Some(Fault::Twice) => {
                call(&mut shared.contents);
                Ok(call(&mut shared.contents))
            }
            Some(Fault::Unanswered) => {
                call(&mut shared.contents);
                trouble("the answer was lost")
            }
            Some(Fault::Lost | Fault::Late) => trouble("the call was lost"),
        }
    }
}

/// A write of its own, for delivery at any time.
fn late(write: &Write<'_>) -> Late {
    let expect = write.expect.clone();
    match &write.change {
        Change::Append { record, engine } => {
            let (record, engine) = ((*record).clone(), *engine);
            Box::new(move |contents| {
                contents.write(&Write { expect, change: Change::Append { record: &record, engine } });
            })
        }
        Change::Beat { span, engine } => {
            let (span, engine) = (*span, *engine);
            Box::new(move |contents| {
                contents.write(&Write { expect, change: Change::Beat { span, engine } });
            })
        }
        Change::TakeOver { leader, span } => {
            let (leader, span) = (leader.clone(), *span);
            Box::new(move |contents| {
                contents.write(&Write { expect, change: Change::TakeOver { leader, span } });
            })
        }
    }
}

impl Log for MemoryLog {
    fn head(&mut self) -> Result<Option<Head>, Trouble> {
        self.call(|contents| contents.head.clone())
    }

    fn write(&mut self, write: &Write<'_>) -> Result<Written, Trouble> {
        let mut shared = self.shared();
        if shared.faults.front() == Some(&Fault::Late) {
            shared.late.push(late(write));
        }
        drop(shared);
        self.call(|contents| contents.write(write))
    }

    fn records(&mut self, from: Seq, most: usize) -> Result<Vec<Record>, Trouble> {
        self.call(|contents| contents.records.range(from..).take(most).map(|(_, record)| record.clone()).collect())
    }

    fn put_piece(&mut self, snapshot: Id, number: u32, bytes: &[u8]) -> Result<(), Trouble> {
        self.call(|contents| drop(contents.pieces.insert((snapshot, number), bytes.to_vec())))
    }

    fn put_manifest(&mut self, manifest: &Manifest) -> Result<bool, Trouble> {
        self.call(|contents| {
            let fits = contents.leads(manifest.by) && contents.manifest.is_none_or(|old| old.seq <= manifest.seq);
            if fits {
                contents.manifest = Some(*manifest);
            }
            fits
        })
    }

    fn manifest(&mut self) -> Result<Option<Manifest>, Trouble> {
        self.call(|contents| contents.manifest)
    }

    fn piece(&mut self, snapshot: Id, number: u32) -> Result<Option<Vec<u8>>, Trouble> {
        self.call(|contents| contents.pieces.get(&(snapshot, number)).cloned())
    }

    fn trim(&mut self, by: Reign) -> Result<(), Trouble> {
        self.call(|contents| {
            if contents.leads(by) {
                let manifest = contents.manifest;
                contents.records.retain(|seq, _| manifest.is_none_or(|manifest| *seq > manifest.seq));
                contents
                    .pieces
                    .retain(|(snapshot, _), _| manifest.is_some_and(|manifest| *snapshot == manifest.snapshot));
            }
        })
    }

    fn notes(&mut self, under: &str) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
        self.call(|contents| {
            let notes = contents.notes.iter().filter(|(name, _)| name.starts_with(under));
            notes.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
        })
    }

    fn put_note(&mut self, name: &str, bytes: &[u8], by: Option<Reign>) -> Result<bool, Trouble> {
        self.call(|contents| {
            let fits = by.is_none_or(|by| contents.leads(by));
            if fits {
                contents.notes.insert(name.to_owned(), bytes.to_vec());
            }
            fits
        })
    }

    fn drop_note(&mut self, name: &str) -> Result<(), Trouble> {
        self.call(|contents| drop(contents.notes.remove(name)))
    }

    fn room(&mut self) -> Result<Room, Trouble> {
        let bytes = |contents: &mut Contents| contents.records.values().map(|record| record.bytes.len() as u64).sum();
        let size = self.call(bytes)?;
        Ok(Room { size, ..Room::default() })
    }
}
