//! A server that does not lead: it repeats the log, and takes over when the leader is gone.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Membership, Reign, SharedStore};
use crate::store::log::candidate::Candidate;
use crate::store::log::head::{Head, Id, Seq};
use crate::store::log::leading::{Stand, SystemClock, stand};
use crate::store::log::tail::Tail;
use crate::store::log::{Cause, Log, Manifest, Trouble};
use crate::store::sqlite::replica::{NotApplied, Replica};

/// Most records that are read at once: with the largest usual batches, 64 of them are 16 MiB.
const RECORDS: usize = 64;
/// How often a log is read again from its beginning because it was changed meanwhile.
const ATTEMPTS: usize = 5;

/// A server that follows.
#[derive(Debug)]
pub struct Follower {
    membership: Membership,
    candidate: Candidate,
    clock: SystemClock,
    replica: Replica,
    /// `None` after an error: the next look connects again.
    log: Option<Link>,
}

struct Link(Box<dyn Log>);

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

/// What came of one look at the log.
#[derive(Debug)]
pub enum Look {
    /// Somebody leads, or has led. The replica has everything that the log had at this head.
    Follows { head: Option<Head> },
    /// This server leads now.
    Leads(Box<SharedStore>),
    /// It led, but has no store: why. It has given up, so that another server may lead. This follower has come to its end.
    CannotLead(anyhow::Error),
}

impl Follower {
    /// Makes an empty replica. The log is not asked yet.
    ///
    /// # Errors
    /// There is no place for the replica.
    pub fn new(membership: Membership) -> anyhow::Result<Self> {
        let candidate = Candidate::new(membership.me.clone(), membership.span);
        let replica = Replica::empty(&membership.cache, &membership.seen)?;
        Ok(Self { candidate, replica, membership, clock: SystemClock::start(), log: None })
    }

    /// The last record that the replica has.
    #[must_use]
    pub fn tail(&self) -> Tail {
        self.replica.tail()
    }

    /// The id of the store, once there is a record.
    #[must_use]
    pub fn store_id(&self) -> Option<&str> {
        self.replica.database().ok().map(|database| database.id.as_str())
    }

    /// Looks at the log, repeats what is new, and takes over if that is allowed. To be called several times in each span.
    ///
    /// # Errors
    /// The log gives no answer, or cannot be repeated: what to do is in the message. The next look may succeed.
    pub fn look(&mut self) -> anyhow::Result<Look> {
        let (log, head) = self.repeat_all()?;
        match stand(&mut self.candidate, log, self.clock) {
            Stand::Trouble { trouble, .. } => Err(trouble.into()),
            Stand::Waits { log, .. } => {
                self.log = Some(Link(log));
                Ok(Look::Follows { head })
            }
            Stand::Leads(mut leading) => {
                #[cfg(any(test, feature = "plant"))]
                if let Some(plant) = self.membership.address.plant() {
                    leading = leading.with(plant);
                }
                // Something may have been appended since the first look.
                let made = leading.log().head()?;
                self.repeat(&mut **leading.log(), made.as_ref())?;
                let Tail { seq, record } = self.replica.tail();
                if (seq, record) != (leading.place().seq, leading.place().record) {
                    bail!("the log was changed while this server took over: it looks again");
                }
                let engine = made.map_or_else(Default::default, |head| head.engine);
                let reign = Arc::new(Reign::new(&self.membership, leading, engine));
                let store = self.store(&reign).inspect_err(|_| reign.give_up());
                Ok(store.map_or_else(Look::CannotLead, |store| Look::Leads(Box::new(store))))
            }
        }
    }

    /// The store of this server, which leads.
    fn store(&mut self, reign: &Arc<Reign>) -> anyhow::Result<SharedStore> {
        let Membership { cache, seen, .. } = &self.membership;
        let replica = std::mem::replace(&mut self.replica, Replica::empty(cache, seen)?);
        SharedStore::new(&self.membership, Arc::clone(reign), replica)
    }

    /// Repeats the log as it is now, and returns the replica.
    ///
    /// # Errors
    /// As for [`Self::look`].
    pub(super) fn into_repeated(mut self) -> anyhow::Result<Replica> {
        self.repeat_all()?;
        Ok(self.replica)
    }

