//! What a receiver of notifications gets as JSON (docs/notifications.md#json).

use serde::{Deserialize, Serialize};

use super::api::{LockRef, Owner};

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A claim has waited for longer than the target's limit.
    LongWait,
    /// A claim has held its locks for longer than the target's limit.
    LongHold,
    /// For longer than the target's limit nobody knows whether the build of a claim is alive.
    Suspect,
    Lost,
    Broken,
    Deadlock,
    SelfWait,
    Quarantined,
    Returned,
    /// Something was left out: the history has it, or had it.
    Missed,
    /// `locker notify test` was called.
    Test,
}

impl Event {
    /// The events that a target names, because they have no limit of their own.
    pub const NAMED: [Self; 6] =
        [Self::Lost, Self::Broken, Self::Deadlock, Self::SelfWait, Self::Quarantined, Self::Returned];

    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::LongWait => "long_wait",
            Self::LongHold => "long_hold",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
            Self::Broken => "broken",
            Self::Deadlock => "deadlock",
            Self::SelfWait => "self_wait",
            Self::Quarantined => "quarantined",
            Self::Returned => "returned",
            Self::Missed => "missed",
            Self::Test => "test",
        }
    }
}

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The same each time that it is sent.
    pub id: String,
    pub event: Event,
    /// When it happened, or when the limit was passed.
    pub at: String,
    /// One line for people.
    pub text: String,
    /// The page about it, if the file says where the server's pages are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    pub pools: Vec<String>,
    /// The locks that it is about, in (pool, lock) order.
    pub locks: Vec<LockRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// How the claim ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Of an entry of the history: who did it, as there; otherwise who is behind the claim.
    #[serde(default)]
    pub owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when the claim waits, holds or is suspect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The limit that was passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longer_than: Option<String>,
    /// The entry of the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json() {
        for event in Event::NAMED.into_iter().chain([Event::LongWait, Event::LongHold, Event::Suspect]) {
            assert_eq!(serde_json::to_value(event).unwrap(), event.word());
        }
    }
}
