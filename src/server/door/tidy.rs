//! Gives memory back to the system once a crowd has left.
//!
//! The allocator (mimalloc) keeps freed memory for a second, and then returns it when a thread allocates much or ends.
//! On a server that has become quiet nobody does either, so a thread is started that ends at once.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{Door, limits};

/// Looks from now on. Ends with the door.
pub(super) async fn keep_tidy(door: Arc<Door>) {
    let mut looks = interval(Duration::from_millis(limits::DOOR_TIDY_MS));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut plan = Plan::default();
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = door.desk.stop().triggered() => return,
        }
        let freed = [&door.memory, &door.held, &door.answers].into_iter().map(|budget| budget.freed()).sum();
        if plan.is_due(freed) {
            // If the system cannot start a thread now, the next look comes soon.
            let _ = thread::Builder::new().name("tidy".into()).spawn(|| drop(Box::new([0_u8; 64])));
        }
    }
}

/// When to give memory back.
#[derive(Default)]
struct Plan {
    /// In how many of the next looks.
    left: u32,
}

impl Plan {
    /// Whether to do so in this look. `freed` are the bytes that were freed since the last one.
    fn is_due(&mut self, freed: usize) -> bool {
        let is_due = self.left > 0;
        self.left = self.left.saturating_sub(1);
        if freed >= limits::DOOR_TIDY_BYTES {
            self.left = limits::DOOR_TIDY_LOOKS;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_much_was_freed() {
        let mut plan = Plan::default();
        let much = limits::DOOR_TIDY_BYTES;
        let freed = [0, 10, much, 0, much - 1, 0, 0, much, much, 0, 0, 0, 0];
        let due: Vec<bool> = freed.into_iter().map(|freed| plan.is_due(freed)).collect();
        let expected = [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0];
        assert_eq!(due, expected.map(|due| due == 1));
    }
}
