//! The web page: from a snapshot to a page (`super::super::pages`).

use std::sync::Arc;

use super::super::auth::access::Right;
use super::super::auth::sessions::{PAGE_TOKEN, page_token};
use super::super::history::{self as past, Counted, Filter, Named, Scope, Wanted};
use super::super::http::{Request, Response};
use super::super::pages::{self, Asked, May, Moment, Over, Page, PoolRow, Visitor};
use super::super::views::Viewer;
use super::browse::are_long;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, changes, claims, forbidden, info, pools};
use crate::core::limits;
use crate::core::names::{ClaimId, NamePattern, PoolName, Revision};
use crate::core::pool::Pool;
use crate::core::state::Snapshot;
use crate::core::time::WallMs;
use crate::store::shared::Standing;
use crate::wire::api::{ChangeView, ClaimState, ClaimView};
use crate::wire::text::{parse_time, time};

/// Most entries of the history on the page of a pool: those of the last hours in most pools.
const LAST_CHANGES: usize = 30;
/// Most entries in a feed: a reader asks again within the hour.
const FEED_ENTRIES: usize = 50;
/// Most entries on a page of the history.
const HISTORY_ENTRIES: usize = 100;

/// A page with its status.
pub(super) type Made = (u16, Moment, Page);

/// Figures, and when they were counted.
pub(super) struct Kept {
    counted: Counted,
    at: WallMs,
}

impl Viewer<'_> {
    fn moment_shown(&self) -> Moment {
        Moment { now: self.now.wall, revision: self.snapshot.revision }
    }

    /// What the caller may do in a pool.
    fn may_in(&self, name: &PoolName) -> May {
        let rights = Right::ALL.into_iter().filter(|right| self.caller.may(*right, name)).collect();
        let pool = self.snapshot.pool(name).filter(|_| self.caller.is_limited());
        let claims = pool.map(|pool| {
            let held = pool.locks.values().flat_map(|lock| lock.holders.iter().map(|holder| &holder.claim));
            let ids = held.chain(pool.waiting.values().take(limits::PAGE));
            let own = ids.filter(|id| self.snapshot.claims.get(*id).is_some_and(|claim| self.caller.owns(claim)));
            own.map(ToString::to_string).collect()
        });
        May { rights, own: claims }
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
pub(super) async fn overview(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    call.asks_nothing()?;
    let is_long = |snapshot: &Snapshot| are_long(snapshot.pools.values().map(|pool| &**pool));
    let shared = routes.standing.as_deref().map(Standing::shown).map(|shown| info::shared(&shown));
    let make = routes.browse(call, is_long, move |viewer| {
        let mut seen = viewer.snapshot.pools.values().filter(|pool| viewer.caller.sees(&pool.name));
        let rows: Vec<_> = seen.by_ref().take(limits::PAGE).map(|pool| viewer.row(pool)).collect();
        let moment = viewer.moment_shown();
        (200, moment, pages::overview(moment, &rows, seen.count(), shared.as_ref()))
    });
    shown(routes, call, make).await
}

/// `GET /pools/{pool}`, and for pages and programs that embed it `/pools/{pool}.svg` and `/pools/{pool}.atom`.
pub(super) async fn pool(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let name = call.path::<PoolName>("pool", &mut problems);
    let name = problems.done(name)?;
    if let Some(response) = embedded(routes, call, &name).await? {
        return Ok(response);
    }
    call.caller.check(Right::Look, &name).map_err(forbidden)?;
    shown(routes, call, of_pool(routes, call, &name)).await
}

async fn of_pool(routes: &Routes, call: &Call<'_>, name: &PoolName) -> Result<Made, Failure> {
    let keys: Vec<_> = routes.look(call, |viewer| {
        let changes = viewer.snapshot.pool(name).map(|pool| pool.changes.keys().rev().take(LAST_CHANGES).copied());
        changes.into_iter().flatten().collect()
    });
    let changes = changes::entries(routes, call, keys).await?;
    let (pool, name) = (name, name.clone());
    let is_long = |snapshot: &Snapshot| are_long(snapshot.pool(pool).into_iter());
    let show = move |viewer: &Viewer<'_>| {
        let moment = viewer.moment_shown();
        match pools::view(viewer, &name, None, limits::PAGE) {
            Some(view) => (200, moment, pages::pool(moment, &view, &changes, &viewer.may_in(&name))),
            None => (404, moment, pages::missing(&format!("There is no pool called {:?}.", name.as_str()))),
        }
    };
    routes.browse(call, is_long, show).await
}

