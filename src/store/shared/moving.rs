//! A whole store out of a log and into one: for backups, checks and moves. No server is involved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::{Follower, Look, Membership, SharedStore, snapshots};
use crate::core::time::{EngineMs, Span};
use crate::store::log::address::LogAddress;
use crate::store::log::candidate::Candidate;
use crate::store::log::head::{Head, Id, Leader};
use crate::store::log::leading::{Stand, SystemClock, stand};
use crate::store::rows::Batch;
use crate::store::sqlite::replica::{self, Replica};

/// How long one call of the database may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long this program may give no sign while it has a log to itself.
const SPAN: Span = Span(60_000);

/// What a program that is no server is called in a log.
fn nobody() -> anyhow::Result<Leader> {
    Ok(Leader { name: "locker store".to_owned(), run: Id::random()? })
}

fn visitor(address: LogAddress, cache: &Path) -> anyhow::Result<Follower> {
    let (me, cache) = (nobody()?, cache.to_owned());
    let (seen, rules, standing) = (Arc::default(), BTreeMap::new(), Arc::default());
    Follower::new(Membership { address, me, span: SPAN, cache, seen, rules, standing })
}

/// A copy of what a log contains now, in the directory `cache`, and the file that it is in: all of it is in the tables. The
/// servers that use the log are not disturbed.
///
/// # Errors
/// The log cannot be read, or is empty.
pub(in crate::store) fn copy_of(address: LogAddress, cache: &Path) -> anyhow::Result<(Replica, PathBuf)> {
    let replica = visitor(address, cache)?.into_repeated()?;
    let path = replica.folded()?;
    Ok((replica, path))
}

/// Takes a log that no server uses, so that none can use it before this is dropped.
///
/// # Errors
/// A server uses it, or it cannot be read.
pub(in crate::store) fn take(address: LogAddress, cache: &Path) -> anyhow::Result<SharedStore> {
    ensure!(address.open(PATIENCE)?.head()?.is_some(), "it is empty: no server has started on it");
    let mut follower = visitor(address, cache)?;
    let mut first: Option<Head> = None;
    loop {
        let seen = match follower.look()? {
            Look::Leads(store) => return Ok(*store),
            Look::CannotLead(error) => return Err(error),
            Look::Follows { head: Some(head) } => head,
            // Somebody else has taken it at this moment.
            Look::Follows { head: None } => continue,
        };
        let first = first.get_or_insert_with(|| seen.clone());
        ensure!(*first == seen, "{:?} uses it: stop all servers on it first", seen.leader.shown());
        thread::sleep(follower.pause());
    }
}

/// Makes the store in a file, which is complete without a log or a journal, the content of an empty log.
///
/// # Errors
/// The log is not empty, or does not answer.
pub(in crate::store) fn put(address: &LogAddress, file: &Path) -> anyhow::Result<()> {
    let mut log = address.open(PATIENCE)?;
    ensure!(log.head()?.is_none(), "it is not empty: name another schema (postgres) or prefix (etcd)");
    let mut candidate = Candidate::new(nobody()?, SPAN);
    let Stand::Leads(mut leading) = stand(&mut candidate, log, SystemClock::start()) else {
        bail!("somebody else has begun to use it: name another schema (postgres) or prefix (etcd)");
    };
    // The snapshot contains a first record, so that what follows has one to follow.
    let (first, _) = replica::encode(&Batch::default(), replica::OLDEST)?;
    leading.append(first, EngineMs(0))?;
    let place = leading.place();
    let file = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    snapshots::put(&mut **leading.log(), place, file)?;
    Ok(leading.give_up(EngineMs(0))?)
}
