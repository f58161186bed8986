//! The one table from an error's stable word to its HTTP status and to the exit code of the command line.

use serde::{Deserialize, Serialize};

/// Exit codes of `locker ...`; the resource's steps know only 0, 1 and those of signals.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Failed for a reason that no other code names.
    pub const FAILED: u8 = 1;
    /// The command line or its input is wrong.
    pub const USAGE: u8 = 2;
    /// The lock is held by others (try-lock), or the wait was over.
    pub const LOCKED: u8 = 3;
    /// What was named does not exist.
    pub const NOT_FOUND: u8 = 4;
    /// It conflicts with what is there, or has ended.
    pub const CONFLICT: u8 = 5;
    /// The server cannot be reached or cannot serve.
    pub const UNAVAILABLE: u8 = 6;
    /// The server refuses these credentials.
    pub const DENIED: u8 = 7;
    /// `locker run`: the lease was lost, and the command has been stopped or must not be trusted.
    pub const LOST: u8 = 8;
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $exit:ident;)*) => {
        /// The stable word of an error. Clients may decide on it; texts may change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Code {
            /// Every code, in the order of this table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word as it stands in answers.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// The HTTP status it travels with.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// The exit code of the command line for it.
            #[must_use]
            pub fn exit(self) -> u8 {
                match self { $(Self::$name => exit::$exit),* }
            }
        }
    };
}

codes! {
    /// The request cannot be understood: bad JSON, a bad name, an unknown field. `problems` lists all.
    BadRequest = "bad_request", 400, USAGE;
    /// No credentials, or wrong ones.
    Unauthorized = "unauthorized", 401, DENIED;
    /// These credentials may not do this.
    Forbidden = "forbidden", 403, DENIED;
    /// `--verify-builds`: the build does not run, or is not what the claim says.
    BuildRefused = "build_refused", 403, DENIED;
    /// No route has this path.
    NoSuchRoute = "no_such_route", 404, NOT_FOUND;
    /// No pool has this name, and this request does not make one.
    NoSuchPool = "no_such_pool", 404, NOT_FOUND;
    /// The pool has no lock of this name.
    NoSuchLock = "no_such_lock", 404, NOT_FOUND;
    /// No claim has this id, and none is remembered.
    NoSuchClaim = "no_such_claim", 404, NOT_FOUND;
    /// No latch has this id (any more).
    NoSuchLatch = "no_such_latch", 404, NOT_FOUND;
    /// The revision is unknown, or its entries have been pruned.
    NoSuchRevision = "no_such_revision", 404, NOT_FOUND;
    /// The path has other methods; `allow` names them.
    MethodNotAllowed = "method_not_allowed", 405, USAGE;
    /// The id belongs to a claim that asks for something else.
    DifferentRequest = "different_request", 409, CONFLICT;
    /// A later process has taken this claim over.
    SupersededRun = "superseded_run", 409, CONFLICT;
    /// The claim has had more processes than are remembered.
    TooManyRuns = "too_many_runs", 409, CONFLICT;
    /// There is nothing to confirm or renew: the claim waits.
    NotGranted = "not_granted", 409, CONFLICT;
    /// Only a claim that waits can be moved or cancelled.
    NotWaiting = "not_waiting", 409, CONFLICT;
    /// The fence is not that of the present grant.
    WrongFence = "wrong_fence", 409, CONFLICT;
    /// The pool has a lock of this name.
    LockExists = "lock_exists", 409, CONFLICT;
    /// Somebody holds the lock.
    LockHeld = "lock_held", 409, CONFLICT;
    /// The claim does not hold the lock.
    NotHolder = "not_holder", 409, CONFLICT;
    /// Locks of the pool are held or waited for.
    PoolInUse = "pool_in_use", 409, CONFLICT;
    /// `verify`: this fence is not a present holder's.
    NotHeld = "not_held", 409, CONFLICT;
    /// A latch has this id, and it is for something else.
    LatchExists = "latch_exists", 409, CONFLICT;
    /// The latch was released before with another ending, or is for another node.
    LatchReleased = "latch_released", 409, CONFLICT;
    /// The claim is over; `how` says how.
    Ended = "ended", 410, CONFLICT;
    /// A part of the request is larger than its limit.
    TooLarge = "too_large", 413, USAGE;
    /// This server runs on another store than the one that was asked for.
    OtherStore = "other_store", 421, CONFLICT;
    /// More locks than the pool has, or more parts than a request may have.
    TooMany = "too_many", 422, USAGE;
    /// A claim over several pools needs pools of one order, `fifo` or `priority`.
    MixedOrders = "mixed_orders", 422, USAGE;
    /// The server does not watch the Concourse of this build, so it cannot know when the build is over.
    UnknownConcourse = "unknown_concourse", 422, USAGE;
    /// The request was understood, but cannot be done as asked.
    Unprocessable = "unprocessable", 422, USAGE;
    /// The claim waits; ask again.
    Waiting = "waiting", 423, LOCKED;
    /// The claim waits for what its own build has: nothing but that build can let it go on.
    SelfWait = "self_wait", 423, LOCKED;
    /// The claim waits, and builds wait for each other: none of `builds` can go on unless one gives something up.
    Deadlock = "deadlock", 423, LOCKED;
    /// Try-lock: somebody else has it.
    Locked = "locked", 423, LOCKED;
    /// The queue of the pool is full.
    QueueFull = "queue_full", 429, UNAVAILABLE;
    /// A limit of the whole server is reached.
    Limit = "limit", 429, UNAVAILABLE;
    /// A bug: the log of the server says more.
    Internal = "internal", 500, FAILED;
    /// The store has failed; the server is going down.
    StoreFailed = "store_failed", 503, UNAVAILABLE;
    /// `--verify-builds`: the Concourse of the build cannot be asked now; the claim may be sent again.
    ConcourseUnavailable = "concourse_unavailable", 503, UNAVAILABLE;
    /// The server is going down or is not ready yet.
    Unavailable = "unavailable", 503, UNAVAILABLE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_statuses_are_errors() {
        let mut words: Vec<_> = Code::ALL.iter().map(|c| c.word()).collect();
        words.sort_unstable();
        let all = words.len();
        words.dedup();
        assert_eq!(words.len(), all);
        assert!(Code::ALL.iter().all(|c| (400..600).contains(&c.status()) && c.exit() != exit::OK));
    }
}
