//! `memory:`: keeps everything until the process ends, as the records that a file would keep. For tests and demos.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Store;
use super::rows::Rows;
use crate::core::state::{Changes, Loaded, Meta};
use crate::wire::record::{
    self, StoredChange, StoredClaim, StoredEnded, StoredLatch, StoredLock, StoredOp, StoredPolicy,
};

/// A store without a disk. Clones share what is kept: a test hands one to the next life of a server.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    id: String,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    meta: Option<Meta>,
    pools: BTreeMap<String, String>,
    locks: BTreeMap<(String, String), LockRow>,
    claims: BTreeMap<String, String>,
    ended: BTreeMap<String, String>,
    ops: BTreeMap<String, String>,
    latches: BTreeMap<String, String>,
    changes: BTreeMap<(i64, i64), String>,
}

/// Metadata and record.
type LockRow = (Arc<[u8]>, String);

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl MemoryStore {
    /// An empty store with an id of its own.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { id: super::new_store_id()?, kept: Arc::default() })
    }

    /// A holder that panicked leaves a half-written batch, which its engine never answers.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        let kept = self.kept();
        let mut rows = Rows::default();
        kept.pools.iter().try_for_each(|(name, json)| rows.pool(name, json))?;
        kept.locks.iter().try_for_each(|((pool, name), (data, json))| rows.lock(pool, name, data, json))?;
        kept.claims.iter().try_for_each(|(id, json)| rows.claim(id, json))?;
        kept.ended.iter().try_for_each(|(id, json)| rows.ended(id, json))?;
        kept.ops.iter().try_for_each(|(id, json)| rows.op(id, json))?;
        kept.latches.iter().try_for_each(|(id, json)| rows.latch(id, json))?;
        kept.changes.iter().try_for_each(|(&(revision, seq), json)| rows.change(revision, seq, json))?;
        Ok(Loaded { meta: kept.meta, ..rows.finish()? })
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let mut kept = self.kept();
        kept.meta = changes.meta.or(kept.meta);
        for (name, policy) in &changes.pools {
            let json = policy.as_ref().map(|p| record::encode(&StoredPolicy::from(p))).transpose()?;
            set(&mut kept.pools, name.to_string(), json);
        }
        for (pool, name, lock) in &changes.locks {
            let row = lock
                .as_ref()
                .map(|lock| anyhow::Ok((Arc::clone(&lock.metadata), record::encode(&StoredLock::from(&**lock))?)));
            set(&mut kept.locks, (pool.to_string(), name.to_string()), row.transpose()?);
        }
        for (id, claim) in &changes.claims {
            let json = claim.as_deref().map(|c| record::encode(&StoredClaim::from(c))).transpose()?;
            set(&mut kept.claims, id.to_string(), json);
        }
        for (id, ended) in &changes.ended {
            let json = ended.as_deref().map(|e| record::encode(&StoredEnded::from(e))).transpose()?;
            set(&mut kept.ended, id.to_string(), json);
        }
        for (id, op) in &changes.ops {
            let json = op.as_ref().map(|op| record::encode(&StoredOp::from(op))).transpose()?;
            set(&mut kept.ops, id.to_string(), json);
        }
        for (id, latch) in &changes.latches {
            let json = latch.as_deref().map(|l| record::encode(&StoredLatch::from(l))).transpose()?;
            set(&mut kept.latches, id.to_string(), json);
        }
        for change in &changes.history {
            let key = (change.key.revision.0.try_into()?, change.key.seq.into());
            kept.changes.insert(key, record::encode(&StoredChange::from(&**change))?);
        }
        for key in &changes.pruned {
            kept.changes.remove(&(key.revision.0.try_into()?, key.seq.into()));
        }
        Ok(())
    }

    fn store_id(&self) -> &str {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::store::conformance::conformance(|| {
            let store = MemoryStore::new().unwrap();
            Box::new(move || Box::new(store.clone()))
        });
    }
}
