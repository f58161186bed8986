//! Released latches that are not done yet, and when to look at each one again. Pure: times and random bytes are inputs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::latch::LatchView;

/// The first pause before a latch, or a failing cluster, is tried again.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause while someone has to act first, or while a cluster does not answer.
pub const LONG_PAUSE: Duration = Duration::from_secs(300);

/// A latch in the backlog.
#[derive(Debug, Clone)]
pub struct Entry {
    pub latch: LatchView,
    /// Since when the workflow has been missing without a break.
    pub missing_since: Option<Duration>,
    /// The last message about it, so that it is not repeated.
    pub said: String,
    looks: u32,
    due: Duration,
}

/// All latches, by id.
#[derive(Debug, Default)]
pub struct Backlog {
    entries: BTreeMap<String, Entry>,
    failures: u32,
    /// No call to the cluster before this time.
    cluster_due: Duration,
}

/// A pause that doubles with each failure, from [`FIRST_PAUSE`] to `most`, and varies by up to a quarter in either
/// direction.
#[must_use]
pub fn pause(failures: u32, most: Duration, random: u8) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX));
    let pause = doubled.min(most.max(FIRST_PAUSE));
    pause * 3 / 4 + pause * u32::from(random) / 510
}

impl Backlog {
    /// Replaces the latches by a full listing. Keeps what is known about those that remain.
    pub fn replace(&mut self, latches: Vec<LatchView>, now: Duration) {
        let mut old = std::mem::take(&mut self.entries);
        for latch in latches {
            let known = old.remove(&latch.id);
            self.insert(latch, known, now);
        }
    }

    /// Adds latches.
    pub fn add(&mut self, latches: Vec<LatchView>, now: Duration) {
        for latch in latches {
            let known = self.entries.remove(&latch.id);
            self.insert(latch, known, now);
        }
    }

    fn insert(&mut self, latch: LatchView, known: Option<Entry>, now: Duration) {
        let entry = match known {
            Some(known) => Entry { latch: merge(latch, &known.latch), ..known },
            None => Entry { latch, missing_since: None, said: String::new(), looks: 0, due: now },
        };
        self.entries.insert(entry.latch.id.clone(), entry);
    }

    /// The latches that are due, in order of their due time.
    #[must_use]
    pub fn due(&self, now: Duration) -> Vec<String> {
        let mut due: Vec<&Entry> = self.entries.values().filter(|entry| entry.due <= now).collect();
        due.sort_by_key(|entry| entry.due);
        due.into_iter().map(|entry| entry.latch.id.clone()).collect()
    }

    /// When the next latch is due.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.entries.values().map(|entry| entry.due).min().map(|due| due.max(self.cluster_due))
    }

    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }

    pub fn remove(&mut self, id: &str) {
        self.entries.remove(id);
    }

    /// The number of latches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Postpones a latch, longer each time.
    pub fn later(&mut self, id: &str, most: Duration, now: Duration, random: u8) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.due = now + pause(entry.looks, most, random);
            entry.looks = entry.looks.saturating_add(1);
        }
    }

    /// Records that the cluster gave no answer.
    pub fn trouble(&mut self, now: Duration, random: u8) {
        self.cluster_due = now + pause(self.failures, LONG_PAUSE, random);
        self.failures = self.failures.saturating_add(1);
    }

    /// Records that the cluster answered. Returns whether it had failed before.
    pub fn answered(&mut self) -> bool {
        self.cluster_due = Duration::ZERO;
        std::mem::take(&mut self.failures) > 0
    }

    /// Whether the cluster must be left alone for now.
    #[must_use]
    pub fn is_troubled(&self, now: Duration) -> bool {
        self.cluster_due > now
    }
}

/// A server that cannot store a binding does not return it, so it is kept here.
fn merge(new: LatchView, old: &LatchView) -> LatchView {
    let node = new.node.clone().or_else(|| old.node.clone());
    let workflow_uid = new.workflow_uid.clone().or_else(|| old.workflow_uid.clone());
    LatchView { workflow_uid, node, ..new }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::latch::{LatchStatus, NodeView};

    fn latch(id: &str) -> LatchView {
        LatchView {
            id: id.to_owned(),
            status: LatchStatus::Released,
            workflow: "w".to_owned(),
            namespace: "n".to_owned(),
            created: String::new(),
            last_change: String::new(),
            workflow_uid: None,
            node: None,
            outputs: BTreeMap::new(),
            on_release: None,
        }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_their_limit_and_vary_by_a_quarter() {
        let most = s(60);
        let table = [(0, 1), (1, 2), (3, 8), (5, 32), (6, 60), (40, 60), (u32::MAX, 60)];
        for (failures, seconds) in table {
            assert_eq!(pause(failures, most, 0), s(seconds) * 3 / 4);
            let longest = pause(failures, most, 255);
            assert!(longest <= s(seconds) * 5 / 4 && longest > s(seconds) * 6 / 5, "{longest:?}");
        }
        assert_eq!(pause(9, Duration::ZERO, 0), FIRST_PAUSE * 3 / 4, "never hot");
    }

    #[test]
    fn a_waiting_latch_does_not_delay_the_others() {
        let mut backlog = Backlog::default();
        backlog.replace(vec![latch("a"), latch("b")], s(10));
        assert_eq!(backlog.due(s(10)), ["a", "b"]);
        backlog.later("a", s(60), s(10), 0);
        assert_eq!(backlog.due(s(10)), ["b"]);
        backlog.later("a", s(60), s(10), 0);
        assert_eq!(backlog.get("a").unwrap().due, s(10) + s(2) * 3 / 4);
        backlog.trouble(s(10), 0);
        assert!(backlog.is_troubled(s(10)));
        assert_eq!(backlog.next(), Some(s(10) + s(1) * 3 / 4), "no call before that");
        assert!(backlog.answered());
        assert!(!backlog.answered());
        assert_eq!(backlog.next(), Some(s(10)));
    }

    #[test]
    fn a_new_listing_forgets_only_what_is_gone() {
        let mut backlog = Backlog::default();
        backlog.replace(vec![latch("a"), latch("b")], s(1));
        backlog.later("a", s(60), s(1), 0);
        backlog.get_mut("a").unwrap().latch.node = Some(NodeView::Id { id: "x".to_owned() });
        backlog.replace(vec![latch("a"), latch("c")], s(5));
        assert_eq!((backlog.len(), backlog.get("b").is_none()), (2, true));
        let a = backlog.get("a").unwrap();
        assert_eq!((a.looks, a.due), (1, s(1) + FIRST_PAUSE * 3 / 4));
        assert!(a.latch.node.is_some(), "a binding that the server does not show");
        backlog.add(vec![latch("d")], s(6));
        assert_eq!(backlog.len(), 3);
    }
}
