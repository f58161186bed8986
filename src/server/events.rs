//! Who follows events, and when each of them is woken (`routes::events` says what they get).
//!
//! However many follow, the engine pays the same: it says that something has changed. A thread of its own then wakes
//! the followers, at once after a quiet time, and at most a few times a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::auth::sessions::SessionId;
use super::limits::{EVENTS_PACE_MS, FOLLOWERS};
use super::notices::Notices;
use crate::core::names::{ParkId, PoolName, Revision};

/// A request that follows events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// Only events of this pool.
    pub pool: Option<PoolName>,
    /// Whether it gets each entry of the history, or only the news that there is something new.
    pub entries: bool,
    /// It has everything up to this revision.
    pub after: Revision,
    /// When something was last sent to it.
    pub told: Instant,
    /// The session of the web page that has let it in, if any. Its answer ends with that session.
    pub session: Option<SessionId>,
    /// When its answer ends, so that the client asks again and proves again who it is.
    pub ends: Instant,
}

/// All who follow events. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Events(Arc<Inner>);

#[derive(Default)]
struct Inner {
    followers: Mutex<BTreeMap<ParkId, Follower>>,
    /// How many there are, so that the engine need not wait for anybody to know it.
    count: AtomicUsize,
    bell: Mutex<Bell>,
    rung: Condvar,
}

#[derive(Default)]
struct Bell {
    has_news: bool,
    is_over: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    /// Notes a new follower. `false` if there are too many.
    #[must_use]
    pub fn begin(&self, park: ParkId, follower: Follower) -> bool {
        let mut followers = locked(&self.0.followers);
        if followers.len() >= FOLLOWERS {
            return false;
        }
        followers.insert(park, follower);
        self.0.count.store(followers.len(), Ordering::SeqCst);
        true
    }

    /// The follower with this number.
    #[must_use]
    pub fn get(&self, park: ParkId) -> Option<Follower> {
        locked(&self.0.followers).get(&park).cloned()
    }

    /// What it has now.
    pub fn update(&self, park: ParkId, after: Revision, told: Instant) {
        if let Some(follower) = locked(&self.0.followers).get_mut(&park) {
            follower.after = after;
            follower.told = told;
        }
    }

    /// Its answer has ended, or its client has gone. Does nothing for a request that follows nothing.
    pub fn end(&self, park: ParkId) {
        if self.0.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut followers = locked(&self.0.followers);
        followers.remove(&park);
        self.0.count.store(followers.len(), Ordering::SeqCst);
    }

    /// How many follow.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Something has changed that followers may want to know of, or that ends what they get. Called by the engine for each batch: it costs the same for any number of followers.
    pub fn changed(&self) {
        if self.count() > 0 {
            locked(&self.0.bell).has_news = true;
            self.0.rung.notify_one();
        }
    }

    /// Starts the thread that wakes the followers. It ends when the returned value is dropped.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(&self, notices: Notices) -> std::io::Result<Waker> {
        let events = self.clone();
        let run = move || while events.wake_all(&notices) {};
        let thread = std::thread::Builder::new().name("events".into()).spawn(run)?;
        Ok(Waker { events: self.clone(), thread: Some(thread) })
    }

    /// Waits for news, wakes everybody, and pauses. `false` once it is over.
    fn wake_all(&self, notices: &Notices) -> bool {
        let bell = locked(&self.0.bell);
        let rung = self.0.rung.wait_while(bell, |bell| !bell.has_news && !bell.is_over);
        let mut bell = rung.unwrap_or_else(PoisonError::into_inner);
        if bell.is_over {
            return false;
        }
        bell.has_news = false;
        drop(bell);
        let parks: Vec<ParkId> = locked(&self.0.followers).keys().copied().collect();
        parks.into_iter().for_each(|park| notices.notify(park));
        let pause = Duration::from_millis(EVENTS_PACE_MS);
        let rung = self.0.rung.wait_timeout_while(locked(&self.0.bell), pause, |bell| !bell.is_over);
        !rung.unwrap_or_else(PoisonError::into_inner).0.is_over
    }
}

/// The thread that wakes the followers. Dropping this ends it.
pub struct Waker {
    events: Events,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Waker {
    fn drop(&mut self) {
        locked(&self.events.0.bell).is_over = true;
        self.events.0.rung.notify_all();
        // It does not panic, and if it did, there would be nothing left to end.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> Follower {
        let now = Instant::now();
        Follower { pool: None, entries: true, after: Revision(1), told: now, session: None, ends: now }
    }

    #[test]
    fn followers_are_bounded_and_woken() {
        let (events, notices) = (Events::default(), Notices::default());
        let waker = events.start(notices.clone()).unwrap();
        events.changed();
        assert!((0..FOLLOWERS as u64).all(|n| events.begin(ParkId(n), follower())));
        assert!(!events.begin(ParkId(u64::MAX), follower()));
        events.update(ParkId(7), Revision(5), Instant::now());
        assert_eq!(events.get(ParkId(7)).unwrap().after, Revision(5));
        let subscription = notices.subscribe(ParkId(7));
        events.changed();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(subscription.taken());
        // News within the pause is told after it.
        events.changed();
        runtime.block_on(subscription.taken());
        (0..FOLLOWERS as u64).for_each(|n| events.end(ParkId(n)));
        assert_eq!((events.count(), events.get(ParkId(7))), (0, None));
        drop(waker);
    }
}
