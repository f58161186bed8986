//! Our own HTTP API (`docs/design.md#the-api`), as plain functions from a request value to a response value.
//!
//! - `route`: what a route is. `table`: all routes, with shared `parameters`. Dispatch and `openapi.json` both use that one table.
//! - `browse`: listings, which may be long.
//! - `call`: one request, split into path, query and body. It collects everything that is wrong with the request.
//! - `failure`: the one mapping from refusals to codes, statuses and advice.
//! - `claims`, `pools`, `locks`, `changes`, `events`, `stats`, `info`, `sessions`, `tokens`, `pages`: the handlers.
//! - [`contracts`]: the handlers of the APIs that Locker serves for clients of other servers.

mod browse;
mod call;
mod changes;
mod claims;
pub mod contracts;
mod events;
mod failure;
mod info;
mod locks;
mod metrics;
mod pages;
mod parameters;
mod pools;
mod recent;
mod release;
pub(super) mod route;
mod sessions;
mod stats;
pub(super) mod table;
mod tokens;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::Value;

use self::browse::Browser;
use self::call::{Asked, Call};
use self::contracts::ContractRoutes;
use self::failure::Failure;
use self::recent::Recent;
use self::route::{Method, Need, Place, Route, Run};
use self::table::ROUTES;
use super::auth::Access;
use super::auth::access::permit::{self, permit};
use super::auth::access::rules::RightsKey;
use super::auth::access::{Live, Right};
use super::auth::sessions::Sessions;
use super::auth::tokens::find as find_token;
use super::build_watch::BuildWatch;
use super::engine::{Engine, EngineError, NO_LONGER_LEADS};
use super::events::Events;
use super::http::{Admission, Admitting, Answering, Attempt, Handler, Request, Response};
use super::limits::{EVENTS_PACE_MS, FIGURES_KEPT, FIGURES_MS, PAGES_KEPT};
use super::long_polls::LongPolls;
use super::openapi;
use super::pages::Over;
use super::views::Viewer;
use crate::core::claim::Scope;
use crate::core::command::{AskClaim, Command, Refusal, Reply};
use crate::core::names::{ParkId, PoolName, Revision};
use crate::core::origin::Identity;
use crate::core::state::Snapshot;
use crate::core::time::Span;
use crate::store::shared::Standing;
use crate::wire::api::DoneView;
use crate::wire::errors::Code;
use crate::wire::problems::quoted;
use crate::wire::text::{percent_decoded, show_span};

/// The description of the whole API, as served at `openapi.json`.
#[must_use]
pub fn description() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| openapi::document(ROUTES));
    &DOCUMENT
}

/// Checks whether the server can serve. If not, the code says why: [`Code::StoreFailed`] or [`Code::Unavailable`].
pub type Health = Arc<dyn Fn() -> Result<(), Code> + Send + Sync>;

/// Adds metrics of other parts of the server, without the prefix of the program.
pub type MoreMetrics = Arc<dyn Fn(&mut Registry) + Send + Sync>;

/// The API of one engine.
pub struct Routes {
    engine: Engine,
    long_polls: LongPolls,
    health: Health,
    builds: BuildWatch,
    contracts: ContractRoutes,
    metrics: MoreMetrics,
    sessions: Sessions,
    access: Live,
    /// Counting a long span takes a second or so, and keeps one reader of the store busy.
    figures: Recent<(Over, String, RightsKey), pages::Kept>,
    /// Pages that follow events.
    made: Recent<(String, RightsKey, Option<Identity>), pages::Made>,
    browser: Browser,
    /// If the store is shared.
    standing: Option<Arc<Standing>>,
    /// The shortest ttl of a lease.
    least_lease: Span,
}

impl Routes {
    /// The API of `engine`, with its table of `long_polls`. `health` answers `/readyz`. All contracts are served, and
    /// no builds are watched.
    #[must_use]
    pub fn new(engine: Engine, long_polls: LongPolls, health: Health) -> Self {
        let (builds, contracts) = (BuildWatch::default(), ContractRoutes::default());
        let (sessions, access) = (Sessions::default(), Live::default());
        let (figures, made) = (Recent::new(FIGURES_MS, FIGURES_KEPT), Recent::new(EVENTS_PACE_MS, PAGES_KEPT));
        let (metrics, browser): (MoreMetrics, _) = (Arc::new(|_| ()), Browser::default());
        let (standing, least_lease) = (None, Span(0));
        Self {
            engine,
            long_polls,
            health,
            builds,
            contracts,
            metrics,
            sessions,
            access,
            figures,
            made,
            browser,
            standing,
            least_lease,
        }
    }

