//! What was done and seen: the record that the checkers judge (`checker`).
//!
//! Time is nanoseconds on one monotonic clock of the test process. If an operation took effect, it did so between
//! `invoke` and `done`, or, when no answer came (`done: None`), between `invoke` and the death of the server process
//! that it was sent to.

use std::collections::{BTreeMap, BTreeSet};

pub type Nanos = u64;

/// A pool and one of its locks.
pub type LockRef = (String, String);

/// What a claim id always asks for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Claims with the same key may hold a lock together.
    pub key: Option<String>,
    pub requestor: Option<String>,
    /// The grant must be confirmed.
    pub confirm: bool,
    /// False for a try-lock.
    pub queue: bool,
    pub wants: Vec<Want>,
}

/// What a claim asks of one pool.
#[derive(Debug, Clone)]
pub enum Want {
    Any { pool: String, count: u32 },
    Named { pool: String, locks: BTreeSet<String> },
}

impl Want {
    pub fn pool(&self) -> &str {
        match self {
            Self::Any { pool, .. } | Self::Named { pool, .. } => pool,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Ask,
    Confirm,
    /// Cancel or release.
    End,
    /// Changes nothing.
    Look,
    /// Like `Look`, but after a restart and before any client is admitted.
    Audit,
    /// The client neglects its claim: from now on it may lose its turn.
    Neglect,
}

/// What an answer says about the claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// No answer came: the operation may have happened or not.
    Nothing,
    Waiting {
        life: u32,
    },
    Granted {
        life: u32,
        fence: u64,
        locks: Vec<LockRef>,
    },
    Held {
        life: u32,
        fence: u64,
        locks: Vec<LockRef>,
    },
    Ended {
        life: u32,
        how: String,
        fence: Option<u64>,
    },
    /// The id is not known, or a try-lock left no claim.
    Absent,
    /// Not among the live claims: it has ended or never existed.
    NotLive,
    /// Refused with this code and without effect. It says nothing about the claim's state.
    Refused(String),
}

#[derive(Debug, Clone)]
pub struct Op {
    pub client: usize,
    pub call: Call,
    pub id: String,
    pub run: Option<String>,
    /// The fence that a `Confirm` names.
    pub given: Option<u64>,
    pub invoke: Nanos,
    pub done: Option<Nanos>,
    /// Which life of the server it was sent to, from 0.
    pub server: usize,
    pub seen: Seen,
}

/// A whole run.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub asked: BTreeMap<String, Asked>,
    pub ops: Vec<Op>,
    /// When each life of the server was ready for clients.
    pub ready: Vec<Nanos>,
    /// When each life of the server was known to be dead.
    pub deaths: Vec<Nanos>,
    /// A client that pauses this long may have lost a grant, so the order rule (I5) leaves it out.
    pub attention: Nanos,
}

impl Seen {
    pub fn life(&self) -> Option<u32> {
        match self {
            Self::Waiting { life }
            | Self::Granted { life, .. }
            | Self::Held { life, .. }
            | Self::Ended { life, .. } => Some(*life),
            Self::Nothing | Self::Absent | Self::NotLive | Self::Refused(_) => None,
        }
    }

    /// The grant that it shows.
    pub fn grant(&self) -> Option<(u32, u64, &[LockRef])> {
        match self {
            Self::Granted { life, fence, locks } | Self::Held { life, fence, locks } => Some((*life, *fence, locks)),
            _ => None,
        }
    }

    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }

    /// Whether it shows the state of the claim.
    pub fn is_view(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Refused(_))
    }
}

impl Op {
    /// Whether it may have changed the claim.
    pub fn may_act(&self) -> bool {
        match (self.call, &self.seen) {
            // It may have begun a life and waited, until a newer process came.
            (Call::Ask, Seen::Refused(code)) if code == "superseded_run" => true,
            (Call::Look | Call::Audit | Call::Neglect, _) | (_, Seen::Refused(_)) => false,
            // An `Ask` that finds an ended claim may have begun the life that has ended since.
            (Call::Confirm, Seen::Ended { .. }) | (Call::Ask | Call::Confirm, Seen::Absent) => false,
            (Call::Ask | Call::Confirm | Call::End, _) => true,
        }
    }
}

impl History {
    /// The last moment at which the operation may take effect.
    pub fn over(&self, op: &Op) -> Nanos {
        op.done.unwrap_or_else(|| self.deaths.get(op.server).copied().unwrap_or(Nanos::MAX))
    }

    /// The operations of each claim, in the order in which they were sent.
    pub fn by_claim(&self) -> BTreeMap<&str, Vec<&Op>> {
        let mut claims: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
        for op in &self.ops {
            claims.entry(&op.id).or_default().push(op);
        }
        for ops in claims.values_mut() {
            ops.sort_by_key(|op| op.invoke);
        }
        claims
    }

    /// Distinct grants that were seen.
    pub fn grants(&self) -> usize {
        let fences: BTreeSet<u64> = self.ops.iter().filter_map(|op| Some(op.seen.grant()?.1)).collect();
        fences.len()
    }
}
