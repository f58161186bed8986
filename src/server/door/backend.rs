//! The door's kept-alive connections to `tiny_http`: requests go out, whole answers come back.
//!
//! A connection counts as open when a first answer has come over it, and only one is opened at a time: `tiny_http`
//! leaves some of several simultaneous new connections unanswered for as long as the others stay open.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::budget::{Budget, Share};
use super::head::Method;
use super::keep::Keep;
use super::refusal::Refusal;
use super::wire::Wire;
use crate::core::time::Span;
use crate::server::door::limits;
use crate::server::http;
use crate::server::inner::{self, Secret};

/// Most headers in an answer: the handler's and a few of `tiny_http`.
const ANSWER_HEADERS: usize = 64;
/// Largest head of an answer, bytes: larger is a mistake of ours.
const ANSWER_HEAD_BYTES: usize = 64 * 1024;
/// Time for a new connection's first answer.
const PROBE: Duration = Duration::from_secs(5);
/// Attempts to open a connection: a first one may be among those that `tiny_http` leaves unanswered.
const OPEN_ATTEMPTS: usize = 3;

/// The fixed set of connections.
pub(super) struct Backends {
    socket: PathBuf,
    secret: Secret,
    /// One permit for each connection of the set.
    free: Semaphore,
    /// Those not in use; fewer than permits when some broke and are not reopened yet. The last used is used first.
    open: Mutex<Vec<Backend>>,
    /// Held while a connection is opened.
    opening: tokio::sync::Mutex<()>,
    busy: Duration,
    held: Budget,
}

/// A whole answer, as the client will get it.
pub(super) struct Answer {
    pub bytes: Vec<u8>,
    /// Keep the client waiting instead of relaying this.
    pub park: Option<Span>,
    pub status: u16,
    /// For the log: see [`http::ROUTE`] and [`http::IDENTITY`].
    pub route: Option<String>,
    pub identity: Option<String>,
    /// The answer's part of the bytes on their way.
    pub _share: Option<Share>,
}

/// Why an exchange brought no answer.
enum Failure {
    /// The connection broke, or what came over it was no answer.
    Broken,
    /// The answer is too large for the bytes that are free now.
    NoRoom,
}

impl Backends {
    /// Opens `count` connections, one after the other.
    ///
    /// # Errors
    /// When one of them cannot be opened or is not answered.
    pub async fn open(
        socket: &Path,
        secret: &Secret,
        count: usize,
        busy: Duration,
        held: Budget,
    ) -> anyhow::Result<Self> {
        let backends = Self {
            socket: socket.to_owned(),
            secret: secret.clone(),
            free: Semaphore::new(count),
            open: Mutex::new(Vec::with_capacity(count)),
            opening: tokio::sync::Mutex::new(()),
            busy,
            held,
        };
        for number in 1..=count {
            let backend = backends.open_one().await;
            let backend = backend.with_context(|| format!("inner connection {number} of {count} does not work"))?;
            backends.put_back(backend);
        }
        Ok(backends)
    }

    /// What every request to the inner server must carry.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Passes `wire` on and brings its answer, prepared for a client that the connection is `keep` for.
    /// A request that could have been acted on is sent again only if it is idempotent.
    pub async fn pass(&self, _permit: SemaphorePermit<'_>, wire: &Wire, keep: Keep) -> Result<Answer, Refusal> {
        let attempts = if wire.method.is_idempotent() { 2 } else { 1 };
        for _ in 0..attempts {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut backend = match open {
                Some(backend) => backend,
                None => self.open_one().await.map_err(|_| Refusal::busy("the server cannot reach its inner part"))?,
            };
            match backend.exchange(wire.bytes(), wire.method, keep, &wire.id, &self.held).await {
                Ok(answer) => {
                    self.put_back(backend);
                    return Ok(answer);
                }
                Err(Failure::Broken) => {}
                Err(Failure::NoRoom) => return Err(Refusal::busy("too many large answers are on their way")),
            }
        }
        Err(Refusal::new(502, "unknown_outcome", "the answer got lost inside the server; look before asking again"))
    }

    /// Waits for the right to use a connection.
    pub async fn permit(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        match timeout(self.busy, self.free.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed, so this is the timeout.
            _ => Err(Refusal::busy("the server is busy")),
        }
    }

