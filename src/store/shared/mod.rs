//! A store on a log that several servers share (docs/cluster.md).
//!
//! - [`Follower`]: a server that does not lead. It repeats the log in a [`Replica`], and takes over when it may.
//! - [`SharedStore`]: the store of the server that leads. A commit is an append to the log; then the replica has it, too.
//! - `reign`: what proves that it leads: appends, and beats while there is nothing to append.
//! - `moving`: a whole store out of a log and into one.
//! - [`Registry`]: which servers there are. [`Standing`]: what a server knows of itself and of the others.
//! - [`Notes`]: what a leader keeps beside the records, for the next one.
//! - `snapshots`: so that the log does not grow for ever.

mod follower;
pub(super) mod moving;
mod notes;
mod registry;
mod reign;
mod snapshots;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

pub use follower::{Follower, Look};
pub use notes::Notes;
pub use registry::{Admitted, Registered, Registry, Unequal};
pub use reign::Reign;
pub use standing::{LeaderSeen, Shown, Standing};

use self::snapshots::Snapshots;
use super::log::address::LogAddress;
use super::log::head::Leader;
#[cfg(any(test, feature = "plant"))]
use super::log::plant::Plant;
use super::rows::Batch;
use super::sqlite::replica::{self, Replica};
use super::{Reader, Store};
use crate::core::history::Outline;
use crate::core::names::{Revision, Ticket};
use crate::core::state::{Changes, EndedOutline, Loaded, Meta};
use crate::core::time::{EngineMs, Span};

/// How many revisions a leader leaves out when it begins. The one before may have given some that the database has lost and
/// that this server has not seen: these are minutes of work at full speed. 64 times as many are an epoch, a minute by the
/// clock, so that changes of leaders do not run ahead of the clock.
const UNSEEN: u64 = 1 << 22;

/// What a server on a shared log must know.
#[derive(Debug, Clone)]
pub struct Membership {
    pub address: LogAddress,
    /// Who this server is: its name, and a random number that is new for each start.
    pub me: Leader,
    /// How long the leader must give no sign before another server takes over.
    pub span: Span,
    /// Where its copy of the log is kept.
    pub cache: PathBuf,
    /// The newest revision that this process has seen in the log, whatever has become of it since.
    pub seen: Arc<AtomicU64>,
    /// The settings that must be the same on all servers, by the names of their flags.
    pub rules: BTreeMap<String, String>,
    /// What this server knows.
    pub standing: Arc<Standing>,
}

impl Membership {
    /// How long one call of the database may take: half a span, so that a leader can repeat one within its span.
    fn patience(&self) -> Duration {
        Duration::from_millis(self.span.0 / 2)
    }
}

/// The store of a server that leads. Dropping it hands over: the next server may take over at once.
pub struct SharedStore {
    snapshots: Snapshots,
    beats: Option<JoinHandle<()>>,
    reign: Arc<Reign>,
    replica: Replica,
    reader: Arc<dyn Reader>,
    own_reader: Arc<dyn Reader>,
    /// No revision that this server has ever seen is larger.
    seen: u64,
    id: String,
    #[cfg(any(test, feature = "plant"))]
    plant: Option<Plant>,
}

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore").field("reign", &self.reign).finish_non_exhaustive()
    }
}

impl SharedStore {
    /// The store of a server that has just taken over. The replica has everything that the log has.
    fn new(membership: &Membership, reign: Arc<Reign>, mut replica: Replica) -> anyhow::Result<Self> {
        let beats = reign.start_beats()?;
        if replica.database().is_err() {
            // The id of the first record is that of the store. An empty one, so that it is known before anything else.
            append(&reign, &mut replica, Batch::default())?;
        }
        let database = replica.database()?;
        let (reader, own_reader, id) = (database.readers.reader(), database.readers.own_reader(), database.id.clone());
        let seen = membership.seen.load(Ordering::Relaxed);
        membership.standing.counts_bytes(replica.since_snapshot());
        let snapshots = Snapshots::start(membership, &reign, &replica)?;
        Ok(Self {
            snapshots,
            beats: Some(beats),
            reign,
            replica,
            reader,
            own_reader,
            seen,
            id,
            #[cfg(any(test, feature = "plant"))]
            plant: membership.address.plant(),
        })
    }

    /// The file of its copy, in which everything is in the tables.
    pub(super) fn folded(&self) -> anyhow::Result<PathBuf> {
        self.replica.folded()
    }

    /// What proves that this server leads.
    #[must_use]
    pub fn reign(&self) -> Arc<Reign> {
        Arc::clone(&self.reign)
    }
}

fn append(reign: &Reign, replica: &mut Replica, batch: Batch<'_>) -> anyhow::Result<()> {
    let (bytes, length) = replica::encode(&batch, reign.format())?;
    let place = reign.append(bytes)?;
    replica.put(place.seq, place.record, length, batch)
}

impl Store for SharedStore {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        let mut loaded = self.replica.database()?.load()?;
        // A log that was set back to its beginning has none.
        let meta = loaded.meta.get_or_insert(Meta {
            revision: Revision::default(),
            next_ticket: Ticket::FIRST,
            engine: EngineMs::default(),
            pruned: Revision::default(),
        });
        // The leaders before this one have said in each beat how far their time has come.
        meta.engine = meta.engine.max(self.reign.engine());
        let (seen, has) = (Revision(self.seen), meta.revision);
        if seen > has {
            tracing::error!(
                seen = seen.0,
                has = has.0,
                "the log was set back: what was acknowledged after its newest revision may be lost; no revision or fence that \
                 this server has seen is given again (docs/cluster.md#what-the-database-must-promise)"
            );
        }
        meta.revision = Revision(seen.max(has).0 + UNSEEN);
        Ok(loaded)
    }

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.replica.database()?.ended(each)
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        self.replica.database()?.history(each)
    }

    fn past(
        &mut self,
        ended: &mut (dyn FnMut(EndedOutline) + Send),
        entry: &mut (dyn FnMut(Outline) + Send),
    ) -> anyhow::Result<()> {
        self.replica.database()?.past(ended, entry)
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        append(&self.reign, &mut self.replica, Batch::of(changes)?).context("cannot append to the log")
    }

    fn confirm(&mut self) -> anyhow::Result<()> {
        #[cfg(any(test, feature = "plant"))]
        if self.plant == Some(Plant::ReadWithoutABeat) {
            return Ok(());
        }
        Ok(self.reign.beat()?)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader)
    }

    fn own_reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.own_reader)
    }

    fn store_id(&self) -> &str {
        &self.id
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        // First of all, for others wait for it. A snapshot that is being written comes to nothing then.
        self.reign.give_up();
        self.snapshots.stop();
        if let Some(beats) = self.beats.take() {
            // A panic of it has been printed where it happened.
            let _ = beats.join();
        }
    }
}
