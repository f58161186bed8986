//! The web page: from a snapshot to a page (`super::super::pages`).

use super::super::http::Response;
use super::super::pages::{self, Moment, PoolRow};
use super::super::views::Viewer;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, changes, claims, pools};
use crate::core::limits;
use crate::core::names::{ClaimId, PoolName};
use crate::core::pool::Pool;

/// Most entries of the history on the page of a pool: those of the last hours in most pools.
const LAST_CHANGES: usize = 30;

impl Viewer<'_> {
    fn moment_shown(&self) -> Moment {
        Moment { now: self.now.wall, revision: self.snapshot.revision }
    }

    fn row(&self, pool: &Pool) -> PoolRow {
        let held = pool.locks.values().filter(|lock| !lock.holders.is_empty()).count();
        PoolRow { summary: self.pool(pool), held }
    }
}

/// `GET /`: all pools.
pub(super) fn overview(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(routes.look(|viewer| {
        let pools = &viewer.snapshot.pools;
        let rows: Vec<_> = pools.values().take(limits::PAGE).map(|pool| viewer.row(pool)).collect();
        pages::page(200, &pages::overview(viewer.moment_shown(), &rows, pools.len() - rows.len()))
    }))
}

/// `GET /pools/{pool}`.
pub(super) async fn pool(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let name = call.path::<PoolName>("pool", &mut problems);
    let name = problems.done(name)?;
    let (moment, view, keys) = routes.look(|viewer| {
        let changes = viewer.snapshot.pool(&name).map(|pool| pool.changes.keys().rev().take(LAST_CHANGES).copied());
        let keys: Vec<_> = changes.into_iter().flatten().collect();
        (viewer.moment_shown(), pools::view(viewer, &name, None, limits::PAGE), keys)
    });
    let Some(view) = view else {
        let text = format!("There is no pool called {:?}.", name.as_str());
        return Ok(pages::page(404, &pages::missing(moment, &text)));
    };
    let changes = changes::entries(routes, keys).await?;
    Ok(pages::page(200, &pages::pool(moment, &view, &changes)))
}

/// `GET /claims/{id}`.
pub(super) fn claim(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let id = problems.done(id)?;
    Ok(routes.look(|viewer| {
        let view = claims::view(viewer, &id);
        let status = if view.is_some() { 200 } else { 404 };
        pages::page(status, &pages::claim(viewer.moment_shown(), id.as_str(), view.as_ref()))
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
