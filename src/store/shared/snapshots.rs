//! Snapshots of the log: so that a new server reads little, and what they contain is deleted.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Membership, Reign};
use crate::store::log::head::{Id, Place};
use crate::store::log::{Log, Manifest, PIECE_BYTES};
use crate::store::sqlite::replica::{self, Replica, Source};

/// How often it is looked whether a snapshot is due.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes of records that a snapshot must save at least: reading them takes a new server a second or two. If the last
/// snapshot was larger, as many as that had, so that writing snapshots costs at most as much as appending.
const LEAST: u64 = 16 << 20;

/// The thread that writes snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread has.
pub(super) struct Writer {
    membership: Membership,
    reign: Arc<Reign>,
    source: Source,
    /// Bytes of records since the last snapshot.
    since: Arc<AtomicU64>,
    /// The size of the last snapshot.
    size: u64,
    next: Next,
    /// Its other end is dropped when the thread is to end.
    stopped: Receiver<()>,
}

/// What is to be done next.
enum Next {
    /// A snapshot, when one is due.
    Snapshot,
    /// Its manifest. While nobody knows whether that is there, it may still come, so its pieces must not be deleted.
    Manifest(Made),
    /// To delete what it contains.
    Trim,
}

/// A snapshot whose pieces are in the log.
struct Made {
    manifest: Manifest,
    /// Bytes.
    size: u64,
    /// Bytes of the records since the snapshot before it.
    since: u64,
}

impl Snapshots {
    pub fn start(membership: &Membership, reign: &Arc<Reign>, replica: &Replica) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut writer = Writer::new(membership, reign, replica, stopped);
        let run = move || {
            while writer.stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = writer.go_on_if_due()
                    && !is_over(&writer.stopped)
                {
                    tracing::warn!("{error:#}; it is tried again, and the log grows until then");
                }
            }
        };
        let thread = thread::Builder::new().name("snapshot".to_owned()).spawn(run);
        Ok(Self { stop: Some(stop), thread: Some(thread.context("cannot start the thread for snapshots")?) })
    }

    /// Ends the thread. A snapshot that is being written comes to nothing, after the piece that is on its way.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed where it happened.
            let _ = thread.join();
        }
    }
}

fn is_over(stopped: &Receiver<()>) -> bool {
    stopped.try_recv() == Err(TryRecvError::Disconnected)
}

impl Writer {
    pub fn new(membership: &Membership, reign: &Arc<Reign>, replica: &Replica, stopped: Receiver<()>) -> Self {
        Self {
            membership: membership.clone(),
            reign: Arc::clone(reign),
            source: replica.source(),
            since: replica.since_snapshot(),
            size: 0,
            next: Next::Snapshot,
            stopped,
        }
    }

    fn go_on_if_due(&mut self) -> anyhow::Result<()> {
        // A server that has not been upgraded yet could not read the tables.
        let is_readable = self.membership.standing.format() == replica::newest();
        let is_due = self.since.load(Ordering::Relaxed) >= LEAST.max(self.size) && is_readable;
        if matches!(self.next, Next::Snapshot) && !is_due {
            return Ok(());
        }
        let log = self.membership.address.open(self.membership.patience());
        self.go_on(&mut *log.context("no snapshot of the log")?)
    }

    /// Writes a snapshot and deletes what it contains. After an error, the next call goes on with what has failed.
    pub fn go_on(&mut self, log: &mut dyn Log) -> anyhow::Result<()> {
        if matches!(self.next, Next::Snapshot) {
            let Some(made) = self.make(log).context("no snapshot of the log")? else { return Ok(()) };
            self.next = Next::Manifest(made);
        }
        if let Next::Manifest(made) = &self.next {
            let is_put = log.put_manifest(&made.manifest).context("no snapshot of the log")?;
            let (size, since) = (made.size, made.since);
            self.next = if is_put { Next::Trim } else { Next::Snapshot };
            ensure!(is_put, "no snapshot of the log: {REFUSED}");
            self.size = size;
            self.since.fetch_sub(since, Ordering::Relaxed);
        }
        log.trim(self.reign.leader()).context("what the snapshot of the log contains cannot be deleted")?;
        self.next = Next::Snapshot;
        Ok(())
    }

    /// `None` if there is nothing that a snapshot could contain.
    fn make(&self, log: &mut dyn Log) -> anyhow::Result<Option<Made>> {
        let since = self.since.load(Ordering::Relaxed);
        let Some((file, seq)) = replica::copy(&self.source)? else { return Ok(None) };
        // The record itself is still there: only this leader deletes any.
        let record = log.records(seq, 1)?.into_iter().next().filter(|record| record.seq == seq);
        let record = record.context("the log has no record where the snapshot ends")?.id;
        let place = Place { reign: self.reign.leader(), seq, record };
        let (manifest, size) = put_pieces(log, place, file.reopen()?, &mut || is_over(&self.stopped))?;
        Ok(Some(Made { manifest, size, since }))
    }
}

/// Why a manifest is refused.
const REFUSED: &str = "another server leads, or there is a newer snapshot";

