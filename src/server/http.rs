//! A request and a response as plain values. The routes see nothing else of HTTP.
//!
//! The door turns bytes into a [`Request`], and a [`Response`] into bytes. A [`Handler`] turns the request into the
//! response. Nothing behind the handler knows about sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use crate::core::names::{Digest, ParkId};
pub use crate::core::origin::Identity;
use crate::core::origin::Origin;
use crate::core::time::Span;
use crate::server::auth::idtoken::shown::Shown;

/// How each token of this server begins, so that people and scanners know one where it leaks.
pub const TOKEN_PREFIX: &str = "locker_";

/// Why the handler is called with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The client has just sent the request.
    First,
    /// The request was parked, and something that it waits for has happened. It may be parked again. Or the next part
    /// of its answer is due ([`Response::stream`]).
    Notified,
    /// The request was parked, and its time is over or the server is stopping. This answer is final: it cannot be
    /// parked again.
    Last,
}

/// One complete request within the limits.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method as sent. Known methods are in capitals.
    pub method: String,
    /// The path of the target, still percent-encoded, without the query.
    pub path: String,
    /// The query without the question mark, still percent-encoded. Empty if there is none.
    pub query: String,
    /// The headers as sent, with their names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The client's address as text, for logs.
    pub peer: String,
    /// The id that the client receives as `x-request-id` and that log lines carry.
    pub id: String,
    /// The identity that the client has proven. Before [`Handler::admit`]: from a verified certificate. Afterwards: the
    /// identity that the request was admitted with.
    pub identity: Option<Identity>,
    /// The id token that it was admitted with.
    pub shown: Option<Arc<Shown>>,
    /// The hash of the token of this server that it was admitted with.
    pub token: Option<Digest>,
    /// Whether the guard of this server has admitted it.
    pub admitted: bool,
    /// The number under which this request can be parked. Unique within one run of the server.
    pub park: ParkId,
    /// Whether there is room to park the request. If false, answer at once.
    pub can_park: bool,
    pub attempt: Attempt,
}

impl Request {
    /// The value of the first header with this `name` (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Its bearer token, if that has the form of one that this server has made.
    #[must_use]
    pub fn own_token(&self) -> Option<&str> {
        self.bearer().filter(|token| token.starts_with(TOKEN_PREFIX))
    }

    fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    }

    /// Its bearer token, if that has the form of one that somebody has signed: three parts with dots between them. No
    /// token that this server makes has a dot.
    #[must_use]
    pub fn signed_token(&self) -> Option<&str> {
        self.bearer().filter(|token| token.matches('.').count() == 2)
    }

    /// Where it comes from, for the history and the log.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let address = match self.peer.parse::<SocketAddr>() {
            // As it is written here, without the port.
            Ok(SocketAddr::V4(_)) => self.peer.split(':').next().unwrap_or_default().to_owned(),
            Ok(SocketAddr::V6(peer)) => peer.ip().to_canonical().to_string(),
            Err(_) => self.peer.clone(),
        };
        let credential = self.shown.as_ref().map(|shown| shown.credential);
        Origin { credential, ..Origin::new(self.identity.as_ref(), &address, &self.id) }
    }
}

#[cfg(test)]
impl Request {
    /// A first request of nobody, for tests.
    #[must_use]
    pub fn sample(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
            peer: String::new(),
            id: "7-1".to_owned(),
            identity: None,
            shown: None,
            token: None,
            admitted: false,
            park: ParkId(1),
            can_park: true,
            attempt: Attempt::First,
        }
    }
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// In addition to `content-type: application/json` and `content-length`, which are always set.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Keep the client waiting for this long or until a notice, instead of sending this answer. Ignored on
    /// [`Attempt::Last`].
    pub park: Option<Span>,
    /// Send this body as a part of an answer that goes on, and ask for the next part after this time or at a notice.
    /// The first part says status and headers. Ignored unless the request could be parked.
    pub stream: Option<Span>,
    /// The template of the route that answered, such as `/api/v1/claims/{id}`. For the log, never for the client.
    pub route: Option<&'static str>,
}

impl Response {
    /// A response with this body and no further headers.
    #[must_use]
    pub fn new(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, park: None, stream: None, route: None }
    }
}

/// A response that is being made.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Response> + Send + 'a>>;

/// A decision that is being made about a request, or the answer to one that is not admitted.
pub type Admitting<'a> = Pin<Box<dyn Future<Output = Result<Admission, Response>> + Send + 'a>>;

/// What it proves of a client that its request was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Nothing: anybody may make this request.
    Public,
    /// The client has proven its identity by a certificate, or this server asks for no proof.
    Client,
    /// The credentials in the request are right.
    Password,
}

/// Turns requests into responses.
pub trait Handler: Send + Sync + 'static {
    /// Decides whether a request is admitted, and sets its identity. Called once for each request, before it is
    /// handled. Or the answer to a request that is not admitted. A password may take some time to check.
    fn admit<'a>(&'a self, request: &'a mut Request) -> Admitting<'a>;

    /// Answers one request: when it arrives, and again each time after it was parked. Called from an async task, so it
    /// must not block between two awaits. If it takes too long, the door may drop it at any await. If the request could
    /// have been parked, a call of [`Handler::left`] follows.
    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a>;

    /// The client has gone without an answer to its request. Called from an async task: it must not block.
    fn left(&self, park: ParkId);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_tokens_are_told_from_other_credentials() {
        let of = |value: &str| Request {
            headers: vec![("authorization".to_owned(), value.to_owned())],
            ..Request::sample("GET", "/")
        };
        for (value, expected) in [
            ("Bearer a.b.c", Some("a.b.c")),
            ("bearer  a.b.c ", Some("a.b.c")),
            ("Bearer abc", None),
            ("Bearer a.b", None),
            ("Bearer a.b.c.d", None),
            ("Basic YS5iLmM=", None),
            ("Basic a.b.c", None),
            ("a.b.c", None),
        ] {
            assert_eq!(of(value).signed_token(), expected, "{value}");
        }
    }
}
