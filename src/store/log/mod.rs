//! A log that several servers share: who leads, and what has happened. One of them leads and appends a record for each
//! batch; the others follow, and one of them takes over when the leader is gone. docs/decisions/0036 says why it is right.
//!
//! - [`head`]: the one value that decides everything, and the writes that compare and change it.
//! - [`candidate`]: when a server may take over. [`judge`]: what an outcome means, also an unknown one. [`tail`]: which
//!   records follow which. These four are pure.
//! - [`leading`]: a leader that repeats a write until its outcome is known.
//! - [`Log`]: what a backend must do. [`memory`] is for tests; [`postgres`] and [`etcd`] are databases.
//! - [`address`]: from the address of a store to a log.
//! - `plant`: backends and leaders with planted bugs, which the tests must find.
//!
//! The store that stands on a log is [`super::shared`].

use std::fmt;

pub mod address;
pub mod candidate;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(any(feature = "etcd", feature = "postgres"))]
mod files;
pub mod head;
pub mod judge;
pub mod leading;
pub mod memory;
#[cfg(any(test, feature = "plant"))]
pub mod plant;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod tail;

use head::{Head, Id, Place, Record, Reign, Seq, Write};

/// The largest piece of a snapshot, bytes: below the largest request that an etcd accepts unless told otherwise
/// (1.5 MiB).
pub const PIECE_BYTES: usize = 1024 * 1024;

/// What a log must do. Every call waits for the database, for a bounded time.
///
/// A log is one [`Head`], the records up to it, and at most one complete snapshot. Each write is atomic, and it is durable
/// when it is acknowledged. A read that begins after an acknowledged write sees it.
pub trait Log: Send {
    /// The head; `None` if nobody has ever led.
    ///
    /// # Errors
    /// It cannot be read.
    fn head(&mut self) -> Result<Option<Head>, Trouble>;

    /// Changes the head, and appends a record with it, if the head is as the write expects. All of it or nothing.
    ///
    /// # Errors
    /// **The outcome is unknown**, whatever the trouble says: it may have happened, or happen later.
    fn write(&mut self, write: &Write<'_>) -> Result<Written, Trouble>;

    /// The records from this number on, in order, at most `most` of them. Fewer may be returned, but at least one if there
    /// is one.
    ///
    /// # Errors
    /// They cannot be read.
    fn records(&mut self, from: Seq, most: usize) -> Result<Vec<Record>, Trouble>;

    /// Stores a piece of a snapshot, at most [`PIECE_BYTES`] long. It may be repeated. Nobody sees the piece before the
    /// snapshot has its manifest.
    ///
    /// # Errors
    /// The outcome is unknown; it may be repeated.
    fn put_piece(&mut self, snapshot: Id, number: u32, bytes: &[u8]) -> Result<(), Trouble>;

    /// Makes a snapshot whose pieces are all there the current one. False if the manifest's leader does not lead any more,
    /// or if the current snapshot is newer: then nothing happens. The pieces of the previous one stay until the log is
    /// trimmed.
    ///
    /// # Errors
    /// The outcome is unknown; it may be repeated.
    fn put_manifest(&mut self, manifest: &Manifest) -> Result<bool, Trouble>;

    /// The current snapshot.
    ///
    /// # Errors
    /// It cannot be read.
    fn manifest(&mut self) -> Result<Option<Manifest>, Trouble>;

    /// A piece of a snapshot. `None` if it is not there; then another snapshot has become the current one.
    ///
    /// # Errors
    /// It cannot be read.
    fn piece(&mut self, snapshot: Id, number: u32) -> Result<Option<Vec<u8>>, Trouble>;

    /// Deletes the records that the current snapshot contains, and the pieces of all other snapshots: all pieces if there is
    /// no snapshot. Nothing happens unless `by` leads. A database that is full does this, too.
    ///
    /// # Errors
    /// The outcome is unknown; it may be repeated.
    fn trim(&mut self, by: Reign) -> Result<(), Trouble>;

    /// The notes whose names begin like this, by name. A note is a small value beside the records: a server that is there,
    /// or how far something has come. Names are those of keys: ASCII letters, digits, `-` and `/`.
    ///
    /// # Errors
    /// They cannot be read.
    fn notes(&mut self, under: &str) -> Result<Vec<(String, Vec<u8>)>, Trouble>;

    /// Writes a note. If it is `by` a leader, only while that one leads: false otherwise, and nothing happens.
    ///
    /// # Errors
    /// The outcome is unknown; it may be repeated.
    fn put_note(&mut self, name: &str, bytes: &[u8], by: Option<Reign>) -> Result<bool, Trouble>;

    /// Removes a note, if it is there.
    ///
    /// # Errors
    /// The outcome is unknown; it may be repeated.
    fn drop_note(&mut self, name: &str) -> Result<(), Trouble>;

    /// How much room the database has.
    ///
    /// # Errors
    /// It does not say.
    fn room(&mut self) -> Result<Room, Trouble>;

    /// What the leader does now and then for the database, if anything.
    ///
    /// # Errors
    /// It could not be done; it may be repeated.
    fn tidy(&mut self) -> Result<(), Trouble> {
        Ok(())
    }
}

impl<L: Log + ?Sized> Log for Box<L> {
    fn head(&mut self) -> Result<Option<Head>, Trouble> {
        (**self).head()
    }

