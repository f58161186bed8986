//! The door in front of a small handler: what it refuses, what it passes on, how it parks, and that no client can slow
//! down the others.

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::type_complexity,
    clippy::format_collect,
    clippy::cast_possible_truncation
)]

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use locker::core::names::ParkId;
use locker::core::time::Span;
use locker::server::door::{self, DoorSettings};
use locker::server::http::{Admission, Admitting, Answering, Attempt, Handler, Request, Response};
use locker::server::notices::Notices;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::http::Client;
use crate::support::in_process::Door;

/// Runs the test called `name` in a separate process. Returns whether this is that process.
fn in_own_process(name: &str) -> bool {
    const MARK: &str = "LOCKER_TEST_OWN_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name, "--nocapture"]).env(MARK, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// The requests that the handler has seen.
#[derive(Default)]
struct Seen {
    turns: Vec<(ParkId, Attempt, bool)>,
    left: Vec<ParkId>,
}

#[derive(Default)]
struct TestHandler {
    notices: Notices,
    seen: Mutex<Seen>,
    /// Requests for `/gate` wait while a test holds this.
    gate: tokio::sync::Mutex<()>,
}

fn answer(status: u16, body: &Value) -> Response {
    Response::new(status, body.to_string().into_bytes())
}

impl Handler for TestHandler {
    fn admit<'a>(&'a self, _: &'a mut Request) -> Admitting<'a> {
        Box::pin(std::future::ready(Ok(Admission::Client)))
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        Box::pin(async move {
            if request.path == "/gate" {
                drop(self.gate.lock().await);
            }
            self.response(request)
        })
    }

    fn left(&self, park: ParkId) {
        self.seen.lock().unwrap().left.push(park);
    }
}

impl TestHandler {
    fn response(&self, request: &Request) -> Response {
        let number = |name: &str| {
            let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<u64>().ok())
        };
        let attempt = format!("{:?}", request.attempt);
        match request.path.as_str() {
            "/panic" => panic!("asked to panic"),
            "/status" => answer(number("code").unwrap_or(200) as u16, &json!({})),
            "/big" => answer(200, &json!("x".repeat(number("bytes").unwrap_or(0) as usize - 2))),
            "/headers" => Response {
                headers: vec![("content-type", "text/plain".into()), ("x-note", "a\r\nx-evil: 1".into())],
                ..answer(200, &json!({}))
            },
            "/park" | "/gate" => {
                self.seen.lock().unwrap().turns.push((request.park, request.attempt, request.can_park));
                if number("notify").is_some() && request.attempt == Attempt::First {
                    self.notices.notify(request.park);
                }
                let again = request.attempt == Attempt::Notified && number("again").is_some();
                let parks = request.can_park && (request.attempt == Attempt::First || again);
                let park = parks.then(|| Span(number("ms").unwrap_or(60_000)));
                Response { park, ..answer(423, &json!({ "attempt": attempt, "body": request.body.len() })) }
            }
            _ => answer(
                200,
                &json!({
                    "method": request.method, "path": request.path, "query": request.query,
                    "headers": request.headers, "body": String::from_utf8_lossy(&request.body),
                    "peer": request.peer, "attempt": attempt, "can_park": request.can_park,
                }),
            ),
        }
    }
}

/// A running door in front of the handler.
struct Server {
    handler: Arc<TestHandler>,
    door: Door,
}

impl Server {
    fn start(change: impl FnOnce(&mut DoorSettings)) -> Self {
        let mut settings = DoorSettings { linger: Duration::from_millis(300), ..DoorSettings::default() };
        change(&mut settings);
        let notices = Notices::default();
        let handler = Arc::new(TestHandler { notices: notices.clone(), ..TestHandler::default() });
        let door = Door::open(Arc::clone(&handler) as Arc<dyn Handler>, notices, settings);
        Self { handler, door }
    }

    fn connect(&self) -> Client {
        Client::new(self.door.address)
    }

    /// Waits for the `nth` parked request and returns it.
    fn parked(&self, nth: usize) -> ParkId {
        eventually("the request reaches the handler", || self.firsts().len() > nth);
        self.firsts()[nth]
    }

