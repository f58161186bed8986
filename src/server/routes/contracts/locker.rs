//! locker's API, for both generations of its clients.

use std::collections::BTreeMap;

use super::super::super::http::Response;
use super::super::browse::is_long;
use super::super::call::Call;
use super::super::failure::Failure;
use super::super::{Routes, json};
use super::{Hold, Outcome, Stranger, Wish, end, hold, hold_of, holder_name, holds_others_too, lock, nameless};
use crate::core::claim::Claim;
use crate::core::names::{PoolName, Text};
use crate::core::state::Snapshot;
use crate::server::views::Viewer;
use crate::wire::contracts::Contract;
use crate::wire::contracts::locker::{LocksView, PROGRAM, Party, PoolEntry, ResponseView};
use crate::wire::errors::Code;
use crate::wire::problems::quoted;

/// `GET /locks`: each pool that has a lock of the same name, ordered by name. No field depends on the time, so the
/// answer stays the same to the byte while nothing changes.
pub(in super::super) async fn list(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let is_long = |snapshot: &Snapshot| is_long(snapshot.pools.len());
    routes.browse(call, is_long, listed).await
}

fn listed(viewer: &Viewer<'_>) -> Response {
    let snapshot = viewer.snapshot;
    let seen = snapshot.pools.values().filter(|pool| viewer.caller.sees(&pool.name));
    let with_lock = seen.filter_map(|pool| Some((pool, pool.locks.get(&pool.name.own_lock())?)));
    let view: LocksView =
        with_lock.map(|(pool, lock)| (pool.name.to_string(), entry(&hold_of(snapshot, lock)))).collect();
    json(&view)
}

fn entry(hold: &Hold) -> PoolEntry {
    let mut locked_by = BTreeMap::new();
    let key = match hold {
        Hold::Nobody { .. } => String::new(),
        Hold::Alone(claim) => {
            let name = holder_name(claim);
            locked_by.insert(name.clone(), 1);
            // A client of another kind has no key to show here. The id of its claim matches no key of anyone else.
            if is_first_generation(claim) { name } else { claim.id.to_string() }
        }
        Hold::Shared { key, claims } => {
            for requestor in claims.iter().filter_map(|claim| requestor(claim)) {
                *locked_by.entry(requestor.to_string()).or_default() += 1;
            }
            key.to_string()
        }
    };
    PoolEntry { key, locked_by }
}

fn requestor(claim: &Claim) -> Option<&Text> {
    claim.terms.ask.sharer().map(|(_, requestor)| requestor)
}

/// Whether the claim was made by `{"lock": OWNER}`.
fn is_first_generation(claim: &Claim) -> bool {
    claim.terms.ask.key.is_none() && claim.terms.owner.person.is_some() && is_own(claim)
}

/// Whether a claim came through locker's API.
fn is_own(claim: &Claim) -> bool {
    claim.terms.owner.program.as_ref().is_some_and(|program| program.as_str() == PROGRAM)
}

/// The pool in the path and the party in the body.
fn parse(call: &Call) -> Result<(PoolName, Party), Failure> {
    if call.path_text("name").is_empty() {
        return Err(nameless());
    }
    let mut problems = crate::wire::problems::Problems::default();
    let pool = call.path::<PoolName>("name", &mut problems);
    let party = Party::parse(&call.request.body, &mut problems);
    Ok(problems.done(pool.zip(party))?)
}

/// `PUT /lock/{pool}`.
pub(in super::super) async fn put(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let (pool, party) = parse(call)?;
    let wish = Wish {
        pool: pool.clone(),
        sharer: party.key().map(|key| (key.clone(), party.who().clone())),
        owner: party.owner(),
        ttl: None,
        wait: None,
    };
    match lock(routes, call, Contract::Locker, wish).await? {
        Outcome::Locked => done(format!("pool {pool:?} is locked by {}", quoted(party.who().as_str()))),
        Outcome::Taken | Outcome::Parked => Err(locked(&routes.engine.snapshot(), &pool)),
    }
}

/// `DELETE /lock/{pool}` with a body.
pub(super) async fn delete(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let (pool, party) = parse(call)?;
    let snapshot = routes.engine.snapshot();
    let claims = match (hold(&snapshot, &pool), &party) {
        (Hold::Nobody { .. }, _) => return done(format!("nobody holds pool {pool:?}")),
        (Hold::Alone(claim), Party::Exclusive { owner })
            if is_first_generation(&claim) && claim.terms.owner.person.as_ref() == Some(owner) =>
        {
            vec![claim]
        }
        (Hold::Shared { key: held, claims }, Party::Shared { key, requestor: who }) if held == *key => {
            claims.into_iter().filter(|claim| requestor(claim) == Some(who)).collect()
        }
        _ => return Err(locked(&snapshot, &pool)),
    };
    if claims.iter().any(|claim| holds_others_too(claim)) {
        let error = format!("pool {pool:?} is held by a claim that holds other locks, too: only its own id ends it");
        return Err(Failure::new(Code::Locked, error));
    }
    for claim in &claims {
        let stranger = (!is_own(claim)).then(|| Stranger { owner: party.owner(), reason: UNLOCKED });
        end(routes, call, &claim.id, stranger).await?;
    }
    match claims.len() {
        0 => done(format!("{} does not hold pool {pool:?}", quoted(party.who().as_str()))),
        count => done(format!("pool {pool:?} is unlocked: {count} of {}", quoted(party.who().as_str()))),
    }
}

/// Why a claim of another kind of client ended.
const UNLOCKED: &str = "unlocked by key and requestor, through locker's API";

fn done(response: String) -> Result<Response, Failure> {
    Ok(json(&ResponseView { response }))
}

/// 423: says who has the lock.
fn locked(snapshot: &Snapshot, pool: &PoolName) -> Failure {
    let error = match hold(snapshot, pool) {
        Hold::Nobody { drains: true } => format!("pool {pool:?} is out of use for a moment: its holder was lost"),
        Hold::Nobody { drains: false } => format!("pool {pool:?} is not free for this request: others wait for it"),
        Hold::Alone(claim) if is_first_generation(&claim) => {
            let name = quoted(&holder_name(&claim));
            format!("pool {pool:?} is locked by {name}, alone: only {{\"lock\": {name}}} unlocks it here")
        }
        Hold::Alone(claim) => format!("pool {pool:?} is locked by {}, alone", quoted(&holder_name(&claim))),
        Hold::Shared { key, claims } => {
            let first = claims.first().and_then(|claim| requestor(claim)).unwrap_or(&key);
            let (key, first) = (quoted(key.as_str()), quoted(first.as_str()));
            match claims.len() {
                1 => format!("pool {pool:?} is locked with key {key}, by {first}"),
                more => format!("pool {pool:?} is locked with key {key}, by {first} and {} more", more - 1),
            }
        }
    };
    Failure::new(Code::Locked, error)
}