/// Makes this file the snapshot of the log as of this place, and deletes what it contains.
pub(super) fn put(log: &mut dyn Log, place: Place, file: File) -> anyhow::Result<()> {
    let (manifest, _) = put_pieces(log, place, file, &mut || false)?;
    ensure!(log.put_manifest(&manifest)?, "{REFUSED}");
    Ok(log.trim(place.reign)?)
}

/// Stores the pieces of a snapshot, and returns its manifest and its size in bytes. Not to be called while the outcome of
/// another manifest of this leader is unknown: its pieces are deleted.
fn put_pieces(
    log: &mut dyn Log,
    place: Place,
    mut file: File,
    is_over: &mut dyn FnMut() -> bool,
) -> anyhow::Result<(Manifest, u64)> {
    let Place { reign: by, seq, record } = place;
    // Snapshots that were never finished have left pieces.
    log.trim(by)?;
    let snapshot = Id::random()?;
    let (mut pieces, mut size) = (0, 0);
    loop {
        ensure!(!is_over(), "this server no longer leads");
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok((Manifest { snapshot, by, seq, record, pieces }, size));
        }
        if let Err(trouble) = log.put_piece(snapshot, pieces, &piece) {
            // Now, for in a database that is full nobody leads for long. If it fails, the next snapshot begins with it.
            drop(log.trim(by));
            return Err(trouble.into());
        }
        (pieces, size) = (pieces + 1, size + piece.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::tests::{lead, membership, newest};
    use super::super::{SharedStore, Store as _};
    use super::*;
    use crate::store::log::head::Seq;
    use crate::store::log::memory::Fault::{self, Lost, None as Fine, Unanswered};
    use crate::store::log::memory::MemoryLog;

    /// A leader whose last snapshot is old, and who writes the next one.
    struct Leads {
        log: MemoryLog,
        store: SharedStore,
        writer: Writer,
        stop: Sender<()>,
        _cache: tempfile::TempDir,
    }

    impl Leads {
        fn new() -> Self {
            let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
            let membership = membership(&log, cache.path());
            let mut store = lead(membership.clone());
            store.commit(&newest(5)).unwrap();
            drop(store.load().unwrap());
            let (stop, stopped) = mpsc::channel();
            let mut writer = Writer::new(&membership, &store.reign, &store.replica, stopped);
            // Its own: the store has a thread that writes snapshots, too.
            writer.since = Arc::new(AtomicU64::new(LEAST));
            Self { log, store, writer, stop, _cache: cache }
        }

        /// The calls of a snapshot of one piece are: `records`, `trim`, `put_piece`, `put_manifest`, `trim`.
        fn fails_with(&mut self, faults: &[Fault]) {
            self.log.fail_next(faults.iter().copied());
            self.writer.go_on_if_due().unwrap_err();
            assert!(self.log.has_failed());
        }

        fn is_trimmed(&mut self) -> bool {
            self.log.records(Seq(0), 9).unwrap().is_empty() && self.log.pieces() == 1
        }
    }

    #[test]
    fn a_snapshot_that_fails_leaves_nothing() {
        let mut leads = Leads::new();
        leads.fails_with(&[Fine, Fine, Unanswered]);
        assert_eq!(leads.log.pieces(), 0);
        for _ in 0..3 {
            leads.fails_with(&[Fine, Fine, Unanswered, Lost]);
            assert_eq!(leads.log.pieces(), 1, "those of earlier ones are gone");
        }
        leads.writer.go_on_if_due().unwrap();
        assert!(leads.is_trimmed());
    }

    /// Its pieces are not deleted, for its manifest may be there at any time.
    #[test]
    fn what_has_failed_is_repeated_and_not_all_of_the_snapshot() {
        for faults in
            [[Fine, Fine, Fine, Lost].as_slice(), &[Fine, Fine, Fine, Unanswered], &[Fine, Fine, Fine, Fine, Lost]]
        {
            let mut leads = Leads::new();
            leads.fails_with(faults);
            let pieces = leads.log.pieces();
            // No call stores a piece any more, and the snapshot is complete after at most two.
            let before = leads.log.manifest().unwrap();
            leads.writer.go_on_if_due().unwrap();
            let after = leads.log.manifest().unwrap();
            assert!(pieces == 1 && leads.is_trimmed(), "{faults:?}");
            assert!(before.is_none() || before == after, "{faults:?}: {before:?}, {after:?}");
            assert_eq!(leads.writer.since.load(Ordering::Relaxed), 0);
            leads.writer.go_on_if_due().unwrap();
            assert_eq!(leads.log.manifest().unwrap(), after, "none is due");
        }
    }

    #[test]
    fn nobody_waits_for_the_rest_of_a_snapshot() {
        let mut leads = Leads::new();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 5 * PIECE_BYTES]).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let place = Place { reign: leads.store.reign.leader(), seq: Seq(1), record: Id(1) };
        let mut looks = 0;
        let mut is_over = || {
            looks += 1;
            looks > 2
        };
        put_pieces(&mut leads.log, place, file, &mut is_over).unwrap_err();
        assert_eq!(leads.log.pieces(), 2);
        drop(leads.stop);
        leads.writer.go_on_if_due().unwrap_err();
        assert_eq!((leads.log.pieces(), leads.log.manifest().unwrap()), (0, None));
    }
}