    fn firsts(&self) -> Vec<ParkId> {
        let seen = self.handler.seen.lock().unwrap();
        seen.turns.iter().filter(|(_, attempt, _)| *attempt == Attempt::First).map(|(park, _, _)| *park).collect()
    }

    fn turns(&self) -> Vec<Attempt> {
        self.handler.seen.lock().unwrap().turns.iter().map(|(_, attempt, _)| *attempt).collect()
    }

    fn left(&self) -> Vec<ParkId> {
        self.handler.seen.lock().unwrap().left.clone()
    }
}

// ---- What is refused ----

#[test]
fn malformed_requests_are_refused_and_others_are_still_served() {
    let server = Server::start(|_| {});
    let mut good = server.connect();
    assert_eq!(good.get("/a").status, 200);
    crate::support::malformed::check_all(server.door.address, "");
    assert_eq!(good.get("/a").status, 200);
}

#[test]
fn a_request_that_takes_too_long_gets_408() {
    let server = Server::start(|settings| {
        settings.send = Duration::from_millis(300);
        settings.linger = Duration::from_secs(5);
    });
    for half in ["GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"] {
        let mut client = server.connect();
        client.send(half);
        let answer = client.read();
        assert_eq!(answer.status, 408);
        assert_eq!(answer.json()["code"], "request_timeout");
        client.expect_end();
    }
    // Sending slowly does not help: the time limit covers the whole request.
    let mut client = server.connect();
    let start = Instant::now();
    for byte in "GET /".bytes().chain(std::iter::repeat(b'x')) {
        if client.reader.get_mut().write_all(&[byte]).is_err() || start.elapsed() > Duration::from_secs(1) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.read().status, 408);
}

#[test]
fn silent_and_half_closed_clients_are_let_go() {
    let server = Server::start(|settings| settings.idle = Duration::from_millis(200));
    let mut silent = server.connect();
    silent.expect_end();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    idle.expect_end();
    let mut half = server.connect();
    half.send("GET / HTTP/1.1\r\nHo");
    half.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    half.expect_end();
    let mut whole = server.connect();
    whole.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    whole.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(whole.read().status, 200, "a whole request is answered, half-closed or not");
    whole.expect_end();
}

#[test]
fn a_hundred_headers_pass_and_one_more_does_not() {
    let server = Server::start(|_| {});
    for (more, status) in [(99, 200), (100, 431)] {
        let headers: String = (0..more).map(|n| format!("x-{n}: y\r\n")).collect();
        let mut client = server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
        assert_eq!(client.read().status, status);
    }
}

/// The resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn endless_input_takes_no_memory() {
    // In a separate process, so that no other test's memory is counted.
    if !in_own_process("door::endless_input_takes_no_memory") {
        return;
    }
    let server = Server::start(|settings| settings.write = Duration::from_millis(500));
    let table: [(&str, &str, &str); 4] = [
        ("head", "GET / HTTP/1.1\r\n", "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
        ("line", "GET /", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("body", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
        ("pipeline", "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (name, start, part) in table {
        let before = resident();
        let mut client = server.connect();
        client.send(start);
        let block = part.repeat(64 * 1024 / part.len());
        let mut sent = 0;
        // Sends up to 256 MB, or until the door closes the connection, and reads nothing.
        while sent < 256_000_000 && client.reader.get_mut().write_all(block.as_bytes()).is_ok() {
            sent += block.len();
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 16 << 20, "{name}: {grown} bytes more after {sent} were sent");
        assert_eq!(server.connect().get("/").status, 200);
    }
}

#[test]
fn over_the_cap_clients_are_told_to_come_back() {
    let server = Server::start(|settings| settings.connections = 3);
    let mut inside: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for (n, client) in inside.iter_mut().enumerate() {
        client.send(put_park("", ""));
        server.parked(n);
    }
    let mut outside = server.connect();
    let answer = outside.read();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["code"], "busy");
    outside.expect_end();
    inside.pop();
    eventually("there is room again", || {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        matches!(client.try_read(), Ok(Some(answer)) if answer.status == 200)
    });
}

// ---- What is passed on ----

#[test]
fn a_request_arrives_as_it_was_sent() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send(
        "PUT /a%20b//c?x=1&y=%3F HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nx-two:  2 \r\nEmpty:\r\n\
         TE: trailers\r\nUpgrade: h2c\r\nConnection: keep-alive, Upgrade\r\nContent-Length: 6\r\n\r\nh\u{e9}llo",
    );
    let answer = client.read();
    assert_eq!(answer.status_line, "HTTP/1.1 200 OK");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("date").is_some() && answer.header("server").is_none());
    let seen = answer.json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["path"], "/a%20b//c");
    assert_eq!(seen["query"], "x=1&y=%3F");
    assert_eq!(seen["body"], "h\u{e9}llo");
    assert_eq!(seen["headers"], json!([["host", "a"], ["x-two", "1"], ["x-two", "2"], ["empty", ""]]));
    assert_eq!(seen["peer"], client.reader.get_ref().local_addr().unwrap().to_string());
    assert_eq!((&seen["attempt"], &seen["can_park"]), (&json!("First"), &json!(true)));
}

