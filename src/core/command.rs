//! What can happen to the state, and the answers: commands, replies, refusals.

use std::sync::Arc;

use super::claim::{BuildEnd, BuildRef, Claim, End, Ended, Labels, Owner, Scope, Terms};
use super::latch::{Binding, Ending, Latch, LatchId, NewLatch};
use super::names::{ClaimId, Digest, Fence, LockName, OpId, ParkId, PoolName, Reason, Revision, Run, Text, TokenName};
use super::pool::{Order, Policy, PolicyChange};
use super::time::{Span, WallMs};
use super::token::Token;

/// Whether a request can wait for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It needs its answer now.
    No,
    /// It can be parked under this number.
    Park(ParkId),
    /// It was parked under this number, and now needs its answer.
    Over(ParkId),
}

/// `PUT` of a claim: ask, or ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskClaim {
    pub id: ClaimId,
    pub terms: Terms,
    /// `None` leaves the scope to the pools; the first `PUT` of a life decides it.
    pub scope: Option<Scope>,
    pub run: Option<Run>,
    pub wait: Wait,
    /// False means try-lock: granted now, or refused without a place in the queue.
    pub queue: bool,
    /// Limits the wait of a new life.
    pub give_up_after: Option<Span>,
}

/// Who requests a change of pools and locks, and the id that makes the call safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct By {
    pub op: Option<OpId>,
    pub owner: Arc<Owner>,
    pub reason: Option<Reason>,
}

/// Where a waiting claim moves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveTo {
    /// Before all other claims that wait in one of its pools.
    First,
    /// Before this claim, which waits in one of its pools.
    Before(ClaimId),
    /// Behind all other claims that wait in one of its pools.
    Last,
}

