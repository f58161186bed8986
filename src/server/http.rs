//! A request and a response as plain values: all that the routes ever see of HTTP.
//!
//! The door turns bytes into a [`Request`] and a [`Response`] into bytes; a [`Handler`] turns the one into the other.
//! Nothing behind the handler knows that sockets exist.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::core::names::ParkId;
use crate::core::time::Span;

/// Who a client has proven to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The subject of a verified client certificate, as RFC 4514 writes it (`CN=ci,O=example`).
    Certificate(String),
    /// The user of HTTP Basic.
    User(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(subject) => write!(f, "certificate:{subject}"),
            Self::User(name) => write!(f, "user:{name}"),
        }
    }
}

/// Why a request reaches the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The client has just sent it.
    First,
    /// It was parked and something it waits for has happened; it may be parked again.
    Notified,
    /// It was parked and its time is over (or the server goes down): this answer is final, it is not parked again.
    Last,
}

/// One complete, bounded request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method as sent, in capitals for every known one.
    pub method: String,
    /// Path of the target, still percent-encoded, without the query.
    pub path: String,
    /// Query without the question mark, still percent-encoded; empty when there is none.
    pub query: String,
    /// Headers as sent, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The client's address as text, for logs.
    pub peer: String,
    /// What the client is told as `x-request-id`, and log lines carry.
    pub id: String,
    /// Who the client has proven to be: a verified certificate before [`Handler::admit`], whoever it was let in as
    /// afterwards.
    pub identity: Option<Identity>,
    /// The number under which this request is parked, if it is; unique in this life of the server.
    pub park: ParkId,
    /// Whether there is room to park it. False: answer at once.
    pub can_park: bool,
    pub attempt: Attempt,
}

impl Request {
    /// The value of the first header called `name` (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Beside `content-type: application/json` and `content-length`, which are always set.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Keep the client waiting up to this long, or until a notice, instead of relaying this answer.
    /// Ignored on [`Attempt::Last`].
    pub park: Option<Span>,
    /// The template of the route that answered, such as `/api/v1/claims/{id}`: for the log, never for the client.
    pub route: Option<&'static str>,
}

impl Response {
    /// An answer with this body, without further headers.
    #[must_use]
    pub fn new(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, park: None, route: None }
    }
}

/// A response on its way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Response> + Send + 'a>>;

/// Turns requests into responses.
pub trait Handler: Send + Sync + 'static {
    /// Decides once for each request, before it is first handled, whether it may come in, and notes as whom.
    ///
    /// # Errors
    /// It may not: the answer that says so.
    fn admit(&self, request: &mut Request) -> Result<(), Response>;

    /// Answers one request: first, and again each time it was parked. Called from an async task: what it does between
    /// two awaits must not block. The door may drop it at any await, when it has taken too long; if the request could
    /// have been parked, [`Handler::left`] follows.
    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a>;

    /// The client of a request has gone without its answer. Called from an async task: it must not block.
    fn left(&self, park: ParkId);
}
