//! Listings. A short one is made in the task of its client, a long one on one of a few threads that may block: a client
//! shares its thread with others, who would wait behind it.

use super::failure::Failure;
use crate::core::pool::Pool;
use crate::core::state::Snapshot;
use crate::server::auth::access::Caller;
use crate::server::blocking::{Blocking, Urgency};
use crate::server::engine::Engine;
use crate::server::limits::{LISTERS, SHORT_LISTING};
use crate::server::views::Viewer;
use crate::wire::errors::Code;

/// Makes listings.
#[derive(Clone)]
pub(super) struct Browser(Blocking);

impl Default for Browser {
    fn default() -> Self {
        Self(Blocking::new(LISTERS, Urgency::Low))
    }
}

impl Browser {
    /// Looks at the newest snapshot: here, unless `is_long` says that there is much to look at or to show.
    pub async fn look<T: Send + 'static>(
        &self,
        engine: &Engine,
        caller: &Caller,
        is_long: impl FnOnce(&Snapshot) -> bool,
        look: impl FnOnce(&Viewer<'_>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let is_long = is_long(&engine.snapshot());
        let (engine, caller) = (engine.clone(), caller.clone());
        let look = move || look(&Viewer { snapshot: &engine.snapshot(), now: engine.now(), caller: &caller });
        self.work(is_long, look).await
    }

    /// Does work here, or on a thread that may block if it `is_long`. Dropping the future does not end work that has
    /// begun.
    pub async fn work<T: Send + 'static>(
        &self,
        is_long: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if !is_long {
            return Ok(work());
        }
        let failed = |_| Failure::new(Code::Internal, "the listing cannot be made: this is a bug in locker");
        self.0.run(work).await.map_err(failed)
    }
}

/// Whether a listing of so many things is long.
pub(super) fn is_long(things: usize) -> bool {
    things > SHORT_LISTING
}

/// Whether these pools have so many locks and waiters.
pub(super) fn are_long<'p>(pools: impl Iterator<Item = &'p Pool>) -> bool {
    let mut things = 0;
    for pool in pools {
        things += 1 + pool.locks.len() + pool.waiting.len();
        if is_long(things) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn long_listings_are_made_elsewhere_a_few_at_a_time() {
        let (browser, here) = (Browser::default(), std::thread::current().id());
        let place = || std::thread::current().id();
        assert_eq!(browser.work(is_long(SHORT_LISTING), place).await.unwrap(), here);
        assert_ne!(browser.work(is_long(SHORT_LISTING + 1), place).await.unwrap(), here);
        // All threads are busy with long listings: further ones wait, short ones and everything else do not.
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let (browser, started) = (Arc::new(browser), Arc::new(Semaphore::new(0)));
        let tasks: Vec<_> = (0..LISTERS)
            .map(|_| {
                let (browser, gate, started) = (Arc::clone(&browser), Arc::clone(&gate), Arc::clone(&started));
                tokio::spawn(async move {
                    let wait = move || {
                        started.add_permits(1);
                        gate.lock().unwrap().recv()
                    };
                    drop(browser.work(true, wait).await);
                })
            })
            .collect();
        started.acquire_many(u32::try_from(LISTERS).unwrap()).await.unwrap().forget();
        assert!(tokio::time::timeout(Duration::from_millis(50), browser.work(true, place)).await.is_err());
        assert_eq!(browser.work(false, place).await.unwrap(), here);
        drop(go);
        for task in tasks {
            task.await.unwrap();
        }
        assert!(browser.work(true, place).await.is_ok());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_listing_that_panics_is_an_error() {
        let browser = Browser::default();
        for _ in 0..=LISTERS {
            let failure = browser.work(true, || panic!("planted")).await.unwrap_err();
            assert_eq!(failure.code, Code::Internal);
        }
    }
}