/// Everything that can happen to the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Ask(Box<AskClaim>),
    /// The client of a claim knows of its grant.
    Confirm {
        id: ClaimId,
        run: Option<Run>,
        fence: Fence,
    },
    /// The client of a claim renews it. This also confirms a grant, with or without its fence.
    Renew {
        id: ClaimId,
        run: Option<Run>,
        fence: Option<Fence>,
    },
    /// An `in` has fetched the hold of this `claimed` revision.
    Delivered {
        id: ClaimId,
        revision: Revision,
        /// The build of that `in`, if it is known.
        build: Option<BuildRef>,
    },
    /// A build has ended.
    BuildOver {
        build: BuildRef,
        how: BuildEnd,
        /// When, if its Concourse says so.
        at: Option<WallMs>,
    },
    /// The id of the build that a claim has named by its place alone. Without effect unless the claim still needs it.
    BuildFound {
        id: ClaimId,
        build_id: Text,
    },
    /// The state of a build is unknown, and why; `None`: it is known again.
    Suspect {
        build: BuildRef,
        why: Option<Reason>,
    },
    /// Cancel or release.
    End {
        id: ClaimId,
        run: Option<Run>,
        /// Who ends it, if not its own client.
        by: Option<Arc<Owner>>,
        reason: Option<Reason>,
    },
    /// A step of `build` releases a claim. If `may_mark`, a hold of that build is only marked: it lasts until the build is
    /// over. Everything else ends at once.
    Release {
        id: ClaimId,
        build: Option<BuildRef>,
        /// Who releases it, for the history.
        by: Option<Arc<Owner>>,
        may_mark: bool,
    },
    /// A build with marked holds is known to be running.
    Alive {
        build: BuildRef,
    },
    /// Whether this Concourse, named by its URL, runs builds again in place.
    Reruns {
        concourse: Text,
        on: bool,
    },
    /// Cancel another client's waiting claim. This never becomes a release.
    Cancel {
        id: ClaimId,
        by: Arc<Owner>,
        reason: Option<Reason>,
    },
    /// End a grant or a hold by force; with `drains` its locks drain first.
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
    /// The client of a parked request has disconnected.
    Left {
        park: ParkId,
    },
    /// Declare a pool. `capacity` declares the locks `1`..`N`; without it the pool keeps the locks that it has.
    SetPool {
        pool: PoolName,
        policy: Policy,
        capacity: Option<u32>,
        by: By,
    },
    /// Change some rules of a pool, and keep the others. A pool that does not exist is made, with its implicit lock
    /// unless `capacity` gives it others.
    ChangePool {
        pool: PoolName,
        change: PolicyChange,
        capacity: Option<u32>,
        by: By,
    },
    RemovePool {
        pool: PoolName,
        by: By,
    },
    /// Add a new lock, and its pool if there is none. With a `claim`, that claim holds the lock from the first moment,
    /// so that no waiter in the pool can take it first.
    AddLock {
        pool: PoolName,
        lock: LockName,
        metadata: Arc<[u8]>,
        labels: Arc<Labels>,
        claim: Option<Box<AskClaim>>,
        by: By,
    },
    /// Change metadata or labels, held or not; `if_free` refuses while the lock is held.
    UpdateLock {
        pool: PoolName,
        lock: LockName,
        metadata: Option<Arc<[u8]>>,
        labels: Option<Arc<Labels>>,
        if_free: bool,
        by: By,
    },
    /// Remove a lock. Only its holder can remove a held lock: `claim` names the claim whose hold ends with it.
    RemoveLock {
        pool: PoolName,
        lock: LockName,
        claim: Option<ClaimId>,
        by: By,
    },
    /// Move a lock to another pool, with what it carries. A held lock moves only with its holder, whose hold ends.
    MoveLock {
        pool: PoolName,
        lock: LockName,
        to: PoolName,
        claim: Option<ClaimId>,
        /// What changes about the lock; everything else stays.
        metadata: Option<Arc<[u8]>>,
        labels: Option<Arc<Labels>>,
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
    /// Make a latch. A repeat of the same request is harmless.
    CreateLatch(Box<NewLatch>),
    /// Release a latch. Without an ending it ends as its creator decided. A repeat is harmless.
    ReleaseLatch {
        id: LatchId,
        ending: Option<Ending>,
        binding: Box<Binding>,
    },
    DeleteLatch {
        id: LatchId,
    },
    /// Make a token with this hash.
    CreateToken {
        name: TokenName,
        hash: Digest,
        expires: Option<WallMs>,
    },
    /// End a token.
    RevokeToken {
        name: TokenName,
    },
    /// A request has shown the token with this hash. Changes something about once an hour.
    TokenUsed {
        hash: Digest,
    },
    /// Only time has passed.
    Tick,
    /// Look at every queue again, in case a change was missed, and prune old data.
    Reconcile,
}