    fn put_back(&self, backend: Backend) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(backend);
    }

    async fn open_one(&self) -> anyhow::Result<Backend> {
        let _one_at_a_time = self.opening.lock().await;
        let mut last = None;
        for _ in 0..OPEN_ATTEMPTS {
            match timeout(PROBE, self.probe()).await {
                Ok(Ok(backend)) => return Ok(backend),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {}
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no answer within {} s", PROBE.as_secs())))
    }

    /// One new connection, and its first answer.
    async fn probe(&self) -> anyhow::Result<Backend> {
        let stream = UnixStream::connect(&self.socket).await?;
        let mut backend = Backend { stream, head: Vec::with_capacity(1024) };
        let mut request = format!("GET / HTTP/1.1\r\n{}: 1\r\n{}: ", inner::PROBE, inner::SECRET).into_bytes();
        request.extend_from_slice(self.secret.as_bytes());
        request.extend_from_slice(b"\r\n\r\n");
        match backend.exchange(&request, Method::Get, Keep::Open, "", &self.held).await {
            Ok(answer) if answer.bytes.starts_with(b"HTTP/1.1 204 ") => Ok(backend),
            _ => anyhow::bail!("the inner server did not answer as it should"),
        }
    }
}

/// One connection.
struct Backend {
    stream: UnixStream,
    /// The head of the present answer, perhaps with the start of its body; kept for its memory.
    head: Vec<u8>,
}

impl Backend {
    async fn exchange(
        &mut self,
        request: &[u8],
        method: Method,
        keep: Keep,
        id: &str,
        held: &Budget,
    ) -> Result<Answer, Failure> {
        self.stream.write_all(request).await.map_err(|_| Failure::Broken)?;
        self.head.clear();
        let end = loop {
            let scanned = self.head.len().saturating_sub(3);
            // Writing to memory cannot fail; zero bytes are the end of the connection.
            match self.stream.read_buf(&mut self.head).await {
                Ok(1..) => {}
                _ => return Err(Failure::Broken),
            }
            if let Some(at) = self.head[scanned..].windows(4).position(|w| w == b"\r\n\r\n") {
                break scanned + at + 4;
            }
            if self.head.len() > ANSWER_HEAD_BYTES {
                return Err(Failure::Broken);
            }
        };
        let relayed = relay_head(&self.head[..end], method, keep, id).ok_or(Failure::Broken)?;
        let Relayed { mut bytes, park, body, status, route, identity } = relayed;
        let total = bytes.len() + body;
        let is_large = total > limits::DOOR_UNCOUNTED_BYTES;
        let share = if is_large { Some(held.take(total).ok_or(Failure::NoRoom)?) } else { None };
        bytes.reserve_exact(body);
        bytes.extend_from_slice(&self.head[end..]);
        while bytes.len() < total {
            match self.stream.read_buf(&mut bytes).await {
                Ok(1..) => {}
                _ => return Err(Failure::Broken),
            }
        }
        if bytes.len() > total {
            return Err(Failure::Broken);
        }
        Ok(Answer { bytes, park, status, route, identity, _share: share })
    }
}

/// The head of an answer, rewritten for the client.
struct Relayed {
    bytes: Vec<u8>,
    park: Option<Span>,
    /// Bytes of the body that follow.
    body: usize,
    status: u16,
    route: Option<String>,
    identity: Option<String>,
}

/// Rewrites the head of an answer: without what is internal, with what the client must know of the connection.
/// `None` if it is no answer with a length.
fn relay_head(head: &[u8], method: Method, keep: Keep, id: &str) -> Option<Relayed> {
    let mut slots = [httparse::EMPTY_HEADER; ANSWER_HEADERS];
    let mut response = httparse::Response::new(&mut slots);
    match response.parse(head) {
        Ok(httparse::Status::Complete(end)) if end == head.len() => {}
        _ => return None,
    }
    let status = response.code?;
    let without_body = status == 204 || status == 304;
    let mut bytes = Vec::with_capacity(head.len() + 64);
    let line_end = head.iter().position(|b| *b == b'\n')? + 1;
    bytes.extend_from_slice(&head[..line_end]);
    let (mut park, mut length, mut route, mut identity) = (None, None, None, None);
    for header in response.headers.iter() {
        let text = || Some(std::str::from_utf8(header.value).ok()?.to_owned());
        if header.name.eq_ignore_ascii_case(inner::PARK) {
            park = Some(Span(std::str::from_utf8(header.value).ok()?.parse().ok()?));
            continue;
        }
        if header.name.eq_ignore_ascii_case(http::ROUTE) {
            route = text();
            continue;
        }
        if header.name.eq_ignore_ascii_case(http::IDENTITY) {
            identity = text();
            continue;
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            length = Some(std::str::from_utf8(header.value).ok()?.parse::<usize>().ok()?);
            // RFC 9110, 8.6: none with 204; with 304 it would be that of another answer.
            if without_body {
                continue;
            }
        } else if header.name.eq_ignore_ascii_case("server") {
            continue;
        }
        for part in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    for part in [b"x-request-id: ", id.as_bytes(), b"\r\n", keep.header_and_end().as_bytes()] {
        bytes.extend_from_slice(part);
    }
    let body = if without_body || method == Method::Head { 0 } else { length? };
    Some(Relayed { bytes, park, body, status, route, identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_rewritten_for_the_client() {
        let head = b"HTTP/1.1 423 Locked\r\nServer: tiny-http (Rust)\r\nlocker-park: 25000\r\nretry-after: 3\r\n\
                     locker-route: /a/{b}\r\nlocker-identity: user:ci\r\nContent-Length: 7\r\n\r\n";
        let relayed = relay_head(head, Method::Put, Keep::Close, "7-1").unwrap();
        assert_eq!(relayed.park, Some(Span(25_000)));
        assert_eq!((relayed.body, relayed.status), (7, 423));
        assert_eq!((relayed.route.as_deref(), relayed.identity.as_deref()), (Some("/a/{b}"), Some("user:ci")));
        let text = String::from_utf8(relayed.bytes).unwrap();
        let expected = "HTTP/1.1 423 Locked\r\nretry-after: 3\r\nContent-Length: 7\r\nx-request-id: 7-1\r\n\
                        connection: close\r\n\r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn answers_without_a_body_have_none() {
        let with = |status| format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
        let body = |status, method| relay_head(with(status).as_bytes(), method, Keep::Open, "7").unwrap().body;
        assert_eq!(body(200, Method::Get), 5);
        assert_eq!(body(200, Method::Head), 0);
        assert_eq!(body(204, Method::Get), 0);
        assert_eq!(body(304, Method::Get), 0);
        let none = relay_head(with(204).as_bytes(), Method::Get, Keep::Open, "7").unwrap();
        assert_eq!(none.bytes, b"HTTP/1.1 204 X\r\nx-request-id: 7\r\n\r\n");
        assert!(relay_head(b"HTTP/1.1 200 OK\r\n\r\n", Method::Get, Keep::Open, "7").is_none());
    }

    /// A stand-in for `tiny_http` that answers probes, closes each connection at its first real request until
    /// `broken` of them were closed, and answers afterwards. Brings the real requests' number.
    async fn stand_in(listener: tokio::net::UnixListener, broken: usize) -> usize {
        let mut requests = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 2048];
            while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                if bytes[..length].windows(inner::PROBE.len()).any(|w| w == inner::PROBE.as_bytes()) {
                    stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    continue;
                }
                requests += 1;
                if requests > broken {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
                    return requests;
                }
                break;
            }
        }
    }

    #[tokio::test]
    async fn only_what_may_be_repeated_is_sent_again() {
        let table = [
            ("GET", 1, Ok(())),
            ("PUT", 1, Ok(())),
            ("POST", 1, Err(502)),
            ("PATCH", 1, Err(502)),
            ("PUT", 2, Err(502)),
        ];
        for (method, broken, expected) in table {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("http");
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            let server = tokio::spawn(stand_in(listener, broken));
            let secret = Secret::for_tests();
            let busy = Duration::from_secs(5);
            let backends = Backends::open(&socket, &secret, 1, busy, Budget::new(1_000)).await.unwrap();
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut slots = [httparse::EMPTY_HEADER; 4];
            let settings = super::super::settings::DoorSettings::default();
            let head = super::super::head::parse(head.as_bytes(), &mut slots, &settings).unwrap();
            let address = std::net::IpAddr::from([127, 0, 0, 1]).into();
            let client = super::super::listen::Client { peer: "peer".into(), address, identity: None };
            let wire = Wire::new(&head, crate::core::names::ParkId(1), "7-1", &client, &secret);
            let pass = async || backends.pass(backends.permit().await?, &wire, Keep::Open).await;
            let passed = pass().await.map(|_| ()).map_err(|refusal| refusal.status);
            assert_eq!(passed, expected, "{method} with {broken} broken");
            if expected.is_err() {
                // The set heals: the next request gets a connection that works.
                while pass().await.is_err() {}
            }
            server.await.unwrap();
        }
    }
}
