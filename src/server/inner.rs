//! The `tiny_http` side: a server on a Unix socket that only the door can reach, and the threads that call the
//! [`Handler`].
//!
//! The socket lies in a fresh directory of mode 0700, and every request must carry a random secret of this start.
//! There are as many workers as the door has connections, so a request never waits for a worker.

use std::any::Any;
use std::io::{self, Cursor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use subtle::ConstantTimeEq;

use super::http::{self, Attempt, Handler, Identity, Request, Response};
use crate::core::names::ParkId;

/// Request header: the start-up secret.
pub(super) const SECRET: &str = "locker-secret";
/// Request header: the number under which the request is parked.
pub(super) const PARK_ID: &str = "locker-park-id";
/// Request header: a [`turn_letter`].
pub(super) const TURN: &str = "locker-attempt";
/// Request header: `1` when there is room to park it, else `0`.
pub(super) const CAN_PARK: &str = "locker-can-park";
/// Request header: the client's address.
pub(super) const PEER: &str = "locker-peer";
/// Request header: the request's id, for logs.
pub(super) const REQUEST_ID: &str = "locker-request-id";
/// Request header: the subject of the client's certificate, percent-encoded.
pub(super) const SUBJECT: &str = "locker-subject";
/// Request header: the door asks whether this connection works; no handler sees it.
pub(super) const PROBE: &str = "locker-probe";
/// Answer header: milliseconds to keep the client waiting instead of relaying the answer.
pub(super) const PARK: &str = "locker-park";
/// Headers that only the door and this module set; from clients and handlers they are dropped.
pub(super) const INTERNAL: [&str; 11] =
    [SECRET, PARK_ID, TURN, CAN_PARK, PEER, REQUEST_ID, SUBJECT, PROBE, PARK, http::ROUTE, http::IDENTITY];
/// Those of them that handlers may set: the door takes them out for its log.
const FROM_HANDLERS: [&str; 2] = [http::ROUTE, http::IDENTITY];

/// How a attempt travels.
pub(super) const fn turn_letter(attempt: Attempt) -> u8 {
    match attempt {
        Attempt::First => b'F',
        Attempt::Notified => b'N',
        Attempt::Last => b'L',
    }
}

/// The secret of this start. It has no `Debug`, so that it reaches no log.
#[derive(Clone)]
pub(super) struct Secret(Arc<str>);

impl Secret {
    fn random() -> anyhow::Result<Self> {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).map_err(|e| anyhow!("no random bytes from the operating system: {e}"))?;
        Ok(Self(format!("{:032x}", u128::from_ne_bytes(bytes)).into()))
    }

    #[cfg(any(test, fuzzing))]
    pub fn for_tests() -> Self {
        Self("0123456789abcdef0123456789abcdef".into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Compares in constant time, as passwords are.
    fn is(&self, given: &str) -> bool {
        self.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// The running inner server.
pub(super) struct Inner {
    // Before `dir`: closing the server looks for its socket.
    server: Arc<tiny_http::Server>,
    stopping: Arc<AtomicBool>,
    workers: usize,
    /// Disconnected when the last worker has ended.
    ended: mpsc::Receiver<()>,
    socket: PathBuf,
    secret: Secret,
    _dir: tempfile::TempDir,
}

impl Inner {
    /// Starts `workers` threads behind a socket in the first of `dirs` where that is possible. `failed` is called, from
    /// a worker, when the server has ended although nobody stopped it.
    ///
    /// # Errors
    /// When no directory will do, or the threads cannot be started.
    pub fn start<F>(handler: &Arc<dyn Handler>, workers: usize, dirs: &[PathBuf], failed: F) -> anyhow::Result<Self>
    where
        F: Fn(&io::Error) + Clone + Send + 'static,
    {
        let (dir, server) = open_socket(dirs)?;
        let server = Arc::new(server);
        let socket = socket_path(dir.path());
        let secret = Secret::random()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (alive, ended) = mpsc::channel();
        for number in 0..workers {
            let worker = Worker { handler: Arc::clone(handler), secret: secret.clone() };
            let (server, stopping, failed, alive) =
                (Arc::clone(&server), Arc::clone(&stopping), failed.clone(), alive.clone());
            let run = move || {
                worker.run(&server, &stopping, failed);
                drop((server, alive));
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(run)
                .context("cannot start a worker thread; is there a limit on threads?")?;
        }
        Ok(Self { server, stopping, workers, ended, socket, secret, _dir: dir })
    }

    /// Where the door connects to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What every request must carry.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Stops the workers and waits for them, up to `grace`: a handler that blocks cannot be ended.
    pub fn stop(self, grace: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        for _ in 0..self.workers {
            self.server.unblock();
        }
        let _ = self.ended.recv_timeout(grace);
    }
}

fn socket_path(dir: &Path) -> PathBuf {
    dir.join("http")
}

/// A fresh directory of mode 0700 with a listening socket in it.
fn open_socket(dirs: &[PathBuf]) -> anyhow::Result<(tempfile::TempDir, tiny_http::Server)> {
    use std::os::unix::fs::PermissionsExt;
    let mut problems = String::new();
    for parent in dirs {
        let private = std::fs::Permissions::from_mode(0o700);
        let opened = tempfile::Builder::new()
            .prefix("locker-")
            .permissions(private)
            .tempdir_in(parent)
            .map_err(anyhow::Error::from)
            .and_then(|dir| {
                let server = tiny_http::Server::http_unix(&socket_path(dir.path()));
                Ok((dir, server.map_err(|e| anyhow!("{e}"))?))
            });
        match opened {
            Ok(opened) => return Ok(opened),
            Err(problem) => problems += &format!("\n  {}: {problem}", parent.display()),
        }
    }
    bail!("no directory for the private socket; name a writable one with a short path as --runtime-dir{problems}")
}

/// What one thread needs.
struct Worker {
    handler: Arc<dyn Handler>,
    secret: Secret,
}

impl Worker {
    fn run(&self, server: &tiny_http::Server, stopping: &AtomicBool, failed: impl Fn(&io::Error)) {
        loop {
            match server.recv() {
                // tiny_http itself may panic while it writes; that must not cost a worker.
                Ok(request) => drop(catch_unwind(AssertUnwindSafe(|| self.serve(request)))),
                Err(_) if stopping.load(Ordering::SeqCst) => return,
                Err(error) => {
                    failed(&error);
                    return;
                }
            }
        }
    }

    fn serve(&self, mut incoming: tiny_http::Request) {
        let response = match self.read(&mut incoming) {
            Ok(Some(request)) => {
                let id = request.id.clone();
                catch_unwind(AssertUnwindSafe(|| self.handler.handle(request))).unwrap_or_else(|panic| {
                    // The panic's own text was printed where it happened; this line ties it to the request.
                    tracing::error!(request = id, "a handler has panicked: this is a bug");
                    own_response(500, "internal error", "internal", panic)
                })
            }
            Ok(None) => Response { status: 204, headers: Vec::new(), body: Vec::new(), park: None },
            Err(Unread::Secret) => own_response(403, "only the door may ask here", "forbidden", ()),
            Err(Unread::Broken) => own_response(400, "the request is not as the door sends them", "internal", ()),
        };
        // There is nobody to tell: when the door has gone, so have its clients.
        let _ = incoming.respond(to_tiny_http(response));
    }

    /// Reads what the door sent; `None` for its probe.
    fn read(&self, incoming: &mut tiny_http::Request) -> Result<Option<Request>, Unread> {
        let (mut secret, mut park, mut attempt, mut can_park, mut peer, mut probe) =
            (None, None, None, None, None, false);
        let (mut id, mut identity) = (None, None);
        let mut headers = Vec::with_capacity(incoming.headers().len());
        for header in incoming.headers() {
            let value = header.value.as_str();
            match header.field.as_str().as_str() {
                SECRET => secret = Some(value),
                PARK_ID => park = value.parse().ok().map(ParkId),
                TURN => attempt = parse_turn(value),
                CAN_PARK => can_park = Some(value == "1"),
                PEER => peer = Some(value.to_owned()),
                REQUEST_ID => id = Some(value.to_owned()),
                SUBJECT => {
                    let subject = percent_encoding::percent_decode_str(value).decode_utf8();
                    identity = Some(Identity::Certificate(subject.map_err(|_| Unread::Broken)?.into_owned()));
                }
                PROBE => probe = true,
                "content-length" => {}
                name => headers.push((name.to_owned(), value.to_owned())),
            }
        }
        if !secret.is_some_and(|given| self.secret.is(given)) {
            return Err(Unread::Secret);
        }
        if probe {
            return Ok(None);
        }
        let (Some(park), Some(attempt), Some(can_park), Some(peer), Some(id)) = (park, attempt, can_park, peer, id)
        else {
            return Err(Unread::Broken);
        };
        let (path, query) = incoming.url().split_once('?').unwrap_or((incoming.url(), ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let method = incoming.method().as_str().to_owned();
        let mut body = Vec::with_capacity(incoming.body_length().unwrap_or(0));
        io::Read::read_to_end(incoming.as_reader(), &mut body).map_err(|_| Unread::Broken)?;
        Ok(Some(Request { method, path, query, headers, body, peer, id, identity, park, can_park, attempt }))
    }
}

/// Why a request is not handled.
enum Unread {
    Secret,
    Broken,
}

fn parse_turn(value: &str) -> Option<Attempt> {
    [Attempt::First, Attempt::Notified, Attempt::Last]
        .into_iter()
        .find(|attempt| value.as_bytes() == [turn_letter(*attempt)])
}

/// An answer of this module. The last argument is dropped here: a panic's payload may panic when it is dropped.
fn own_response(status: u16, error: &str, code: &str, cause: impl Any) -> Response {
    std::mem::forget(cause);
    let body = serde_json::json!({ "error": error, "code": code }).to_string().into_bytes();
    Response { status, headers: Vec::new(), body, park: None }
}

fn to_tiny_http(response: Response) -> tiny_http::Response<Cursor<Vec<u8>>> {
    // Statuses below 200 are no answers, and what is no status at all is a mistake of the handler.
    let status = if (200..=599).contains(&response.status) { response.status } else { 500 };
    let length = response.body.len();
    let mut headers = Vec::with_capacity(response.headers.len() + 2);
    headers.extend(header("content-type", "application/json".to_owned()));
    if let Some(span) = response.park {
        headers.extend(header(PARK, span.0.to_string()));
    }
    for (name, value) in response.headers {
        let is_internal = || INTERNAL.iter().any(|internal| internal.eq_ignore_ascii_case(name));
        if FROM_HANDLERS.contains(&name) || !is_internal() {
            headers.extend(header(name, value));
        }
    }
    tiny_http::Response::new(tiny_http::StatusCode(status), headers, Cursor::new(response.body), Some(length), None)
        .with_chunked_threshold(usize::MAX)
}

/// A header whose value cannot end it early: control and non-ASCII characters become question marks.
fn header(name: &str, mut value: String) -> Option<tiny_http::Header> {
    if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
        value = value.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
    }
    tiny_http::Header::from_bytes(name, value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_cannot_break_out() {
        let made = header("retry-after", "1\r\nset-cookie: x\u{e9}\0".to_owned()).unwrap();
        assert_eq!(made.value.as_str(), "1??set-cookie: x??");
    }

    #[test]
    fn turns_travel() {
        for attempt in [Attempt::First, Attempt::Notified, Attempt::Last] {
            let letter = char::from(turn_letter(attempt)).to_string();
            assert_eq!(parse_turn(&letter), Some(attempt));
        }
        assert_eq!(parse_turn("FF"), None);
        assert_eq!(parse_turn(""), None);
    }

    #[test]
    fn only_the_secret_is_the_secret() {
        let secret = Secret::random().unwrap();
        let text = String::from_utf8(secret.as_bytes().to_vec()).unwrap();
        assert_eq!(text.len(), 32);
        assert!(secret.is(&text));
        for wrong in ["", &text[1..], &format!("{text}0"), &"0".repeat(32)] {
            assert!(!secret.is(wrong));
        }
    }

    #[test]
    fn the_socket_is_private_and_bad_directories_are_named() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, _server) = open_socket(&["/nonexistent".into(), std::env::temp_dir()]).unwrap();
        assert_eq!(std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let error = open_socket(&["/nonexistent".into()]).err().unwrap().to_string();
        assert!(error.contains("/nonexistent") && error.contains("--runtime-dir"), "{error}");
    }
}