    /// The same API of a server that leads others.
    #[must_use]
    pub fn with_standing(self, standing: Option<Arc<Standing>>) -> Self {
        Self { standing, ..self }
    }

    /// The same API, where a lease has at least this ttl.
    #[must_use]
    pub fn with_least_lease(self, least_lease: Span) -> Self {
        Self { least_lease, ..self }
    }

    /// The same API, where people sign in to these sessions.
    #[must_use]
    pub fn with_sessions(self, sessions: Sessions) -> Self {
        Self { sessions, ..self }
    }

    /// The same API, where this access file says who may do what.
    #[must_use]
    pub fn with_access(self, access: Live) -> Self {
        Self { access, ..self }
    }

    /// The same API with more metrics than those of the engine, the pools and the builds.
    #[must_use]
    pub fn with_metrics(self, metrics: MoreMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// The same API with this build watch.
    #[must_use]
    pub fn with_builds(self, builds: BuildWatch) -> Self {
        Self { builds, ..self }
    }

    /// The same API with these contracts.
    #[must_use]
    pub fn with_contracts(self, contracts: ContractRoutes) -> Self {
        Self { contracts, ..self }
    }

    /// Checks the build of a new claim. Only the first `PUT` in a run of the server is checked: an accepted claim keeps
    /// its place, even while its Concourse cannot be asked.
    async fn admit(&self, ask: &AskClaim) -> Result<(), Failure> {
        let snapshot = self.engine.snapshot();
        if snapshot.claim(&ask.id).is_some() {
            return Ok(());
        }
        let scope = ask.scope.unwrap_or_else(|| snapshot.default_scope(&ask.terms.ask.parts));
        self.check_lease(scope, ask.terms.ttl)?;
        Ok(self.builds.admit(&ask.terms.owner, scope).await?)
    }

    /// A lease must outlast a change of leaders, with renewals that get no answer meanwhile.
    fn check_lease(&self, scope: Scope, ttl: Option<Span>) -> Result<(), Failure> {
        let Some(ttl) = ttl.filter(|ttl| scope == Scope::Lease && *ttl < self.least_lease) else { return Ok(()) };
        let (ttl, least) = (show_span(ttl), show_span(self.least_lease));
        let error = format!(
            "a ttl of {ttl} is too short for a lease here: it must outlast a change of leaders, so it needs {least} at least"
        );
        Err(Failure::new(Code::Unprocessable, error))
    }

    /// Who follows events.
    fn events(&self) -> &Events {
        self.long_polls.events()
    }

    /// Reads the newest snapshot, as far as the caller may look at it.
    fn look<T>(&self, call: &Call<'_>, look: impl FnOnce(&Viewer<'_>) -> T) -> T {
        let snapshot = self.engine.snapshot();
        look(&Viewer { snapshot: &snapshot, now: self.engine.now(), caller: &call.caller })
    }

    /// The same for a listing, which may be long (see [`browse`]).
    async fn browse<T: Send + 'static>(
        &self,
        call: &Call<'_>,
        is_long: impl FnOnce(&Snapshot) -> bool,
        look: impl FnOnce(&Viewer<'_>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.browser.look(&self.engine, &call.caller, is_long, look).await
    }

    /// Asks the engine. A refusal names what was probably meant.
    async fn ask(&self, call: &Call<'_>, command: Command) -> Result<Reply, Failure> {
        self.call_engine(call, command).await.map_err(|error| match error {
            EngineError::Refused(refusal) => self.refused(call, refusal),
            error @ (EngineError::StoreFailed { .. }
            | EngineError::Overloaded
            | EngineError::Unreadable { .. }
            | EngineError::Forbidden(_)) => error.into(),
        })
    }

    /// Asks the engine, which decides whether the caller may do this.
    async fn call_engine(&self, call: &Call<'_>, mut command: Command) -> Result<Reply, EngineError> {
        if let Some(proved) = call.caller.proved() {
            permit::complete(proved, &mut command);
        }
        call.asked().note();
        let request = call.request;
        self.engine.call_for(command, request.origin(), permit(&call.caller), request.body.len()).await
    }

    /// The answer to a refused request, with what was probably meant.
    fn refused(&self, call: &Call<'_>, refusal: Refusal) -> Failure {
        match self.look(call, |viewer| viewer.meant(&refusal)) {
            Some(meant) => Failure::meant(refusal, &meant),
            None => refusal.into(),
        }
    }

