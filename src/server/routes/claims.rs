//! Claims: ask, read, confirm, end (`docs/design.md#the-life-of-a-claim`).

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;

use super::super::auth::access::{Caller, Right};
use super::super::http::{Attempt, Response};
use super::super::views::{self, Viewer};
use super::browse::is_long;
use super::call::Call;
use super::failure::Failure;
use super::release;
use super::{Routes, forbidden, json, respond};
use crate::core::claim::{BuildRef, Claim, Owner, Phase};
use crate::core::command::{AskClaim, Command, MoveTo, Refusal, Reply, Wait};
use crate::core::names::{ClaimId, Fence, PoolName, Reason, Revision, Run, Text};
use crate::core::state::Snapshot;
use crate::core::time::Span;
use crate::server::pager::Pager;
use crate::store::{Found, Reader};
use crate::wire::api;
use crate::wire::api::{
    BreakBody, ClaimBody, ClaimState, ClaimView, ConfirmBody, DeliverBody, MoveBody, Page, QueueEnd, RenewBody,
    WaitingView,
};
use crate::wire::errors::Code;
use crate::wire::escape::escape;
use crate::wire::parse;
use crate::wire::problems::{Problems, quoted, unknown};

/// How long after its commit a batch is published at the latest, unless the machine is very busy.
const PUBLISHED_SOON: Duration = Duration::from_millis(1);
/// How often a claim that will be published in a moment is looked for.
const LOOKS: u32 = 1_000;

/// `PUT /api/v1/claims/{id}`.
pub(super) async fn put(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let body = call.body::<ClaimBody>(&mut problems);
    // An invalid id must not hide problems in the body.
    let id_or_any = id.clone().unwrap_or_else(ClaimId::smallest);
    let asked = body.and_then(|body| parse::claim(id_or_any, body, &mut problems));
    let parse::Asked { ask, wait, expect_store } = problems.done(id.and(asked))?;
    let store = routes.engine.store_id();
    if let Some(expected) = expect_store.filter(|expected| expected != store) {
        let error = format!("this server's store is {store:?}, not {}: check the server's URL", quoted(&expected));
        return Err(Failure::new(Code::OtherStore, error));
    }
    for part in &ask.terms.ask.parts {
        // Nobody else is asked about a build for a claim that may not be.
        call.caller.check(Right::Claim, &part.pool).map_err(forbidden)?;
    }
    routes.admit(&ask).await?;
    let is_new = !routes.engine.snapshot().claims.contains_key(&ask.id);
    let request = call.request;
    let prepared = match request.attempt {
        Attempt::First | Attempt::Notified if wait > Span(0) && request.can_park => Wait::Park(request.park),
        Attempt::Notified | Attempt::Last => Wait::Over(request.park),
        Attempt::First => Wait::No,
    };
    let command = Command::Ask(Box::new(AskClaim { wait: prepared, ..ask }));
    let reply = routes.ask(call, command).await?;
    if let Reply::Claim { claim, .. } = &reply
        && is_new
    {
        log_new_pools(routes, call, claim);
    }
    match reply {
        Reply::Claim { claim, .. } if !claim.waits() => Ok(own(routes, call, &claim)),
        Reply::Claim { claim, parked: true } => Ok(Response { park: Some(wait), ..parked(&claim) }),
        Reply::Claim { claim, parked: false } => {
            Ok(waiting(routes, call, &claim, request.attempt == Attempt::Last && wait > Span(0)))
        }
        Reply::Busy(ask) => Ok(busy(routes, call, &ask)),
        other => Err(Failure::unexpected(&other)),
    }
}

/// The answer with a claim, for its own client.
fn own(routes: &Routes, call: &Call<'_>, claim: &Claim) -> Response {
    let (view, own) = routes.look(call, |viewer| (viewer.own_claim(claim, false), viewer.siblings(claim)));
    json(&ClaimView { alike: release::is_alike(routes, claim), own, ..view })
}

