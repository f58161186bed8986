//! Released latches that are not done yet, and when each is looked at again. Pure: times and random bytes come in.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::latch::LatchView;

/// First pause before a latch, or a cluster in trouble, is looked at again.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause where somebody has to do something first, and where a cluster stays away.
pub const LONG_PAUSE: Duration = Duration::from_secs(300);

/// One of them.
#[derive(Debug, Clone)]
pub struct Entry {
    pub latch: LatchView,
    /// When the workflow was first found missing, without a break since.
    pub missing_since: Option<Duration>,
    /// What was said about it last: the same is not said again.
    pub said: String,
    looks: u32,
    due: Duration,
}

/// All of them, by id.
#[derive(Debug, Default)]
pub struct Backlog {
    entries: BTreeMap<String, Entry>,
    failures: u32,
    /// The cluster is left alone until then.
    cluster_due: Duration,
}

/// A pause that doubles from [`FIRST_PAUSE`] with each failure to `most`, less or more by up to a quarter.
#[must_use]
pub fn pause(failures: u32, most: Duration, random: u8) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX));
    let pause = doubled.min(most.max(FIRST_PAUSE));
    pause * 3 / 4 + pause * u32::from(random) / 510
}

impl Backlog {
    /// These are all there are. What was known of them stays known.
    pub fn replace(&mut self, latches: Vec<LatchView>, now: Duration) {
        let mut old = std::mem::take(&mut self.entries);
        for latch in latches {
            let known = old.remove(&latch.id);
            self.insert(latch, known, now);
        }
    }

    /// These are there as well.
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

    /// Those that are due, the longest waiting first.
    #[must_use]
    pub fn due(&self, now: Duration) -> Vec<String> {
        let mut due: Vec<&Entry> = self.entries.values().filter(|entry| entry.due <= now).collect();
        due.sort_by_key(|entry| entry.due);
        due.into_iter().map(|entry| entry.latch.id.clone()).collect()
    }

    /// When the next one is due.
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

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Looks at this one again later, and each time later.
    pub fn later(&mut self, id: &str, most: Duration, now: Duration, random: u8) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.due = now + pause(entry.looks, most, random);
            entry.looks = entry.looks.saturating_add(1);
        }
    }

    /// The cluster gave no answer.
    pub fn trouble(&mut self, now: Duration, random: u8) {
        self.cluster_due = now + pause(self.failures, LONG_PAUSE, random);
        self.failures = self.failures.saturating_add(1);
    }

    /// The cluster answers; whether it did not before.
    pub fn answered(&mut self) -> bool {
        self.cluster_due = Duration::ZERO;
        std::mem::take(&mut self.failures) > 0
    }

    /// Whether the cluster is left alone.
    #[must_use]
    pub fn is_troubled(&self, now: Duration) -> bool {
        self.cluster_due > now
    }
}

/// A server that cannot keep a binding does not show it; it is not forgotten here.
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
    fn pauses_double_to_their_bound_and_vary_by_a_quarter() {
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
    fn one_that_waits_holds_up_no_other() {
        let mut backlog = Backlog::default();
        backlog.replace(vec![latch("a"), latch("b")], s(10));
        assert_eq!(backlog.due(s(10)), ["a", "b"]);
        backlog.later("a", s(60), s(10), 0);
        assert_eq!(backlog.due(s(10)), ["b"]);
        backlog.later("a", s(60), s(10), 0);
        assert_eq!(backlog.get("a").unwrap().due, s(10) + s(2) * 3 / 4);
        backlog.trouble(s(10), 0);
        assert!(backlog.is_troubled(s(10)));
        assert_eq!(backlog.next(), Some(s(10) + s(1) * 3 / 4), "nobody is asked before");
        assert!(backlog.answered());
        assert!(!backlog.answered());
        assert_eq!(backlog.next(), Some(s(10)));
    }

    #[test]
    fn a_new_listing_forgets_what_is_gone_and_nothing_else() {
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
