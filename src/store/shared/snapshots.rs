//! Snapshots of the log: so that a new server reads little, and what they contain is deleted.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};

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
struct Writer {
    membership: Membership,
    reign: Arc<Reign>,
    source: Source,
    /// Bytes of records since the last snapshot.
    since: Arc<AtomicU64>,
    /// The size of the last snapshot.
    size: u64,
}

impl Snapshots {
    pub fn start(membership: &Membership, reign: &Arc<Reign>, replica: &Replica) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut writer = Writer {
            membership: membership.clone(),
            reign: Arc::clone(reign),
            source: replica.source(),
            since: replica.since_snapshot(),
            size: 0,
        };
        let run = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = writer.write_if_due() {
                    tracing::warn!(
                        "no snapshot of the log: {error:#}; it is tried again, and the log grows until then"
                    );
                }
            }
        };
        let thread = thread::Builder::new().name("snapshot".to_owned()).spawn(run);
        Ok(Self { stop: Some(stop), thread: Some(thread.context("cannot start the thread for snapshots")?) })
    }

    /// Ends the thread, after a snapshot that is being written.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed where it happened.
            let _ = thread.join();
        }
    }
}

impl Writer {
    fn write_if_due(&mut self) -> anyhow::Result<()> {
        let since = self.since.load(Ordering::Relaxed);
        // A server that has not been upgraded yet could not read the tables.
        let is_readable = self.membership.standing.format() == replica::newest();
        if since < LEAST.max(self.size) || !is_readable {
            return Ok(());
        }
        let mut log = self.membership.address.open(self.membership.patience())?;
        self.size = write(&mut *log, &self.reign, &self.source)?;
        self.since.fetch_sub(since, Ordering::Relaxed);
        Ok(())
    }
}

/// Writes a snapshot of the replica at `source`, deletes what it contains, and returns its size in bytes.
pub(super) fn write(log: &mut dyn Log, reign: &Reign, source: &Source) -> anyhow::Result<u64> {
    let Some((file, seq)) = replica::copy(source)? else { return Ok(0) };
    // The record itself is still there: only this leader deletes any.
    let record = log.records(seq, 1)?.into_iter().next().filter(|record| record.seq == seq);
    let record = record.context("the log has no record where the snapshot ends")?.id;
    let place = Place { reign: reign.leader(), seq, record };
    put(log, place, file.reopen()?)
}

/// Makes this file the snapshot of the log as of this place, deletes what it contains, and returns its size in bytes.
pub(super) fn put(log: &mut dyn Log, place: Place, mut file: File) -> anyhow::Result<u64> {
    let Place { reign: by, seq, record } = place;
    let snapshot = Id::random()?;
    let (mut pieces, mut size) = (0, 0);
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        log.put_piece(snapshot, pieces, &piece)?;
        (pieces, size) = (pieces + 1, size + piece.len() as u64);
    }
    if !log.put_manifest(&Manifest { snapshot, by, seq, record, pieces })? {
        bail!("another server leads, or there is a newer snapshot");
    }
    log.trim(by)?;
    Ok(size)
}
