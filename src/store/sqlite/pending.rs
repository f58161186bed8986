//! What has been committed and is not in the tables yet, and the thread that writes it there.
//!
//! A commit is done when the journal has it. Its rows stay in memory, where readers find them, until this thread has
//! written them into the tables: many commits in one transaction, and a row that several of them have changed only once.
//! Their place in the journal is free again when that transaction is durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use super::writer::Writer;
use crate::priority;
use crate::store::layer::{Layer, View};
use crate::store::rows::Batch;

/// How long a row is at most only in the journal, unless the disk is slower: what reads the file by itself, such as a
/// `sqlite3` shell, sees the state of about a second ago.
pub(super) const FOLD_AFTER: Duration = Duration::from_secs(1);

/// After so long without a row to write, what SQLite keeps of the tables in memory is given back: up to 32 MiB, which pay
/// only while rows are written.
const REST_AFTER: Duration = Duration::from_secs(5);

/// What the folding thread is to do next.
enum Next {
    /// Write these rows; the number of their last batch.
    Fold(Box<Layer>, u64),
    /// Nothing, for a while.
    Rest,
    /// Nothing will come any more.
    End,
}

/// What the committing thread, the folding thread and readers share.
#[derive(Debug)]
pub(super) struct Pending {
    kept: Mutex<Kept>,
    moved: Condvar,
    /// [`FOLD_AFTER`], unless a test wants another.
    fold_after: Duration,
}

#[derive(Debug, Default)]
struct Kept {
    /// Committed since the last fold began.
    newest: Layer,
    /// What is being written into the tables.
    folding: Layer,
    /// Since when `newest` has rows.
    since: Option<Instant>,
    /// The number of the last committed batch, and of the last one in the tables.
    last: u64,
    folded: u64,
    /// Somebody waits for the tables.
    is_wanted: bool,
    is_stopped: bool,
    /// Nothing is written any more: why.
    failure: Option<String>,
}

impl Kept {
    fn check(&self) -> anyhow::Result<()> {
        match &self.failure {
            Some(failure) => bail!("what was committed earlier could not be written into the tables: {failure}"),
            None => Ok(()),
        }
    }
}

impl Pending {
    pub fn new(folded: u64, fold_after: Duration) -> Self {
        let kept = Kept { last: folded, folded, ..Kept::default() };
        Self { kept: Mutex::new(kept), moved: Condvar::new(), fold_after }
    }

    /// Each change below is complete before the lock is given back.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is not in the tables for sure, as of now.
    pub fn view(&self) -> View<2> {
        let kept = self.kept();
        View([kept.newest.clone(), kept.folding.clone()])
    }

    /// The number of the last batch that is in the tables.
    ///
    /// # Errors
    /// A fold has failed.
    pub fn folded(&self) -> anyhow::Result<u64> {
        let kept = self.kept();
        kept.check()?;
        Ok(kept.folded)
    }

    /// Keeps a batch that the journal has.
    pub fn put(&self, seq: u64, batch: Batch<'_>) {
        let mut kept = self.kept();
        kept.newest.put(batch);
        kept.last = seq;
        if kept.since.is_none() {
            kept.since = Some(Instant::now());
            self.moved.notify_all();
        }
    }

    /// What is committed is to be written into the tables now.
    pub fn ask_to_fold(&self) {
        self.kept().is_wanted = true;
        self.moved.notify_all();
    }

    /// Waits until all batches up to this number are in the tables.
    ///
    /// # Errors
    /// A fold has failed.
    pub fn fold_through(&self, seq: u64) -> anyhow::Result<()> {
        let mut kept = self.kept();
        while kept.folded < seq {
            kept.check()?;
            kept.is_wanted = true;
            self.moved.notify_all();
            kept = self.moved.wait(kept).unwrap_or_else(PoisonError::into_inner);
        }
        kept.check()
    }

    /// Waits until everything is in the tables.
    ///
    /// # Errors
    /// A fold has failed.
    pub fn fold_all(&self) -> anyhow::Result<()> {
        let last = self.kept().last;
        self.fold_through(last)
    }

    /// Nothing is written any more, unless that has been said before.
    pub fn fail(&self, why: &anyhow::Error) {
        self.kept().failure.get_or_insert_with(|| format!("{why:#}"));
        self.moved.notify_all();
    }

    /// For the folding thread: waits for what it is to do next. If it `rests`, only rows to write are of interest.
    fn next(&self, rests: bool) -> Next {
        let mut kept = self.kept();
        let idle_since = Instant::now();
        loop {
            if kept.failure.is_some() {
                return Next::End;
            }
            kept = match kept.since {
                None if kept.is_stopped => return Next::End,
                None if rests => self.moved.wait(kept).unwrap_or_else(PoisonError::into_inner),
                None => {
                    let left = REST_AFTER.saturating_sub(idle_since.elapsed());
                    if left.is_zero() {
                        return Next::Rest;
                    }
                    self.moved.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(since) => {
                    let left = self.fold_after.saturating_sub(since.elapsed());
                    if kept.is_wanted || kept.is_stopped || left.is_zero() {
                        break;
                    }
                    self.moved.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        (kept.since, kept.is_wanted) = (None, false);
        kept.folding = std::mem::take(&mut kept.newest);
        Next::Fold(Box::new(kept.folding.clone()), kept.last)
    }

    fn folded_through(&self, seq: u64) {
        let mut kept = self.kept();
        kept.folded = seq;
        let folded = std::mem::take(&mut kept.folding);
        self.moved.notify_all();
        drop(kept);
        // Nobody waits while its rows are freed, one by one.
        drop(folded);
    }
}

/// The thread that writes into the tables.
#[derive(Debug)]
pub(super) struct Folder {
    pending: Arc<Pending>,
    thread: Option<JoinHandle<()>>,
}

impl Folder {
    pub fn start(pending: Arc<Pending>, writer: Arc<Mutex<Writer>>) -> anyhow::Result<Self> {
        let theirs = Arc::clone(&pending);
        let thread = thread::Builder::new().name("fold".to_owned()).spawn(move || {
            priority::second();
            let writer = || writer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut rests = false;
            loop {
                let (layer, through) = match theirs.next(rests) {
                    Next::Fold(layer, through) => (layer, through),
                    Next::Rest => {
                        writer().rest();
                        rests = true;
                        continue;
                    }
                    Next::End => break,
                };
                rests = false;
                // Whoever waits for the tables must be told of a panic, too. Its transaction has been rolled back.
                let folded = catch_unwind(AssertUnwindSafe(|| writer().fold(&layer, through)));
                match folded.unwrap_or_else(|_| Err(anyhow!("the fold has panicked: this is a bug in locker"))) {
                    Ok(()) => theirs.folded_through(through),
                    Err(error) => theirs.fail(&error),
                }
            }
        });
        Ok(Self { pending, thread: Some(thread.context("cannot start the thread that writes into the tables")?) })
    }

    /// Writes what is left, unless something has failed, and ends the thread.
    ///
    /// # Errors
    /// Something has failed: what is left is in the journal alone.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.pending.kept().is_stopped = true;
        self.pending.moved.notify_all();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            bail!("the thread that writes into the tables has panicked: this is a bug in locker");
        }
        self.pending.kept().check()
    }
}