/// A claim may have made a pool because somebody mistyped a name, and then it locks nothing that anybody else locks.
fn log_new_pools(routes: &Routes, call: &Call<'_>, claim: &Claim) {
    if claim.made.is_empty() {
        return;
    }
    for made in routes.look(call, |viewer| viewer.own_claim(claim, false)).made {
        let (pool, nearest) = (escape(&made.pool), made.nearest.as_deref().map(escape));
        let claim = claim.id.as_str();
        match nearest {
            Some(nearest) => {
                tracing::warn!(pool, nearest, claim, "a claim has made a new pool: was the other one meant?");
            }
            None => tracing::info!(pool, claim, "a claim has made a new pool"),
        }
    }
}

/// The answer that is sent only if parking fails after all. It is short, because each notice makes one.
fn parked(claim: &Claim) -> Response {
    locked(&bare(Code::Waiting, format!("claim {:?} waits: ask again", claim.id)))
}

/// A waiting answer without facts.
fn bare(code: Code, error: String) -> WaitingView {
    let (holders, own, builds) = (Vec::new(), Vec::new(), Vec::new());
    WaitingView { error, code, parked: false, claim: None, holders, holder_count: 0, own, builds }
}

/// The answer to a claim that waits. The snapshot may know newer facts than the claim.
fn waiting(routes: &Routes, call: &Call<'_>, claim: &Claim, parked: bool) -> Response {
    let view = routes.look(call, |viewer| {
        let stuck = viewer.snapshot.stuck.get(&claim.id);
        let view = viewer.own_claim(claim, true);
        let queue = view.queue.as_ref();
        let position = queue.map_or(0, |queue| queue.position);
        let mut answer = bare(stuck.map_or(Code::Waiting, |stuck| views::stuck_code(stuck)), String::new());
        answer.parked = parked;
        answer.holders = queue.map(|queue| queue.holders.clone()).unwrap_or_default();
        answer.holder_count = queue.map_or(0, |queue| queue.holder_count);
        answer.own = stuck.map(|stuck| viewer.own(stuck)).unwrap_or_default();
        answer.builds = stuck.map(|stuck| viewer.builds(stuck)).unwrap_or_default();
        answer.claim = Some(view);
        answer.error = waiting_text(claim, position, &answer);
        answer
    });
    locked(&view)
}

/// Why the claim waits, for people.
fn waiting_text(claim: &Claim, position: usize, answer: &WaitingView) -> String {
    let place = match claim.terms.ask.parts.first() {
        Some(part) => format!("claim {:?} waits at place {position} of pool {:?}", claim.id, part.pool),
        None => format!("claim {:?} waits", claim.id),
    };
    match (answer.code, answer.own.first()) {
        (Code::SelfWait, Some(own)) => format!(
            "{place} for what its own build has: lock {:?} of pool {:?}, taken by claim {:?}. Nobody else can end this: \
             release that first, or ask again under its id",
            own.lock, own.pool, own.claim
        ),
        (Code::Deadlock, _) => {
            let builds: Vec<String> = answer.builds.iter().map(build_text).collect();
            format!(
                "{place}, and builds wait for each other: {}. None of them goes on until one gives something up",
                builds.join(", ")
            )
        }
        _ => match answer.claim.as_ref().and_then(|claim| claim.queue.as_ref()?.lacks.as_ref()) {
            Some(lacks) => format!("{place}; {lacks}: ask again"),
            None => format!("{place}: ask again"),
        },
    }
}

/// A build in a few words.
fn build_text(owner: &api::Owner) -> String {
    let names = [&owner.team, &owner.pipeline, &owner.job];
    let names: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
    let id = owner.build_id.as_deref().unwrap_or("?");
    match (&owner.build_name, names.is_empty()) {
        (_, true) => format!("build {id}"),
        (Some(name), false) => quoted(&format!("{} #{name}", names.join("/"))),
        (None, false) => quoted(&format!("{} (build {id})", names.join("/"))),
    }
}

