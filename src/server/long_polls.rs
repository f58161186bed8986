//! The requests that wait for an event: long polls of `changes` and of latches, and who follows [`Events`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::events::Events;
use super::notices::Notices;
use crate::core::latch::LatchId;
use crate::core::names::{ParkId, PoolName};

/// The event that a long poll waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The history of this pool grows.
    Pool(PoolName),
    /// Any history grows.
    Changes,
    /// This latch is released or deleted.
    Latch(LatchId),
    /// Any latch is released or deleted.
    Latches,
}

#[derive(Default)]
struct Table {
    by_topic: BTreeMap<Topic, BTreeSet<ParkId>>,
    by_park: BTreeMap<ParkId, Topic>,
}

/// The table of long polls. Cheap to clone.
#[derive(Clone, Default)]
pub struct LongPolls {
    table: Arc<Mutex<Table>>,
    events: Events,
}

impl LongPolls {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who follow events instead of asking again and again.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Registers a parked request for `topic`, its only one. Call this *before* reading the state, or a change in
    /// between may be missed.
    pub fn watch(&self, park: ParkId, topic: Topic) {
        let mut table = self.table();
        table.by_topic.entry(topic.clone()).or_default().insert(park);
        table.by_park.insert(park, topic);
    }

    /// The request was answered, or its client has gone.
    pub fn unwatch(&self, park: ParkId) {
        let mut table = self.table();
        let Some(topic) = table.by_park.remove(&park) else { return };
        if let Some(parks) = table.by_topic.get_mut(&topic) {
            parks.remove(&park);
            if parks.is_empty() {
                table.by_topic.remove(&topic);
            }
        }
    }

    /// The event has happened: leaves a notice for each request that watches `topic`.
    pub fn notify(&self, topic: &Topic, notices: &Notices) {
        let table = self.table();
        for park in table.by_topic.get(topic).into_iter().flatten() {
            notices.notify(*park);
        }
    }
}
