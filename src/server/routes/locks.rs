//! Locks of a pool: read, add, change, remove (`docs/design.md#changing-locks`), and `verify`.

use std::sync::Arc;

use super::super::auth::access::Right;
use super::super::http::Response;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, forbidden, json};
use crate::core::claim::Phase;
use crate::core::command::{AskClaim, Command, Refusal, Reply};
use crate::core::names::{ClaimId, Fence, LockName, PoolName, Revision};
use crate::wire::api::{
    ByBody, ClaimBody, DoneView, FirstClaimBody, LockBody, MadePoolView, MoveLockBody, QuarantineBody, RemoveBody,
    ReturnBody, VerifyView,
};
use crate::wire::errors::Code;
use crate::wire::escape::escape;
use crate::wire::problems::Problems;
use crate::wire::{parse, text};

fn names(call: &Call, problems: &mut Problems) -> Option<(PoolName, LockName)> {
    let pool = call.path("pool", problems);
    let lock = call.path("lock", problems);
    pool.zip(lock)
}

/// `GET /api/v1/pools/{pool}/locks/{lock}`.
pub(super) fn get(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let names = names(call, &mut problems);
    let (pool, lock) = problems.done(names)?;
    let found = routes.look(call, |viewer| {
        let Some(in_pool) = viewer.snapshot.pool(&pool) else { return Err(Refusal::NoSuchPool { pool }) };
        match in_pool.locks.get(&lock) {
            Some(found) => Ok(viewer.lock(in_pool, found, true)),
            None => Err(Refusal::NoSuchLock { pool, lock }),
        }
    });
    Ok(json(&found.map_err(|refusal| routes.refused(call, refusal))?))
}

/// `PUT /api/v1/pools/{pool}/locks/{lock}`: a new lock.
pub(super) async fn put(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let names = names(call, &mut problems);
    let body = call.body::<LockBody>(&mut problems).unwrap_or_default();
    let metadata = text::metadata(body.metadata, body.metadata_base64, &mut problems).unwrap_or_default();
    let labels = parse::labels("labels", &body.labels.unwrap_or_default(), &mut problems).unwrap_or_default();
    let claim = body.claim.zip(names.clone());
    let claim = claim.and_then(|(claim, names)| first_claim(claim, names, body.by.as_ref(), &mut problems));
    if body.if_free {
        problems.add("if_free", "is only for PATCH: a new lock has no holder");
    }
    let by = parse::by(body.by, &mut problems);
    let (pool, lock) = problems.done(names)?;
    if let Some(claim) = &claim {
        // Nobody else is asked about a build for a claim that may not be.
        call.caller.check(Right::Claim, &pool).map_err(forbidden)?;
        routes.admit(claim).await?;
    }
    let made = made(routes, call, &pool);
    let command = Command::AddLock { pool, lock, metadata, labels: Arc::new(labels), claim, by };
    done_in(made, routes.ask(call, command).await?)
}

/// The pool that a lock will make when it is added there. Somebody may have mistyped a name, and then nobody who needs
/// that lock finds it.
fn made(routes: &Routes, call: &Call<'_>, pool: &PoolName) -> Option<MadePoolView> {
    routes.look(call, |viewer| viewer.snapshot.pool(pool).is_none().then(|| viewer.new_pool(pool)))
}

/// The answer to a command that adds a lock, and perhaps its pool.
fn done_in(made: Option<MadePoolView>, reply: Reply) -> Result<Response, Failure> {
    let Reply::Done { revision: Revision(revision) } = reply else { return Err(Failure::unexpected(&reply)) };
    if let Some(MadePoolView { pool, nearest: Some(nearest) }) = &made {
        let (pool, nearest) = (escape(pool), escape(nearest));
        tracing::warn!(pool, nearest, "a lock was added to a new pool: was the other one meant?");
    }
    Ok(json(&DoneView { revision, made }))
}

/// The claim that comes with a new lock: for that lock alone, owned by the client that adds it.
fn first_claim(
    claim: FirstClaimBody,
    (pool, lock): (PoolName, LockName),
    by: Option<&ByBody>,
    problems: &mut Problems,
) -> Option<Box<AskClaim>> {
    let FirstClaimBody { id, run, scope, ttl } = claim;
    let id = problems.parse::<ClaimId>("claim.id", &id)?;
    let body = ClaimBody {
        lock: Some(lock.as_str().to_owned()),
        owner: by.map(|by| by.owner.clone()).unwrap_or_default(),
        reason: by.and_then(|by| by.reason.clone()),
        run,
        scope,
        ttl,
        ..ClaimBody::of_pool(pool.as_str().to_owned())
    };
    parse::claim(id, body, problems).map(|asked| Box::new(asked.ask))
}

