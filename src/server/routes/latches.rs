//! `/lock` and `/lock/`: latches, the Argo contract (contracts section 5).
//!
//! Contract routes ignore the content type, unknown members and unknown parameters, so that the original clients and
//! URLs with parameters of a proxy in them work.

use std::collections::BTreeMap;

use super::super::http::{Request, Response, Turn};
use super::super::watchers::Topic;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, json};
use crate::core::latch::{Latch, LatchId, NewLatch};
use crate::core::names::Revision;
use crate::core::state::World;
use crate::core::step::{Command, Refusal, Reply};
use crate::core::time::Span;
use crate::env::random_bytes;
use crate::wire::ask;
use crate::wire::errors::Code;
use crate::wire::latch::{self, LatchView};
use crate::wire::problems::{Problems, quoted, unknown};
use crate::wire::text::percent_decoded;

/// Header of a listing: the revision up to which it is complete, to be given as `after` next time.
const REVISION: &str = "locker-revision";

/// `GET /lock?id=` looks at one, `GET /lock?status=` lists.
pub(super) fn get(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let query = Query::read(&call.request.query)?;
    refuse_empty_name(call, &query)?;
    look(routes, call.request, &query)
}

/// `POST /lock` makes one.
pub(super) fn post(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    if is_below(call) && call.request.body.is_empty() {
        return Err(empty_name());
    }
    create(routes, call.request)
}

/// `PATCH /lock?id=` releases one.
pub(super) fn patch(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    release(routes, call.request, &Query::read(&call.request.query)?)
}

/// `DELETE /lock?id=` deletes one.
pub(super) fn delete(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let query = Query::read(&call.request.query)?;
    refuse_empty_name(call, &query)?;
    latch_of(routes, Command::DeleteLatch { id: query.id()? })?;
    Ok(json(&serde_json::Map::new()))
}

/// To a lockd client, `/lock/` without a query is a lock with an empty name.
fn refuse_empty_name(call: &Call, query: &Query) -> Result<(), Failure> {
    let nothing_named = query.id.is_none() && query.status.is_none();
    if is_below(call) && nothing_named { Err(empty_name()) } else { Ok(()) }
}

fn is_below(call: &Call) -> bool {
    call.request.path.ends_with('/')
}

fn empty_name() -> Failure {
    let error = "Name is empty: name a lock as /lock/NAME, a latch as /lock?id=ID, and make one with a JSON body";
    Failure::new(Code::NoSuchRoute, error)
}

/// What the query says; unknown parameters are left alone.
#[derive(Default)]
struct Query {
    id: Option<String>,
    status: Option<String>,
    wait: Option<String>,
    after: Option<String>,
}

