//! Work that may block, on a bounded number of threads.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::Semaphore;

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
            let done = work();
            drop(permit);
            done
        });
        working.await.context("it has failed: this is a bug in locker")
    }
}