    fn repeat_all(&mut self) -> anyhow::Result<(Box<dyn Log>, Option<Head>)> {
        if self.replica.has_failed() {
            tracing::warn!("the copy of the log could not be written: it is made again");
            self.replica = Replica::empty(&self.membership.cache, &self.membership.seen)?;
        }
        let Link(mut log) = match self.log.take() {
            Some(log) => log,
            None => Link(self.membership.address.open(self.membership.patience())?),
        };
        let sent = Instant::now();
        let head = log.head()?;
        if head.is_none() && self.membership.seen.load(Ordering::Relaxed) > 0 {
            let text = "it is empty, though this server has seen what was in it: somebody has removed the schema or the \
                        prefix, or this is another database. Bring it back, or restart all servers to begin with nothing";
            return Err(Trouble::new(Cause::Damaged, text).into());
        }
        self.membership.standing.saw(head.as_ref());
        self.repeat(&mut *log, head.as_ref())?;
        self.membership.standing.is_fresh(sent);
        Ok((log, head))
    }

    /// Repeats the log up to this head. If the replica has gone another way, it begins again.
    fn repeat(&mut self, log: &mut dyn Log, head: Option<&Head>) -> anyhow::Result<()> {
        let (seq, record) = head.map_or((Seq(0), Id::NONE), |head| (head.seq, head.record));
        for _ in 0..ATTEMPTS {
            let tail = self.replica.tail();
            if (tail.seq, tail.record) == (seq, record) {
                self.membership.standing.has(tail.seq);
                return Ok(());
            }
            let fits = tail.seq < seq && self.read_on(log, seq)?;
            if !fits {
                self.begin_again(log)?;
            }
        }
        bail!(
            "the log has changed {ATTEMPTS} times while it was read: the database may be failing over; this server looks again"
        )
    }

    /// Reads what follows, up to this number. False if it does not follow, or is not there any more.
    fn read_on(&mut self, log: &mut dyn Log, last: Seq) -> anyhow::Result<bool> {
        while self.replica.tail().seq < last {
            let records = log.records(self.replica.tail().seq.next(), RECORDS)?;
            if records.is_empty() {
                return Ok(false);
            }
            for record in records.iter().filter(|record| record.seq <= last) {
                match self.replica.apply(record) {
                    Ok(()) => self.membership.standing.has(record.seq),
                    Err(NotApplied::SetBack(_)) => return Ok(false),
                    Err(NotApplied::Failed(error)) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    /// Begins with the snapshot of the log, or with nothing.
    fn begin_again(&mut self, log: &mut dyn Log) -> anyhow::Result<()> {
        if self.replica.tail() != Tail::default() {
            tracing::warn!("the copy of the log is made again: records are missing from it, or the log was set back");
        }
        let Membership { cache, seen, .. } = &self.membership;
        self.replica = match log.manifest()? {
            None => Replica::empty(cache, seen)?,
            Some(manifest) => Replica::of_snapshot(cache, seen, tail_of(&manifest), |path| {
                let mut file = std::fs::File::create(path)?;
                for number in 0..manifest.pieces {
                    let piece = log.piece(manifest.snapshot, number)?;
                    file.write_all(&piece.context("a newer snapshot has replaced it")?)?;
                }
                Ok(())
            })?,
        };
        Ok(())
    }

    /// How long to wait between two looks.
    #[must_use]
    pub fn pause(&self) -> Duration {
        (Duration::from_millis(self.membership.span.0) / 20).min(Duration::from_millis(250))
    }
}

fn tail_of(manifest: &Manifest) -> Tail {
    Tail { seq: manifest.seq, record: manifest.record }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lead, membership, newest};
    use super::*;
    use crate::store::Store as _;
    use crate::store::log::memory::MemoryLog;

    #[test]
    fn a_copy_that_cannot_be_written_is_made_again() {
        let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
        let mut store = lead(membership(&log, cache.path()));
        let mut follower = Follower::new(membership(&log, cache.path())).unwrap();
        follower.look().unwrap();
        let seen = follower.tail();
        follower.replica.break_disk();
        store.commit(&newest(5)).unwrap();
        follower.look().unwrap();
        assert_eq!(follower.tail().seq, seen.seq.next());
        assert!(!follower.replica.has_failed());
    }
}
