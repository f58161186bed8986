//! What a put does, according to its params.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::names::{LockName, PoolName};
use crate::wire::api::{PartBody, Scope};

/// What a put does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `acquire`, `claim`, `lock_op: lock`.
    Ask(Box<Ask>),
    /// `acquire: false` or an empty `claim`, with `optional: true`: continues without a lock.
    Nothing {
        /// The param that caused this, for people.
        why: &'static str,
    },
    Release {
        what: Release,
        /// At once, even if the build may run again.
        now: bool,
    },
    /// `add` and `add_claimed`: the directory with the files `name` and `metadata`.
    Add { dir: String, labels: BTreeMap<String, String>, how: Adding },
    /// `remove`: the directory with the file `name` and, if our `in` wrote it, `claim`.
    Remove { dir: String },
    /// `update`: the directory with the files `name` and `metadata`.
    Update { dir: String, labels: BTreeMap<String, String>, watch: Watch },
    /// `check`: waits until nobody holds the lock.
    Check { dir: String, watch: Watch },
    /// `check_unclaimed`: waits until someone holds the lock.
    CheckUnclaimed { dir: String, watch: Watch },
    /// `verify`: succeeds if the hold of this directory still lasts.
    Verify { dir: String },
    /// `lock_op: unlock`.
    Unlock {
        /// At once, even if the build may run again.
        now: bool,
        key: String,
        requestor: String,
    },
}

/// How a put adds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adding {
    /// It must not exist yet.
    New,
    /// `replace: true`: if it exists and nobody holds it, its metadata and labels are replaced.
    Replacing,
    /// `remove_from: POOL`: the lock moves here from that pool, where its hold ends.
    MovingFrom(PoolName),
    /// `add_claimed`.
    Claimed(AddClaimed),
}

/// The claim that `add_claimed` creates together with the lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddClaimed {
    pub name: Option<String>,
    pub scope: Option<Scope>,
    pub ttl: Option<Duration>,
}

/// How long a put waits for a lock to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    /// The longest wait.
    pub timeout: Option<Duration>,
    /// Keep waiting even if this build itself holds the lock: another of its steps may release it.
    pub self_wait: bool,
}

/// What a put releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// A directory that our `in` wrote, or any directory with a file `name`.
    Dir(String),
    /// The holder of this lock, whoever that is.
    Lock(LockChoice),
    /// Everything that this build has in the pool, or only the claim that it made `as` this name.
    Build { name: Option<String> },
}

/// A lock by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockChoice {
    Named(LockName),
    /// `{file: DIRECTORY/FILE}`: the name is not known before the step runs.
    InFile(InputFile),
}

/// A file in an input of the put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    pub dir: String,
    pub file: String,
}

/// What a put requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The lock by name. If missing, any lock that matches.
    pub lock: Option<LockChoice>,
    /// If the file names no lock, continue without one.
    pub optional: bool,
    pub count: Option<u32>,
    pub labels: BTreeMap<String, String>,
    pub also: Vec<PartBody>,
    pub key: Option<String>,
    pub requestor: Option<String>,
    /// Identifies the claim, so that every container of the build gets the same one.
    pub name: Option<String>,
    pub scope: Option<Scope>,
    pub ttl: Option<Duration>,
    /// The longest wait.
    pub timeout: Option<Duration>,
    /// False: fail if no lock is free now.
    pub queue: bool,
    /// Keep waiting even if this build itself holds the locks: another of its steps may release them.
    pub self_wait: bool,
    pub priority: Option<i32>,
    /// A newer waiting claim with this name ends the older ones.
    pub supersede: Option<String>,
}
