//! What a put does, as its params say.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::names::LockName;
use crate::wire::api::{PartBody, Scope};

/// What a put does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `acquire`, `claim`, `lock_op: lock`.
    Ask(Box<Ask>),
    /// `acquire: false` or an empty `claim`, with `optional: true`: goes on without a lock.
    Nothing {
        /// The param that says so, for people.
        why: &'static str,
    },
    Release(Release),
    /// `add` and `add_claimed`: the directory with the files `name` and `metadata`.
    Add {
        dir: String,
        labels: BTreeMap<String, String>,
        claimed: Option<AddClaimed>,
    },
    /// `remove`: the directory with the file `name` and, from our `in`, `claim`.
    Remove {
        dir: String,
    },
    /// `update`: the directory with the files `name` and `metadata`.
    Update {
        dir: String,
        labels: BTreeMap<String, String>,
        watch: Watch,
    },
    /// `check`: waits until nobody has the lock.
    Check {
        dir: String,
        watch: Watch,
    },
    /// `check_unclaimed`: waits until somebody has the lock.
    CheckUnclaimed {
        dir: String,
        watch: Watch,
    },
    /// `verify`: succeeds while the hold of this directory lasts.
    Verify {
        dir: String,
    },
    /// `lock_op: unlock`.
    Unlock {
        key: String,
        requestor: String,
    },
}

/// The claim that a lock of `add_claimed` comes with.
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
    /// Keep waiting even for a lock that this build itself holds: another step of it may release that.
    pub self_wait: bool,
}

/// What is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// The directory that our `in` (or somebody else's file `name`) has made.
    Dir(String),
    /// Whoever holds this lock.
    Lock(LockChoice),
    /// Everything of this build in the pool, or what it has taken `as` a name.
    Build { name: Option<String> },
}

/// A lock by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockChoice {
    Named(LockName),
    /// `{file: DIRECTORY/FILE}`: the name is known only when the step runs.
    InFile(InputFile),
}

/// A file in an input of the put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    pub dir: String,
    pub file: String,
}

/// What a put asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The lock by name; any that matches when missing.
    pub lock: Option<LockChoice>,
    /// A file that names no lock means to go on without one.
    pub optional: bool,
    pub count: Option<u32>,
    pub labels: BTreeMap<String, String>,
    pub also: Vec<PartBody>,
    pub key: Option<String>,
    pub requestor: Option<String>,
    /// Makes the claim the same in every container of the build.
    pub name: Option<String>,
    pub scope: Option<Scope>,
    pub ttl: Option<Duration>,
    /// The longest wait.
    pub timeout: Option<Duration>,
    /// False: fail if it is not free now.
    pub queue: bool,
    /// Keep waiting even for locks that this build itself holds: another step of it may release them.
    pub self_wait: bool,
    pub priority: Option<i32>,
    /// A newer waiting claim of this name ends older ones.
    pub supersede: Option<String>,
}
