//! Information about the server itself.

use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::auth::access::Right;
use super::super::auth::idtoken::issuers::IssuerReport;
use super::super::http::Response;
use super::super::pages::Servers;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, description, json};
use crate::core::time::WallMs;
use crate::store::shared::{LeaderSeen, Registered, Shown, Standing};
use crate::wire::api::{InfoView, IssuerView, LeaderView, LogView, ServerView};
use crate::wire::errors::Code;
use crate::wire::text::{api_duration, time};

/// The server works.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StatusView {
    /// Always `ok`. Anything else is an error answer.
    status: &'static str,
}

/// `GET /api/v1/info`.
pub(super) fn info(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    let is_seen = call.caller.may_everywhere(Right::Look);
    let shared = routes.standing.as_deref().map(Standing::shown);
    Ok(json(&InfoView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store_id: routes.engine.store_id().to_owned(),
        time: time(routes.engine.now().wall),
        revision: routes.engine.snapshot().revision.0,
        identity: call.caller.identity().map(ToString::to_string),
        leader: shared.as_ref().and_then(leader),
        log: shared.as_ref().filter(|_| is_seen).map(log),
        servers: if is_seen { shared.as_ref().map(servers).unwrap_or_default() } else { Vec::new() },
        concourses: if is_seen { routes.builds.report() } else { Vec::new() },
        issuers: if is_seen { issuers(routes) } else { Vec::new() },
    }))
}

fn leader(shown: &Shown) -> Option<LeaderView> {
    shown.leader.clone().map(|LeaderSeen { name, term }| LeaderView { name, term })
}

/// What the page says of the servers that share the store.
pub(super) fn shared(shown: &Shown) -> Servers {
    Servers { leader: leader(shown), all: servers(shown), log: log(shown) }
}

fn log(shown: &Shown) -> LogView {
    let room = shown.room;
    LogView {
        last_record: shown.head,
        records: shown.records,
        bytes: shown.log_bytes,
        database_bytes: room.map(|room| room.size),
        database_used: room.and_then(|room| room.used),
        database_quota: room.and_then(|room| room.quota),
        database_full: room.is_some_and(|room| room.is_full),
        async_standbys: room.map_or(0, |room| room.async_standbys),
    }
}

/// The servers that share the store.
fn servers(shown: &Shown) -> Vec<ServerView> {
    let server = |(name, server): (String, &Registered)| ServerView {
        name,
        version: server.note.version.clone(),
        leads: server.note.leads.is_some() && server.note.leads == shown.leader.as_ref().map(|leader| leader.term),
        lag_records: shown.head.saturating_sub(server.note.applied),
        lag: server.behind().map(api_duration),
    };
    shown.named_servers().into_iter().map(server).collect()
}

fn issuers(routes: &Routes) -> Vec<IssuerView> {
    let wall = |seconds: i64| time(WallMs(u64::try_from(seconds).unwrap_or_default() * 1_000));
    let reports = routes.access.trusted().now().report().into_iter();
    let view = |report: IssuerReport| {
        let IssuerReport { name, issuer, keys, fetched, failures, trouble } = report;
        IssuerView { name, issuer, keys, fetched: fetched.map(wall), failures, why: trouble }
    };
    reports.map(view).collect()
}

/// `GET /healthz`: the process answers.
pub(super) fn healthz(_: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(json(&StatusView { status: "ok" }))
}

/// `GET /readyz`: the server can serve.
pub(super) fn readyz(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    match (routes.health)() {
        Ok(()) => Ok(json(&StatusView { status: "ok" })),
        Err(Code::StoreFailed) => {
            Err(Failure::new(Code::StoreFailed, "the store has failed and the server is going down"))
        }
        Err(Code::NoLeader) => Err(Failure::new(Code::NoLeader, "this server no longer leads: it follows soon")),
        Err(code) => Err(Failure::new(code, "the server is starting or going down; ask again later")),
    }
}

/// `GET /openapi.json`.
pub(super) fn openapi(_: &Routes, call: &Call) -> Result<Response, Failure> {
    static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| json(description()).body);
    call.asks_nothing()?;
    Ok(Response::new(200, DOCUMENT.clone()))
}
