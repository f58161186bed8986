//! lockd's API, and what its documentation planned: waiting, client ids, times to live.

use std::sync::Arc;

use super::super::super::http::{Attempt, Response};
use super::super::call::Call;
use super::super::failure::Failure;
use super::super::{Routes, json};
use super::{Hold, Outcome, Stranger, Waiting, Wish, end, hold, holder_name, holds_others_too, lock, nameless};
use crate::core::claim::{Claim, Owner};
use crate::core::command::{Command, Wait};
use crate::core::limits;
use crate::core::names::{PoolName, Text};
use crate::core::state::Snapshot;
use crate::core::time::Span;
use crate::server::http::Request;
use crate::wire::contracts::Contract;
use crate::wire::contracts::lockd::{self as wire, EmptyView, LockdNameError};
use crate::wire::errors::Code;
use crate::wire::problems::quoted;
use crate::wire::{parse, text};

/// `owner.program` of a claim that came through lockd's API.
const PROGRAM: &str = "lockd client";

/// Added to the wait of a request. After this time its claim ends automatically if the server was killed before it
/// could answer.
const LEFT_BEHIND: Span = Span::secs(5);

/// The name in the path.
fn name(call: &Call) -> Result<PoolName, Failure> {
    wire::name(call.path_text("name")).map_err(|error| match error {
        LockdNameError::Empty => nameless(),
        error => Failure::new(Code::BadRequest, error.to_string()),
    })
}

/// The answer to a request that succeeded.
fn done() -> Response {
    json(&EmptyView {})
}

/// A client of lockd's API, with its id if it has one.
fn owner(person: Option<Text>) -> Owner {
    Owner { program: Text::parse(PROGRAM).ok(), person, ..Owner::default() }
}

/// `GET /lock/{name}`: whether the lock is locked, that is, whether the lock would make a `POST` fail.
pub(in super::super) fn get(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let pool = name(call)?;
    match hold(&routes.engine.snapshot(), &pool) {
        Hold::Nobody { drains: false } => Err(not_locked(&pool, 404)),
        Hold::Nobody { drains: true } | Hold::Alone(_) | Hold::Shared { .. } => Ok(done()),
    }
}

fn not_locked(pool: &PoolName, status: u16) -> Failure {
    Failure { status, ..Failure::new(Code::NotHeld, format!("lock {pool:?} is not locked")) }
}

/// `POST /lock/{name}`.
pub(in super::super) async fn post(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let pool = name(call)?;
    let mut problems = call.problems();
    let person = call.query::<Text>("owner", &mut problems);
    let wait = parse::wait("wait", call.query_text("wait"), &mut problems);
    let (min, max) = (Span(limits::TTL_MIN_MS), Span(limits::TTL_MAX_MS));
    let ttl = call.query_text("ttl").map(|given| text::span_within(given, min, max));
    let ttl = ttl.and_then(|ttl| ttl.map_err(|error| problems.add("ttl", error)).ok());
    problems.done(Some(()))?;
    let request = call.request;
    let park = if call.may_park() { Wait::Park(request.park) } else { Wait::Over(request.park) };
    let wish = Wish {
        pool: pool.clone(),
        sharer: None,
        owner: owner(person),
        ttl,
        // A repeated request must find its claim even if it may not be parked again.
        wait: (wait > Span(0) && (request.can_park || request.attempt != Attempt::First))
            .then(|| Waiting { park, give_up_after: Span(wait.0 + LEFT_BEHIND.0) }),
    };
    match lock(routes, call, Contract::Lockd, wish).await? {
        Outcome::Locked => Ok(done()),
        Outcome::Taken => Err(locked(routes, &pool, 409)),
        Outcome::Parked => Ok(Response { park: Some(wait), ..locked(routes, &pool, 409).into_response() }),
    }
}

