//! What is counted for each pool: grants, ends, and how long claims waited and held.
//!
//! Only so many pools have figures of their own; all others are summed, so a scrape stays small.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imbl::OrdMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::core::history::{Change, ChangeKind};
use crate::core::names::PoolName;
use crate::core::state::{Changes, Snapshot};
use crate::core::time::Span;

/// Upper bounds of the buckets of waits and holds, seconds: from a lock that is free to a job that takes a day.
const BUCKETS: [f64; 10] = [0.1, 1.0, 5.0, 30.0, 120.0, 600.0, 1_800.0, 7_200.0, 28_800.0, 86_400.0];

/// The figures of one pool since the start of the server, or of all pools that have none of their own.
#[derive(Debug)]
pub struct Counts {
    /// Claims that became holds.
    pub grants: Counter,
    /// How long these had waited, seconds.
    pub waits: Histogram,
    /// How long holds that have ended had lasted, seconds.
    pub holds: Histogram,
    ends: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    fn new() -> Self {
        let (waits, holds) = (Histogram::new(BUCKETS), Histogram::new(BUCKETS));
        Self { grants: Counter::default(), waits, holds, ends: Mutex::default() }
    }

    /// How many claims have ended, by the stable word for how.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<&'static str, u64> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: &Change) {
        let seconds = |span: Span| Duration::from_millis(span.0).as_secs_f64();
        if change.kind == ChangeKind::Claimed {
            self.grants.inc();
            if let Some(waited) = change.waited {
                self.waits.observe(seconds(waited));
            }
        }
        if let Some(end) = change.end {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            *ends.entry(end.word()).or_default() += 1;
        }
        if let Some(held) = change.held {
            self.holds.observe(seconds(held));
        }
    }
}

/// The counts of the pools that have some of their own, and those of the rest.
#[derive(Debug, Clone)]
pub struct Counted {
    pub own: OrdMap<PoolName, Arc<Counts>>,
    pub rest: Arc<Counts>,
}

/// The figures of all pools. Cheap to clone; clones share the figures.
#[derive(Debug, Clone)]
pub struct PoolFigures {
    /// Most pools that have figures of their own: the first ones to appear.
    most: usize,
    counted: Arc<Mutex<Counted>>,
}

impl PoolFigures {
    /// No figures yet, and at most `most` pools that will have some of their own.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let counted = Counted { own: OrdMap::new(), rest: Arc::new(Counts::new()) };
        Self { most, counted: Arc::new(Mutex::new(counted)) }
    }

    /// The pools that exist when the server starts.
    pub fn begin(&self, snapshot: &Snapshot) {
        let mut counted = self.lock();
        for pool in snapshot.pools.keys().take(self.most) {
            counted.own.insert(pool.clone(), Arc::new(Counts::new()));
        }
    }

    /// Counts the changes of one batch.
    pub fn note(&self, changes: &Changes) {
        if changes.history.is_empty() && changes.pools.is_empty() {
            return;
        }
        let mut counted = self.lock();
        for (pool, policy) in &changes.pools {
            if policy.is_none() {
                counted.own.remove(pool);
            } else if counted.own.len() < self.most && !counted.own.contains_key(pool) {
                counted.own.insert(pool.clone(), Arc::new(Counts::new()));
            }
        }
        for change in &changes.history {
            for pool in &change.pools {
                counted.own.get(pool).unwrap_or(&counted.rest).note(change);
            }
        }
    }

    /// The counts as they are now. Takes the same short time for any number of pools.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
