//! `/lock`, with and without a slash at the end: latches, the Argo contract (`docs/latches.md`).

use std::sync::Arc;

use super::super::super::http::{Request, Response};
use super::super::super::long_polls::Topic;
use super::super::browse::is_long;
use super::super::call::Call;
use super::super::failure::Failure;
use super::super::{Routes, json};
use crate::core::command::{Command, Refusal, Reply};
use crate::core::latch::{Latch, LatchId, NewLatch};
use crate::core::names::Revision;
use crate::core::state::Snapshot;
use crate::core::time::Span;
use crate::env::random_bytes;
use crate::server::views::Viewer;
use crate::wire::contracts::lockd::EmptyView;
use crate::wire::errors::Code;
use crate::wire::latch::{self, LatchView};
use crate::wire::parse;
use crate::wire::problems::{Problems, quoted, unknown};

/// Header of a listing: the revision up to which it is complete. Give it as `after` next time.
const REVISION: &str = "locker-revision";

/// Whether a request to `/lock/` is about a latch. Otherwise it names a lock with an empty name, which cannot exist.
pub(in super::super) fn is_of_latch(request: &Request) -> bool {
    let names_one = || {
        let names = request.query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
        names.into_iter().any(|name| matches!(name, "id" | "status"))
    };
    match request.method.as_str() {
        "POST" => !request.body.is_empty(),
        "PATCH" => true,
        "GET" | "HEAD" | "DELETE" => names_one(),
        _ => false,
    }
}

/// The latch that the request names. A text that cannot be an id names no latch.
fn id(call: &Call) -> Result<LatchId, Failure> {
    call.problems().done(Some(()))?;
    match call.query_text("id") {
        None | Some("") => {
            let problem = "id: is missing: name a latch as ?id=ID, or list them with ?status=released";
            Err(Failure::bad(vec![problem.to_owned()]))
        }
        Some(id) => id.parse().map_err(|error| {
            let error = format!("there is no latch {}: {error}", quoted(id));
            Failure::new(Code::NoSuchLatch, error)
        }),
    }
}

/// The answer to a command about a latch: the latch.
pub(in super::super) fn shown(_: &Routes, _: &Call<'_>, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Latch(latch) => Ok(json(&latch::view(&latch))),
        other => Err(Failure::unexpected(&other)),
    }
}

/// The answer to the deletion of a latch: nothing.
pub(in super::super) fn gone(_: &Routes, _: &Call<'_>, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Latch(_) => Ok(json(&EmptyView {})),
        other => Err(Failure::unexpected(&other)),
    }
}

/// `POST /lock`: creates a latch.
pub(in super::super) fn create(call: &Call) -> Result<Command, Failure> {
    let mut problems = Problems::default();
    let wanted = latch::create(&call.request.body, &mut problems);
    let latch::Wanted { id, target, ending } = problems.done(wanted)?;
    let id = id.unwrap_or_else(|| LatchId::from_random(random_bytes()));
    Ok(Command::CreateLatch(Box::new(NewLatch { id, target, ending })))
}

/// `PATCH /lock?id=`: releases a latch.
pub(in super::super) fn release(call: &Call) -> Result<Command, Failure> {
    let id = id(call)?;
    let mut problems = Problems::default();
    let (ending, binding) = latch::release(&call.request.body, &mut problems);
    problems.done(Some(()))?;
    Ok(Command::ReleaseLatch { id, ending, binding: Box::new(binding) })
}

/// `DELETE /lock?id=`: deletes a latch, released or not.
pub(in super::super) fn delete(call: &Call) -> Result<Command, Failure> {
    Ok(Command::DeleteLatch { id: id(call)? })
}

/// `GET /lock?id=` and `?status=`: one latch, or a listing. With `wait`, the request is held until the latch is
/// released (or deleted), or until the listing of released latches has an entry.
pub(in super::super) async fn get(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let wanted = Wanted::of(call)?;
    let mut problems = call.problems();
    let wait = parse::wait("wait", call.query_text("wait"), &mut problems);
    if call.query_text("wait").is_some() && matches!(wanted, Wanted::Listed { released: None | Some(false), .. }) {
        problems.add("wait", "needs `id` or `status=released`: only those can be waited for");
    }
    problems.done(Some(()))?;
    let park = call.request.park;
    let may_park = wait > Span(0) && call.may_park();
    if may_park {
        // Register before reading, or a change in between is missed.
        routes.long_polls.watch(park, wanted.topic());
    }
    let is_listed = matches!(wanted, Wanted::Listed { .. });
    let is_long = |snapshot: &Snapshot| is_listed && is_long(snapshot.latches.len());
    let (response, is_there) = routes.browse(call, is_long, move |viewer| wanted.look(viewer)).await?;
    if !may_park || is_there {
        routes.long_polls.unwatch(park);
    }
    let response = response?;
    Ok(Response { park: (may_park && !is_there).then_some(wait), ..response })
}

/// What a `GET` asks for.
enum Wanted {
    One(LatchId),
    /// The latches in this state, or all of them. Released ones only if they were released after this revision.
    Listed {
        released: Option<bool>,
        after: Revision,
    },
}

impl Wanted {
    fn of(call: &Call) -> Result<Self, Failure> {
        let (None, Some(status)) = (call.query_text("id"), call.query_text("status")) else {
            return id(call).map(Self::One);
        };
        let mut problems = call.problems();
        let after = call.query::<u64>("after", &mut problems).map(Revision);
        let released = match status {
            "released" => Some(true),
            "locked" => Some(false),
            "all" => None,
            other => {
                problems.add("status", unknown("status", other, &["locked", "released", "all"]));
                None
            }
        };
        if after.is_some() && released != Some(true) {
            problems.add("after", "can only be used with status=released");
        }
        Ok(problems.done(Some(Self::Listed { released, after: after.unwrap_or_default() }))?)
    }

    fn topic(&self) -> Topic {
        match self {
            Self::One(id) => Topic::Latch(*id),
            Self::Listed { .. } => Topic::Latches,
        }
    }

    /// The answer, and whether a waiting request should be answered with it.
    fn look(&self, viewer: &Viewer<'_>) -> (Result<Response, Failure>, bool) {
        let snapshot = viewer.snapshot;
        match self {
            Self::One(id) => match snapshot.latches.get(id).filter(|latch| viewer.caller.sees_latch(&latch.target)) {
                Some(latch) => (Ok(json(&latch::view(latch))), latch.released().is_some()),
                None => (Err(Refusal::NoSuchLatch { id: *id }.into()), true),
            },
            Self::Listed { released, after } => {
                let latches = listed(viewer, *released, *after);
                let headers = vec![(REVISION, snapshot.revision.to_string())];
                (Ok(Response { headers, ..json(&latches) }), !latches.is_empty())
            }
        }
    }
}

/// Released latches in the order of their release, others by id.
fn listed(viewer: &Viewer<'_>, released: Option<bool>, after: Revision) -> Vec<LatchView> {
    let (snapshot, view) = (viewer.snapshot, |latch: &Arc<Latch>| latch::view(latch));
    let is_seen = |latch: &&Arc<Latch>| viewer.caller.sees_latch(&latch.target);
    if released == Some(true) {
        let from = (after.next(), LatchId::smallest());
        let ids = snapshot.released_latches.range(from..).map(|(_, id)| id);
        return ids.filter_map(|id| snapshot.latches.get(id)).filter(is_seen).map(view).collect();
    }
    let wanted = snapshot.latches.values().filter(|latch| released.is_none() || latch.released().is_none());
    wanted.filter(is_seen).map(view).collect()
}