/// The answer with a page. A page that only refreshes itself may get one that was made for another reader a moment ago:
/// it follows events, so it asks again. Whoever opens a page, or has just done something, gets the present.
async fn shown(
    routes: &Routes,
    call: &Call<'_>,
    make: impl Future<Output = Result<Made, Failure>>,
) -> Result<Response, Failure> {
    let request = call.request;
    let refreshes = request.header(PAGE_TOKEN).is_some() && request.header("cache-control").is_none();
    // What the caller owns shows in what it is offered, so pages are shared only where nobody's rights differ.
    let own = call.caller.identity().filter(|_| call.caller.is_limited()).cloned();
    let key = (request.path.clone(), call.caller.key(), own);
    let made = if refreshes { routes.made.get(key, make).await? } else { Arc::new(make.await?) };
    let (status, moment, page) = &*made;
    Ok(pages::page(*status, *moment, &visitor(request), page))
}

/// The badge or the feed of a pool, if the name asks for one. A pool whose whole name ends like that has its page there.
async fn embedded(routes: &Routes, call: &Call<'_>, name: &PoolName) -> Result<Option<Response>, Failure> {
    let snapshot = routes.engine.snapshot();
    // A pool that the caller may not look at does not exist for it.
    if snapshot.pool(name).is_some() && call.caller.sees(name) {
        return Ok(None);
    }
    let without = |end| name.as_str().strip_suffix(end).and_then(|name| PoolName::parse(name).ok());
    if let Some(name) = without(".svg") {
        call.caller.check(Right::Look, &name).map_err(forbidden)?;
        let summary = routes.look(call, |viewer| viewer.snapshot.pool(&name).map(|pool| viewer.pool(pool)));
        return Ok(Some(pages::badge(call.request, name.as_str(), summary.as_ref())));
    }
    let Some(name) = without(".atom") else { return Ok(None) };
    call.caller.check(Right::Look, &name).map_err(forbidden)?;
    let Some(pool) = snapshot.pool(&name) else { return Ok(None) };
    let newest = pool.changes.iter().rev().filter(|(_, listed)| listed.kind.is_version());
    let keys = newest.take(FEED_ENTRIES).map(|(key, _)| *key).collect();
    let entries = changes::entries(routes, call, keys).await?;
    Ok(Some(pages::feed(call.request, routes.engine.store_id(), name.as_str(), &entries)))
}

/// `GET /claims/{id}`.
pub(super) async fn claim(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let id = problems.done(id)?;
    let view = claims::view(routes, call, &id).await?;
    let moment = routes.look(call, |viewer| viewer.moment_shown());
    let entries = match &view {
        Some(view) => life(routes, call, &id, view).await?,
        None => Vec::new(),
    };
    let status = if view.is_some() { 200 } else { 404 };
    let page = pages::claim(moment, id.as_str(), view.as_ref(), &entries);
    Ok(pages::page(status, moment, &visitor(call.request), &page))
}