/// `PATCH /api/v1/pools/{pool}/locks/{lock}`: changes the given fields.
pub(super) fn patch(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let names = names(call, &mut problems);
    let body = call.body::<LockBody>(&mut problems).unwrap_or_default();
    let metadata = text::metadata(body.metadata, body.metadata_base64, &mut problems);
    let labels = body.labels.and_then(|labels| parse::labels("labels", &labels, &mut problems)).map(Arc::new);
    if body.claim.is_some() {
        problems.add("claim", "is only for PUT: ask for an existing lock with PUT /api/v1/claims/{id}");
    }
    let (if_free, by) = (body.if_free, parse::by(body.by, &mut problems));
    let (pool, lock) = problems.done(names)?;
    Ok(Command::UpdateLock { pool, lock, metadata, labels, if_free, by })
}

/// `DELETE /api/v1/pools/{pool}/locks/{lock}`.
pub(super) fn delete(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let names = names(call, &mut problems);
    let body = call.body::<RemoveBody>(&mut problems).unwrap_or_default();
    let claim = problems.parse_some::<ClaimId>("claim", body.claim.as_deref());
    let by = parse::by(body.by, &mut problems);
    let (pool, lock) = problems.done(names)?;
    Ok(Command::RemoveLock { pool, lock, claim, by })
}

/// `POST /api/v1/pools/{pool}/locks/{lock}/move`.
pub(super) async fn move_lock(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let names = names(call, &mut problems);
    let body = call.body::<MoveLockBody>(&mut problems).unwrap_or_default();
    let to = problems.parse::<PoolName>("to", &body.to);
    let claim = problems.parse_some::<ClaimId>("claim", body.claim.as_deref());
    let metadata = text::metadata(body.metadata, body.metadata_base64, &mut problems);
    let labels = body.labels.and_then(|labels| parse::labels("labels", &labels, &mut problems)).map(Arc::new);
    let by = parse::by(body.by, &mut problems);
    let ((pool, lock), to) = problems.done(names.zip(to))?;
    let made = made(routes, call, &to);
    let command = Command::MoveLock { pool, lock, to, claim, metadata, labels, by };
    done_in(made, routes.ask(call, command).await?)
}

/// `POST /api/v1/pools/{pool}/locks/{lock}/quarantine`.
pub(super) fn quarantine(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let names = names(call, &mut problems);
    let body = call.body::<QuarantineBody>(&mut problems);
    let span = body.as_ref().and_then(|body| parse::ttl("for", body.span.as_deref(), &mut problems));
    let by = body.map(|body| parse::by_with_reason(body.by, &mut problems));
    let ((pool, lock), by) = problems.done(names.zip(by))?;
    Ok(Command::Quarantine { pool, lock, span, by })
}

/// `POST /api/v1/pools/{pool}/locks/{lock}/return`.
pub(super) fn put_back(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let names = names(call, &mut problems);
    let body = call.body::<ReturnBody>(&mut problems).unwrap_or_default();
    let by = parse::by(body.by, &mut problems);
    let (pool, lock) = problems.done(names)?;
    Ok(Command::Return { pool, lock, by })
}

/// `GET /api/v1/verify`: whether a current hold has this fence. A grant that is not confirmed does not count.
pub(super) fn verify(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = call.required::<PoolName>("pool", &mut problems);
    let lock = call.required::<LockName>("lock", &mut problems);
    let fence = call.required::<u64>("fence", &mut problems);
    let ((pool, lock), fence) = problems.done(pool.zip(lock).zip(fence))?;
    let holder = routes.look(call, |viewer| {
        let in_pool = viewer.snapshot.pool(&pool)?;
        let found = in_pool.locks.get(&lock)?;
        let holder = found.holders.iter().find(|holder| holder.fence == Fence(fence))?;
        let claim = viewer.snapshot.claims.get(&holder.claim)?;
        matches!(claim.phase, Phase::Held { .. }).then(|| viewer.holder(in_pool, found, holder)).flatten()
    });
    let holder = holder.ok_or_else(|| {
        let error =
            format!("fence {fence} does not hold lock {lock:?} of pool {pool:?} (any more): stop what needs it");
        Failure::new(Code::NotHeld, error)
    })?;
    Ok(json(&VerifyView { holder }))
}
