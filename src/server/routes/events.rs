//! `GET /api/v1/events`: what happens, as server-sent events.
//!
//! The answer has no end of its own. The door calls this route again whenever there may be something to send, as it does
//! for a long poll, and sends what it returns as the next part.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::events::Follower;
use super::super::history::{Filter, Wanted};
use super::super::http::{Attempt, Response};
use super::Routes;
use super::call::Call;
use super::failure::Failure;
use crate::core::command::Refusal;
use crate::core::names::{ParkId, PoolName, Revision};
use crate::core::state::Snapshot;
use crate::core::time::Span;
use crate::server::limits::{EVENTS_BEAT_MS, EVENTS_MS, EVENTS_PART};
use crate::wire::api::{ChangeView, MissingView, NowView, Page};
use crate::wire::errors::Code;

/// How soon a client may come back after the end of its answer, milliseconds.
const RETRY_MS: u64 = 1_000;

/// `GET /api/v1/events`.
pub(super) async fn follow(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let park = call.request.park;
    let part = match call.request.attempt {
        Attempt::First => begin(routes, call).await,
        Attempt::Notified => go_on(routes, call, park).await,
        // The server is stopping.
        Attempt::Last => Ok(end()),
    };
    let goes_on = part.as_ref().is_ok_and(|part| part.stream.is_some()) && call.request.method != "HEAD";
    if !goes_on {
        routes.events().end(park);
    }
    part
}

/// The first part: where the client is.
async fn begin(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = problems.parse_some::<PoolName>("pool", call.query_text("pool"));
    let since = call.query::<u64>("since", &mut problems);
    let last = call.request.header("last-event-id").filter(|id| !id.is_empty());
    // A client that comes back says where it was, which is later than where it began.
    let since = problems.parse_some::<u64>("last-event-id", last).or(since);
    let entries = call.query_text("entries").is_none() || call.flag("entries", &mut problems);
    problems.done(Some(()))?;
    let snapshot = routes.engine.snapshot();
    if let Some(pool) = pool.as_ref().filter(|pool| snapshot.pool(pool).is_none()) {
        return Err(Refusal::NoSuchPool { pool: pool.clone() }.into());
    }
    let now = Instant::now();
    // A number that is still to come is one of another store.
    let after = since.map_or(snapshot.revision, Revision).min(snapshot.revision);
    let session = routes.sessions.of(call.request, now);
    let ends = now + Duration::from_millis(EVENTS_MS);
    let follower = Follower { pool, entries, after, told: now, session, ends };
    if !call.may_park() || !routes.events().begin(call.request.park, follower.clone()) {
        return Err(Failure::new(Code::Limit, "too many clients follow events: ask for changes instead, or later"));
    }
    let mut text = format!("retry: {RETRY_MS}\n\n");
    let pool = follower.pool.as_ref().and_then(|pool| snapshot.pool(pool));
    let pruned = pool.map_or(snapshot.history.pruned, |pool| pool.pruned);
    if let Some(missing_before) = Wanted::after(after, 0).lacks(pruned).filter(|_| entries) {
        event(&mut text, "missing", None, &MissingView { missing_before });
    }
    let behind = news(routes, call, &follower, &snapshot).await?;
    match &behind {
        Some((events, _)) => text.push_str(events),
        None => text.push_str(&now_event(after)),
    }
    let after = behind.map_or(after, |(_, after)| after);
    routes.events().update(call.request.park, after, now);
    Ok(part(text, &follower, after, &routes.engine.snapshot()))
}

