//! Notices to parked requests: "try now". A notice is kept until it is taken. So none is lost between the moment when a
//! request is subscribed (before it is passed on) and the moment when its client is parked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::core::names::ParkId;

/// The table is split into independent parts, so that the engine and the door seldom wait for the same mutex.
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<ParkId, Arc<Notify>>>;

/// The table of subscribed requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Notices {
    shards: Arc<[Shard; SHARDS]>,
}

impl Notices {
    fn shard(&self, park: ParkId) -> &Shard {
        // The remainder is smaller than the number of shards, so the cast does not truncate.
        #[allow(clippy::cast_possible_truncation)]
        let shard = (park.0 % SHARDS as u64) as usize;
        &self.shards[shard]
    }

    /// Subscribes `park` until the subscription is dropped.
    #[must_use]
    pub fn subscribe(&self, park: ParkId) -> Subscription {
        let notify = Arc::new(Notify::new());
        let mut shard = self.shard(park).lock().unwrap_or_else(PoisonError::into_inner);
        shard.insert(park, Arc::clone(&notify));
        Subscription { notices: self.clone(), park, notify }
    }

    /// Leaves a notice for `park`. Does nothing if `park` is not subscribed.
    pub fn notify(&self, park: ParkId) {
        let shard = self.shard(park).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = shard.get(&park) {
            notify.notify_one();
        }
    }
}

/// The right to take the notices of one parked request.
pub struct Subscription {
    notices: Notices,
    park: ParkId,
    notify: Arc<Notify>,
}

impl Subscription {
    /// Waits for a notice and takes it. Safe to cancel: a notice that was not returned is kept.
    pub async fn taken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut shard = self.notices.shard(self.park).lock().unwrap_or_else(PoisonError::into_inner);
        shard.remove(&self.park);
    }
}
