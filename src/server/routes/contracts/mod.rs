//! The APIs that Locker serves for clients of other servers. A table in `docs/contracts.md` has the rules for clients
//! of several of them on one pool.
//!
//! - here: what they share. The lock of a pool `NAME` is [`PoolName::own_lock`].
//! - `locker`: `GET /locks`, and `PUT` and `DELETE /lock/{name}` with a body.
//! - `latches`: `/lock?id=` and `/lock?status=`, with and without a slash at the end.
//! - `lockd`: `GET`, `POST` and `DELETE /lock/{name}` without a body.

pub(super) mod latches;
pub(in super::super) mod lockd;
pub(super) mod locker;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::engine::EngineError;
use super::super::http::Response;
use super::Routes;
use super::call::Call;
use super::failure::Failure;
use crate::core::claim::{Ask, Claim, End, Owner, Part, Priority, Scope, Terms, Want};
use crate::core::command::{AskClaim, Command, Refusal, Reply, Wait};
use crate::core::names::{ClaimId, ParkId, PoolName, Reason, Text};
use crate::core::pool::Lock;
use crate::core::state::Snapshot;
use crate::core::time::Span;
use crate::wire::contracts::{Contract, Contracts, UnlockMissing};
use crate::wire::errors::Code;
use crate::wire::identity::Identity;

/// Which contracts are served, and how.
#[derive(Debug)]
pub struct ContractRoutes {
    served: Contracts,
    lockd_unlock_missing: UnlockMissing,
    /// Claims of requests that have not been answered yet.
    unanswered: Mutex<HashMap<ParkId, ClaimId>>,
}

impl ContractRoutes {
    /// Serves the contracts in `served`. `lockd_unlock_missing` is lockd's answer to a `DELETE` of a lock that is not
    /// locked.
    #[must_use]
    pub fn new(served: Contracts, lockd_unlock_missing: UnlockMissing) -> Self {
        Self { served, lockd_unlock_missing, unanswered: Mutex::default() }
    }

    /// Refuses a route if all of its contracts are turned off.
    pub(super) fn check_served(&self, contracts: &[Contract]) -> Result<(), Failure> {
        if contracts.is_empty() || contracts.iter().any(|contract| self.served.serve(*contract)) {
            return Ok(());
        }
        let words: Vec<&str> = contracts.iter().map(|contract| contract.word()).collect();
        let error = format!("the API of {} is turned off on this server (--contracts)", words.join(" and "));
        Err(Failure::new(Code::NoSuchRoute, error))
    }

    fn unanswered(&self) -> MutexGuard<'_, HashMap<ParkId, ClaimId>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client of a request has gone without its answer. Nobody will ever ask for its claim again, so the claim is
    /// ended: it keeps no place, and a lock that was granted to it is given back.
    pub(super) fn left(&self, park: ParkId) -> Option<Command> {
        let id = self.unanswered().remove(&park)?;
        Some(Command::End { id, run: None, by: None, reason: None })
    }
}

impl Default for ContractRoutes {
    fn default() -> Self {
        Self::new(Contracts::default(), UnlockMissing::default())
    }
}

/// `DELETE /lock/{name}`: lockd's if it has no body, locker's if it has one.
pub(super) async fn delete(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    if call.request.body.is_empty() {
        routes.contracts.check_served(&[Contract::Lockd])?;
        lockd::delete(routes, call).await
    } else {
        routes.contracts.check_served(&[Contract::Locker])?;
        locker::delete(routes, call).await
    }
}

/// There is no lock without a name.
fn nameless() -> Failure {
    Failure::new(Code::NoSuchRoute, "there is no lock without a name: write /lock/NAME")
}

/// What a contract request asks for.
struct Wish {
    pool: PoolName,
    /// Key and requestor of a claim that shares the lock.
    sharer: Option<(Text, Text)>,
    owner: Owner,
    ttl: Option<Span>,
    /// `None` means try-lock.
    wait: Option<Waiting>,
}

/// How a contract request waits.
struct Waiting {
    park: Wait,
    give_up_after: Span,
}

/// The outcome of the request.
enum Outcome {
    Locked,
    /// Another client has the lock. The request has left no trace.
    Taken,
    Parked,
}

