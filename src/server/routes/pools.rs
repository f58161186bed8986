//! Pools: list, read, declare, remove (`docs/design.md#pools`).

use std::ops::Bound;

use super::super::http::Response;
use super::super::views::Viewer;
use super::browse::are_long;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, json};
use crate::core::command::{Command, Refusal};
use crate::core::limits;
use crate::core::names::{LockName, PoolName};
use crate::core::state::Snapshot;
use crate::wire::api::{Page, PoolBody, PoolChangeBody, PoolView, RemoveBody};
use crate::wire::parse;

/// Everything after `after`, or everything.
pub(super) fn after<T>(after: Option<T>) -> (Bound<T>, Bound<T>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

/// `GET /api/v1/pools`.
pub(super) async fn list(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let from = call.query::<PoolName>("after", &mut problems);
    let limit = call.limit(&mut problems);
    problems.done(Some(()))?;
    let start = from.clone();
    let is_long = |snapshot: &Snapshot| are_long(snapshot.pools.range(after(start)).map(|(_, pool)| &**pool));
    let list = move |viewer: &Viewer<'_>| {
        let (mut items, mut next, mut looked_at) = (Vec::new(), None, 0);
        for (name, pool) in viewer.snapshot.pools.range(after(from)) {
            // A page may have fewer entries than asked for. Only a page without `next` is the last.
            if items.len() == limit || looked_at >= limits::SCAN {
                break;
            }
            looked_at += 1 + pool.locks.len() + pool.waiting.len();
            if viewer.caller.sees(name) {
                items.push(viewer.pool(pool));
            }
            next = Some(name.clone());
        }
        let next = next.filter(|last| viewer.snapshot.pools.range(after(Some(last.clone()))).next().is_some());
        json(&Page { items, next: next.map(|name| name.to_string()) })
    };
    routes.browse(call, is_long, list).await
}

/// `GET /api/v1/pools/{pool}`.
pub(super) async fn get(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let name = call.path::<PoolName>("pool", &mut problems);
    let from = call.query::<LockName>("after", &mut problems);
    let limit = call.limit(&mut problems);
    let name = problems.done(name)?;
    let pool = name.clone();
    let is_long = |snapshot: &Snapshot| are_long(snapshot.pool(&pool).into_iter());
    let view = move |viewer: &Viewer<'_>| Some(json(&view(viewer, &name, from, limit)?));
    Ok(routes.browse(call, is_long, view).await?.ok_or(Refusal::NoSuchPool { pool })?)
}

/// A pool with at most `limit` of its locks, those after `from`, and its whole queue. `None` if there is no such pool.
pub(super) fn view(viewer: &Viewer<'_>, name: &PoolName, from: Option<LockName>, limit: usize) -> Option<PoolView> {
    let pool = viewer.snapshot.pool(name)?;
    let mut locks = pool.locks.range(after(from)).map(|(_, lock)| lock);
    let items: Vec<_> = locks.by_ref().take(limit).map(|lock| viewer.lock(pool, lock, false)).collect();
    let next = locks.next().and(items.last()).map(|lock| lock.lock.clone());
    Some(PoolView { summary: viewer.pool(pool), items, next, queue: viewer.waiters(pool) })
}

/// `PUT /api/v1/pools/{pool}`.
pub(super) fn put(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let body = call.body::<PoolBody>(&mut problems).unwrap_or_default();
    let policy = parse::policy(&body.policy, &mut problems);
    let by = parse::by(body.by, &mut problems);
    let pool = problems.done(pool)?;
    Ok(Command::SetPool { pool, policy, capacity: body.capacity, by })
}

/// `PATCH /api/v1/pools/{pool}`.
pub(super) fn patch(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let body = call.body::<PoolChangeBody>(&mut problems).unwrap_or_default();
    let change = parse::policy_change(&body, &mut problems);
    let by = parse::by(body.by, &mut problems);
    let pool = problems.done(pool)?;
    Ok(Command::ChangePool { pool, change, capacity: body.capacity, by })
}

/// `DELETE /api/v1/pools/{pool}`.
pub(super) fn delete(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let body = call.body::<RemoveBody>(&mut problems).unwrap_or_default();
    if body.claim.is_some() {
        problems
            .add("claim", "can only be given when a lock is removed; a pool can be removed only when nobody uses it");
    }
    let by = parse::by(body.by, &mut problems);
    let pool = problems.done(pool)?;
    Ok(Command::RemovePool { pool, by })
}
