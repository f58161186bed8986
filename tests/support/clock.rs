//! A clock that moves only when a test moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use locker::core::time::Span;
use locker::env::Clock;

/// The wall clock at the beginning, in Unix milliseconds.
const BEGINNING: u64 = 1_788_000_000_000;

/// Its wall clock and its monotonic clock show the same time. Copies of it move together.
#[derive(Clone, Default)]
pub struct HandClock {
    ms: Arc<AtomicU64>,
}

impl HandClock {
    pub fn pass(&self, span: Span) {
        self.ms.fetch_add(span.0, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.ms.load(Ordering::SeqCst))
    }
    fn wall_ms(&self) -> u64 {
        BEGINNING + self.ms.load(Ordering::SeqCst)
    }
}
