//! How the engine tells the planner that something has changed, and how the threads are stopped.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Cheap to clone; clones are the same. The default is of a server that notifies nobody.
#[derive(Clone, Default)]
pub struct Bell(Option<Arc<Inner>>);

#[derive(Default)]
struct Inner {
    rung: Mutex<Rung>,
    planner: Condvar,
    senders: Condvar,
}

#[derive(Default)]
struct Rung {
    news: bool,
    stop: bool,
    /// Senders of an earlier generation stop: the file of targets was read again.
    generation: u64,
    /// The targets whose senders have ended.
    idle: Vec<String>,
}

/// Why the planner goes on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    pub stop: bool,
    pub news: bool,
    pub idle: Vec<String>,
}

impl Bell {
    /// For a server that notifies somebody.
    #[must_use]
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    fn rung(inner: &Inner) -> MutexGuard<'_, Rung> {
        inner.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are new entries. Called by the engine after each commit with some.
    pub fn changed(&self) {
        if let Some(inner) = &self.0 {
            // Once is enough until the planner looks.
            if !std::mem::replace(&mut Self::rung(inner).news, true) {
                inner.planner.notify_one();
            }
        }
    }

    /// Stops all threads. A sender ends after its request.
    pub(super) fn stop(&self) {
        let Some(inner) = &self.0 else { return };
        Self::rung(inner).stop = true;
        inner.planner.notify_all();
        inner.senders.notify_all();
    }

    /// Stops the senders. Returns the generation of the next ones.
    pub(super) fn next_generation(&self) -> u64 {
        let Some(inner) = &self.0 else { return 0 };
        let mut rung = Self::rung(inner);
        rung.generation += 1;
        inner.senders.notify_all();
        rung.generation
    }

    /// A sender has ended.
    pub(super) fn idle(&self, target: String) {
        let Some(inner) = &self.0 else { return };
        Self::rung(inner).idle.push(target);
        inner.planner.notify_one();
    }

    /// The planner waits until there is something to do, at most for `span`.
    pub(super) fn wait(&self, span: Duration) -> Woken {
        let Some(inner) = &self.0 else { return Woken { stop: true, ..Woken::default() } };
        let rests = |rung: &mut Rung| !rung.stop && !rung.news && rung.idle.is_empty();
        let waited = inner.planner.wait_timeout_while(Self::rung(inner), span, rests);
        let mut rung = waited.unwrap_or_else(PoisonError::into_inner).0;
        Woken { stop: rung.stop, news: std::mem::take(&mut rung.news), idle: std::mem::take(&mut rung.idle) }
    }

    /// The planner pauses, whatever happens but the stop.
    pub(super) fn pause(&self, span: Duration) {
        let Some(inner) = &self.0 else { return };
        let waited = inner.planner.wait_timeout_while(Self::rung(inner), span, |rung| !rung.stop);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// A sender pauses. Returns whether it must stop.
    pub(super) fn rest(&self, span: Duration, generation: u64) -> bool {
        let Some(inner) = &self.0 else { return true };
        let stays = |rung: &mut Rung| !rung.stop && rung.generation == generation;
        let waited = inner.senders.wait_timeout_while(Self::rung(inner), span, stays);
        let mut rung = waited.unwrap_or_else(PoisonError::into_inner).0;
        !stays(&mut rung)
    }
}
