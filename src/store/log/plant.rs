//! Planted bugs, which the tests must find.

use super::head::{Change, Expect, Head, Id, Record, Reign, Seq, Write};
use super::{Log, Manifest, Room, Trouble, Written};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// An append compares the number of the last record, and not who leads.
    AppendWithoutTerm,
    /// A take-over compares the term alone, and not whether the leader has given a sign since.
    TakeOverByTermAlone,
    /// A leader that does not know an outcome appends the batch once more, as a new record.
    ReplayWithANewId,
    /// A leader answers reads without a beat.
    ReadWithoutABeat,
    /// A server that follows repeats what the leader has told of a claim before, without asking it.
    FollowerAnswers,
}

impl Plant {
    /// The bug of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "append-without-term" => Self::AppendWithoutTerm,
            "take-over-by-term-alone" => Self::TakeOverByTermAlone,
            "replay-with-a-new-id" => Self::ReplayWithANewId,
            "read-without-a-beat" => Self::ReadWithoutABeat,
            "follower-answers" => Self::FollowerAnswers,
            _ => return None,
        })
    }
}

/// A log with a planted bug.
#[derive(Debug)]
pub struct Planted<L> {
    pub log: L,
    pub plant: Plant,
}

impl<L: Log> Log for Planted<L> {
    fn write(&mut self, write: &Write<'_>) -> Result<Written, Trouble> {
        let mut write = write.clone();
        match (self.plant, &write.expect, &write.change) {
            (Plant::AppendWithoutTerm, Expect::At(place), Change::Append { .. }) => {
                write.expect = Expect::SeqAlone(place.seq);
            }
            (Plant::TakeOverByTermAlone, Expect::Same(Some(seen)), _) => {
                write.expect = Expect::TermAlone(seen.term);
            }
            _ => {}
        }
        self.log.write(&write)
    }

    fn head(&mut self) -> Result<Option<Head>, Trouble> {
        self.log.head()
    }

    fn records(&mut self, from: Seq, most: usize) -> Result<Vec<Record>, Trouble> {
        self.log.records(from, most)
    }

    fn put_piece(&mut self, snapshot: Id, number: u32, bytes: &[u8]) -> Result<(), Trouble> {
        self.log.put_piece(snapshot, number, bytes)
    }

    fn put_manifest(&mut self, manifest: &Manifest) -> Result<bool, Trouble> {
        self.log.put_manifest(manifest)
    }

    fn manifest(&mut self) -> Result<Option<Manifest>, Trouble> {
        self.log.manifest()
    }

    fn piece(&mut self, snapshot: Id, number: u32) -> Result<Option<Vec<u8>>, Trouble> {
        self.log.piece(snapshot, number)
    }

    fn trim(&mut self, by: Reign) -> Result<(), Trouble> {
        self.log.trim(by)
    }

    fn notes(&mut self, under: &str) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
        self.log.notes(under)
    }

    fn put_note(&mut self, name: &str, bytes: &[u8], by: Option<Reign>) -> Result<bool, Trouble> {
        self.log.put_note(name, bytes, by)
    }

    fn drop_note(&mut self, name: &str) -> Result<(), Trouble> {
        self.log.drop_note(name)
    }

    fn room(&mut self) -> Result<Room, Trouble> {
        self.log.room()
    }
}