fn busy(routes: &Routes, call: &Call<'_>, ask: &AskClaim) -> Response {
    let terms = &ask.terms;
    let (holders, holder_count, lacks) = routes.look(call, |viewer| {
        (viewer.rivals(&terms.ask.parts), viewer.rival_count(&terms.ask.parts), viewer.lacking(terms))
    });
    let error = match (lacks, holders.first()) {
        (Some((lacks, _)), _) => format!("{lacks}: try again later, or let the claim queue"),
        (None, Some(holder)) => format!(
            "lock {:?} of pool {:?} is held by claim {:?}: try again later, or let the claim queue",
            holder.lock, holder.pool, holder.claim
        ),
        (None, None) => "it is not this claim's turn: try again later, or let the claim queue".to_owned(),
    };
    locked(&WaitingView { holders, holder_count, ..bare(Code::Locked, error) })
}

/// How long a client that cannot be parked should wait before it asks again, seconds.
const RETRY_AFTER: &str = "1";

fn locked(view: &WaitingView) -> Response {
    let mut response = respond(view.code.status(), view);
    response.headers.push(("retry-after", RETRY_AFTER.to_owned()));
    response
}

/// `GET /api/v1/claims/{id}`: a live claim, or what is remembered of one that has ended.
pub(super) async fn get(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let id = problems.done(id)?;
    let view = view(routes, call, &id).await?;
    let view = view.ok_or(Refusal::NoSuchClaim { id })?;
    Ok(json(&view))
}

/// A claim, live or ended. `None` if it is not known, or no longer, or if the caller may not know of it.
pub(super) async fn view(routes: &Routes, call: &Call<'_>, id: &ClaimId) -> Result<Option<ClaimView>, Failure> {
    for _ in 0..LOOKS {
        let live = |viewer: &Viewer<'_>| {
            let claim = viewer.snapshot.claim(id)?;
            Some(viewer.caller.sees_claim(claim).then(|| viewer.claim(claim, true)))
        };
        if let Some(shown) = routes.look(call, live) {
            return Ok(shown);
        }
        let of = id.clone();
        match routes.engine.read(move |reader| reader.find(&of)).await.map_err(Failure::unreadable)? {
            Found::Ended(ended) => return Ok(call.caller.sees_ended(&ended).then(|| views::ended(&ended))),
            Found::Nothing => return Ok(None),
            // It began after the look. The batch is committed, and will be published in a moment.
            Found::Live => tokio::time::sleep(PUBLISHED_SOON).await,
        }
    }
    Err(Failure::unreadable(anyhow!("claim {id} was stored long ago and is not published: this is a bug in locker")))
}

/// `DELETE /api/v1/claims/{id}`: cancels or releases.
pub(super) fn delete(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let run = call.query::<Run>("run", &mut problems);
    let by = call.query::<Text>("by", &mut problems);
    let reason = call.query::<Reason>("reason", &mut problems);
    let if_waiting = call.flag("if_waiting", &mut problems);
    let id = problems.done(id)?;
    let by = by.map(|person| Arc::new(Owner { person: Some(person), ..Owner::default() }));
    Ok(match (if_waiting, by) {
        (true, by) => Command::Cancel { id, by: by.unwrap_or_default(), reason },
        (false, by) => Command::End { id, run, by, reason },
    })
}

/// The answer to a command that ends a claim.
pub(super) fn ended(routes: &Routes, call: &Call<'_>, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Ended { ended, again } => Ok(json(&ClaimView { again, ..views::ended(&ended) })),
        // A step takes back a request that was answered with a marked hold, which stays.
        reply @ Reply::Claim { .. } => shown(routes, call, reply),
        other => Err(Failure::unexpected(&other)),
    }
}

/// `POST /api/v1/claims/{id}/confirm`.
pub(super) fn confirm(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let body = call.body::<ConfirmBody>(&mut problems);
    let run = body.as_ref().and_then(|body| problems.parse_some::<Run>("run", body.run.as_deref()));
    let (id, body) = problems.done(id.zip(body))?;
    Ok(Command::Confirm { id, run, fence: Fence(body.fence) })
}

