//! Sessions of the web page: signing in and out (`super::super::auth::sessions`).

use std::time::Instant;

use super::super::auth::sessions::{LIFE, Signed};
use super::super::http::Response;
use super::super::pages;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, json};
use crate::core::time::{Span, WallMs};
use crate::wire::api::SessionView;
use crate::wire::errors::Code;
use crate::wire::text::time;

/// `POST /api/v1/session`: begins a session for the identity that this request proves. A request that proves it by its
/// session goes on with that session, which gets no longer.
pub(super) fn begin(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    let (request, now) = (call.request, Instant::now());
    let by_session = request.header("authorization").is_none();
    if let Some(signed) = routes.sessions.find(request, now).filter(|_| by_session) {
        return Ok(shown(routes, Some(signed)));
    }
    if request.shown.is_some() {
        let why = "a session would outlive the id token that began it: sign in with a user and a password";
        return Err(Failure::new(Code::Forbidden, why));
    }
    if request.token.is_some() {
        let why = "a session would outlive the token that began it: sign in with a user and a password";
        return Err(Failure::new(Code::Forbidden, why));
    }
    let identity = request.identity.clone().filter(|_| has_password(routes));
    let Some(identity) = identity else {
        return Err(Failure::new(Code::Unprocessable, "this server has no password, so there is no need to sign in"));
    };
    let cookie = routes.sessions.begin(identity.clone(), request, now);
    let signed = Signed { identity, left: LIFE };
    Ok(with_cookie(shown(routes, Some(signed)), cookie))
}

/// `GET /api/v1/session`: who is signed in.
pub(super) fn get(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    Ok(shown(routes, routes.sessions.find(call.request, Instant::now())))
}

/// `DELETE /api/v1/session`: signs out.
pub(super) fn end(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    call.asks_nothing()?;
    let cookie = routes.sessions.end(call.request);
    // Events that this session follows end with it.
    routes.events().changed();
    Ok(with_cookie(shown(routes, None), cookie))
}

/// `GET /login`.
pub(super) fn form(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    if has_password(routes) {
        return Ok(pages::sign_in(routes.sessions.has_ended(call.request, Instant::now())));
    }
    let headers = vec![("location", "/".to_owned()), ("cache-control", "no-store".to_owned())];
    Ok(Response { headers, ..Response::new(303, Vec::new()) })
}

/// Whether people can sign in now: the access file may get its first user while the server runs.
fn has_password(routes: &Routes) -> bool {
    routes.sessions.has_password() || routes.access.has_users()
}

fn shown(routes: &Routes, signed: Option<Signed>) -> Response {
    let until = signed.as_ref().map(|signed| {
        let left = Span(u64::try_from(signed.left.as_millis()).unwrap_or(u64::MAX));
        time(WallMs(routes.engine.now().wall.0.saturating_add(left.0)))
    });
    let identity = signed.as_ref().map(|signed| signed.identity.to_string());
    let mut response = json(&SessionView { identity, until });
    response.headers.push(("cache-control", "no-store".to_owned()));
    response
}

fn with_cookie(mut response: Response, cookie: String) -> Response {
    response.headers.push(("set-cookie", cookie));
    response
}