#[test]
fn no_header_changes_what_the_door_knows() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nLocker-Secret: x\r\nlocker-park-id: 7\r\nlocker-attempt: L\r\nlocker-can-park: 0\r\n\
         locker-peer: 1.2.3.4:5\r\nX-Forwarded-For: 1.2.3.4\r\nlocker-other: kept\r\n\r\n",
    );
    let seen = client.read().json();
    assert_eq!((&seen["attempt"], &seen["can_park"]), (&json!("First"), &json!(true)));
    assert_eq!(seen["peer"], client.reader.get_ref().local_addr().unwrap().to_string());
}

#[test]
fn bodies_of_all_sizes_pass_declared_and_chunked() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    for size in [0, 1, 1_023, 1_024, 1_025, 16 * 1024, 16 * 1024 + 1, 100_000, 1024 * 1024] {
        let body = "b".repeat(size);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}"));
        assert_eq!(client.read().json()["body"].as_str().unwrap().len(), size);
        let chunks: String =
            body.as_bytes().chunks(9_999).map(|c| format!("{:x}\r\n{}\r\n", c.len(), "b".repeat(c.len()))).collect();
        client
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n{chunks}0\r\nt: u\r\n\r\n"));
        let answer = client.read().json();
        assert_eq!(answer["body"].as_str().unwrap(), body);
        assert_eq!(answer["headers"], json!([["host", "a"]]));
    }
    let too_much = "b".repeat(600_000);
    let chunk = format!("{:x}\r\n{too_much}\r\n", too_much.len());
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"));
    assert_eq!(client.read().status, 413);
    client.expect_end();
}

#[test]
fn bodies_above_a_packet_are_not_delayed() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    let body = "b".repeat(5_000);
    let start = Instant::now();
    for _ in 0..50 {
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{body}"));
        assert_eq!(client.read().status, 200);
    }
    // With a delay of 40 ms for each request, this would take at least 2 s.
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?} for 50 requests", start.elapsed());
}

#[test]
fn a_request_may_come_byte_by_byte_and_several_at_once() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    for byte in "\r\nPUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".bytes() {
        client.send([byte]);
    }
    assert_eq!(client.read().json()["body"], "abc");
    let pipeline: String = (0..50)
        .map(|n| {
            format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxyGET /{n}b HTTP/1.1\r\nHost: a\r\n\r\n")
        })
        .collect();
    client.send(pipeline);
    for n in 0..50 {
        assert_eq!(client.read().json()["path"], format!("/{n}"));
        assert_eq!(client.read().json()["path"], format!("/{n}b"));
    }
}

