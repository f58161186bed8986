//! Bad weather over real sockets: for each attack, what the client got, how much memory it took, and whether a good
//! client was always served within a second, with parked waiters present.
//!
//! `LOCKER_WEATHER_WAITERS=10000` uses as many waiters as the server allows by default (the limit of open files must be
//! above 14,000). `--nocapture` prints the table.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::format_collect,
    reason = "tests may panic, and show what they measured"
)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

#[path = "../../support/mod.rs"]
mod support;

mod strangers;

use support::http::{Client, request};
use support::{PATIENCE, Server, Setup, binary, eventually};

/// `ci:canary-7Qx`
const AUTH: &str = "Authorization: Basic Y2k6Y2FuYXJ5LTdReA==\r\n";
const SECRETS: [&str; 3] = ["canary-7Qx", "Y2k6Y2FuYXJ5LTdReA", "planted-in-query"];
/// The longest time that the good client may wait for an answer: 1 s, plus a margin for a machine that also runs the
/// attacks and other work. The table shows the actual time.
fn served_within() -> Duration {
    let is_debug = cfg!(debug_assertions) && std::env::var_os("LOCKER_BINARY").is_none();
    Duration::from_secs(if is_debug { 5 } else { 3 })
}
/// Bad weather is measured alone; the other tests may run together.
static CALM: RwLock<()> = RwLock::new(());
/// Memory of the server without waiters, in KiB. The largest attacks may hold 256 MiB of large bodies and answers.
const MEMORY_KIB: usize = 320 * 1024;
/// Memory that each waiter may cost, in KiB: its task, buffers, claim and log lines, in an unoptimized build.
const WAITER_KIB: usize = 48;
const WAITERS_PER_POOL: usize = 500;
/// Connections of the good client and of returning waiters, which come and go all the time.
const STRAGGLERS: usize = 50;

/// What is under attack.
struct Weather {
    server: Server,
    waiters: usize,
}

impl Weather {
    fn address(&self) -> &str {
        self.server.address()
    }

    fn connect(&self) -> Client<TcpStream> {
        Client::new(self.address())
    }
}

/// Counts what happened, and prints it in one line.
#[derive(Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn add(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// The outcome of a connection: the status of its next answer, or its end.
    fn outcome(&mut self, client: &mut Client<TcpStream>) {
        match client.try_read() {
            Ok(Some(answer)) => self.add(format!("{} {}", answer.status, answer.code()).trim_end().to_owned()),
            Ok(None) => self.add("closed"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.add("nothing"),
            Err(_) => self.add("reset"),
        }
    }

    /// Panics when anything else happened.
    #[track_caller]
    fn only(self, allowed: &[&str]) -> String {
        let fine = self.0.keys().all(|what| allowed.iter().any(|one| what.starts_with(one)));
        let told = self.0.iter().fold(String::new(), |mut told, (what, count)| {
            let _ = write!(told, "{}{count} x {what}", if told.is_empty() { "" } else { ", " });
            told
        });
        assert!(fine, "only {allowed:?} may happen: {told}");
        told
    }
}

// ---- The good client ----

/// Asks all the time, on a kept connection and on new ones, and records its longest wait.
struct Good {
    worst_us: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A connection of any kind.
trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

impl Good {
    fn start(address: &str) -> Self {
        let address = address.to_owned();
        Self::start_on(move || {
            let Client { reader, .. } = Client::new(&address);
            Client::on(Box::new(reader.into_inner()))
        })
    }