/// Waiting claims whose requests ended with an earlier run of the server. Nobody will ask for them again, so they keep
/// no place. Only for use at start, before the first request.
pub(in super::super::super) fn left_behind(snapshot: &Snapshot) -> Vec<Command> {
    let waiting =
        snapshot.pools.values().flat_map(|pool| pool.waiting.values()).filter_map(|id| snapshot.claims.get(id));
    let left_behind = waiting.filter(|claim| is_own(claim));
    left_behind.map(|claim| Command::End { id: claim.id.clone(), run: None, by: None, reason: None }).collect()
}

/// Whether a claim came through lockd's API.
fn is_own(claim: &Claim) -> bool {
    claim.terms.owner.program.as_ref().is_some_and(|program| program.as_str() == PROGRAM)
}

/// `DELETE /lock/{name}` without a body.
pub(super) async fn delete(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let pool = name(call)?;
    let mut problems = call.problems();
    let given = call.query::<Text>("owner", &mut problems);
    let given = problems.done(Some(given))?;
    let missing = routes.contracts.lockd_unlock_missing.status();
    let claim = match hold(&routes.engine.snapshot(), &pool) {
        Hold::Nobody { .. } => return Err(not_locked(&pool, missing)),
        Hold::Shared { .. } => return Err(locked(routes, &pool, 423)),
        Hold::Alone(claim) => claim,
    };
    check_unlock(&pool, &claim, given.as_ref())?;
    let stranger = (!is_own(&claim)).then(|| Stranger { owner: owner(given), reason: UNLOCKED });
    if end(routes, call, &claim.id, stranger).await? { Ok(done()) } else { Err(not_locked(&pool, missing)) }
}

/// Why a claim of another kind of client ended.
const UNLOCKED: &str = "unlocked by name, through lockd's API";

/// Any client may unlock, unless it names an owner that does not match, or the claim has more than this lock.
fn check_unlock(pool: &PoolName, claim: &Arc<Claim>, given: Option<&Text>) -> Result<(), Failure> {
    if holds_others_too(claim) {
        let error = format!("lock {pool:?} is held by a claim that holds other locks, too: only its own id ends it");
        return Err(Failure::new(Code::Locked, error));
    }
    match given {
        Some(given) if claim.terms.owner.person.as_ref() != Some(given) => {
            let (holder, given) = (quoted(&holder_name(claim)), quoted(given.as_str()));
            let error = format!("lock {pool:?} is locked by {holder}, not by {given}; without owner= it is unlocked");
            Err(Failure::new(Code::Locked, error))
        }
        _ => Ok(()),
    }
}

/// Another client has the lock: 409 for a `POST`, 423 for a `DELETE` that may not unlock it.
fn locked(routes: &Routes, pool: &PoolName, status: u16) -> Failure {
    let error = match hold(&routes.engine.snapshot(), pool) {
        Hold::Nobody { drains: true } => format!("lock {pool:?} is out of use for a moment: its holder was lost"),
        Hold::Nobody { drains: false } => format!("lock {pool:?} is not free for this request: others wait for it"),
        Hold::Alone(claim) => format!("lock {pool:?} is locked by {}", quoted(&holder_name(&claim))),
        Hold::Shared { key, .. } => format!("lock {pool:?} is locked with key {}", quoted(key.as_str())),
    };
    Failure { status, ..Failure::new(Code::Locked, error) }
}

/// The answer to a lockd client whose name is not text, in lockd's words. `None` if it is no such request.
pub(in crate::server::routes) fn not_text(request: &Request) -> Option<Failure> {
    let name = request.path.strip_prefix("/lock/").filter(|name| !name.contains('/'))?;
    let is_lockds = match request.method.as_str() {
        "GET" | "HEAD" | "POST" => true,
        "DELETE" => request.body.is_empty(),
        _ => false,
    };
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(name).collect();
    let error = is_lockds.then(|| wire::check_bytes(&bytes).err())??;
    std::str::from_utf8(&bytes).is_err().then(|| Failure::new(Code::BadRequest, error.to_string()))
}
