//! Stores: where the state survives the process. docs/store.md says what is kept and what is not.
//!
//! - [`Store`]: the contract; [`open`]: from a URI to a store; [`Reader`]: reading beside it.
//! - [`memory`]: nothing survives; for tests and demos.
//! - [`sqlite`]: the default. Its parts: [`lockfile`] keeps a second server out, `journal` makes a commit durable before
//!   its rows are in the tables, `schema` makes and migrates the tables, `checkpoint` keeps SQLite's log short.
//! - `sidecar`: the names and the mode of a store's files.
//! - [`failstop`]: no commit after the first failed one.
//! - [`log`]: a log that several servers share; [`shared`]: the store on it.
//! - [`copies`]: backup, restore and check of a store in a file.
//! - `layer`: rows in memory, above those of the tables; `reading`: reads from both.
//! - `rows`: between values and stored rows, the same for all stores. The records are in [`crate::wire::record`].
//! - `conformance`: the tests that every store passes.

use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::core::claim::Ended;
use crate::core::history::{Change, Outline};
use crate::core::names::{ChangeKey, ClaimId};
use crate::core::state::{Changes, EndedOutline, Loaded};
use failstop::FailStop;
use memory::MemoryStore;
use sqlite::SqliteStore;

mod checkpoint;
#[cfg(test)]
mod conformance;
pub mod copies;
mod durable;
pub mod failstop;
mod journal;
mod layer;
pub mod lockfile;
pub mod log;
pub mod memory;
mod reading;
#[cfg(test)]
mod restart_tests;
mod rows;
#[cfg(test)]
mod samples;
mod schema;
pub mod shared;
mod sidecar;
pub mod sqlite;

/// Most reads at one time beside the engine: each has a connection, and occupies a thread.
pub const READERS: usize = 2;

/// What a store must do. One engine owns a store, and only that engine calls it.
pub trait Store: Send {
    /// Everything that is kept except ended claims and the history, as of the last successful commit. Called once,
    /// before any commit.
    ///
    /// # Errors
    /// The store cannot be read, or was written by a newer release; nothing was changed.
    fn load(&mut self) -> anyhow::Result<Loaded>;

    /// Passes the outline of each ended claim to `each`, in any order. Called once, after [`Self::load`].
    ///
    /// # Errors
    /// As for [`Self::load`].
    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()>;

    /// Passes the outline of each history entry to `each`, oldest first. Called once, after [`Self::ended`].
    ///
    /// # Errors
    /// As for [`Self::load`].
    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()>;

    /// Both, once, after [`Self::load`], for a start that waits for them. The two may be called at the same time.
    ///
    /// # Errors
    /// As for [`Self::load`].
    fn past(
        &mut self,
        ended: &mut (dyn FnMut(EndedOutline) + Send),
        entry: &mut (dyn FnMut(Outline) + Send),
    ) -> anyhow::Result<()> {
        self.ended(ended)?;
        self.history(entry)
    }

    /// Makes one batch durable, all of it or nothing. When it returns `Ok`, the batch survives `SIGKILL` and power
    /// loss. A batch contains each key once, except for history entries that are both new and pruned: those are
    /// deleted. Otherwise the order within a batch does not matter. Batches are committed in order. An empty batch
    /// touches nothing.
    ///
    /// # Errors
    /// The outcome is unknown: the caller must not answer anything about the batch and must not commit again.
    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()>;

    /// Proves that what was committed is still what counts, at some moment since the call: for answers that rest on it and
    /// change nothing. A store with one server has nothing to prove.
    ///
    /// # Errors
    /// As for [`Self::commit`]: this server must not answer anything any more.
    fn confirm(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Whether [`Self::confirm`] does anything.
    fn is_shared(&self) -> bool {
        false
    }

    /// Reads beside this store, from other threads. It reads what has been committed; once the store is dropped, it
    /// fails.
    fn reader(&self) -> Arc<dyn Reader>;

    /// The same for the engine alone, which must not wait for other readers.
    fn own_reader(&self) -> Arc<dyn Reader> {
        self.reader()
    }

    /// Made with the store; the same for every server that opens it.
    fn store_id(&self) -> &str;
}

/// Reads what only the store remembers. Each call may wait for the disk, so none may be made on a thread that others
/// wait for.
pub trait Reader: Send + Sync {
    /// The history entries with these keys, in the same order. Those that are not there are left out.
    ///
    /// # Errors
    /// The store cannot be read.
    fn entries(&self, keys: &[ChangeKey]) -> anyhow::Result<Vec<Change>>;

