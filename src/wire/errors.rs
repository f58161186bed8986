//! The one table that maps an error's stable code to its HTTP status and to the exit code of the command line.

use serde::{Deserialize, Serialize};

/// Exit codes of `locker ...`. The steps of the resource use only 0, 1 and the signal exit codes.
pub mod exit {
    /// Success.
    pub const OK: u8 = 0;
    /// Failed for a reason that has no code of its own.
    pub const FAILED: u8 = 1;
    /// The command line or its input is wrong.
    pub const USAGE: u8 = 2;
    /// Others hold the lock (try-lock), or the wait timed out.
    pub const LOCKED: u8 = 3;
    /// The named object does not exist.
    pub const NOT_FOUND: u8 = 4;
    /// The request conflicts with the present state, or the claim has ended.
    pub const CONFLICT: u8 = 5;
    /// The server cannot be reached or cannot serve.
    pub const UNAVAILABLE: u8 = 6;
    /// The server refused the credentials.
    pub const DENIED: u8 = 7;
    /// `locker run`: the lease was lost. The command was stopped, or its result cannot be trusted.
    pub const LOST: u8 = 8;
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $exit:ident;)*) => {
        /// The stable code of an error. Clients may rely on it; message texts may change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Code {
            /// Every code, in the order of this table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it appears in answers.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// The exit code that the command line uses for it.
            #[must_use]
            pub fn exit(self) -> u8 {
                match self { $(Self::$name => exit::$exit),* }
            }
        }
    };
}

codes! {
    /// The request is invalid: bad JSON, a bad name, an unknown field. `problems` lists all problems.
    BadRequest = "bad_request", 400, USAGE;
    /// The credentials are missing or wrong.
    Unauthorized = "unauthorized", 401, DENIED;
    /// These credentials may not do this.
    Forbidden = "forbidden", 403, DENIED;
    /// `--verify-builds`: the build is not running, or is not the one that the claim describes.
    BuildRefused = "build_refused", 403, DENIED;
    /// No route has this path.
    NoSuchRoute = "no_such_route", 404, NOT_FOUND;
    /// No pool has this name, and this request does not create one.
    NoSuchPool = "no_such_pool", 404, NOT_FOUND;
    /// The pool has no lock of this name.
    NoSuchLock = "no_such_lock", 404, NOT_FOUND;
    /// No live or remembered claim has this id.
    NoSuchClaim = "no_such_claim", 404, NOT_FOUND;
    /// No latch has this id, or it no longer exists.
    NoSuchLatch = "no_such_latch", 404, NOT_FOUND;
    /// No token has this name.
    NoSuchToken = "no_such_token", 404, NOT_FOUND;
    /// The revision is unknown, or its history entries have been pruned.
    NoSuchRevision = "no_such_revision", 404, NOT_FOUND;
    /// The path does not support this method. The `allow` header lists those it supports.
    MethodNotAllowed = "method_not_allowed", 405, USAGE;
    /// The id belongs to a claim for something else.
    DifferentRequest = "different_request", 409, CONFLICT;
    /// A newer process has taken over this claim.
    SupersededRun = "superseded_run", 409, CONFLICT;
    /// More processes have used the claim than the server can remember.
    TooManyRuns = "too_many_runs", 409, CONFLICT;
    /// There is nothing to confirm or renew: the claim is still waiting.
    NotGranted = "not_granted", 409, CONFLICT;
    /// Only a waiting claim can be moved or cancelled.
    NotWaiting = "not_waiting", 409, CONFLICT;
    /// The fence does not match the present grant.
    WrongFence = "wrong_fence", 409, CONFLICT;
    /// The pool already has a lock of this name.
    LockExists = "lock_exists", 409, CONFLICT;
    /// Somebody holds the lock.
    LockHeld = "lock_held", 409, CONFLICT;
    /// The claim does not hold the lock.
    NotHolder = "not_holder", 409, CONFLICT;
    /// Claims hold or wait for locks of the pool.
    PoolInUse = "pool_in_use", 409, CONFLICT;
    /// `verify`: no present holder has this fence.
    NotHeld = "not_held", 409, CONFLICT;
    /// A latch for something else already has this id.
    LatchExists = "latch_exists", 409, CONFLICT;
    /// The latch was already released with another ending, or is bound to another node.
    LatchReleased = "latch_released", 409, CONFLICT;
    /// A token that is still good has this name.
    TokenExists = "token_exists", 409, CONFLICT;
    /// The claim has ended; `how` says how.
    Ended = "ended", 410, CONFLICT;
    /// A part of the request is larger than its limit.
    TooLarge = "too_large", 413, USAGE;
    /// This server does not run on the store that the request expects.
    OtherStore = "other_store", 421, CONFLICT;
    /// The request asks for more locks than the pool has, or has more parts than are allowed.
    TooMany = "too_many", 422, USAGE;
    /// All pools of a claim must use the same order, `fifo` or `priority`.
    MixedOrders = "mixed_orders", 422, USAGE;
    /// The server does not watch the Concourse of this build, so it cannot know when the build is over.
    UnknownConcourse = "unknown_concourse", 422, USAGE;
    /// The request is well-formed, but cannot be carried out.
    Unprocessable = "unprocessable", 422, USAGE;
    /// The claim is waiting; repeat the request.
    Waiting = "waiting", 423, LOCKED;
    /// The claim waits for a lock that its own build holds. Only that build can end the wait.
    SelfWait = "self_wait", 423, LOCKED;
    /// The claim is part of a deadlock: none of `builds` can continue unless one of them gives something up.
    Deadlock = "deadlock", 423, LOCKED;
    /// Try-lock: the lock is not free.
    Locked = "locked", 423, LOCKED;
    /// The queue of the pool is full.
    QueueFull = "queue_full", 429, UNAVAILABLE;
    /// The server has reached one of its global limits.
    Limit = "limit", 429, UNAVAILABLE;
    /// A bug. The server log has the details.
    Internal = "internal", 500, FAILED;
    /// The answer of the server that leads was lost: nobody knows whether it has acted. Look before you ask again.
    UnknownOutcome = "unknown_outcome", 502, UNAVAILABLE;
    /// The store has failed; the server is shutting down.
    StoreFailed = "store_failed", 503, UNAVAILABLE;
    /// Of several servers, none leads at the moment, or this one cannot reach the one that does. The request may be retried.
    NoLeader = "no_leader", 503, UNAVAILABLE;
    /// `--verify-builds`: the Concourse of the build cannot be reached now. The request may be retried.
    ConcourseUnavailable = "concourse_unavailable", 503, UNAVAILABLE;
    /// The keys of the issuer of the id token are not known yet. The request may be retried.
    IssuerUnavailable = "issuer_unavailable", 503, UNAVAILABLE;
    /// The server is shutting down, is not ready yet, or has too much to do. Nothing was done; the request may be retried.
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
