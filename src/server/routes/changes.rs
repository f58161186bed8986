//! History: pages, long polls, single revisions, notes (`docs/design.md#history`).

use super::super::history::{Filter, OfBuild, Order, Wanted};
use super::super::http::Response;
use super::super::long_polls::Topic;
use super::super::views;
use super::browse::is_long;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, json};
use crate::core::command::{Command, Refusal};
use crate::core::names::{ChangeKey, ClaimId, LockName, NamePattern, PoolName, Revision, Text};
use crate::core::time::{Span, WallMs};
use crate::wire::api::{ChangeKind, ChangePage, ChangeView, NoteBody, Page};
use crate::wire::errors::Code;
use crate::wire::parse;
use crate::wire::problems::Problems;
use crate::wire::text::moment;

/// Where a listing of the newest entries first continues.
const NEWEST_FIRST: &str = "newest_first";
const OLDEST_FIRST: &str = "oldest_first";

/// What a request asks for.
fn wanted(call: &Call, now: WallMs, problems: &mut Problems) -> Wanted {
    let after = call.query::<u64>("after", problems).map(Revision);
    let from = call.query::<u64>("from", problems).map(Revision);
    if after.is_some() && from.is_some() {
        problems.add("from", "cannot be combined with `after`");
    }
    let order = match call.query_text("order") {
        None | Some(OLDEST_FIRST) => Order::OldestFirst,
        Some(NEWEST_FIRST) => Order::NewestFirst,
        Some(_) => {
            problems.add("order", format!("must be {OLDEST_FIRST} or {NEWEST_FIRST}"));
            Order::OldestFirst
        }
    };
    if order == Order::NewestFirst {
        for other in ["from", "newest", "wait"].into_iter().filter(|name| call.query_text(name).is_some()) {
            problems.add(other, format!("cannot be combined with `order={NEWEST_FIRST}`"));
        }
    }
    let filter = Filter { given: from, versions: call.flag("versions", problems), ..filter(call, now, problems) };
    let newest = call.flag("newest", problems);
    if newest && filter.needs_entries() {
        for name in ["pool", "lock", "claim", "build", "who"] {
            if call.query_text(name).is_some() {
                problems.add(name, format!("cannot be combined with `newest`: ask with `order={NEWEST_FIRST}`"));
            }
        }
    }
    Wanted { filter, order, after, from, newest, limit: call.limit(problems) }
}

/// Which entries a request asks for.
pub(super) fn filter(call: &Call, now: WallMs, problems: &mut Problems) -> Filter {
    let cluster = call.query::<Text>("cluster", problems);
    let build = call.query::<Text>("build", problems).map(|id| OfBuild { cluster, id });
    if call.query_text("cluster").is_some() && call.query_text("build").is_none() {
        problems.add("cluster", "needs a `build`");
    }
    let kinds = call.query_text("kind").map(ChangeKind::parse_list).transpose();
    let kinds = kinds.map_err(|error| problems.add("kind", error)).ok().flatten().unwrap_or_default();
    Filter {
        pools: call.query::<NamePattern>("pool", problems),
        lock: call.query::<LockName>("lock", problems),
        claim: call.query::<ClaimId>("claim", problems),
        build,
        who: call.query::<Text>("who", problems).map(|who| who.as_str().to_lowercase()),
        kinds: kinds.into_iter().map(Into::into).collect(),
        since: time("since", call, now, problems),
        until: time("until", call, now, problems),
        caller: call.caller.clone(),
        ..Filter::default()
    }
}

/// A time, or a span before now.
pub(super) fn time(name: &str, call: &Call, now: WallMs, problems: &mut Problems) -> Option<WallMs> {
    moment(call.query_text(name)?, now).map_err(|error| problems.add(name, error)).ok()
}

