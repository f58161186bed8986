//! Tokens that this server makes: make, list, revoke (`super::super::auth::tokens`).

use super::super::auth::access::rules::Caller;
use super::super::auth::tokens;
use super::super::http::Response;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, json};
use crate::core::command::{Command, Reply};
use crate::core::limits;
use crate::core::names::TokenName;
use crate::core::origin::Identity;
use crate::core::time::{Span, WallMs};
use crate::core::token::Token;
use crate::wire::api::{NewTokenView, Page, TokenBody, TokenView};
use crate::wire::errors::Code;
use crate::wire::text::{span_within, time};

/// Shortest time for which a token may be made.
const SHORTEST: Span = Span::mins(1);

/// `POST /api/v1/tokens`.
pub(super) async fn create(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let body = call.body::<TokenBody>(&mut problems);
    let ttl = body.as_ref().and_then(|body| body.ttl.as_deref()).and_then(|ttl| {
        let span = span_within(ttl, SHORTEST, Span(limits::TOKEN_LIFE_MAX_MS));
        span.map_err(|error| problems.add("ttl", error)).ok()
    });
    let name: Option<TokenName> = body.and_then(|body| problems.parse("name", &body.name));
    let name = problems.done(name)?;
    if !routes.access.is_on() {
        let error = "tokens need an access file (--access), whose rules say what each of them may do";
        return Err(Failure::new(Code::Unprocessable, error));
    }
    let secret = tokens::make();
    let now = routes.engine.now().wall;
    let expires = ttl.map(|ttl| WallMs(now.0.saturating_add(ttl.0)));
    let hash = tokens::hash(secret.expose());
    match routes.ask(call, Command::CreateToken { name, hash, expires }).await? {
        Reply::Token(token) => {
            let (view, token) = (view(routes, &token), secret.expose().to_owned());
            let mut response = json(&NewTokenView { view, token });
            response.headers.push(("cache-control", "no-store".to_owned()));
            Ok(response)
        }
        other => Err(Failure::unexpected(&other)),
    }
}

/// `GET /api/v1/tokens`: all of them, by name.
pub(super) fn list(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    let snapshot = routes.engine.snapshot();
    let mut items: Vec<TokenView> = snapshot.tokens.values().map(|token| view(routes, token)).collect();
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(json(&Page { items, next: None }))
}

/// `DELETE /api/v1/tokens/{name}`: from its answer on, nobody gets in with it.
pub(super) fn revoke(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let name = call.path::<TokenName>("name", &mut problems);
    Ok(Command::RevokeToken { name: problems.done(name)? })
}

/// The token that was revoked. Events that its clients follow end.
pub(super) fn revoked(routes: &Routes, _: &Call, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Token(token) => {
            routes.events().changed();
            Ok(json(&view(routes, &token)))
        }
        other => Err(Failure::unexpected(&other)),
    }
}

fn view(routes: &Routes, token: &Token) -> TokenView {
    let identity = Identity::Token(token.name.to_string());
    TokenView {
        name: token.name.to_string(),
        created: time(token.created),
        by: token.by.as_ref().map(ToString::to_string),
        expires: token.expires.map(time),
        used: token.used.map(time),
        expired: !token.is_good(routes.engine.now().wall),
        has_rights: Caller::has_any(&routes.access.caller(Some(&identity))),
    }
}
