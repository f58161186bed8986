//! The one way to wait in all tests: check a condition until it holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest time that a condition may take. It is generous, because test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Sets a flag when it goes, also because of a panic. A scope waits for all its threads: those that look at the flag end
/// then, and the panic is told instead of a test that hangs.
pub struct SetsAtEnd<'f>(pub &'f AtomicBool);

impl Drop for SetsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The result of a check: whether the condition holds, or the value that the test waits for.
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

/// Checks until there is a result, and returns it.
///
/// # Panics
/// When there is no result within [`PATIENCE`]. `what` names the condition.
#[track_caller]
pub fn eventually<L: Look>(what: &str, look: impl FnMut() -> L) -> L::Found {
    within(PATIENCE, what, look)
}

/// The same, for something that may take longer or must not take that long.
#[track_caller]
pub fn within<L: Look>(patience: Duration, what: &str, mut look: impl FnMut() -> L) -> L::Found {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look().found() {
            return found;
        }
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