#[test]
fn connections_stay_or_end_as_the_client_asks() {
    let table = [
        ("HTTP/1.1", "", None, true),
        ("HTTP/1.1", "Connection: close\r\n", Some("close"), false),
        ("HTTP/1.1", "Connection: x, CLOSE\r\n", Some("close"), false),
        ("HTTP/1.0", "", Some("close"), false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", Some("keep-alive"), true),
    ];
    let server = Server::start(|_| {});
    for (version, header, said, stays) in table {
        let mut client = server.connect();
        client.send(format!("GET /a {version}\r\nHost: a\r\n{header}\r\n"));
        let answer = client.read();
        assert_eq!((answer.status, answer.header("connection")), (200, said), "{version} {header}");
        if stays {
            assert_eq!(client.get("/b").json()["path"], "/b");
        } else {
            client.expect_end();
        }
    }
    let mut without_host = server.connect();
    without_host.send("GET /a HTTP/1.0\r\n\r\n");
    assert_eq!(without_host.read().status, 200);
}

#[test]
fn continue_is_sent_before_the_body_and_only_when_it_is_wanted() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    let expect = |length: usize| {
        format!("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n")
    };
    client.send(expect(3));
    assert_eq!(client.read().status_line, "HTTP/1.1 100 Continue");
    client.send("abc");
    assert_eq!(client.read().json()["body"], "abc");
    client.send(expect(0));
    assert_eq!(client.read().status, 200);
    client.send(expect(2_000_000));
    assert_eq!(client.read().status, 413);
    client.expect_end();
}

#[test]
fn statuses_and_heads_are_relayed() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    for line in [
        "200 OK",
        "201 Created",
        "404 Not Found",
        "409 Conflict",
        "410 Gone",
        "421 Misdirected Request",
        "422 Unprocessable Entity",
        "423 Locked",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ] {
        assert_eq!(client.get(&format!("/status?code={}", &line[..3])).status_line, format!("HTTP/1.1 {line}"));
    }
    for code in [204, 304] {
        let answer = client.get(&format!("/status?code={code}"));
        assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (code, None, 0));
    }
    client.send("HEAD /big?bytes=5000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read();
    assert_eq!((head.status, head.header("content-length")), (200, Some("5000")));
    let headers = client.get("/headers");
    assert_eq!(headers.header("content-type"), Some("text/plain"));
    assert_eq!(headers.header("x-note"), Some("a??x-evil: 1"));
    for bytes in [1_000, 32 * 1024, 100_000, 5_000_000] {
        assert_eq!(client.get(&format!("/big?bytes={bytes}")).body.len(), bytes);
    }
}

#[test]
fn a_panic_is_an_answer() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    for _ in 0..10 {
        let answer = client.get("/panic");
        assert_eq!(answer.status, 500);
        assert_eq!(answer.json(), json!({ "error": "internal error", "code": "internal" }));
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn clients_that_do_not_read_delay_no_others_and_are_disconnected() {
    /// More than fits into the socket buffers of a client with small ones.
    const LARGE: usize = 8_000_000;
    let server = Server::start(|settings| {
        settings.memory_bytes = 4 * (3 * LARGE - 1);
        // The limit for each 64 KiB. All of it has 12 s, in which the door must notice the lack of room.
        settings.write = Duration::from_millis(100);
    });
    let large = |client: &mut Client| client.send(format!("GET /big?bytes={LARGE} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let mut deaf: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for client in &mut deaf {
        socket2::SockRef::from(client.reader.get_ref()).set_recv_buffer_size(64 * 1024).unwrap();
        large(client);
    }
    let fits = || {
        let mut client = server.connect();
        large(&mut client);
        client.read().status == 200
    };
    eventually("there is no room for a third large answer", || !fits());
    let mut good = server.connect();
    for _ in 0..20 {
        assert_eq!(good.get("/").status, 200);
    }
    eventually("the room of the deaf clients is free again", fits);
}

#[test]
fn heads_that_never_end_make_room_for_others() {
    let server = Server::start(|settings| {
        settings.memory_bytes = 160_000;
        settings.send = Duration::from_secs(600);
    });
    // A quarter of the memory is for large heads: two of these, and part of a third.
    let mut endless: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    for client in &mut endless {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(12_000)));
    }
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(12_000));
    for _ in 0..20 {
        let mut client = server.connect();
        client.send(&large);
        assert_eq!(client.read().status, 200);
    }
    let ended = endless.iter_mut().filter_map(|client| {
        client.socket().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let blocks = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        (!client.try_read().is_err_and(|error| blocks(&error))).then_some(())
    });
    assert!(ended.count() >= 3, "the oldest made room");
}