    fn write(&mut self, write: &Write<'_>) -> Result<Written, Trouble> {
        (**self).write(write)
    }

    fn records(&mut self, from: Seq, most: usize) -> Result<Vec<Record>, Trouble> {
        (**self).records(from, most)
    }

    fn put_piece(&mut self, snapshot: Id, number: u32, bytes: &[u8]) -> Result<(), Trouble> {
        (**self).put_piece(snapshot, number, bytes)
    }

    fn put_manifest(&mut self, manifest: &Manifest) -> Result<bool, Trouble> {
        (**self).put_manifest(manifest)
    }

    fn manifest(&mut self) -> Result<Option<Manifest>, Trouble> {
        (**self).manifest()
    }

    fn piece(&mut self, snapshot: Id, number: u32) -> Result<Option<Vec<u8>>, Trouble> {
        (**self).piece(snapshot, number)
    }

    fn trim(&mut self, by: Reign) -> Result<(), Trouble> {
        (**self).trim(by)
    }

    fn notes(&mut self, under: &str) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
        (**self).notes(under)
    }

    fn put_note(&mut self, name: &str, bytes: &[u8], by: Option<Reign>) -> Result<bool, Trouble> {
        (**self).put_note(name, bytes, by)
    }

    fn drop_note(&mut self, name: &str) -> Result<(), Trouble> {
        (**self).drop_note(name)
    }

    fn room(&mut self) -> Result<Room, Trouble> {
        (**self).room()
    }

    fn tidy(&mut self) -> Result<(), Trouble> {
        (**self).tidy()
    }
}

/// How much room a database has, with everything that is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes that its files have.
    pub size: u64,
    /// The bytes of them that are in use, where it says so. The rest is used again before its files grow.
    pub used: Option<u64>,
    /// The bytes at which it accepts no more, where it says so.
    pub quota: Option<u64>,
    /// Standbys of a PostgreSQL none of which is synchronous: what has not reached one is lost if that becomes the primary.
    pub async_standbys: u64,
    /// It accepts no more, until somebody makes room.
    pub is_full: bool,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is durable. This is the place of the head that it made.
    Done(Place),
    /// The head was not as expected, so nothing was changed. This is a head that was read not long before or after.
    Refused(Option<Head>),
}

/// A complete snapshot: the state after a record, in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    pub snapshot: Id,
    /// Who wrote it.
    pub by: Reign,
    /// The last record that it contains.
    pub seq: Seq,
    pub record: Id,
    /// How many pieces it has, numbered from 0.
    pub pieces: u32,
}

/// Why a log gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No answer came in time, or the connection failed.
    NoAnswer,
    /// The database has no majority of its members, so it can decide nothing.
    NoQuorum,
    /// The database is full.
    NoSpace,
    /// It does not accept these credentials.
    Denied,
    /// This server of the database takes no writes: it is a standby, or read-only.
    NotPrimary,
    /// It is set up in a way in which what it acknowledges is not certain, or it said so with the answer.
    Unsafe,
    /// Something in it was not written by this program, or is damaged.
    Damaged,
    /// Any other error of the database.
    Failed,
}

/// A log that gives no answer: why, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub cause: Cause,
    /// For people; it contains no secret.
    pub text: String,
}

impl Trouble {
    pub(crate) fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into() }
    }
}

impl Cause {
    /// For everybody: it says nothing that only operators should know.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NoAnswer => "the database does not answer",
            Self::NoQuorum => "the database has lost its quorum",
            Self::NoSpace => "the database is full",
            Self::Denied => "the database refuses the user",
            Self::NotPrimary => "the database is read-only or a standby",
            Self::Unsafe => "the database may lose what it acknowledges",
            Self::Damaged => "the log is damaged",
            Self::Failed => "the database reports an error",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.cause.words();
        let next = match self.cause {
            Cause::NoQuorum => "; nothing is granted until most of its members are back",
            Cause::NoSpace => {
                "; nothing is granted until somebody makes room (docs/cluster.md#when-something-is-wrong)"
            }
            _ => "",
        };
        write!(f, "{cause}: {}{next}", self.text)
    }
}

impl std::error::Error for Trouble {}