    /// The ended claims with these ids, in any order. Those that are not there are left out.
    ///
    /// # Errors
    /// The store cannot be read.
    fn ended_claims(&self, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>>;

    /// What the store has under this id, as of one moment.
    ///
    /// # Errors
    /// The store cannot be read.
    fn find(&self, id: &ClaimId) -> anyhow::Result<Found>;

    /// Passes ended claims to `each` until it breaks, in the order of their ids, which come after this one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn walk_ended(&self, after: Option<&ClaimId>, each: &mut dyn FnMut(Ended) -> ControlFlow<()>)
    -> anyhow::Result<()>;

    /// Passes the history entries between two bounds to `each` until it breaks, the oldest first or the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    fn walk(
        &self,
        range: (Bound<ChangeKey>, Bound<ChangeKey>),
        newest_first: bool,
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> anyhow::Result<()>;
}

/// What a store has under the id of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A live claim, which the published snapshot has too, or will have in a moment.
    Live,
    Ended(Box<Ended>),
    Nothing,
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        (**self).load()
    }

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        (**self).ended(each)
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        (**self).history(each)
    }

    fn past(
        &mut self,
        ended: &mut (dyn FnMut(EndedOutline) + Send),
        entry: &mut (dyn FnMut(Outline) + Send),
    ) -> anyhow::Result<()> {
        (**self).past(ended, entry)
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        (**self).commit(changes)
    }

    fn confirm(&mut self) -> anyhow::Result<()> {
        (**self).confirm()
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn reader(&self) -> Arc<dyn Reader> {
        (**self).reader()
    }

    fn own_reader(&self) -> Arc<dyn Reader> {
        (**self).own_reader()
    }

    fn store_id(&self) -> &str {
        (**self).store_id()
    }
}

/// Opens the store that `uri` names, and makes it if it does not exist: `memory:` or `sqlite:FILE`. (A store on
/// a shared log is opened by [`shared::Follower`].) The store is
/// fail-stop: after the first failed commit every further one fails and writes nothing.
///
/// # Errors
/// The URI does not name a store of this release, or the store cannot be used: the message says which file, why, and
/// what to do. A refused store has not been changed.
pub fn open(uri: &str) -> anyhow::Result<Box<dyn Store>> {
    match Own::parse(uri)? {
        Own::Memory => Ok(Box::new(FailStop::new(MemoryStore::new()?))),
        Own::File(file) => Ok(Box::new(FailStop::new(SqliteStore::open(file)?))),
    }
}

/// Checks an address without opening what it names.
///
/// # Errors
/// It is not that of a store, or a file that it names cannot be used.
pub fn check(uri: &str) -> anyhow::Result<()> {
    match log::address::LogAddress::parse(uri) {
        Some(address) => address.and_then(|address| address.check()).map_err(anyhow::Error::msg),
        None => Own::parse(uri).map(drop),
    }
}

/// The store of one server.
enum Own<'u> {
    Memory,
    File(&'u Path),
}

impl<'u> Own<'u> {
    fn parse(uri: &'u str) -> anyhow::Result<Self> {
        match uri.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            Some(("memory", _)) => bail!("store {uri:?}: memory: takes no name"),
            Some(("sqlite", "")) => bail!("store {uri:?} names no file: write sqlite:FILE"),
            Some(("sqlite", file)) => Ok(Self::File(file.as_ref())),
            // Its text is not quoted: such an address may contain a password that does not belong there.
            Some((scheme @ ("etcd" | "postgres" | "postgresql"), _)) => {
                bail!("store {scheme}:... is shared by several servers: here, write sqlite:FILE")
            }
            other => {
                let scheme = other.map_or(uri, |(scheme, _)| scheme);
                bail!(
                    "store {scheme:?}... is not of a known kind: write sqlite:FILE, postgres://USER@HOST/DATABASE, \
                     etcd:HOST:PORT, or memory: to keep nothing"
                )
            }
        }
    }
}

/// Whether several servers can share the store at this address.
#[must_use]
pub fn is_shared(uri: &str) -> bool {
    log::address::LogAddress::parse(uri).is_some()
}

/// The file of a store that [`open`] opens, if it has one.
#[must_use]
pub fn file(uri: &str) -> Option<PathBuf> {
    uri.strip_prefix("sqlite:").map(PathBuf::from)
}

/// The database of a store in a file, and the files beside it that belong to it while they exist.
#[must_use]
pub fn files(file: &Path) -> [PathBuf; 5] {
    let [a, b] = journal::SUFFIXES;
    ["", "-wal", "-shm", a, b].map(|suffix| sidecar::sidecar(file, suffix))
}

/// The file beside a store in a file that says up to where the targets of notifications have been told.
#[must_use]
pub fn notify_file(uri: &str) -> Option<PathBuf> {
    file(uri).map(|file| sidecar::sidecar(&file, "-notify"))
}

/// The id of a new store: 128 random bits in hexadecimal.
fn new_store_id() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("no random bytes for a store id")?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        let dir = tempfile::tempdir().unwrap();
        let file = format!("sqlite:{}/a:b.db", dir.path().display());
        for good in ["memory:", &file] {
            assert_eq!(open(good).unwrap().store_id().len(), 32, "{good}");
        }
        assert!(dir.path().join("a:b.db").exists());
        let cases = [
            ("", "is not of a known kind"),
            ("locker.db", "is not of a known kind"),
            ("redis:x", "is not of a known kind"),
            ("memory", "is not of a known kind"),
            ("memory:x", "takes no name"),
            ("sqlite:", "names no file"),
            ("etcd:a,b,c", "store etcd:... is shared"),
            ("postgres://u:p@db/x", "store postgres:... is shared"),
            ("sqlite:/nowhere/at/all/x.db", "/nowhere/at/all"),
            ("x\u{1b}:", r"\u{1b}"),
        ];
        for (bad, message) in cases {
            let error = open(bad).map(|_| ()).unwrap_err();
            assert!(format!("{error:#}").contains(message), "{bad:?}: {error:#}");
        }
    }
}