/// A further part: what is new, a sign of life, or nothing.
async fn go_on(routes: &Routes, call: &Call<'_>, park: ParkId) -> Result<Response, Failure> {
    let Some(follower) = routes.events().get(park) else { return Ok(end()) };
    let (snapshot, now) = (routes.engine.snapshot(), Instant::now());
    let removed = follower.pool.as_ref().is_some_and(|pool| snapshot.pool(pool).is_none());
    let signed_out = follower.session.is_some_and(|session| !routes.sessions.lasts(&session, now));
    if removed || signed_out || now >= follower.ends {
        return Ok(end());
    }
    let (text, after) = match news(routes, call, &follower, &snapshot).await? {
        Some(news) => news,
        None if now.duration_since(follower.told) >= Duration::from_millis(EVENTS_BEAT_MS) => {
            (now_event(snapshot.revision), snapshot.revision)
        }
        None => return Ok(part(String::new(), &follower, follower.after, &snapshot)),
    };
    routes.events().update(park, after, now);
    Ok(part(text, &Follower { told: now, ..follower }, after, &snapshot))
}

/// The events that this follower does not have yet, and the revision up to which it then has everything. `None` if there
/// is nothing new.
async fn news(
    routes: &Routes,
    call: &Call<'_>,
    follower: &Follower,
    snapshot: &Snapshot,
) -> Result<Option<(String, Revision)>, Failure> {
    if newest(follower, snapshot) <= follower.after {
        return Ok(None);
    }
    if !follower.entries {
        return Ok(Some((now_event(snapshot.revision), snapshot.revision)));
    }
    let filter = Filter { caller: call.caller.clone(), ..Filter::default() };
    let wanted = Wanted { filter, ..Wanted::after(follower.after, EVENTS_PART) };
    let page = match &follower.pool {
        Some(pool) => {
            let entries = snapshot.pool(pool).map(|found| found.changes.clone()).unwrap_or_default();
            wanted.of_pool(&routes.engine, pool, entries).await
        }
        None => wanted.of_all(&routes.engine).await,
    };
    let Page { items, next } = page.map_err(Failure::unreadable)?;
    let last = items.last().map_or(follower.after, |item| Revision(item.revision));
    let mut text = change_events(&items);
    if next.is_some() {
        // More follows at once, so this is not yet the present.
        return Ok(Some((text, last)));
    }
    let after = snapshot.revision.max(last);
    text.push_str(&now_event(after));
    Ok(Some((text, after)))
}

/// The newest revision that this follower may want to know of.
fn newest(follower: &Follower, snapshot: &Snapshot) -> Revision {
    match &follower.pool {
        None => snapshot.revision,
        Some(pool) => {
            let newest = snapshot.pool(pool).and_then(|pool| pool.changes.keys().next_back());
            newest.map_or(Revision(0), |key| key.revision)
        }
    }
}

/// The next part of the answer. The door asks again at a notice, or when a sign of life is due; at once if the client
/// is still behind.
fn part(text: String, follower: &Follower, after: Revision, snapshot: &Snapshot) -> Response {
    let headers = [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")];
    let is_behind = newest(follower, snapshot) > after;
    let beat = Duration::from_millis(EVENTS_BEAT_MS).saturating_sub(follower.told.elapsed());
    let pause = if is_behind { Duration::ZERO } else { beat };
    let stream = Some(Span(u64::try_from(pause.as_millis()).unwrap_or(EVENTS_BEAT_MS)));
    Response {
        headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
        stream,
        ..Response::new(200, text.into_bytes())
    }
}

/// The end of the answer.
fn end() -> Response {
    Response::new(200, Vec::new())
}

/// One event for each entry. The last one of a revision has its number as id, so that who comes back misses none.
fn change_events(items: &[ChangeView]) -> String {
    let mut text = String::new();
    for (n, item) in items.iter().enumerate() {
        let is_last = items.get(n + 1).is_none_or(|next| next.revision != item.revision);
        event(&mut text, "change", is_last.then_some(item.revision), item);
    }
    text
}

/// Everything up to this revision has been sent.
fn now_event(Revision(revision): Revision) -> String {
    let mut text = String::new();
    event(&mut text, "now", Some(revision), &NowView { revision });
    text
}

fn event(text: &mut String, name: &str, id: Option<u64>, data: &impl Serialize) {
    // Views have text keys and no maps that could fail. JSON has no line breaks outside of text, where they are escaped.
    let data = serde_json::to_string(data).unwrap_or_default();
    // Writing to a String cannot fail.
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
}
