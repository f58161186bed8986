//! What can happen to the state, and what is said about it: commands, replies, refusals.

use std::sync::Arc;

use super::claim::{BuildEnd, BuildRef, Claim, End, Ended, Labels, Owner, Scope, Terms};
use super::latch::{Binding, Ending, Latch, LatchId, NewLatch};
use super::names::{ClaimId, Fence, LockName, OpId, ParkId, PoolName, Reason, Revision, Run};
use super::pool::{Order, Policy};
use super::time::Span;

/// How a request is prepared to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It wants its answer now.
    No,
    /// It can be parked under this number.
    Park(ParkId),
    /// It was parked under this number, and now it must be answered.
    Over(ParkId),
}

/// `PUT` of a claim: ask, or ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskClaim {
    pub id: ClaimId,
    pub terms: Terms,
    /// `None` leaves it to the pools; decided with the first `PUT` of a life.
    pub scope: Option<Scope>,
    pub run: Option<Run>,
    pub wait: Wait,
    /// False is try-lock: granted now, or refused without a place in the queue.
    pub queue: bool,
    /// Bounds the wait of a new life.
    pub give_up_after: Option<Span>,
}

/// Who asks for a change of pools and locks, and the id that makes the call safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct By {
    pub op: Option<OpId>,
    pub owner: Arc<Owner>,
    pub reason: Option<Reason>,
}

/// Where a waiting claim is moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveTo {
    /// Before all that wait in one of its pools.
    First,
    /// Before this one, which waits in one of its pools.
    Before(ClaimId),
    /// Behind all that wait in one of its pools.
    Last,
}

/// Everything that can happen to the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Ask(Box<AskClaim>),
    /// The client of a claim has heard of its grant.
    Confirm {
        id: ClaimId,
        run: Option<Run>,
        fence: Fence,
    },
    /// The client of a claim says that it goes on; also confirms a grant, with or without naming its fence.
    Renew {
        id: ClaimId,
        run: Option<Run>,
        fence: Option<Fence>,
    },
    /// An `in` has fetched the hold of this `claimed` revision.
    Delivered {
        id: ClaimId,
        revision: Revision,
    },
    /// A build has ended.
    BuildOver {
        build: BuildRef,
        how: BuildEnd,
    },
    /// It is not known whether a build goes on, and why not; `None`: it does.
    Suspect {
        build: BuildRef,
        why: Option<Reason>,
    },
    /// Cancel or release.
    End {
        id: ClaimId,
        run: Option<Run>,
        /// Who ends it, when it is not its own client.
        by: Option<Arc<Owner>>,
        reason: Option<Reason>,
    },
    /// Cancel the claim of somebody else while it waits: it must not become a release.
    Cancel {
        id: ClaimId,
        by: Arc<Owner>,
        reason: Option<Reason>,
    },
    /// End a grant or a hold by force; its locks drain first if so asked.
    Break {
        id: ClaimId,
        drains: bool,
        by: Arc<Owner>,
        reason: Reason,
    },
    /// Give a waiting claim another place in its queues.
    Move {
        id: ClaimId,
        to: MoveTo,
        by: By,
    },
    /// The client of a parked request has gone.
    Left {
        park: ParkId,
    },
    /// Declare a pool. `capacity` declares the locks `1`..`N`.
    SetPool {
        pool: PoolName,
        policy: Policy,
        capacity: Option<u32>,
        by: By,
    },
    RemovePool {
        pool: PoolName,
        by: By,
    },
    /// Put a new lock in; makes the pool when there is none. With a `claim` the lock is that claim's hold from
    /// the first moment on: nobody who waits in the pool comes between.
    AddLock {
        pool: PoolName,
        lock: LockName,
        metadata: Arc<[u8]>,
        labels: Arc<Labels>,
        claim: Option<Box<AskClaim>>,
        by: By,
    },
    /// Change metadata or labels, held or not; `if_free` refuses while somebody has it.
    UpdateLock {
        pool: PoolName,
        lock: LockName,
        metadata: Option<Arc<[u8]>>,
        labels: Option<Arc<Labels>>,
        if_free: bool,
        by: By,
    },
    /// Take a lock out. A held one only by its holder: `claim` names the claim whose hold ends with it.
    RemoveLock {
        pool: PoolName,
        lock: LockName,
        claim: Option<ClaimId>,
        by: By,
    },
    /// Take a lock out of service, for a while or until it is put back.
    Quarantine {
        pool: PoolName,
        lock: LockName,
        span: Option<Span>,
        by: By,
    },
    /// Put a lock back into service.
    Return {
        pool: PoolName,
        lock: LockName,
        by: By,
    },
    /// Write an entry that changes nothing.
    Note {
        pool: PoolName,
        lock: Option<LockName>,
        by: By,
    },
    /// Make a latch. The same one again is harmless.
    CreateLatch(Box<NewLatch>),
    /// Release a latch; without an ending it ends as its creator said. Again is harmless.
    ReleaseLatch {
        id: LatchId,
        ending: Option<Ending>,
        binding: Box<Binding>,
    },
    DeleteLatch {
        id: LatchId,
    },
    /// Nothing but the time.
    Tick,
    /// Look at every queue again, in case something was missed, and prune what is old.
    Reconcile,
}

/// What a command is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The claim as it now is: granted, held, or waiting (`parked` or not).
    Claim { claim: Arc<Claim>, parked: bool },
    /// Try-lock found no lock; the claim does not exist. What it asked is handed back.
    Busy(Box<AskClaim>),
    /// The claim is over; `again` says that it was so before this call.
    Ended { ended: Arc<Ended>, again: bool },
    /// Done, with this revision.
    Done { revision: Revision },
    /// The latch as it now is, or as it was when it was deleted.
    Latch(Arc<Latch>),
    /// Nothing to say.
    Nothing,
}