#[test]
fn idle_connections_make_room_and_clients_of_known_addresses_stay() {
    let server = Server::start(|settings| settings.connections = 100);
    let mut known = server.connect();
    assert_eq!(known.get("/").status, 200);
    let mut waiting = server.connect();
    waiting.send(put_park("", ""));
    let park = server.parked(0);
    let crowd: Vec<Client> = (0..500).map(|_| server.connect()).collect();
    for _ in 0..50 {
        assert_eq!(server.connect().get("/").status, 200, "newcomers are served");
    }
    assert_eq!(known.get("/").status, 200, "who has asked is more than who never did");
    server.handler.notices.notify(park);
    assert_eq!(waiting.read().json()["attempt"], "Notified");
    drop(crowd);
}

#[test]
fn large_answers_beyond_the_room_are_refused() {
    let server = Server::start(|settings| settings.memory_bytes = 400_000);
    let mut client = server.connect();
    assert_eq!(client.get("/big?bytes=50000").status, 200);
    let refused = client.get("/big?bytes=200000");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    let mut client = server.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    assert_eq!(client.read().status, 503);
    assert_eq!(server.connect().get("/big?bytes=50000").status, 200);
}

// ---- Parking ----

fn put_park(query: &str, body: &str) -> String {
    format!("PUT /park?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_notice_brings_a_parked_request_back() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send(put_park("", "hello"));
    server.handler.notices.notify(server.parked(0));
    let answer = client.read();
    assert_eq!((answer.status, answer.json()), (423, json!({ "attempt": "Notified", "body": 5 })));
    assert_eq!(answer.header("locker-park"), None);
    assert_eq!(server.turns(), [Attempt::First, Attempt::Notified]);
    assert_eq!(client.get("/after").status, 200, "the connection stays");
    drop(client);
    assert!(server.left().is_empty());
}

#[test]
fn a_notice_before_the_client_is_parked_is_not_lost() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    for _ in 0..100 {
        client.send(put_park("notify=1", ""));
        assert_eq!(client.read().json()["attempt"], "Notified");
    }
}

#[test]
fn the_deadline_brings_the_last_answer() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    let start = Instant::now();
    client.send(put_park("ms=200", ""));
    assert_eq!(client.read().json()["attempt"], "Last");
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(server.turns(), [Attempt::First, Attempt::Last]);
}

#[test]
fn a_request_parked_again_waits_for_the_rest_of_its_time() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    let start = Instant::now();
    client.send(put_park("ms=400&again=1", ""));
    let park = server.parked(0);
    let answer = thread::scope(|scope| {
        let reading = scope.spawn(|| client.try_read());
        // If each new park restarted the time, these notices would keep it from ever ending.
        while !reading.is_finished() {
            server.handler.notices.notify(park);
            thread::sleep(Duration::from_millis(10));
        }
        reading.join().unwrap().unwrap().unwrap()
    });
    assert_eq!(answer.json()["attempt"], "Last");
    assert!(start.elapsed() >= Duration::from_millis(400));
    assert!(server.turns().len() > 3, "it was notified on the way");
    assert_eq!(server.turns().last(), Some(&Attempt::Last));
}