/// `GET /api/v1/pools/{pool}/changes`.
pub(super) async fn of_pool(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let wanted = wanted(call, routes.engine.now().wall, &mut problems);
    let wait = parse::wait("wait", call.query_text("wait"), &mut problems);
    let pool = problems.done(pool)?;
    page_or_park(routes, call, wait, Topic::Pool(pool.clone()), async {
        let found = routes.engine.snapshot().pool(&pool).map(|found| (found.changes.clone(), found.pruned));
        let (entries, pruned) = found.ok_or_else(|| Refusal::NoSuchPool { pool: pool.clone() })?;
        let missing_before = wanted.lacks(pruned);
        let page = wanted.of_pool(&routes.engine, &pool, entries).await.map_err(Failure::unreadable)?;
        Ok(ChangePage { page, missing_before })
    })
    .await
}

/// `GET /api/v1/changes`: all pools, including removed ones.
pub(super) async fn of_all(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let wanted = wanted(call, routes.engine.now().wall, &mut problems);
    let wait = parse::wait("wait", call.query_text("wait"), &mut problems);
    problems.done(Some(()))?;
    page_or_park(routes, call, wait, Topic::Changes, async {
        let missing_before = wanted.lacks(routes.engine.snapshot().history.pruned);
        let page = wanted.of_all(&routes.engine).await.map_err(Failure::unreadable)?;
        Ok(ChangePage { page, missing_before })
    })
    .await
}

/// The entries with these keys, as they are shown.
pub(super) async fn entries(
    routes: &Routes,
    call: &Call<'_>,
    keys: Vec<ChangeKey>,
) -> Result<Vec<ChangeView>, Failure> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let read = routes.engine.read(move |reader| reader.entries(&keys)).await;
    let read = read.map_err(Failure::unreadable)?;
    let shown = read.iter().filter_map(|change| call.caller.shown_change(change));
    Ok(shown.map(|change| views::change(&change)).collect())
}

/// Returns a page. With `wait`, the request is held until there is an entry.
async fn page_or_park(
    routes: &Routes,
    call: &Call<'_>,
    wait: Span,
    topic: Topic,
    page: impl Future<Output = Result<ChangePage, Failure>>,
) -> Result<Response, Failure> {
    let park = call.request.park;
    let may_park = wait > Span(0) && call.may_park();
    if may_park {
        // Register before reading, or a change in between is missed.
        routes.long_polls.watch(park, topic);
    }
    let page = page.await;
    let nothing_yet = page.as_ref().is_ok_and(|ChangePage { page, .. }| page.items.is_empty() && page.next.is_none());
    if !(may_park && nothing_yet) {
        routes.long_polls.unwatch(park);
    }
    let page = page?;
    let response = routes.browser.work(is_long(page.page.items.len()), move || json(&page)).await?;
    Ok(Response { park: (may_park && nothing_yet).then_some(wait), ..response })
}

/// `GET /api/v1/pools/{pool}/changes/{revision}`: the entries of one revision in this pool.
pub(super) async fn revision(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let revision = call.path::<u64>("revision", &mut problems).map(Revision);
    let (pool, revision) = problems.done(pool.zip(revision))?;
    let range = ChangeKey { revision, seq: 0 }..=ChangeKey { revision, seq: u32::MAX };
    let snapshot = routes.engine.snapshot();
    let keys = snapshot.pool(&pool).map(|found| found.changes.range(range).map(|(key, _)| *key).collect());
    let keys: Vec<ChangeKey> = keys.ok_or_else(|| Refusal::NoSuchPool { pool: pool.clone() })?;
    let items = entries(routes, call, keys).await?;
    if items.is_empty() {
        let error =
            format!("pool {pool:?} has no revision {revision}: it never existed, or it was pruned from the history");
        return Err(Failure::new(Code::NoSuchRevision, error));
    }
    Ok(json(&Page { items, next: None }))
}

/// `POST /api/v1/pools/{pool}/changes`: writes an entry that changes nothing.
pub(super) fn note(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let body = call.body::<NoteBody>(&mut problems).unwrap_or_default();
    let lock = problems.parse_some::<LockName>("lock", body.lock.as_deref());
    let by = parse::by(body.by, &mut problems);
    let pool = problems.done(pool)?;
    Ok(Command::Note { pool, lock, by })
}