    /// On a shared store, a commit that fails says that this server no longer leads. The process goes on.
    fn unless_deposed(&self, failure: Failure, request: &Request) -> Failure {
        if self.standing.is_none() || failure.code != Code::StoreFailed {
            return failure;
        }
        let error = "this server no longer leads, and nobody knows whether it has done this";
        if is_repeatable(request) {
            let error = format!("{error}: look, or ask the same again");
            return Failure { status: 503, ..Failure::new(Code::UnknownOutcome, error) };
        }
        Failure::new(Code::UnknownOutcome, format!("{error}: look before you ask again"))
    }

    /// Calls the route. If the route asks the engine, this task awaits the answer here.
    ///
    /// What is drawn from the snapshot alone, a refusal too, is answered only once it is certain that this server led
    /// after it had looked: another one may lead by now, and what changes something at the engine finds that out by itself.
    async fn answer(&self, found: Found<'_>, request: &Request) -> Result<Response, Failure> {
        self.contracts.check_served(found.route.contracts)?;
        let proved = request.shown.as_ref().and_then(|shown| shown.proved.clone());
        let caller = self.access.caller(request.identity.as_ref()).with_proof(proved);
        let asked = Asked::default();
        let call = found.route.call(request, found.segments, caller, &asked)?;
        check(found.route.need, &call)?;
        if found.route.need != Need::Nothing && request.attempt == Attempt::First {
            // Later, what the request has begun must come to its end: the engine counts on a client that is parked.
            let reads = matches!(found.route.run, Run::Look(_)) || matches!(request.method.as_str(), "GET" | "HEAD");
            self.engine.check_room(reads)?;
        }
        let answer = self.run(found.route.run, &call).await;
        if found.route.need != Need::Nothing && !asked.is_so() {
            let deposed = |_| Failure::new(Code::NoLeader, NO_LONGER_LEADS);
            self.engine.confirm().await.map_err(deposed)?;
        }
        answer
    }

    async fn run(&self, run: Run, call: &Call<'_>) -> Result<Response, Failure> {
        if call.request.token.is_some_and(|token| find_token(&self.engine, token).is_none()) {
            // It waited meanwhile, or it follows events.
            return Err(Failure::new(Code::Unauthorized, "this token was revoked, or its time is over"));
        }
        match run {
            Run::Look(look) => look(self, call),
            Run::Do(command, answer) => {
                let reply = self.ask(call, command(call)?).await?;
                answer(self, call, reply)
            }
            Run::Talk(talk) => talk(self, call).await,
        }
    }
}

/// Refuses a caller that lacks what the route needs, as far as that can be told before the route runs. A name that is
/// none is left to the route.
fn check(need: Need, call: &Call<'_>) -> Result<(), Failure> {
    let caller = &call.caller;
    let look_at = |name: Option<&str>| match name.map(str::parse::<PoolName>) {
        None => caller.check_anywhere(Right::Look),
        Some(Ok(pool)) => caller.check(Right::Look, &pool).map(drop),
        Some(Err(_)) => Ok(()),
    };
    let checked = match need {
        Need::Nothing | Need::Identity => Ok(()),
        Need::AnyRight if caller.has_any() => Ok(()),
        Need::AnyRight => Err(format!("{} has no rights: no rule of the access file is for it", caller.shown())),
        Need::LookAt(Place::Path(name)) => look_at(Some(call.path_text(name))),
        Need::LookAt(Place::Query(name)) => look_at(call.query_text(name)),
        Need::Sight => caller.check_anywhere(Right::Look),
        Need::Deed(right) => caller.check_anywhere(right),
        Need::DeedAt(name, right) => caller.check_anywhere(right).and_then(|()| look_at(Some(call.path_text(name)))),
        Need::Everywhere(right) => caller.check_everywhere(right).map(drop),
    };
    checked.map_err(forbidden)
}

/// An answer that no route gives.
pub(in crate::server) fn refused(code: Code, error: impl Into<String>) -> Response {
    Failure::new(code, error).into_response()
}

/// The answer to a caller that lacks a right.
fn forbidden(error: String) -> Failure {
    Failure::new(Code::Forbidden, error)
}

/// The answer to a command that changes pools or locks.
fn done(_: &Routes, _: &Call<'_>, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Done { revision: Revision(revision) } => Ok(json(&DoneView { revision, made: None })),
        other => Err(Failure::unexpected(&other)),
    }
}

/// The rule for a request. [`Access::Guarded`] if no route serves it.
#[must_use]
pub fn access(request: &Request) -> Access {
    // Almost no request is for a public route, and then there is nothing to find. No public path has a parameter.
    static PUBLIC: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| ROUTES.iter().filter(|route| route.need == Need::Nothing).map(|route| route.path).collect());
    if !request.path.contains('%') && !PUBLIC.contains(&&*request.path) {
        return Access::Guarded;
    }
    let is_public = find(request).is_ok_and(|found| found.route.need == Need::Nothing);
    if is_public { Access::Public } else { Access::Guarded }
}

