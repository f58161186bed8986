//! Who waits for the history of a pool to grow: long polls of `changes`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::notices::Notices;
use crate::core::names::{ParkId, PoolName};

#[derive(Default)]
struct Table {
    by_pool: BTreeMap<PoolName, BTreeSet<ParkId>>,
    by_park: BTreeMap<ParkId, PoolName>,
}

/// The table of long polls; cheap to clone.
#[derive(Clone, Default)]
pub struct Watchers {
    table: Arc<Mutex<Table>>,
}

impl Watchers {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches `pool` for a parked request. Call it *before* reading the history, else a change may be missed.
    pub fn watch(&self, park: ParkId, pool: &PoolName) {
        let mut table = self.table();
        table.by_pool.entry(pool.clone()).or_default().insert(park);
        table.by_park.insert(park, pool.clone());
    }

    /// The request is answered, or its client has gone.
    pub fn unwatch(&self, park: ParkId) {
        let mut table = self.table();
        let Some(pool) = table.by_park.remove(&park) else { return };
        if let Some(parks) = table.by_pool.get_mut(&pool) {
            parks.remove(&park);
            if parks.is_empty() {
                table.by_pool.remove(&pool);
            }
        }
    }

    /// The history of `pool` has grown: leaves a notice for each request that watches it.
    pub fn notify(&self, pool: &PoolName, notices: &Notices) {
        let table = self.table();
        for park in table.by_pool.get(pool).into_iter().flatten() {
            notices.notify(*park);
        }
    }
}
