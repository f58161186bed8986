//! Work that may block, on a bounded number of threads: whoever waits for a lock does not wait for it.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::Semaphore;

/// How much less urgent this work is than that of the engine and the door, as the niceness of its threads: where processors
/// are short, it gets a tenth of what they get.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Lets other threads go first from here on: this one only does such work.
fn yield_to_others() {
    // Linux does this for the calling thread alone. Where it is not allowed, the work is as urgent as before.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// As many pieces of work at one time as there are permits; further ones wait. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct Blocking(Arc<Semaphore>);

impl Blocking {
    /// Room for so many pieces of work at one time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Does the work on a thread that may block. Dropping the future does not end work that has begun: it keeps its
    /// room until it is done.
    ///
    /// # Errors
    /// The work has panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.context("no more work is done")?;
        let working = tokio::task::spawn_blocking(move || {
            yield_to_others();
            let done = work();
            drop(permit);
            done
        });
        working.await.context("it has failed: this is a bug in locker")
    }
}
