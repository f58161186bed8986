//! The latches of a state.

use std::sync::Arc;

use super::{State, Timer};
use crate::core::latch::{Latch, LatchId};

impl State {
    /// Stores a latch, new or changed, and keeps its indexes up to date.
    pub(in crate::core) fn put_latch(&mut self, latch: Latch) {
        self.unindex_latch(latch.id);
        if let Some(released) = latch.released() {
            self.set_timer(released.forget, Timer::Latch(latch.id));
            self.snapshot.released_latches.insert((released.revision, latch.id));
        }
        self.dirty.latches.insert(latch.id);
        self.snapshot.latches.insert(latch.id, Arc::new(latch));
    }

    pub(in crate::core) fn remove_latch(&mut self, id: LatchId) {
        self.unindex_latch(id);
        self.dirty.latches.insert(id);
        self.snapshot.latches.remove(&id);
    }

    fn unindex_latch(&mut self, id: LatchId) {
        let released = self.snapshot.latches.get(&id).and_then(|latch| latch.released().copied());
        if let Some(released) = released {
            self.unset_timer(released.forget.at, Timer::Latch(id));
            self.snapshot.released_latches.remove(&(released.revision, id));
        }
    }
}
