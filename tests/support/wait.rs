//! The one wait of all tests: a condition is looked at until it holds.

use std::time::{Duration, Instant};

/// Longest that anything may take to come true; generous, because test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a look can bring: whether the condition holds, or the thing that was waited for.
pub trait Look {
    type Found;
    fn found(self) -> Option<Self::Found>;
}

impl Look for bool {
    type Found = ();
    fn found(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Look for Option<T> {
    type Found = T;
    fn found(self) -> Option<T> {
        self
    }
}

/// Looks until there is something to be seen, and returns it.
///
/// # Panics
/// When there is nothing within [`PATIENCE`]; `what` says what was waited for.
#[track_caller]
pub fn eventually<L: Look>(what: &str, mut look: impl FnMut() -> L) -> L::Found {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().found() {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
