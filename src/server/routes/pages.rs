//! The web page: from a snapshot to a page (`super::super::pages`).

use super::super::http::Response;
use super::super::pages::{self, Moment, PoolRow};
use super::super::views::{self, Viewer};
use super::call::Call;
use super::failure::Failure;
use super::{Routes, claims, pools};
use crate::core::claim::Phase;
use crate::core::limits;
use crate::core::names::{ClaimId, PoolName};
use crate::core::pool::Pool;
use crate::core::time::WallMs;
use crate::wire::text::time;

impl Viewer<'_> {
    fn moment_shown(&self) -> Moment {
        Moment { now: self.now.wall, revision: self.snapshot.revision }
    }

    fn row(&self, pool: &Pool) -> PoolRow {
        let summary = views::pool(pool);
        let mut row = PoolRow {
            pool: summary.pool,
            locks: summary.locks,
            free: summary.free,
            waiting: summary.waiting,
            ..PoolRow::default()
        };
        let mut oldest_hold: Option<WallMs> = None;
        for lock in pool.locks.values() {
            row.held += usize::from(!lock.holders.is_empty());
            row.quarantined += usize::from(lock.quarantine.is_some());
            for claim in lock.holders.iter().filter_map(|holder| self.snapshot.claims.get(&holder.claim)) {
                row.suspect += usize::from(self.snapshot.suspect(claim).is_some());
                if let Phase::Held { since, .. } = claim.phase {
                    oldest_hold = Some(oldest_hold.map_or(since, |oldest| oldest.min(since)));
                }
            }
        }
        let waiting = pool.waiting.values().filter_map(|id| self.snapshot.claims.get(id));
        row.oldest_wait = waiting.map(|claim| claim.asked_at).min().map(time);
        row.oldest_hold = oldest_hold.map(time);
        row
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