#[test]
fn a_parked_client_that_leaves_is_reported_as_gone_exactly_once() {
    let ways: [(&str, fn(&TcpStream)); 3] = [
        ("close", |_| {}),
        ("half-close", |socket| socket.shutdown(Shutdown::Write).unwrap()),
        ("reset", |socket| socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap()),
    ];
    let server = Server::start(|_| {});
    let mut kept = Vec::new();
    for (nth, (way, leave)) in ways.into_iter().enumerate() {
        let mut client = server.connect();
        client.send(put_park("", ""));
        let park = server.parked(nth);
        leave(client.reader.get_ref());
        if way == "half-close" {
            kept.push(client)
        } else {
            drop(client)
        }
        eventually(way, || server.left().contains(&park));
    }
    // The handler also hears of a client that leaves before it is parked.
    let mut hasty = server.connect();
    hasty.send(put_park("", ""));
    drop(hasty);
    let park = server.parked(3);
    eventually("hasty", || server.left().contains(&park));
    assert_eq!(server.left(), server.firsts());
    assert_eq!(server.turns(), [Attempt::First; 4], "nothing is tried for a client that has gone");
}

#[test]
fn bytes_sent_ahead_are_kept_while_parked() {
    let server = Server::start(|_| {});
    // The second one is larger than what the door reads ahead.
    for (nth, ahead) in [1, 1_000].into_iter().enumerate() {
        let mut client = server.connect();
        client.send(put_park("", ""));
        let park = server.parked(nth);
        client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n".repeat(ahead));
        server.handler.notices.notify(park);
        assert_eq!(client.read().json()["attempt"], "Notified");
        for _ in 0..ahead {
            assert_eq!(client.read().json()["path"], "/next");
        }
    }
    assert!(server.left().is_empty());
}

#[test]
fn without_room_a_request_is_answered_at_once() {
    let server = Server::start(|settings| {
        settings.parked = 2;
        settings.park_body_bytes = 1_000;
    });
    let at_once = |client: &mut Client, body: &str| {
        client.send(put_park("", body));
        assert_eq!(client.read().json()["attempt"], "First");
    };
    at_once(&mut server.connect(), &"b".repeat(1_001));
    let mut parked: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for (n, client) in parked.iter_mut().enumerate() {
        client.send(put_park("", ""));
        server.parked(n + 1);
    }
    at_once(&mut server.connect(), "");
    drop(parked);
    eventually("their places are free", || server.left().len() == 2);
    let mut client = server.connect();
    eventually("there is room again", || server.connect().get("/").json()["can_park"] == true);
    client.send(put_park("ms=50", ""));
    assert_eq!(client.read().json()["attempt"], "Last");

    let tight = Server::start(|settings| settings.parked_bytes = 10);
    at_once(&mut tight.connect(), "");
}

#[test]
fn a_thousand_parked_clients_are_answered_or_reported_as_gone() {
    let server = Server::start(|_| {});
    let mut clients: Vec<Client> = (0..1_000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(put_park("", "{}"));
    }
    server.parked(999);
    drop(clients.split_off(500));
    eventually("500 have left", || server.left().len() == 500);
    let left = server.left();
    for park in server.firsts().into_iter().filter(|park| !left.contains(park)) {
        server.handler.notices.notify(park);
    }
    for client in &mut clients {
        assert_eq!(client.read().json()["attempt"], "Notified");
    }
    assert_eq!(server.left().len(), 500);
}

// ---- Crowds ----

#[test]
fn crowds_and_resets_leave_a_good_client_served() {
    let server = Server::start(|_| {});
    let mut good = server.connect();
    assert_eq!(good.get("/").status, 200);

    let mut crowd: Vec<Client> = Vec::new();
    thread::scope(|scope| {
        let parts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..250).map(|_| server.connect()).collect::<Vec<_>>())).collect();
        for _ in 0..100 {
            assert_eq!(good.get("/").status, 200);
        }
        crowd.extend(parts.into_iter().flat_map(|part| part.join().unwrap()));
    });
    assert_eq!(crowd.len(), 2_000);
    for client in &mut crowd {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut crowd {
        assert_eq!(client.read().status, 200);
    }
    drop(crowd);

    thread::scope(|scope| {
        let resets: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..2_500).for_each(|n| reset(server.door.address, n)))).collect();
        while !resets.iter().all(|part| part.is_finished()) {
            assert_eq!(good.get("/").status, 200);
        }
    });
    assert_eq!(good.get("/").status, 200);
    assert_eq!(server.connect().get("/").status, 200);
}