/// Whether a request may be asked again, of the same server or another, when nobody knows what has become of it. So may one
/// that no route serves.
#[must_use]
pub fn is_repeatable(request: &Request) -> bool {
    find(request).map_or(true, |found| found.route.repeat.allows(&request.body))
}

/// Method and path template of every route, for tests that go through all of them.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|route| (route.method.word(), route.path))
}

/// A route, and the path of the request split into segments.
struct Found<'r> {
    route: &'static Route,
    segments: Vec<Cow<'r, str>>,
}

/// The only way from a request to its route. Authorization and dispatch both use it, so they cannot disagree.
fn find(request: &Request) -> Result<Found<'_>, Failure> {
    let mut segments =
        segments(&request.path).map_err(|failure| contracts::lockd::not_text(request).unwrap_or(failure))?;
    if segments == ["lock", ""] && contracts::latches::is_of_latch(request) {
        // Clients of latches use both /lock and /lock/.
        segments.pop();
    }
    let at_path = |route: &&'static Route| route.matches(&segments);
    let method = Method::parse(&request.method);
    let Some(route) = ROUTES.iter().filter(|route| Some(route.method) == method).find(at_path) else {
        let known: Vec<Method> = ROUTES.iter().filter(at_path).map(|route| route.method).collect();
        return Err(no_route(request, &known));
    };
    Ok(Found { route, segments })
}

impl Handler for Routes {
    /// Admits every request: the guard decides about that.
    fn admit<'a>(&'a self, _: &'a mut Request) -> Admitting<'a> {
        Box::pin(std::future::ready(Ok(Admission::Client)))
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        Box::pin(async move {
            let found = find(request);
            let route = found.as_ref().ok().map(|found| found.route.path);
            let answer = match found {
                Ok(found) => self.answer(found, request).await,
                Err(failure) => Err(failure),
            };
            let answer = answer.map_err(|failure| self.unless_deposed(failure, request));
            let response = answer.unwrap_or_else(|failure| {
                if failure.code == Code::Internal || failure.cause.is_some() {
                    let cause = failure.cause.as_deref();
                    tracing::error!(
                        request = request.id,
                        error = failure.error,
                        cause,
                        "a request failed with an internal error"
                    );
                }
                failure.into_response()
            });
            Response { route, ..response }
        })
    }

    fn left(&self, park: ParkId) {
        self.long_polls.unwatch(park);
        self.events().end(park);
        self.engine.post(Command::Left { park });
        self.contracts.left(park).into_iter().for_each(|end| self.engine.post(end));
    }
}

/// The segments of a path, each percent-decoded once. A `%2f` within a segment does not split it.
fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, Failure> {
    // Only `*` begins with no slash, and no route serves it.
    let decoded = path.strip_prefix('/').unwrap_or(path).split('/').map(percent_decoded);
    decoded.collect::<Result<_, _>>().map_err(|problem| Failure::bad(vec![format!("path: {problem}")]))
}

fn no_route(request: &Request, known: &[Method]) -> Failure {
    let path = quoted(&request.path);
    if known.is_empty() {
        let error = format!("nothing is served at {path}; /openapi.json lists all paths");
        return Failure::new(Code::NoSuchRoute, error);
    }
    let mut allow: Vec<&str> = known.iter().map(|method| method.word()).collect();
    if known.contains(&Method::Get) {
        allow.push("HEAD");
    }
    let allow = allow.join(", ");
    let error = format!("{path} does not support the method {}, only {allow}", quoted(&request.method));
    Failure { allow: Some(allow), ..Failure::new(Code::MethodNotAllowed, error) }
}

/// A 200 response with a value.
fn json(value: &impl Serialize) -> Response {
    respond(200, value)
}

fn respond(status: u16, value: &impl Serialize) -> Response {
    let mut body = Vec::with_capacity(BODY);
    match serde_json::to_writer(&mut body, value) {
        Ok(()) => Response::new(status, body),
        // Views have text keys and no maps that could fail. If one fails anyway, that is a bug, but no reason to panic.
        Err(_) => Response::new(500, FALLBACK.to_vec()),
    }
}

/// Room for the usual body, bytes: no other is tried first.
const BODY: usize = 512;

const FALLBACK: &[u8] = br#"{"error":"the answer cannot be written","code":"internal"}"#;

#[cfg(test)]
mod tests;
