//! Work that may block, on a bounded number of threads: whoever waits for a lock does not wait for it.

use std::sync::Arc;
use std::thread;

use anyhow::Context;
use tokio::sync::{Semaphore, oneshot};

use crate::priority;

/// How urgent a kind of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody who wants a lock may wait for it: it gets its share of the processors.
    Normal,
    /// Only who looks at something waits for it. It gets a processor that is idle, and at once gives it back to whoever
    /// wakes up (`SCHED_IDLE` of Linux); where none is ever idle, about a hundredth of one.
    Low,
}

/// As many pieces of work at one time as there are permits; further ones wait. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct Blocking {
    room: Arc<Semaphore>,
    urgency: Urgency,
}

impl Blocking {
    /// Room for so many pieces of such work at one time.
    #[must_use]
    pub fn new(most: usize, urgency: Urgency) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), urgency }
    }

    /// Does the work on a thread of its own, since a thread that has once let others go first cannot take that back.
    /// Dropping the future does not end work that has begun: it keeps its room until it is done.
    ///
    /// # Errors
    /// The work has panicked, or there is no thread for it.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let permit = Arc::clone(&self.room).acquire_owned().await.context("no more work is done")?;
        let urgency = self.urgency;
        let (tell, told) = oneshot::channel();
        let work = move || {
            if urgency == Urgency::Low {
                priority::lowest();
            }
            let done = work();
            drop(permit);
            // Nobody may wait for it any more.
            let _ = tell.send(done);
        };
        thread::Builder::new().name("locker-work".to_owned()).spawn(work).context("there is no thread for it")?;
        told.await.context("it has failed: this is a bug in locker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_work_of_low_urgency_lets_others_go_first() {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadSchedulePolicy, thread_schedule_policy};

        let before = thread_schedule_policy().unwrap();
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        for (urgency, expected) in [(Urgency::Low, idle), (Urgency::Normal, before)] {
            let work = Blocking::new(1, urgency);
            assert_eq!(work.run(thread_schedule_policy).await.unwrap().unwrap(), expected, "{urgency:?}");
        }
        assert_eq!(thread_schedule_policy().unwrap(), before, "the caller's own");
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_room_back() {
        let work = Blocking::new(1, Urgency::Normal);
        assert!(work.run(|| panic!("planted")).await.is_err());
        assert_eq!(work.run(|| 7).await.unwrap(), 7);
    }
}
