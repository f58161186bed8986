//! The files that pool-resource writes: `POOL/claimed/LOCK` and `POOL/unclaimed/LOCK`, each with the lock's metadata. A
//! nested pool is in nested directories.
//!
//! Existing tasks count these, read them, or test for one of them. They show the pool as it was when `in` ran.

use base64::Engine as _;

use super::destination::Destination;
use crate::client::{CallError, Client};
use crate::core::names::{LockName, PoolName};
use crate::wire::api::{LockState, LockView};
use crate::wire::errors::Code;

/// The most locks for which files are written. Each costs a request, because lists carry no metadata.
const LOCKS: usize = 256;
/// Our own files and directories. A pool with one of these names, or nested in one, gets no tree.
const OURS: &[&str] = &["name", "metadata", "lock", "claim", "fence", "pool", "locks", "locker.json"];

/// A lock's metadata, unchanged.
pub(super) fn metadata(view: &LockView) -> Result<Vec<u8>, String> {
    match (&view.metadata, &view.metadata_base64) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(encoded)) => base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(|error| format!("the metadata of lock {:?} cannot be read: {error}", view.lock)),
        (None, None) => Ok(Vec::new()),
    }
}

/// The locks of a pool.
pub(super) enum Tree {
    Locks(Vec<Leaf>),
    /// Why the tree is not written.
    None(Option<String>),
}

/// One lock.
pub(super) struct Leaf {
    lock: LockName,
    /// Nobody can take the lock at present.
    claimed: bool,
    metadata: Vec<u8>,
}

impl Tree {
    /// The pool as it is now.
    pub(super) fn fetch(client: &Client, pool: &PoolName) -> Result<Self, CallError> {
        if pool.parts().next().is_some_and(|first| OURS.contains(&first)) {
            return Ok(Self::None(Some(format!("the name of pool {pool:?} collides with another file"))));
        }
        let found = match client.get_pool(pool.as_str()) {
            Err(error) if error.code() == Some(Code::NoSuchPool) => return Ok(Self::None(None)),
            found => found?.items,
        };
        if found.len() > LOCKS {
            return Ok(Self::None(Some(format!("the pool has {} locks, more than {LOCKS}", found.len()))));
        }
        let mut leaves = Vec::new();
        for view in found {
            // A name from the server becomes a file name, so invalid names are skipped.
            let Ok(lock) = LockName::parse(&view.lock) else { continue };
            let view = match client.get_lock(pool.as_str(), &view.lock) {
                // Someone has removed it in the meantime.
                Err(error) if matches!(error.code(), Some(Code::NoSuchPool | Code::NoSuchLock)) => continue,
                view => view?,
            };
            let claimed = view.state != LockState::Free;
            leaves.extend(metadata(&view).ok().map(|metadata| Leaf { lock, claimed, metadata }));
        }
        Ok(Self::Locks(leaves))
    }

    pub(super) fn write(&self, pool: &PoolName, files: &mut Destination) -> Result<(), String> {
        let Self::Locks(leaves) = self else { return Ok(()) };
        for (part, claimed) in [("claimed", true), ("unclaimed", false)] {
            let dir = files.make_dirs(&[pool.as_str(), part])?;
            for leaf in leaves.iter().filter(|leaf| leaf.claimed == claimed) {
                files.put(dir.join(leaf.lock.as_str()), &leaf.metadata)?;
            }
        }
        Ok(())
    }

    /// The log line for a tree that is not written.
    pub(super) fn missing(&self) -> Option<String> {
        let Self::None(Some(why)) = self else { return None };
        Some(format!("the pool's directories claimed and unclaimed are not written: {why}"))
    }
}
