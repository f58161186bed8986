//! The web page: from a snapshot to a page (`super::super::pages`).

use super::super::http::Response;
use super::super::pages::{self, Moment, PoolRow};
use super::super::views::Viewer;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, claims, pools};
use crate::core::limits;
use crate::core::names::{ClaimId, PoolName};
use crate::core::pool::Pool;

impl Viewer<'_> {
    fn moment_shown(&self) -> Moment {
        Moment { now: self.now.wall, revision: self.snapshot.revision }
    }

    fn row(&self, pool: &Pool) -> PoolRow {
        let summary = self.pool(pool);
        PoolRow {
            pool: summary.pool,
            locks: summary.locks,
            free: summary.free,
            waiting: summary.waiting,
            held: pool.locks.values().filter(|lock| !lock.holders.is_empty()).count(),
            quarantined: summary.quarantined,
            suspect: summary.suspect,
            oldest_wait: summary.oldest_wait,
            oldest_hold: summary.oldest_hold,
        }
    }
}

/// `GET /`: all pools.
pub(super) fn overview(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(routes.look(|viewer| {
        let pools = &viewer.snapshot.pools;
        let rows: Vec<_> = pools.values().take(limits::PAGE).map(|pool| viewer.row(pool)).collect();
        pages::page(200, pages::overview(viewer.moment_shown(), &rows, pools.len() - rows.len()))
    }))
}

/// `GET /pools/{pool}`.
pub(super) fn pool(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let name = call.path::<PoolName>("pool", &mut problems);
    let name = problems.done(name)?;
    Ok(routes.look(|viewer| {
        let view = pools::view(viewer, &name, None, limits::PAGE);
        let status = if view.is_some() { 200 } else { 404 };
        pages::page(status, pages::pool(viewer.moment_shown(), name.as_str(), view.as_ref()))
    }))
}

/// `GET /claims/{id}`.
pub(super) fn claim(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let id = problems.done(id)?;
    Ok(routes.look(|viewer| {
        let view = claims::view(viewer, &id);
        let status = if view.is_some() { 200 } else { 404 };
        pages::page(status, pages::claim(viewer.moment_shown(), id.as_str(), view.as_ref()))
    }))
}

/// `GET /assets/locker.css`.
pub(super) fn style(_: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(pages::style())
}

/// `GET /assets/locker.svg`.
pub(super) fn icon(_: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(pages::icon())
}

/// `GET /assets/locker.js`.
pub(super) fn script(_: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(pages::script())
}