/// `POST /api/v1/claims/{id}/renew`.
pub(super) fn renew(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let body = call.body::<RenewBody>(&mut problems).unwrap_or_default();
    let run = problems.parse_some::<Run>("run", body.run.as_deref());
    let id = problems.done(id)?;
    Ok(Command::Renew { id, run, fence: body.fence.map(Fence) })
}

/// `POST /api/v1/claims/{id}/deliver`.
pub(super) fn deliver(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let body = call.body::<DeliverBody>(&mut problems);
    let build = body.as_ref().and_then(|body| body.build.as_ref()).and_then(|build| {
        let cluster = problems.parse("build.cluster", &build.cluster);
        let id = problems.parse("build.build_id", &build.build_id);
        Some(BuildRef { cluster: cluster?, id: id? })
    });
    let (id, body) = problems.done(id.zip(body))?;
    Ok(Command::Delivered { id, revision: Revision(body.revision), build })
}

/// `POST /api/v1/claims/{id}/break`.
pub(super) fn break_claim(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let body = call.body::<BreakBody>(&mut problems);
    let drains = body.as_ref().is_some_and(|body| body.drain);
    let by = body.map(|body| parse::by_with_reason(body.by, &mut problems));
    let (id, (by, reason)) = problems.done(id.zip(by).and_then(|(id, by)| Some((id, (by.owner, by.reason?)))))?;
    Ok(Command::Break { id, drains, by, reason })
}

/// `POST /api/v1/claims/{id}/move`.
pub(super) fn move_claim(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let body = call.body::<MoveBody>(&mut problems);
    let asked = body.and_then(|MoveBody { to, before, by }| {
        let by = parse::by_with_reason(by, &mut problems);
        let to = match (to, before) {
            (Some(QueueEnd::First), None) => MoveTo::First,
            (Some(QueueEnd::Last), None) => MoveTo::Last,
            (None, Some(before)) => MoveTo::Before(problems.parse("before", &before)?),
            _ => {
                problems.add("", "give either `to` or `before`");
                return None;
            }
        };
        Some((to, by))
    });
    let (id, (to, by)) = problems.done(id.zip(asked))?;
    Ok(Command::Move { id, to, by })
}

/// The answer to a command about one claim: the claim.
pub(super) fn shown(routes: &Routes, call: &Call<'_>, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Claim { claim, .. } => Ok(json(&routes.look(call, |viewer| viewer.claim(&claim, false)))),
        other => Err(Failure::unexpected(&other)),
    }
}

/// The answer to the confirmation of a grant.
pub(super) fn confirmed(routes: &Routes, call: &Call<'_>, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Claim { claim, .. } => Ok(own(routes, call, &claim)),
        other => Err(Failure::unexpected(&other)),
    }
}

/// Which claims a listing shows.
struct Filter {
    pool: Option<PoolName>,
    state: Option<ListedState>,
    build: Option<BuildRef>,
}

/// The states to list, as a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ListedState(ClaimState);

impl FromStr for ListedState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "waiting" => Ok(Self(ClaimState::Waiting)),
            "granted" => Ok(Self(ClaimState::Granted)),
            "held" => Ok(Self(ClaimState::Held)),
            "ended" => Ok(Self(ClaimState::Ended)),
            other => Err(unknown("state", other, &["waiting", "granted", "held", "ended"])),
        }
    }
}

fn filter(call: &Call, problems: &mut Problems) -> Filter {
    let pool = call.query::<PoolName>("pool", problems);
    let state = call.query::<ListedState>("state", problems);
    if pool.is_some() && state == Some(ListedState(ClaimState::Ended)) {
        problems.add("pool", "cannot be combined with state=ended: see the pool's changes instead");
    }
    Filter { pool, state, build: build(call, problems) }
}

/// The build that a listing is limited to.
pub(super) fn build(call: &Call, problems: &mut Problems) -> Option<BuildRef> {
    let id = call.query::<Text>("build", problems);
    let cluster = call.query::<Text>("cluster", problems);
    if call.query_text("build").is_some() != call.query_text("cluster").is_some() {
        problems.add("build", "a build needs both `build` (its id) and `cluster` (its ATC_EXTERNAL_URL)");
    }
    cluster.zip(id).map(|(cluster, id)| BuildRef { cluster, id })
}