/// Some entries about a claim, the oldest first: the first ones of a live claim, the last ones of an ended one.
async fn life(routes: &Routes, call: &Call<'_>, id: &ClaimId, view: &ClaimView) -> Result<Vec<ChangeView>, Failure> {
    let moment = |at: &Option<String>| at.as_deref().and_then(|at| parse_time(at).ok());
    let filter = Filter { claim: Some(id.clone()), caller: call.caller.clone(), ..Filter::default() };
    if view.state == ClaimState::Ended {
        // Only a bounded part of the history is searched, which ends with the claim.
        let until = moment(&view.ended_at).map(|at| WallMs(at.0 + 1));
        let wanted = Wanted::newest_first(Filter { until, ..filter }, None, LAST_CHANGES);
        let mut found = wanted.of_all(&routes.engine).await.map_err(Failure::unreadable)?.items;
        found.reverse();
        return Ok(found);
    }
    let pool: Option<PoolName> = view.asks.first().and_then(|part| part.pool.parse().ok());
    let entries = pool.as_ref().and_then(|pool| Some(routes.engine.snapshot().pool(pool)?.changes.clone()));
    let Some((pool, entries)) = pool.zip(entries) else { return Ok(Vec::new()) };
    // Nothing about it is older than the claim, so nothing older is read.
    let filter = Filter { since: moment(&view.asked_at), ..filter };
    let wanted = Wanted { filter, ..Wanted::after(Revision(0), LAST_CHANGES) };
    Ok(wanted.of_pool(&routes.engine, &pool, entries).await.map_err(Failure::unreadable)?.items)
}

/// `GET /history`: entries by filter, the newest first.
pub(super) async fn history(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let call = call.clone().without_empty();
    let moment = routes.look(&call, |viewer| viewer.moment_shown());
    let given = pages::FILTERS.iter().filter_map(|(name, ..)| Some((*name, call.query_text(name)?.to_owned())));
    let asked = Asked { filters: given.collect() };
    let mut problems = call.problems();
    let filter = changes::filter(&call, moment.now, &mut problems);
    let after = call.query::<u64>("after", &mut problems).map(Revision);
    let answer = |status, found| {
        let page = pages::history(moment, &asked, found);
        Ok(pages::page(status, moment, &visitor(call.request), &page))
    };
    if let Err(failure) = problems.done(Some(())).map_err(Failure::from) {
        return answer(failure.status, Err(failure.error.as_str()));
    }
    let wanted = Wanted::newest_first(filter, after, HISTORY_ENTRIES);
    let found = wanted.of_all(&routes.engine).await.map_err(Failure::unreadable)?;
    answer(200, Ok((&found.items, found.next.as_deref())))
}

/// `GET /figures`: waits, holds and use over a span.
pub(super) async fn figures(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let call = call.clone().without_empty();
    let mut problems = call.problems();
    let pools = call.query::<NamePattern>("pool", &mut problems);
    let over = call.query_text("over").map_or(Some(Over::Day), Over::parse);
    if over.is_none() {
        problems.add("over", "must be day, week or 90-days");
    }
    let over = problems.done(over)?;
    let named = call.query_text("pool").unwrap_or_default();
    let scope = Scope { of: pools.map_or(Named::All, Named::Like), caller: call.caller.clone() };
    let key = (over, named.to_owned(), call.caller.key());
    let kept = routes.figures.get(key, counted(routes, over, &scope)).await.map_err(Failure::unreadable)?;
    let (moment, snapshot) = (routes.look(&call, |viewer| viewer.moment_shown()), routes.engine.snapshot());
    let locks =
        |pool: &str| pool.parse().ok().and_then(|pool| Some(snapshot.pool(&pool)?.locks.len())).unwrap_or_default();
    let shown = pages::Shown {
        over,
        pools: named,
        figures: &kept.counted.figures,
        locks: &locks,
        counted: (&time(kept.at), &time(kept.counted.until)),
        complete: kept.counted.complete,
    };
    Ok(pages::page(200, moment, &visitor(call.request), &pages::figures(moment, &shown)))
}

async fn counted(routes: &Routes, over: Over, scope: &Scope) -> anyhow::Result<Kept> {
    let at = routes.engine.now().wall;
    let span = (WallMs(at.0.saturating_sub(over.span().0)), at);
    Ok(Kept { counted: past::count(&routes.engine, scope, span, 0).await?, at })
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