#[test]
fn a_client_that_resets_while_the_server_is_busy_is_reported_as_gone() {
    let server = Server::start(|_| {});
    let gate = server.handler.gate.blocking_lock();
    let mut stays = server.connect();
    stays.send("PUT /gate?ms=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    let mut half = server.connect();
    half.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    half.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut gone: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for client in &mut gone {
        socket2::SockRef::from(client.reader.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
        client.send("PUT /gate HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}");
        // Now the client reads.
        assert_eq!(client.read().status, 100);
    }
    drop(gone);
    assert_eq!(
        half.read().json()["path"],
        "/half",
        "others are served in the meantime, and clients that can still read get an answer"
    );
    drop(gate);
    eventually("all of them are reported as gone", || server.left().len() == 100);
    assert_eq!(stays.read().status, 423);
    assert_eq!(server.connect().get("/").status, 200);
    assert_eq!(server.firsts().len(), 101, "each was handled once, and parked before its client was reported as gone");
}

/// Connects, sends these bytes if there are any, and resets.
fn reset(address: SocketAddr, n: usize) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    let said: &[u8] = match n % 4 {
        0 => b"",
        1 => b"GET / HT",
        2 => b"GET /big?bytes=100000 HTTP/1.1\r\nHost: a\r\n\r\n",
        _ => b"PUT /park HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    };
    let _ = socket.write_all(said);
}

#[test]
fn without_descriptors_accepting_waits_and_goes_on() {
    if !in_own_process("door::without_descriptors_accepting_waits_and_goes_on") {
        return;
    }
    let few = rustix::process::Rlimit { current: Some(256), maximum: Some(256) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    let reports = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&reports);
    let report: door::Report = Arc::new(move |line| lines.lock().unwrap().push(line.to_owned()));
    let server = Server::start(|settings| settings.report = report);
    let mut good = server.connect();
    assert_eq!(good.get("/").status, 200);
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    files.pop();
    // The client takes the last descriptor. None is left to accept its connection.
    let mut waiting = server.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let reported = || reports.lock().unwrap().iter().filter(|line| line.contains("cannot accept")).count();
    eventually("the failure is reported", || reported() > 0);
    for _ in 0..1_000 {
        assert_eq!(good.get("/").status, 200);
    }
    assert_eq!(reported(), 1, "one line for all failures in a row");
    files.clear();
    assert_eq!(waiting.read().status, 200);
    assert_eq!(server.connect().get("/").status, 200);
    assert!(reports.lock().unwrap().iter().any(|line| line.contains("256 open files")));
}

// ---- The stop ----

#[test]
fn a_stop_answers_the_parked_and_lets_the_idle_go() {
    let mut server = Server::start(|_| {});
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let mut parked: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut parked {
        client.send(put_park("", ""));
    }
    server.parked(19);
    let start = Instant::now();
    server.door.stop_within(Duration::from_millis(300)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for client in &mut parked {
        let answer = client.read();
        assert_eq!((&answer.json()["attempt"], answer.header("connection")), (&json!("Last"), Some("close")));
        client.expect_end();
    }
    idle.expect_end();
    assert!(server.left().is_empty());
    assert!(TcpStream::connect(server.door.address).is_err(), "nothing listens any more");
}

#[test]
fn a_stop_waits_no_longer_than_its_grace() {
    let mut server = Server::start(|_| {});
    let mut slow = server.connect();
    slow.send("GET / HTTP/1.1\r\n");
    assert_eq!(server.connect().get("/").status, 200);
    let start = Instant::now();
    server.door.stop_within(Duration::from_millis(300)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_socket_that_ends_listening_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let same = listener.try_clone().unwrap();
    let handler = Arc::new(TestHandler::default());
    let mut door = Door::open_on(listener, handler, Notices::default(), DoorSettings::default());
    assert_eq!(Client::new(door.address).get("/").status, 200);
    socket2::SockRef::from(&same).shutdown(Shutdown::Both).unwrap();
    assert!(door.ended().is_err());
}