    /// The same, on connections that `connect` opens.
    fn start_on(connect: impl Fn() -> Client<Box<dyn Stream>> + Send + 'static) -> Self {
        let (worst_us, asked, stop) = (Arc::default(), Arc::default(), Arc::default());
        let (worst, count, end): (Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>) =
            (Arc::clone(&worst_us), Arc::clone(&asked), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut kept = connect();
            let mut n = 0;
            while !end.load(Ordering::Relaxed) {
                n += 1;
                let served = |start: Instant| {
                    let took = u64::try_from(start.elapsed().as_micros()).unwrap();
                    worst.fetch_max(took, Ordering::Relaxed);
                    count.fetch_add(1, Ordering::Relaxed);
                };
                let timed = |client: &mut Client<Box<dyn Stream>>, method, target: &str, body| {
                    let start = Instant::now();
                    let answer = client.ask(method, target, AUTH, body).unwrap();
                    served(start);
                    assert_eq!(answer.status, 200, "{method} {target}: {}", String::from_utf8_lossy(&answer.body));
                };
                let claim = format!("/api/v1/claims/good-{n}");
                timed(&mut kept, "GET", "/readyz", "");
                timed(&mut kept, "PUT", &claim, r#"{"pool":"good"}"#);
                timed(&mut kept, "DELETE", &claim, "");
                // For a new connection, the time to connect counts.
                let start = Instant::now();
                timed(&mut connect(), "GET", "/api/v1/info", "");
                served(start);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { worst_us, asked, stop, thread: Some(thread) }
    }

    /// The longest wait since the last call, and the number of requests.
    fn take(&self) -> (Duration, u64) {
        (Duration::from_micros(self.worst_us.swap(0, Ordering::Relaxed)), self.asked.swap(0, Ordering::Relaxed))
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

// ---- The waiters ----

/// Waiting claims, each on its own connection. Each asks again after an answer.
struct Waiters {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<usize>>,
}

fn waiting(n: usize) -> String {
    let body = format!(r#"{{"pool":"w{}","wait":"60s"}}"#, n / WAITERS_PER_POOL);
    request("PUT", &format!("/api/v1/claims/waiter-{n}"), AUTH, &body)
}

impl Waiters {
    fn start(address: &str, count: usize) -> Self {
        let mut holder = Client::new(address);
        for pool in 0..=count / WAITERS_PER_POOL {
            let body = format!(r#"{{"pool":"w{pool}"}}"#);
            let answer = holder.ask("PUT", &format!("/api/v1/claims/holder-{pool}"), AUTH, &body).unwrap();
            assert_eq!(answer.status, 200);
        }
        let mut sockets: Vec<(usize, TcpStream)> = (0..count)
            .map(|n| {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.write_all(waiting(n).as_bytes()).unwrap();
                socket.set_nonblocking(true).unwrap();
                (n, socket)
            })
            .collect();
        let (stop, answers): (Arc<AtomicBool>, Arc<Mutex<Tally>>) = Default::default();
        let (end, tally) = (Arc::clone(&stop), Arc::clone(&answers));
        let thread = thread::spawn(move || {
            let mut ended = 0;
            while !end.load(Ordering::Relaxed) && !sockets.is_empty() {
                sockets.retain_mut(|(n, socket)| {
                    let mut bytes = [0; 8192];
                    match socket.read(&mut bytes) {
                        Ok(0) => {
                            ended += 1;
                            false
                        }
                        Ok(length) => {
                            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                            if text.starts_with("HTTP/1.1 ") {
                                tally.lock().unwrap().add(&text[9..12]);
                                // If the connection is about to close, this is lost, and the next read sees the end.
                                let _ = socket.write_all(waiting(*n).as_bytes());
                            }
                            true
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => true,
                        Err(_) => {
                            ended += 1;
                            false
                        }
                    }
                });
                thread::sleep(Duration::from_millis(100));
            }
            ended
        });
        Self { stop, answers, thread: Some(thread) }
    }

    /// Waits until the server has ended all of them. Returns how many there were, and their answers.
    fn end(mut self) -> (usize, Tally) {
        let thread = self.thread.take().unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        while !thread.is_finished() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(10));
        }
        self.stop.store(true, Ordering::Relaxed);
        (thread.join().unwrap(), std::mem::take(&mut self.answers.lock().unwrap()))
    }
}

fn parked(address: &str) -> usize {
    let mut client = Client::new(address);
    let (mut waiting, mut after) = (0, String::new());
    loop {
        let target = format!("/api/v1/claims?state=waiting{after}");
        let answer = client.ask("GET", &target, AUTH, "").unwrap();
        assert_eq!(answer.status, 200);
        let page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        waiting += page["items"].as_array().map_or(0, Vec::len);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return waiting,
        }
    }
}

// ---- The attacks ----

type Attack = fn(&Weather) -> String;

const ATTACKS: &[(&str, Attack)] = &[
    ("nothing: fair weather", |_| {
        thread::sleep(Duration::from_millis(500));
        "-".into()
    }),
    ("every malformed shape of the table", malformed),
    ("2,000 connections at once, a request each", crowd),
    ("2,000 silent connections", silent),
    ("500 slow heads, a byte each 100 ms", |w| slow(w, "GET /api/v1/pools HTTP/1.1\r\nx", "y")),
    ("500 slow bodies, a byte each 100 ms", |w| slow(w, &half_body(1_000), "b")),
    ("50 deaf clients, 200 large answers each", deaf),
    ("10,000 resets at any point", resets),
    ("1,000 connections of random bytes", soup),
    ("endless heads, targets, chunks and lengths", endless),
    ("bodies that are not honest JSON", bodies),
    ("10,000 requests in one pipeline", pipeline),
    ("50 clients take large listings slowly", listings),
    ("200 wrong passwords", wrong_passwords),
    ("1,000 waiters that leave at once", abandoned),
    ("2 s of requests as fast as 8 connections can", flood),
    ("absurd numbers and names", absurd),
];

fn half_body(length: usize) -> String {
    format!("PUT /api/v1/claims/x HTTP/1.1\r\nHost: a\r\n{AUTH}Content-Length: {length}\r\n\r\n{{")
}

fn malformed(weather: &Weather) -> String {
    support::malformed::check_all(weather.address().parse().unwrap(), AUTH);
    "the status that each deserves, then the end".into()
}

fn silent(weather: &Weather) -> String {
    let mut clients: Vec<_> = (0..2_000).map(|_| weather.connect()).collect();
    let mut tally = Tally::default();
    clients.iter_mut().for_each(|client| tally.outcome(client));
    tally.only(&["closed"])
}

fn slow(weather: &Weather, start: &str, drip: &str) -> String {
    let mut clients: Vec<_> = (0..500).map(|_| weather.connect()).collect();
    clients.iter_mut().for_each(|client| client.try_send(start).unwrap());
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(100));
        for client in &mut clients {
            // The server may have refused it already.
            let _ = client.try_send(drip);
        }
    }
    let mut tally = Tally::default();
    clients.iter_mut().for_each(|client| tally.outcome(client));
    tally.only(&["408 request_timeout", "reset"])
}

fn deaf(weather: &Weather) -> String {
    let ask = request("GET", "/openapi.json", AUTH, "").repeat(200);
    let mut clients: Vec<_> = (0..50).map(|_| weather.connect()).collect();
    for client in &mut clients {
        // What does not fit stays in the socket or is lost, because nobody reads.
        client.reader.get_ref().set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = client.try_send(&ask);
    }
    let mut tally = Tally::default();
    clients.iter_mut().for_each(|client| tally.add(if is_let_go(client) { "let go" } else { "kept" }));
    tally.only(&["let go"])
}

/// Whether the server has closed the connection of a client that does not read. If so, sending fails.
fn is_let_go(client: &mut Client<TcpStream>) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match client.reader.get_mut().write(b" ") {
            // Sent, or no room yet: this shows nothing.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return true,
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// As many simultaneous connections as after a network failure: all are served.
fn crowd(weather: &Weather) -> String {
    let mut clients: Vec<_> = thread::scope(|scope| {
        let parts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..250).map(|_| weather.connect()).collect::<Vec<_>>())).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    clients.iter_mut().for_each(|client| client.try_send(request("GET", "/api/v1/info", AUTH, "")).unwrap());
    let mut tally = Tally::default();
    clients.iter_mut().for_each(|client| tally.outcome(client));
    tally.only(&["200"])
}

fn resets(weather: &Weather) -> String {
    reset(weather.address(), 10_000);
    "nobody is left to get anything".into()
}

/// Connects and resets, after none, some or all of a request.
fn reset(address: &str, times: usize) {
    let said = [
        String::new(),
        "GET / HT".into(),
        request("GET", "/openapi.json", AUTH, ""),
        half_body(10),
        request("PUT", "/api/v1/claims/reset", AUTH, r#"{"pool":"w0","wait":"60s"}"#),
    ];
    for n in 0..times {
        let mut socket = TcpStream::connect(address).unwrap();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        let _ = socket.write_all(said[n % said.len()].as_bytes());
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn soup(weather: &Weather) -> String {
    let mut dice = Dice(0x5eed_1234_5678_9abc);
    let mut tally = Tally::default();
    for _ in 0..1_000 {
        let length = dice.roll() % 2_000;
        let mut bytes: Vec<u8> = (0..length).map(|_| dice.roll().to_le_bytes()[0]).collect();
        if dice.roll().is_multiple_of(2) {
            bytes.splice(0..0, *b"GET /healthz HTTP/1.1\r\n");
        }
        let mut client = weather.connect();
        let _ = client.try_send(&bytes);
        let _ = client.reader.get_ref().shutdown(std::net::Shutdown::Write);
        tally.outcome(&mut client);
    }
    tally.only(&["4", "501", "505", "closed", "reset"])
}

fn endless(weather: &Weather) -> String {
    let post = format!("POST /api/v1/pools/p/changes HTTP/1.1\r\nHost: a\r\n{AUTH}");
    let table = [
        ("GET / HTTP/1.1\r\n".to_owned(), "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".to_owned(), "431"),
        ("GET /".to_owned(), "x".repeat(1_024), "414"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n"), format!("400\r\n{}\r\n", "x".repeat(1_024)), "413"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n0\r\n"), "x: y\r\n".to_owned(), "431"),
        (format!("{post}Content-Length: 40000000000\r\n\r\n"), "x".repeat(1_024), "413"),
        (format!("{post}Content-Length: 9000000000000000000\r\n\r\n"), "x".repeat(1_024), "400"),
        (format!("{post}Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n"), "x".repeat(1_024), "415"),
    ];
    let mut tally = Tally::default();
    for (start, part, expected) in &table {
        let mut client = weather.connect();
        client.try_send(start).unwrap();
        let block = part.repeat(64 * 1024 / part.len() + 1);
        let mut sent = 0;
        while sent < 64 << 20 && client.try_send(&block).is_ok() {
            sent += block.len();
        }
        let answer = client.try_read();
        match answer {
            Ok(Some(answer)) => {
                assert_eq!(answer.status.to_string(), *expected, "{start}");
                tally.add(answer.status.to_string());
            }
            // The reset that ends the flood may overtake the answer.
            _ => tally.add("reset"),
        }
    }
    tally.only(&["4", "reset"])
}

fn bodies(weather: &Weather) -> String {
    let keys = (0..5_000).fold(String::from("{"), |mut keys, n| {
        let _ = write!(keys, "\"k{n}\":1,");
        keys
    });
    let table: [(&str, Vec<u8>, u16); 17] = [
        ("empty", b"".to_vec(), 400),
        ("not JSON", b"hello".to_vec(), 400),
        ("deep arrays", "[".repeat(30_000).into_bytes(), 400),
        ("deep objects", r#"{"a":"#.repeat(10_000).into_bytes(), 400),
        ("a deep value", format!(r#"{{"pool":{}"#, "[".repeat(30_000)).into_bytes(), 400),
        ("5,000 unknown keys", format!("{keys}\"pool\":\"p\"}}").into_bytes(), 400),
        ("a key twice", br#"{"pool":"p","pool":"q"}"#.to_vec(), 400),
        ("NaN", br#"{"pool":"p","count":NaN}"#.to_vec(), 400),
        ("a huge number", br#"{"pool":"p","count":1e400}"#.to_vec(), 400),
        ("2^64", br#"{"pool":"p","count":18446744073709551616}"#.to_vec(), 400),
        ("a negative count", br#"{"pool":"p","count":-1}"#.to_vec(), 400),
        ("a fraction", br#"{"pool":"p","count":1.5}"#.to_vec(), 400),
        ("a lone surrogate", br#"{"pool":"\ud800"}"#.to_vec(), 400),
        ("invalid UTF-8", b"{\"pool\":\"\xff\xfe\"}".to_vec(), 400),
        ("a byte order mark", b"\xef\xbb\xbf{\"pool\":\"p\"}".to_vec(), 400),
        ("a NUL in a name", br#"{"pool":"a\u0000b"}"#.to_vec(), 400),
        ("one byte too many", format!(r#"{{"pool":"p","reason":"{}"}}"#, "x".repeat(65_536)).into_bytes(), 413),
    ];
    let mut tally = Tally::default();
    for (name, body, expected) in table {
        let mut client = weather.connect();
        let head = format!("PUT /api/v1/claims/b HTTP/1.1\r\nHost: a\r\n{AUTH}Content-Length: {}\r\n\r\n", body.len());
        client.try_send([head.as_bytes(), &body].concat()).unwrap();
        let answer = client.try_read().unwrap().unwrap();
        assert_eq!(answer.status, expected, "{name}: {}", String::from_utf8_lossy(&answer.body));
        assert!(answer.body.len() < 32_768, "{name}: an answer of {} bytes", answer.body.len());
        tally.add(answer.status.to_string());
    }
    tally.only(&["400", "413"])
}

fn pipeline(weather: &Weather) -> String {
    const REQUESTS: usize = 10_000;
    let client = weather.connect();
    let mut writing = client.reader.get_ref().try_clone().unwrap();
    let writer = thread::spawn(move || {
        for _ in 0..REQUESTS / 100 {
            writing.write_all(request("GET", "/healthz", "", "").repeat(100).as_bytes()).unwrap();
        }
    });
    let mut client = client;
    let mut tally = Tally::default();
    (0..REQUESTS).for_each(|_| tally.outcome(&mut client));
    writer.join().unwrap();
    tally.only(&["200"])
}

fn listings(weather: &Weather) -> String {
    let mut maker = weather.connect();
    for n in 0..1_000 {
        let answer = maker.ask("PUT", &format!("/api/v1/pools/listed/locks/l{n}"), AUTH, "{}").unwrap();
        assert_eq!(answer.status, 200);
    }
    let ask = request("GET", "/pools/listed", &format!("{AUTH}Connection: close\r\n"), "");
    let take = |_| {
        let mut client = weather.connect();
        client.send(&ask);
        let (mut taken, mut part) = (Vec::new(), [0; 16 * 1024]);
        while let length @ 1.. = client.reader.get_mut().read(&mut part).unwrap() {
            taken.extend_from_slice(&part[..length]);
            thread::sleep(Duration::from_millis(1));
        }
        String::from_utf8_lossy(&taken[9..12]).into_owned()
    };
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(|| (0..5).map(take).collect::<Vec<_>>())).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).for_each(|status| tally.add(status));
    });
    tally.only(&["200"])
}

fn wrong_passwords(weather: &Weather) -> String {
    let mut clients: Vec<_> = (0..200).map(|_| weather.connect()).collect();
    for client in &mut clients {
        let wrong = "Authorization: Basic Y2k6d3Jvbmc=\r\n";
        client.try_send(request("GET", "/api/v1/pools", wrong, "")).unwrap();
    }
    let mut tally = Tally::default();
    clients.iter_mut().for_each(|client| tally.outcome(client));
    // The first five are free. A few others were compared at the same time, and one each second after that.
    let refused = tally.0.get("429 too_many_logins").copied().unwrap_or_default();
    assert!(refused >= 100, "only {refused} of 200 guesses were refused unseen");
    tally.only(&["401 unauthorized", "429 too_many_logins"])
}

fn abandoned(weather: &Weather) -> String {
    for n in 0..1_000 {
        let mut client = weather.connect();
        let body = r#"{"pool":"w0","wait":"60s"}"#;
        // "The queue is full" is an answer, too. Nobody reads it.
        client.try_send(request("PUT", &format!("/api/v1/claims/gone-{n}"), AUTH, body)).unwrap();
    }
    "nobody is left to get anything".into()
}

fn flood(weather: &Weather) -> String {
    let end = Instant::now() + Duration::from_secs(2);
    let served: usize = thread::scope(|scope| {
        let parts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = weather.connect();
                    let mut served = 0;
                    while Instant::now() < end {
                        assert_eq!(client.ask("GET", "/api/v1/info", AUTH, "").unwrap().status, 200);
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        parts.into_iter().map(|part| part.join().unwrap()).sum()
    });
    format!("{served} x 200")
}

fn absurd(weather: &Weather) -> String {
    let wait = |value: &str| format!(r#"{{"pool":"p","wait":"{value}"}}"#);
    let table = [
        ("PUT", "/api/v1/claims/a", wait("1000000000000s"), 200),
        ("PUT", "/api/v1/claims/a", wait("-1s"), 400),
        ("PUT", "/api/v1/claims/a", r#"{"pool":"p","ttl":"0s"}"#.to_owned(), 400),
        ("PUT", "/api/v1/claims/a", r#"{"pool":"p","ttl":"99999999999999999999d"}"#.to_owned(), 400),
        ("GET", "/api/v1/pools?limit=1000000000", String::new(), 400),
        ("GET", "/api/v1/pools?limit=-1", String::new(), 400),
        ("GET", "/api/v1/verify?pool=p&lock=l&fence=18446744073709551616", String::new(), 400),
        ("GET", "/api/v1/pools?token=planted-in-query", String::new(), 400),
        ("GET", "/api/v1/pools/%1b%5d52;c;aGk=%07", String::new(), 400),
        ("GET", "/api/v1/pools/a%0d%0aSet-Cookie:%20x", String::new(), 400),
        ("GET", "/api/v1/pools/%2e%2e%2f%2e%2e%2fetc", String::new(), 400),
        ("PUT", "/api/v1/pools/%e2%80%ae", "{}".to_owned(), 200),
        ("GET", "/api/v1/claims/%F0%9F%94%92", String::new(), 400),
        ("OPTIONS", "/api/v1/pools", String::new(), 405),
        ("TRACE", "/api/v1/pools", String::new(), 405),
    ];
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for (method, target, body, expected) in table {
        let answer = weather.connect().ask(method, target, AUTH, &body).unwrap();
        if answer.status != expected {
            wrong.push(format!("{method} {target} {body}: {}", String::from_utf8_lossy(&answer.body)));
        }
        assert_eq!(answer.header("set-cookie"), None);
        assert!(!answer.body.contains(&0x1b));
        tally.add(answer.status.to_string());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    tally.only(&["4", "200"])
}

/// For the sockets of this side. Returns how many there may be.
fn raise_the_limit_of_open_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let all = rustix::process::Rlimit { current: limit, maximum: limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap())
}

/// Room for the waiters, the good client and the largest crowd of the other attacks, beside what the door keeps free.
fn cap(waiters: usize) -> usize {
    (waiters + 2_500) * 16 / 15
}

#[test]
fn bad_weather() {
    let _alone = CALM.write().unwrap_or_else(PoisonError::into_inner);
    let waiters: usize =
        std::env::var("LOCKER_WEATHER_WAITERS").map_or(500, |number| number.parse().expect("a number of waiters"));
    raise_the_limit_of_open_files();
    let cap = cap(waiters).to_string();
    let args = ["--send-timeout", "2s", "--idle-timeout", "3s", "--write-timeout", "500ms", "--max-connections", &cap];
    let vars = [("AUTH_USER", "ci"), ("AUTH_PASS", "canary-7Qx"), ("LOCKER_LOG_LEVEL", "debug")];
    let weather = Weather { server: Server::start_with("memory:", &args, &vars), waiters };
    let address = weather.address().to_owned();
    let crowd = Waiters::start(&address, waiters);
    eventually("all waiters wait", || parked(&address) == waiters);
    let good = Good::start(&address);
    eventually("the good client asks", || good.asked.load(Ordering::Relaxed) > 8);
    let most = MEMORY_KIB + waiters * WAITER_KIB;
    let _ = good.take();
    let calm = weather.server.descriptors() + STRAGGLERS;
    println!("{waiters} waiters; {} MiB\n", weather.server.resident() / 1024);
    println!("| attack | the client got | peak memory | a good client waited at most |");
    println!("|---|---|---|---|");
    for (name, attack) in ATTACKS {
        let got = attack(&weather);
        // Each attack can use all connections: those that the previous one left in the accept queue are gone.
        eventually("the attackers are disconnected", || weather.server.descriptors() <= calm);
        let (worst, asked) = good.take();
        let peak = weather.server.peak_memory();
        println!("| {name} | {got} | {} MiB | {} ms in {asked} requests |", peak / 1024, worst.as_millis());
        assert!(worst < served_within(), "{name}: the good client waited {worst:?}");
        assert!(peak < most, "{name}: {peak} KiB, more than {most}");
    }
    good.end();
    end(weather, crowd);
}

/// At SIGTERM, every waiter gets an answer, the process exits with 0, and its log has no secret.
fn end(mut weather: Weather, crowd: Waiters) {
    let start = Instant::now();
    weather.server.signal(Signal::SIGTERM);
    let status = weather.server.wait();
    let took = start.elapsed();
    let (ended, answers) = crowd.end();
    let told = answers.only(&["423"]);
    println!("| SIGTERM | {told}; {ended} connections ended | | the process ended after {} ms |", took.as_millis());
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(ended, weather.waiters);
    for line in weather.server.log().lines() {
        assert!(!SECRETS.iter().any(|secret| line.contains(secret)), "a secret: {line}");
        assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "not escaped: {line:?}");
    }
}

#[test]
fn limits_per_address_answer_429_and_pass() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let server =
        Server::start_with("memory:", &["--max-connections-per-address", "3", "--max-requests-per-second", "5"], &[]);
    let mut inside: Vec<_> = (0..3).map(|_| Client::new(server.address())).collect();
    assert!(inside.iter_mut().all(|client| client.ask("GET", "/healthz", "", "").unwrap().status == 200));
    let mut outside = Client::new(server.address());
    let answer = outside.try_read().unwrap().unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many_connections"));
    assert!(answer.header("retry-after").is_some() && outside.is_over());
    inside.truncate(1);
    let client = &mut inside[0];
    let fast: Vec<_> = (0..20).map(|_| client.ask("GET", "/healthz", "", "").unwrap()).collect();
    let refused: Vec<_> = fast.iter().filter(|answer| answer.status == 429).collect();
    // The requests of two seconds may come at once. Three of them were used.
    assert!((8..=13).contains(&refused.len()), "{} refused", refused.len());
    assert!(refused.iter().all(|a| a.code() == "too_many_requests" && a.header("retry-after") == Some("1")));
    eventually("the connection stays and is served again", || {
        thread::sleep(Duration::from_millis(300));
        client.ask("GET", "/healthz", "", "").unwrap().status == 200
    });
    eventually("there is room again", || {
        thread::sleep(Duration::from_millis(300));
        Client::new(server.address()).ask("GET", "/healthz", "", "").is_ok_and(|answer| answer.status == 200)
    });
    eventually("the log says so, once", || server.has_said("turning connections away, such as 127.0.0.1:"));
}

#[test]
fn beyond_the_cap_silent_clients_make_room_and_those_who_ask_are_served() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start_with("memory:", &["--max-connections", "50"], &[]);
    let mut inside = Client::new(server.address());
    let mut reconnected = 0;
    let mut silent = VecDeque::new();
    let mut tally = Tally::default();
    for _ in 0..1_000 {
        silent.push_back(Client::new(server.address()));
        let start = Instant::now();
        let answer = inside.ask("GET", "/healthz", "", "").or_else(|_| {
            // Between two requests, it may have been the one that was idle for longest.
            reconnected += 1;
            inside = Client::new(server.address());
            inside.ask("GET", "/healthz", "", "")
        });
        assert_eq!(answer.unwrap().status, 200);
        assert!(start.elapsed() < served_within(), "{:?}", start.elapsed());
        if silent.len() > 60 {
            tally.outcome(&mut silent.pop_front().unwrap());
        }
    }
    assert!(reconnected <= 10, "{reconnected}");
    println!("{}; the one who asked connected again {reconnected} times", tally.only(&["closed", "reset"]));
}

#[test]
fn a_storm_of_resets_takes_no_room_from_other_clients() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start_with("memory:", &["--max-connections", "150"], &[]);
    let over = AtomicBool::new(false);
    let address = server.address();
    thread::scope(|scope| {
        let storms: Vec<_> = (0..3).map(|_| scope.spawn(|| reset(address, 3_000))).collect();
        let good = scope.spawn(|| {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                let answer = Client::new(address).ask("GET", "/healthz", "", "").unwrap();
                assert_eq!(answer.status, 200, "after {served}: {}", String::from_utf8_lossy(&answer.body));
                served += 1;
            }
            served
        });
        storms.into_iter().for_each(|storm| storm.join().unwrap());
        over.store(true, Ordering::Relaxed);
        assert!(good.join().unwrap() > 0);
    });
    assert!(!server.has_said("turning connections away"));
}

#[test]
fn without_descriptors_clients_inside_are_still_served() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let mut shell = std::process::Command::new("sh");
    let locker = binary();
    shell.arg("-c").arg(format!("ulimit -n 200 && exec {locker} server --store memory: --listen 127.0.0.1:0"));
    let server = Server::spawn(shell);
    let mut inside = Client::new(server.address());
    assert_eq!(inside.ask("GET", "/healthz", "", "").unwrap().status, 200);
    let crowd: Vec<_> = (0..400).map(|_| Client::new(server.address())).collect();
    let start = Instant::now();
    for _ in 0..200 {
        assert_eq!(inside.ask("GET", "/api/v1/info", "", "").unwrap().status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(crowd);
    eventually("it recovers", || {
        Client::new(server.address()).ask("GET", "/healthz", "", "").is_ok_and(|answer| answer.status == 200)
    });
    assert!(server.has_said("open files allows"));
}

#[test]
fn a_unix_socket_is_served_and_leaves_nothing() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locker.sock");
    let listen = format!("unix:{}", path.display());
    // The socket file of a killed server.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut server = Server::start_with("memory:", &["--listen", &listen], &[]);
    assert_eq!(server.url, listen);
    let path = path.to_str().unwrap();
    let answer = Client::unix(path).ask("PUT", "/api/v1/claims/a", "", r#"{"pool":"p"}"#).unwrap();
    assert_eq!(answer.status, 200);
    eventually("the log names the user", || server.has_said("unix:uid="));
    let second = Setup::memory().flag("--listen", &listen).command().output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server answers there"));
    assert_eq!(Client::unix(path).ask("GET", "/healthz", "", "").unwrap().status, 200);
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn ipv6_and_the_socket_of_systemd_are_served() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start_with("memory:", &["--listen", "[::1]:0"], &[]);
    assert!(server.url.starts_with("http://[::1]:"), "{}", server.url);
    assert_eq!(Client::new(server.address()).ask("GET", "/healthz", "", "").unwrap().status, 200);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut shell = std::process::Command::new("sh");
    let locker = binary();
    // Like systemd: descriptor 3, and the id of the process. Here the socket comes as standard input.
    let start = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec";
    shell.arg("-c").arg(format!("{start} {locker} server --store memory: --listen systemd"));
    let mut early = Client::new(&address);
    early.try_send(request("GET", "/healthz", "", "")).unwrap();
    let server = Server::spawn_with(shell, Stdio::from(OwnedFd::from(listener)));
    assert_eq!(server.address(), address);
    assert_eq!(early.try_read().unwrap().unwrap().status, 200, "a client that connected before the server started");
}

#[test]
fn every_answer_has_an_id_that_the_log_knows() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let mut server = Server::start_with("memory:", &["--log", "json"], &[]);
    let mut ids = Vec::new();
    for (method, target, status) in [
        ("GET", "/healthz", 200),
        ("GET", "/api/v1/pools/nothing", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/healthz", 405),
        ("BREW", "/", 501),
    ] {
        let answer = Client::new(server.address()).ask(method, target, "", "").unwrap();
        assert_eq!(answer.status, status);
        ids.push((answer.header("x-request-id").expect("an id").to_owned(), status));
    }
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    let lines: Vec<serde_json::Value> =
        server.log().lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut routes = Vec::new();
    for (id, status) in ids {
        let mine: Vec<_> = lines.iter().filter(|line| line["id"] == id.as_str()).collect();
        assert_eq!(mine.len(), 1, "{id} in {lines:?}");
        assert_eq!(mine[0]["status"], status);
        let told = ["peer", "identity", "method", "route"].iter().all(|key| mine[0][key].is_string());
        assert!(told && mine[0]["ms"].is_u64(), "{}", mine[0]);
        routes.push(mine[0]["route"].as_str().unwrap());
    }
    assert_eq!(routes, ["/healthz", "/api/v1/pools/{pool}", "-", "-", "-"]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let mut server = Server::start_with("memory:", &["--shutdown-grace", "60s"], &[]);
    let mut slow = Client::new(server.address());
    slow.try_send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").unwrap();
    assert_eq!(Client::new(server.address()).ask("GET", "/healthz", "", "").unwrap().status, 200);
    server.signal(Signal::SIGTERM);
    let refused = || TcpStream::connect(server.address()).is_err();
    eventually("nothing listens any more", refused);
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    server.wait();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let _calm = CALM.read().unwrap_or_else(PoisonError::into_inner);
    let mut command = Setup::memory().command();
    let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    // Only the first line is read. The pipe holds 64 KiB more.
    let mut first = Vec::new();
    let mut byte = [0];
    while stderr.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        first.push(byte[0]);
    }
    let first = String::from_utf8(first).unwrap();
    let address = first.split_once("http://").and_then(|(_, rest)| rest.split_once(',')).unwrap().0.to_owned();
    let mut client = Client::new(&address);
    for _ in 0..3_000 {
        assert_eq!(client.ask("GET", "/healthz", "", "").unwrap().status, 200);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
