//! The web page: from a snapshot to a page (`super::super::pages`).

use super::super::auth::sessions::page_token;
use super::super::http::{Request, Response};
use super::super::pages::{self, Moment, PoolRow, Visitor};
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

/// Who sends a request for a page. Only who is signed in has a cookie and no credentials beside it.
fn visitor(request: &Request) -> Visitor {
    let identity = request.identity.as_ref().map(ToString::to_string);
    let by_session = identity.is_some() && request.header("authorization").is_none();
    Visitor { token: page_token(request).filter(|_| by_session), identity }
}

/// `GET /`: all pools.
pub(super) fn overview(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(routes.look(|viewer| {
        let pools = &viewer.snapshot.pools;
        let rows: Vec<_> = pools.values().take(limits::PAGE).map(|pool| viewer.row(pool)).collect();
        let moment = viewer.moment_shown();
        let page = pages::overview(moment, &rows, pools.len() - rows.len());
        pages::page(200, moment, &visitor(call.request), &page)
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
        return Ok(pages::page(404, moment, &visitor(call.request), &pages::missing(&text)));
    };
    let changes = changes::entries(routes, keys).await?;
    Ok(pages::page(200, moment, &visitor(call.request), &pages::pool(moment, &view, &changes)))
}

/// `GET /claims/{id}`.
pub(super) async fn claim(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let id = problems.done(id)?;
    let view = claims::view(routes, &id).await?;
    let status = if view.is_some() { 200 } else { 404 };
    let moment = routes.look(|viewer| viewer.moment_shown());
    let page = pages::claim(moment, id.as_str(), view.as_ref());
    Ok(pages::page(status, moment, &visitor(call.request), &page))
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

/// `GET /assets/sign-in.js`.
pub(super) fn sign_in_script(_: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(pages::sign_in_script())
}