impl Command {
    /// The claims that the command is about by their own ids, whether there are such claims or not.
    pub(super) fn claims(&self) -> [Option<&ClaimId>; 2] {
        match self {
            Self::Ask(ask) => [Some(&ask.id), None],
            Self::Confirm { id, .. }
            | Self::Renew { id, .. }
            | Self::Delivered { id, .. }
            | Self::BuildFound { id, .. }
            | Self::Release { id, .. }
            | Self::End { id, .. }
            | Self::Cancel { id, .. }
            | Self::Break { id, .. } => [Some(id), None],
            Self::Move { id, to: MoveTo::Before(other), .. } => [Some(id), Some(other)],
            Self::Move { id, to: MoveTo::First | MoveTo::Last, .. } => [Some(id), None],
            Self::AddLock { claim, .. } => [claim.as_ref().map(|ask| &ask.id), None],
            Self::RemoveLock { claim, .. } | Self::MoveLock { claim, .. } => [claim.as_ref(), None],
            Self::BuildOver { .. }
            | Self::Suspect { .. }
            | Self::Alive { .. }
            | Self::Reruns { .. }
            | Self::Left { .. }
            | Self::SetPool { .. }
            | Self::ChangePool { .. }
            | Self::RemovePool { .. }
            | Self::UpdateLock { .. }
            | Self::Quarantine { .. }
            | Self::Return { .. }
            | Self::Note { .. }
            | Self::CreateLatch(_)
            | Self::ReleaseLatch { .. }
            | Self::DeleteLatch { .. }
            | Self::CreateToken { .. }
            | Self::RevokeToken { .. }
            | Self::TokenUsed { .. }
            | Self::Tick
            | Self::Reconcile => [None, None],
        }
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The claim as it now is: granted, held, or waiting (`parked` or not).
    Claim { claim: Arc<Claim>, parked: bool },
    /// Try-lock found no free lock, and the claim does not exist. Returns the request.
    Busy(Box<AskClaim>),
    /// The claim has ended; `again` means that it had ended before this call.
    Ended { ended: Arc<Ended>, again: bool },
    /// The hold is marked: it lasts until its build is over. The revision is that of the entry about it.
    Marked { claim: Arc<Claim>, revision: Revision },
    /// Done, with this revision.
    Done { revision: Revision },
    /// The latch as it now is, or as it was when it was deleted.
    Latch(Arc<Latch>),
    /// The token that was made or revoked.
    Token(Arc<Token>),
    /// No answer is needed.
    Nothing,
}

/// Why a command was refused. A refused command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no pool {pool:?}")]
    NoSuchPool { pool: PoolName },
    /// A claim for it would make it elsewhere, but the settings of this server forbid that.
    #[error("there is no pool {pool:?}, and a claim may not make it")]
    MayNotMake { pool: PoolName },
    #[error("pool {pool:?} has no lock {lock:?}")]
    NoSuchLock { pool: PoolName, lock: LockName },
    #[error("there is no claim {id:?}")]
    NoSuchClaim { id: ClaimId },
    /// The pool has only `has` locks with these labels, fewer than the claim asks for.
    #[error("{}", too_many(pool, *asked, *has, labels))]
    TooMany { pool: PoolName, asked: u32, has: u32, labels: Labels },
    #[error("claim {id:?} asked for something else before: use a new id for a different request")]
    DifferentRequest { id: ClaimId },
    #[error("operation {op:?} already stands for another request: use a new op for a different request")]
    DifferentOperation { op: OpId },
    #[error("a newer process acts for claim {id:?}: this one must stop")]
    SupersededRun { id: ClaimId },
    #[error("claim {id:?} has had {max} runs, which is the limit: use a new id")]
    TooManyRuns { id: ClaimId, max: usize },
    #[error("claim {id:?} or its pool asks for scope \"build\", but the claim's owner names no build")]
    NoBuild { id: ClaimId },
    #[error("claim {id:?} is not granted")]
    NotGranted { id: ClaimId },
    #[error("claim {id:?} is not waiting there")]
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
    #[error("there is a token {name:?} already: revoke it, or choose another name")]
    TokenExists { name: TokenName },
    #[error("there is no token {name:?}")]
    NoSuchToken { name: TokenName },
    #[error("the limit of {max} {what} is reached")]
    Limit { what: &'static str, max: usize },
}

/// What a pool does not have.
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
        End::GaveUp => "gave up: its give_up_after had passed",
        End::ListenerLost => "lost its place in the queue: its client did not come back in time",
        End::Unconfirmed => "has ended: too many of its grants were not confirmed",
        End::Superseded => "was superseded by a newer claim",
        End::Removed => "has ended: what it asked for was removed from the pool",
        End::Lost => "lost its hold",
        End::LeaseLost => "lost its lease",
        End::BuildOver => "ended with its build",
        End::Undelivered => "lost its hold: no other build had fetched it when its build ended",
        End::Broken => "was ended by force",
    }
}

/// Who ended a claim and why, as far as it is known.
fn why(ended: &Ended) -> String {
    let by = ended.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let reason = ended.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{by}{reason}")
}

/// Refuses one more when there are `max` of `what` already.
pub(super) fn check_limit(what: &'static str, has: usize, max: usize) -> Result<(), Refusal> {
    if has >= max { Err(Refusal::Limit { what, max }) } else { Ok(()) }
}
