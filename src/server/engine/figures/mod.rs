//! What the engine counts and measures, for the metrics. Nothing here decides anything.

mod pools;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub use self::pools::{Counted, Counts};

use self::pools::PoolFigures;
use crate::server::limits::METRIC_POOLS;

/// The figures of one engine. Cheap to clone; clones share the figures.
#[derive(Clone)]
pub struct EngineFigures {
    /// Commands that wait for the engine.
    pub(super) queued: Gauge,
    pub(super) commands: Counter,
    pub(super) batch: Histogram,
    pub(super) commit: Histogram,
    pub(super) pools: PoolFigures,
}

impl Default for EngineFigures {
    fn default() -> Self {
        Self::new(METRIC_POOLS)
    }
}

impl EngineFigures {
    /// No figures yet. At most `pools` pools will have figures of their own.
    #[must_use]
    pub fn new(pools: usize) -> Self {
        Self {
            queued: Gauge::default(),
            commands: Counter::default(),
            // 1 to 1,024: as much as is stepped at one time may join a batch that is almost full.
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            // 0.1 ms (a fast disk) to 26 s (one that hangs).
            commit: Histogram::new(exponential_buckets(0.000_1, 4.0, 10)),
            pools: PoolFigures::new(pools),
        }
    }

    /// The counts of pools as they are now. Takes the same short time for any number of pools.
    #[must_use]
    pub fn pools(&self) -> Counted {
        self.pools.counted()
    }

    /// Adds the metrics of the engine itself, without the prefix of the program.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("engine_queued_commands", "Commands that wait for the engine", self.queued.clone());
        registry.register(
            "engine_commands",
            "Commands that the engine has run, timers included",
            self.commands.clone(),
        );
        registry.register("engine_batch_commands", "Commands in one batch, which is one commit", self.batch.clone());
        let commit = self.commit.clone();
        registry.register_with_unit("engine_commit", "Time of one durable commit", Unit::Seconds, commit);
    }
}