/// Why a command was refused; it has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no pool {pool:?}")]
    NoSuchPool { pool: PoolName },
    #[error("pool {pool:?} has no lock {lock:?}")]
    NoSuchLock { pool: PoolName, lock: LockName },
    #[error("there is no claim {id:?}")]
    NoSuchClaim { id: ClaimId },
    /// The pool has `has` locks with these labels, and not all that were asked for.
    #[error("{}", too_many(pool, *asked, *has, labels))]
    TooMany { pool: PoolName, asked: u32, has: u32, labels: Labels },
    #[error("claim {id:?} asked for something else before: use a new id for a different request")]
    DifferentRequest { id: ClaimId },
    #[error("operation {op:?} was another request before: use a new op for a different request")]
    DifferentOperation { op: OpId },
    #[error("a newer process acts for claim {id:?}: this one must stop")]
    SupersededRun { id: ClaimId },
    #[error("claim {id:?} has had {max} runs, which is the limit: use a new id")]
    TooManyRuns { id: ClaimId, max: usize },
    #[error("claim {id:?} or its pool asks for scope \"build\", but the claim's owner names no build")]
    NoBuild { id: ClaimId },
    #[error("claim {id:?} is not granted")]
    NotGranted { id: ClaimId },
    #[error("claim {id:?} does not wait there")]
    NotWaiting { id: ClaimId },
    #[error("claim {id:?} was granted with fence {fence}, not {given}: ask again with PUT")]
    WrongFence { id: ClaimId, fence: Fence, given: Fence },
    #[error("claim {:?} {}{}", ended.id, how_it_ended(ended.how), why(ended))]
    Ended { ended: Arc<Ended> },
    #[error("pool {pool:?} already has a lock {lock:?}")]
    LockExists { pool: PoolName, lock: LockName },
    #[error("lock {lock:?} of pool {pool:?} is held by claim {holder:?}")]
    LockHeld { pool: PoolName, lock: LockName, holder: ClaimId },
    #[error("lock {lock:?} of pool {pool:?} is not held by claim {claim:?}")]
    NotHolder { pool: PoolName, lock: LockName, claim: ClaimId },
    #[error("pool {pool:?} is in use: {} its locks", counted(*claims, "claim holds or waits for", "claims hold or wait for"))]
    PoolInUse { pool: PoolName, claims: usize },
    #[error(
        "the order of pool {pool:?} is {}, that of pool {other:?} is {}: a claim over several pools needs the same order in all",
        order.word(),
        other_order.word()
    )]
    MixedOrders { pool: PoolName, order: Order, other: PoolName, other_order: Order },
    #[error("the order of pool {pool:?} is {}: a claim over several pools cannot wait there", order.word())]
    OrderOfOne { pool: PoolName, order: Order },
    #[error("the order of pool {pool:?} cannot change while {} there", counted(*claims, "claim over several pools waits", "claims over several pools wait"))]
    OrderInUse { pool: PoolName, claims: usize },
    #[error("the queue of pool {pool:?} is full: {max} claims wait")]
    QueueFull { pool: PoolName, max: usize },
    #[error("there is no latch {id}")]
    NoSuchLatch { id: LatchId },
    #[error("latch {id} exists already, for another workflow or node, or with another ending")]
    LatchExists { id: LatchId },
    #[error("latch {id} was released already with another ending, or is for another node")]
    LatchReleased { id: LatchId },
    #[error("the limit of {max} {what} is reached")]
    Limit { what: &'static str, max: usize },
}

/// What a pool does not have, and what to do about it.
fn too_many(pool: &PoolName, asked: u32, has: u32, labels: &Labels) -> String {
    if !labels.is_empty() {
        let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let wanted = wanted.join(" and ");
        return match has {
            0 => format!("no lock of pool {pool:?} has {wanted}"),
            _ => format!(
                "pool {pool:?} has {} {wanted}, and the claim asks for {asked}",
                counted(has as usize, "lock with", "locks with")
            ),
        };
    }
    match has {
        0 => format!("pool {pool:?} has no locks"),
        _ => format!("pool {pool:?} has {}, and the claim asks for {asked}", counted(has as usize, "lock", "locks")),
    }
}

fn counted(n: usize, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}

fn how_it_ended(how: End) -> &'static str {
    match how {
        End::Released => "was released",
        End::Cancelled => "was cancelled",
        End::GaveUp => "gave up: it had waited as long as it was told to",
        End::ListenerLost => "lost its place in the queue: its client did not come back in time",
        End::Unconfirmed => "has ended: it was granted several times and never confirmed",
        End::Superseded => "was superseded by a newer claim",
        End::Removed => "has ended: what it asked for was removed from the pool",
        End::Lost => "lost its hold",
        End::LeaseLost => "lost its lease",
        End::BuildOver => "ended with its build",
        End::Undelivered => "lost its hold: nothing had fetched it when its build ended",
        End::Broken => "was ended by force",
    }
}

/// Who ended a claim and why, as far as it is known.
fn why(ended: &Ended) -> String {
    let by = ended.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let reason = ended.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{by}{reason}")
}

/// Refuses another one where there are `max` of `what` already.
pub(super) fn check_limit(what: &'static str, has: usize, max: usize) -> Result<(), Refusal> {
    if has >= max { Err(Refusal::Limit { what, max }) } else { Ok(()) }
}
