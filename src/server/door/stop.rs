//! The switch that stops the door.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// The switch that stops the door. Clones are the same switch. Any thread may trigger it, and it stays triggered.
#[derive(Clone)]
pub struct Stop(Arc<watch::Sender<Option<Duration>>>);

impl Stop {
    /// A new switch, not triggered.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Stops the door. Requests in flight may end within `grace`. Never blocks. If it is called more than once, the
    /// shortest grace counts.
    pub fn trigger(&self, grace: Duration) {
        self.0.send_modify(|current| *current = Some(current.map_or(grace, |c| c.min(grace))));
    }

    /// Whether it has been triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until it is triggered. Returns at once if it already is. Safe to cancel.
    pub async fn triggered(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until the grace is over, even if it is shortened in the meantime. Safe to cancel.
    pub(super) async fn grace_is_over(&self) {
        self.triggered().await;
        let start = tokio::time::Instant::now();
        let mut changes = self.0.subscribe();
        loop {
            let grace = (*changes.borrow_and_update()).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep_until(start + grace) => return,
                _ = changes.changed() => {}
            }
        }
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