/// `GET /api/v1/claims`: live claims by id, or the ended ones with `state=ended`.
pub(super) async fn list(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let filter = filter(call, &mut problems);
    let after = call.query::<ClaimId>("after", &mut problems);
    let limit = call.limit(&mut problems);
    problems.done(Some(()))?;
    if let Some(pool) = &filter.pool {
        call.caller.check(Right::Look, pool).map_err(forbidden)?;
    }
    if filter.state == Some(ListedState(ClaimState::Ended)) {
        let caller = call.caller.clone();
        let read = move |reader: &dyn Reader| page_of_ended(reader, &caller, &filter, after.as_ref(), limit);
        let page = routes.engine.read(read).await;
        return Ok(json(&page.map_err(Failure::unreadable)?));
    }
    let list = move |viewer: &Viewer<'_>| {
        let matches = |claim: &Claim| filter.lists(claim) && viewer.caller.sees_claim(claim);
        let show = |claim: &Arc<Claim>| matches(claim).then(|| viewer.claim(claim, false));
        let mut page = Pager::new(limit);
        let _ = live(viewer.snapshot, &filter, after.as_ref())
            .try_for_each(|(id, claim)| page.add(id.clone(), || show(claim)));
        json(&page.done())
    };
    routes.browse(call, |snapshot| is_long(snapshot.claims.len()), list).await
}

impl Filter {
    fn lists(&self, claim: &Claim) -> bool {
        let state = match claim.phase {
            Phase::Waiting { .. } => ClaimState::Waiting,
            Phase::Granted { .. } => ClaimState::Granted,
            Phase::Held { .. } => ClaimState::Held,
        };
        let in_pool = |pool: &PoolName| claim.terms.ask.parts.iter().any(|part| part.pool == *pool);
        self.state.is_none_or(|ListedState(wanted)| wanted == state)
            && self.pool.as_ref().is_none_or(in_pool)
            && self.build.as_ref().is_none_or(|build| claim.terms.owner.build().as_ref() == Some(build))
    }
}

/// Live claims by id, starting after one id. If an index covers the pool or the build, only the claims in it.
fn live<'w>(
    snapshot: &'w Snapshot,
    filter: &Filter,
    after: Option<&ClaimId>,
) -> Box<dyn Iterator<Item = (&'w ClaimId, &'w Arc<Claim>)> + 'w> {
    let after = after.cloned();
    let is_after = move |id: &ClaimId| after.as_ref().is_none_or(|after| id > after);
    if let Some(build) = &filter.build {
        let claims: Vec<_> = snapshot.claims_of(build).filter(|claim| is_after(&claim.id)).collect();
        return Box::new(claims.into_iter().map(|claim| (&claim.id, claim)));
    }
    if let Some(pool) = &filter.pool {
        let Some(pool) = snapshot.pool(pool) else { return Box::new(std::iter::empty()) };
        let holders = pool.locks.values().flat_map(|lock| lock.holders.iter().map(|holder| &holder.claim));
        let ids: BTreeSet<&ClaimId> = pool.waiting.values().chain(holders).filter(|id| is_after(id)).collect();
        return Box::new(ids.into_iter().filter_map(|id| Some((id, snapshot.claims.get(id)?))));
    }
    Box::new(snapshot.claims.iter().skip_while(move |(id, _)| !is_after(id)))
}

/// The ended claims after this id that the filter shows.
fn page_of_ended(
    reader: &dyn Reader,
    caller: &Caller,
    filter: &Filter,
    after: Option<&ClaimId>,
    limit: usize,
) -> anyhow::Result<Page<ClaimView>> {
    let mut page = Pager::new(limit);
    reader.walk_ended(after, &mut |ended| {
        let matches = (filter.build.is_none() || ended.build == filter.build) && caller.sees_ended(&ended);
        page.add(ended.id.clone(), || matches.then(|| views::ended(&ended)))
    })?;
    Ok(page.done())
}