impl Query {
    fn read(query: &str) -> Result<Self, Failure> {
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        let mut problems = Problems::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !["id", "status", "wait", "after"].contains(&name) {
                continue;
            }
            match percent_decoded(&value.replace('+', " ")) {
                Ok(_) if given.contains_key(name) => problems.add(name, "is given twice"),
                Ok(value) => drop(given.insert(name.to_owned(), value)),
                Err(problem) => problems.add(name, problem),
            }
        }
        problems.done(Some(()))?;
        let mut take = |name| given.remove(name);
        Ok(Self { id: take("id"), status: take("status"), wait: take("wait"), after: take("after") })
    }

    /// The latch that is meant. What cannot be an id is no latch's.
    fn id(&self) -> Result<LatchId, Failure> {
        match self.id.as_deref() {
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
}

fn latch_of(routes: &Routes, command: Command) -> Result<LatchView, Failure> {
    match routes.engine.call(command)? {
        Reply::Latch(latch) => Ok(latch::view(&latch)),
        other => Err(Failure::unexpected(&other)),
    }
}

fn create(routes: &Routes, request: &Request) -> Result<Response, Failure> {
    let mut problems = Problems::default();
    let wanted = latch::create(&request.body, &mut problems);
    let latch::Wanted { id, target, ending } = problems.done(wanted)?;
    let id = id.unwrap_or_else(|| LatchId::from_random(random_bytes()));
    let view = latch_of(routes, Command::CreateLatch(Box::new(NewLatch { id, target, ending })))?;
    Ok(json(&view))
}

fn release(routes: &Routes, request: &Request, query: &Query) -> Result<Response, Failure> {
    let id = query.id()?;
    let mut problems = Problems::default();
    let ending = latch::release(&request.body, &mut problems);
    problems.done(Some(()))?;
    Ok(json(&latch_of(routes, Command::ReleaseLatch { id, ending })?))
}

/// One latch, or a listing; with `wait`, held until the latch is released (or gone), or until the listing of released
/// ones has an entry.
fn look(routes: &Routes, request: &Request, query: &Query) -> Result<Response, Failure> {
    let wanted = Wanted::of(query)?;
    let mut problems = Problems::default();
    let wait = ask::wait("wait", query.wait.as_deref(), &mut problems);
    if query.wait.is_some() && matches!(wanted, Wanted::Listed { released: None | Some(false), .. }) {
        problems.add("wait", "needs `id` or `status=released`: nothing else can be waited for");
    }
    problems.done(Some(()))?;
    let park = request.park;
    let may_park = wait > Span(0) && request.can_park && request.turn != Turn::Last;
    if may_park {
        // Before the look, else what happens in between is missed.
        routes.watchers.watch(park, wanted.topic());
    }
    let (response, is_there) = wanted.look(&routes.engine.world());
    if !(may_park && !is_there) {
        routes.watchers.unwatch(park);
    }
    let response = response?;
    Ok(Response { park: (may_park && !is_there).then_some(wait), ..response })
}

/// What a `GET` wants to see.
enum Wanted {
    One(LatchId),
    /// Latches in this state (or all); released ones only if released after this revision.
    Listed {
        released: Option<bool>,
        after: Revision,
    },
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, Failure> {
        let Some(status) = query.status.as_deref().filter(|_| query.id.is_none()) else {
            return query.id().map(Self::One);
        };
        let mut problems = Problems::default();
        let after = problems.parse_some::<u64>("after", query.after.as_deref()).map(Revision);
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
            problems.add("after", "goes with status=released");
        }
        Ok(problems.done(Some(Self::Listed { released, after: after.unwrap_or_default() }))?)
    }

    fn topic(&self) -> Topic {
        match self {
            Self::One(id) => Topic::Latch(*id),
            Self::Listed { .. } => Topic::Latches,
        }
    }

    /// The answer, and whether it is worth waking for.
    fn look(&self, world: &World) -> (Result<Response, Failure>, bool) {
        match self {
            Self::One(id) => match world.latches.get(id) {
                Some(latch) => (Ok(json(&latch::view(latch))), latch.released().is_some()),
                None => (Err(Refusal::NoSuchLatch { id: *id }.into()), true),
            },
            Self::Listed { released, after } => {
                let latches = listed(world, *released, *after);
                let response = Response { headers: vec![(REVISION, world.revision.to_string())], ..json(&latches) };
                (Ok(response), !latches.is_empty())
            }
        }
    }
}

/// Released ones in the order of their release, others by id.
fn listed(world: &World, released: Option<bool>, after: Revision) -> Vec<LatchView> {
    let view = |latch: &Latch| latch::view(latch);
    if released == Some(true) {
        let from = (after.next(), LatchId::smallest());
        let ids = world.released_latches.range(from..).map(|(_, id)| id);
        return ids.filter_map(|id| world.latches.get(id)).map(|latch| view(latch)).collect();
    }
    let wanted = |latch: &&std::sync::Arc<Latch>| released.is_none() || latch.released().is_none();
    world.latches.values().filter(wanted).map(|latch| view(latch)).collect()
}
