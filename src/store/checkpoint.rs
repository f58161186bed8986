//! Keeps the write-ahead log short without making commits wait for it.
//!
//! A checkpoint copies pages from the log into the database file. The log restarts when a write begins while all of it
//! has been copied. A thread with its own connection copies most of it in SQLite's `PASSIVE` mode, which blocks neither
//! the writer nor readers. Under load the writer goes on meanwhile, so the thread never reaches the end of the log; the
//! writer itself then copies the few pages that have come since.
//!
//! Why this is safe: a checkpoint syncs the log before it copies, syncs the database before it marks pages as copied,
//! and takes its own lock, so two checkpoints exclude each other. A commit is durable through the sync of the log
//! alone, whether a checkpoint ran, failed or was killed. A checkpoint that fails for any reason but a lock is a failed
//! write, and fails the next commit (invariant I15).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, MAIN_DB};

use crate::priority;

/// The number of pages in the log (of 4 KiB, so 16 MiB) at which it is copied: large enough that a page that many
/// commits write is copied once, small enough that a start has little to recover.
pub(super) const CHECKPOINT_PAGES: i32 = 4096;

/// The checkpoints of one writer.
#[derive(Debug)]
pub(super) struct Checkpointer {
    pages: i32,
    /// The log's length after the last commit, pages.
    length: i32,
    /// The length at which the thread is woken next.
    next: i32,
    shared: Arc<Shared>,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The thread has copied most of the log.
    copied: AtomicBool,
    failure: OnceLock<String>,
}

impl Checkpointer {
    /// Starts the thread, which owns `conn`. The log is copied whenever it has grown by `pages`.
    pub fn start(conn: Connection, pages: i32) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (wake, woken) = sync_channel(1);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || {
                priority::second();
                copy_when_woken(&conn, &woken, &theirs);
            })
            .context("cannot start the checkpoint thread")?;
        Ok(Self { pages, length: 0, next: pages, shared, wake: Some(wake), thread: Some(thread) })
    }

    /// Before a commit of the writer `conn`: reports a failed checkpoint, or finishes one that is almost done.
    pub fn before_commit(&self, conn: &Connection) -> anyhow::Result<()> {
        if let Some(failure) = self.shared.failure.get() {
            bail!("an earlier checkpoint failed: {failure}");
        }
        if self.shared.copied.swap(false, Ordering::AcqRel) {
            copy(conn).context("a checkpoint failed")?;
        }
        Ok(())
    }

    /// After a commit of the writer `conn`: wakes the thread when the log has become long.
    pub fn after_commit(&mut self, conn: &Connection) -> anyhow::Result<()> {
        // This mode copies nothing; it returns the length of the log.
        let (length, _) = conn.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::NOOP)?;
        if length < self.length {
            self.next = self.pages;
        }
        self.length = length;
        if length >= self.next {
            // Counted from here, so that a reader that keeps the log long does not make every commit wake the thread.
            self.next = length.saturating_add(self.pages);
            if let Some(wake) = &self.wake {
                // Full: it is awake already. Closed: it has failed, and the next commit reports why.
                let _ = wake.try_send(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Checkpointer {
    /// The log's length after the last commit, pages.
    pub fn length(&self) -> i32 {
        self.length
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // The thread returns nothing; if it panicked, the panic has been printed.
            let _ = thread.join();
        }
    }
}

fn copy_when_woken(conn: &Connection, woken: &Receiver<()>, shared: &Shared) {
    while woken.recv().is_ok() {
        match copy(conn) {
            Ok(()) => shared.copied.store(true, Ordering::Release),
            Err(error) => {
                // It cannot be set already: only this line sets it, and it ends the thread.
                let _ = shared.failure.set(error.to_string());
                return;
            }
        }
    }
}

/// Copies what can be copied without waiting for a lock.
fn copy(conn: &Connection) -> rusqlite::Result<()> {
    match conn.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
        other => other.map(drop),
    }
}