/// The claim of the request with this id, which no other request of any server ever has. A request that is sent through
/// again, after it was parked or at the next leader, has the same claim, so it counts once.
fn claim_id(contract: Contract, request: &str) -> Result<ClaimId, Failure> {
    let id = format!("{}-{request}", contract.word());
    ClaimId::parse(&id).map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// Asks for the lock of a pool. A request that is not parked keeps no place, and a request whose client leaves before
/// the answer holds nothing.
async fn lock(routes: &Routes, call: &Call<'_>, contract: Contract, wish: Wish) -> Result<Outcome, Failure> {
    let park = call.request.park;
    let id = claim_id(contract, &call.request.id)?;
    // Register it before asking, so that a client that leaves in the meantime is not missed.
    routes.contracts.unanswered().insert(park, id.clone());
    let outcome = ask_for(routes, call, id, wish).await;
    if !matches!(outcome, Ok(Outcome::Parked)) {
        routes.contracts.unanswered().remove(&park);
    }
    outcome
}

async fn ask_for(routes: &Routes, call: &Call<'_>, id: ClaimId, wish: Wish) -> Result<Outcome, Failure> {
    let Wish { pool, sharer, owner, ttl, wait } = wish;
    let want = Want::Named(BTreeSet::from([pool.own_lock()]));
    let (key, requestor) = sharer.unzip();
    let asked = Ask { parts: vec![Part { pool, want }], key, requestor };
    let scope = Some(Scope::Flow);
    let terms = Terms {
        digest: Identity::of_ask(&asked, scope).digest(&owner),
        ask: asked,
        owner: Arc::new(owner),
        reason: None,
        confirm: false,
        ttl,
        priority: Priority::default(),
        supersede: None,
        waits_if_empty: false,
    };
    let queue = wait.is_some();
    let (wait, give_up_after) = wait.map_or((Wait::No, None), |w| (w.park, Some(w.give_up_after)));
    let command = AskClaim { id: id.clone(), terms, scope, run: None, wait, queue, give_up_after };
    match routes.call_engine(call, Command::Ask(Box::new(command))).await {
        Ok(Reply::Claim { claim, .. }) if !claim.waits() => Ok(Outcome::Locked),
        Ok(Reply::Claim { parked: true, .. }) => Ok(Outcome::Parked),
        Ok(Reply::Claim { parked: false, .. }) => {
            end(routes, call, &id, None).await?;
            Ok(Outcome::Taken)
        }
        Ok(Reply::Busy(_)) => Ok(Outcome::Taken),
        // Its time was over before it was asked again.
        Err(EngineError::Refused(Refusal::Ended { ended })) if ended.how == End::GaveUp => Ok(Outcome::Taken),
        Ok(other) => Err(Failure::unexpected(&other)),
        Err(error) => Err(error.into()),
    }
}

/// Who ends a claim of another client, and through which API.
struct Stranger {
    owner: Owner,
    reason: &'static str,
}

/// Ends one claim by its id, so that a later holder is never affected. Returns whether this call ended it.
async fn end(routes: &Routes, call: &Call<'_>, id: &ClaimId, stranger: Option<Stranger>) -> Result<bool, Failure> {
    let reason = stranger.as_ref().and_then(|stranger| Reason::parse(stranger.reason).ok());
    let by = stranger.map(|stranger| Arc::new(stranger.owner));
    let command = Command::End { id: id.clone(), run: None, by, reason };
    match routes.call_engine(call, command).await {
        Ok(Reply::Ended { again, .. }) => Ok(!again),
        // The claim ended in another way between the look and this call.
        Err(EngineError::Refused(Refusal::Ended { .. } | Refusal::NoSuchClaim { .. })) => Ok(false),
        Ok(other) => Err(Failure::unexpected(&other)),
        Err(error) => Err(error.into()),
    }
}

/// How the lock of a pool is held.
enum Hold {
    /// By nobody. A lock that drains after its holder was lost is out of use all the same.
    Nobody { drains: bool },
    /// By one claim without a key.
    Alone(Arc<Claim>),
    /// By claims with this key.
    Shared { key: Text, claims: Vec<Arc<Claim>> },
}

/// How the lock of a pool is held now.
fn hold(snapshot: &Snapshot, pool: &PoolName) -> Hold {
    match snapshot.lock(pool, &pool.own_lock()) {
        Some(lock) => hold_of(snapshot, lock),
        None => Hold::Nobody { drains: false },
    }
}

fn hold_of(snapshot: &Snapshot, lock: &Lock) -> Hold {
    let mut claims: Vec<Arc<Claim>> =
        lock.holders.iter().filter_map(|holder| snapshot.claims.get(&holder.claim).cloned()).collect();
    let key = lock.holders.first().and_then(|holder| holder.sharer.as_ref()).map(|(key, _)| key.clone());
    match (key, claims.pop()) {
        (_, None) => Hold::Nobody { drains: lock.drain.is_some() },
        (None, Some(claim)) => Hold::Alone(claim),
        (Some(key), Some(last)) => {
            claims.push(last);
            Hold::Shared { key, claims }
        }
    }
}

/// A claim that holds more than this lock can be ended only by its own id: naming one lock must not free others.
fn holds_others_too(claim: &Claim) -> bool {
    claim.locks().len() > 1
}

/// The holder, for people: the build, the person or the program, otherwise the claim.
fn holder_name(claim: &Claim) -> String {
    let owner = &claim.terms.owner;
    if let Some(person) = &owner.person {
        return person.to_string();
    }
    let place: Vec<&str> =
        [&owner.team, &owner.pipeline, &owner.job].into_iter().flatten().map(|text| text.as_str()).collect();
    match (place.is_empty(), owner.build_name.as_ref().or(owner.build_id.as_ref()), &owner.program) {
        (false, Some(build), _) => format!("{} #{build}", place.join("/")),
        (false, None, _) => place.join("/"),
        (true, Some(build), _) => format!("build {build}"),
        (true, None, Some(program)) => program.to_string(),
        (true, None, None) => claim.id.to_string(),
    }
}
