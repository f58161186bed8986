//! What is counted of notifications, by target.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::core::time::WallMs;

type ByTarget = Family<[(&'static str, String); 1], Counter>;

/// Cheap to clone; clones share the figures.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    sent: ByTarget,
    failed: ByTarget,
    left_out: ByTarget,
    /// Since when each target has something coming to it; 0 if it has nothing.
    since: Arc<Mutex<BTreeMap<String, WallMs>>>,
}

fn label(target: &str) -> [(&'static str, String); 1] {
    [("target", target.to_owned())]
}

impl Figures {
    /// These are the targets from now on.
    pub fn begin<'n>(&self, targets: impl Iterator<Item = &'n str>) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *since);
        for target in targets {
            for family in [&self.sent, &self.failed, &self.left_out] {
                drop(family.get_or_create(&label(target)));
            }
            since.insert(target.to_owned(), before.remove(target).unwrap_or_default());
        }
        for target in before.keys() {
            for family in [&self.sent, &self.failed, &self.left_out] {
                family.remove(&label(target));
            }
        }
    }

    fn count(&self, family: &ByTarget, target: &str, count: u64) {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.contains_key(target) {
            family.get_or_create(&label(target)).inc_by(count);
        }
    }

    /// So many notifications, or checks, have reached a target.
    pub fn sent(&self, target: &str, count: u64) {
        self.count(&self.sent, target, count);
    }

    /// A request has failed.
    pub fn failed(&self, target: &str) {
        self.count(&self.failed, target, 1);
    }

    /// So many notifications were given up.
    pub fn left_out(&self, target: &str, count: u64) {
        self.count(&self.left_out, target, count);
    }

    /// The oldest thing that the target has still coming to it.
    pub fn pending(&self, target: &str, at: Option<WallMs>) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = since.get_mut(target) {
            *since = at.unwrap_or_default();
        }
    }

    /// Adds the metrics, without the prefix of the program. `now` is the wall clock.
    pub fn register(&self, registry: &mut Registry, now: WallMs) {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_empty() {
            return;
        }
        let counters = [
            ("notify_sent", "Notifications and checks that have reached their target", &self.sent),
            ("notify_failed", "Requests to a target that failed; they are sent again", &self.failed),
            ("notify_left_out", "Notifications that were given up", &self.left_out),
        ];
        for (name, help, family) in counters {
            registry.register(name, help, family.clone());
        }
        let lag = Family::<[(&'static str, String); 1], Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for (target, since) in since.iter() {
            let lasts = if *since == WallMs::default() { 0 } else { now.0.saturating_sub(since.0) };
            lag.get_or_create(&label(target)).set(Duration::from_millis(lasts).as_secs_f64());
        }
        let help = "For how long the oldest notification of the target is under way, else 0";
        registry.register_with_unit("notify_lag", help, Unit::Seconds, lag);
    }
}
