//! The switch that stops the door.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// The switch that stops the door. Clones are the same switch. Any thread may trigger it, and it stays triggered.
///
/// Every client's task waits for it, so a wait takes little memory: a third of what it takes with Tokio's `watch`.
#[derive(Clone)]
pub struct Stop(Arc<Switch>);

struct Switch {
    /// Whether there is a grace: each request looks at this without a lock.
    is_triggered: AtomicBool,
    grace: Mutex<Option<Duration>>,
    /// Told whenever it is triggered.
    changed: Notify,
}

impl Stop {
    /// A new switch, not triggered.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Switch { is_triggered: AtomicBool::new(false), grace: Mutex::new(None), changed: Notify::new() }))
    }

    /// Stops the door. Requests in flight may end within `grace`. Waits for nothing. If it is called more than once, the
    /// shortest grace counts.
    pub fn trigger(&self, grace: Duration) {
        {
            let mut current = self.grace();
            *current = Some(current.map_or(grace, |current| current.min(grace)));
        }
        self.0.is_triggered.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Whether it has been triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.is_triggered.load(Ordering::Acquire)
    }

    /// Waits until it is triggered. Returns at once if it already is. Safe to cancel.
    pub async fn triggered(&self) {
        // It hears of everything from here on, so nothing is missed between the look and the wait.
        let changed = self.0.changed.notified();
        if !self.is_triggered() {
            changed.await;
        }
    }

    /// Waits until the grace is over, even if it is shortened in the meantime. Safe to cancel.
    pub(super) async fn grace_is_over(&self) {
        self.triggered().await;
        let start = tokio::time::Instant::now();
        loop {
            let changed = self.0.changed.notified();
            let grace = self.grace().unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep_until(start + grace) => return,
                () = changed => {}
            }
        }
    }

    /// Each change of it is complete before the lock is given back.
    fn grace(&self) -> MutexGuard<'_, Option<Duration>> {
        self.0.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stop({})", self.is_triggered())
    }
}
