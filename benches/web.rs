//! What the web page and the metrics cost others.
//!
//! ```text
//! cargo bench --bench web
//! LOCKER_BINARY=/usr/local/bin/locker cargo bench --bench web    # this program instead of the one that is built here
//! ```
//!
//! - 64 connections claim and release, each a lock of its own, on a store in a file: alone, and while 200 browsers show
//!   the list of pools live. A browser follows the events of the server, and loads its page again when something is new,
//!   as the script of the page does.
//! - A scrape of `/metrics` with 10,000 pools: the processor time of the server.
//!
//! Load and server share the machine, so the browsers also take time from the load. Nothing is asserted but that every
//! answer is the right one.

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 64;
const BROWSERS: usize = 200;
const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(4);
/// As in the script of the page.
const PAUSE: Duration = Duration::from_millis(700);
const POOLS: usize = 10_000;
const SCRAPES: u32 = 20;

struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(store: &str) -> Self {
        let program = std::env::var("LOCKER_BINARY").ok();
        let program =
            program.or(option_env!("CARGO_BIN_EXE_locker").map(str::to_owned)).expect("LOCKER_BINARY=program");
        let mut command = Command::new(program);
        command.args(["server", "--store", store, "--listen", "127.0.0.1:0", "--log-level", "warn"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.split("http://").nth(1).unwrap().split(',').next().unwrap().to_owned();
        thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// User and system time so far.
    fn busy(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
        // The kernel counts in hundredths of a second.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

/// A kept-alive connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request and reads its whole answer, which must be a 200. Returns the size of its body.
    fn done(&mut self, method: &str, path: &str, headers: &str, body: &str) -> usize {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let length = self.head();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        length
    }

    /// Reads the head of an answer. Returns the length of its body, if it says one.
    fn head(&mut self) -> usize {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some(_) => {}
                None => return length,
            }
        }
    }
}

/// A page that follows events until `over`.
fn browse(address: &str, over: &AtomicBool, pages: &AtomicU64) {
    let (mut events, mut page) = (Client::open(address), Client::open(address));
    let follow = "GET /api/v1/events?entries=false HTTP/1.1\r\nHost: localhost\r\n\r\n";
    events.0.get_mut().write_all(follow.as_bytes()).unwrap();
    events.head();
    let mut line = String::new();
    while !over.load(Ordering::Relaxed) {
        line.clear();
        if events.0.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.starts_with("event: now") {
            page.done("GET", "/", "x-locker-page: \r\naccept: text/html\r\n", "");
            pages.fetch_add(1, Ordering::Relaxed);
            // What comes in the meantime makes one refresh.
            thread::sleep(PAUSE);
        }
    }
}

/// How many cycles a second the connections reach.
fn cycles(address: &str) -> f64 {
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    thread::scope(|scope| {
        for n in 0..CONNECTIONS {
            let (over, count) = (Arc::clone(&over), Arc::clone(&count));
            scope.spawn(move || {
                let mut client = Client::open(address);
                for turn in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let path = format!("/api/v1/claims/c{n}-{}-{turn}", began.elapsed().as_nanos());
                    client.done("PUT", &path, "", &format!(r#"{{"pool":"pool-{n}"}}"#));
                    client.done("DELETE", &path, "", "");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(SPAN);
        over.store(true, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Claims and releases alone, and while many look, in turns.
fn watched() {
    let directory = std::env::temp_dir().join(format!("locker-bench-web-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let server = Server::start(&format!("sqlite:{}", directory.join("locker.db").display()));
    let address = server.address.as_str();
    cycles(address);
    let (mut alone, mut seen, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = cycles(address);
        let (over, pages) = (AtomicBool::new(false), AtomicU64::new(0));
        let during = thread::scope(|scope| {
            for _ in 0..BROWSERS {
                scope.spawn(|| browse(address, &over, &pages));
            }
            thread::sleep(Duration::from_secs(1));
            let during = cycles(address);
            over.store(true, Ordering::Relaxed);
            // One more change, so that each of them notices that it is over.
            thread::sleep(Duration::from_millis(300));
            Client::open(address).done(
                "PUT",
                &format!("/api/v1/claims/last-{}", ratios.len()),
                "",
                &format!(r#"{{"pool":"last-{}"}}"#, ratios.len()),
            );
            during
        });
        println!(
            "| round | {before:.0} alone | {during:.0} watched | {:.3} | {} pages |",
            during / before,
            pages.into_inner()
        );
        alone.push(before);
        seen.push(during);
        ratios.push(during / before);
        thread::sleep(Duration::from_secs(2));
    }
    println!(
        "| {CONNECTIONS} connections, cycles a second | {:.0} alone | {:.0} with {BROWSERS} browsers | ratio {:.3} |",
        median(alone),
        median(seen),
        median(ratios)
    );
    drop(server);
    let _ = std::fs::remove_dir_all(directory);
}

/// What a scrape costs with many pools.
fn scraped() {
    let server = Server::start("memory:");
    let mut client = Client::open(&server.address);
    for n in 0..POOLS {
        client.done("PUT", &format!("/api/v1/claims/m{n}"), "", &format!(r#"{{"pool":"metered-{n}"}}"#));
    }
    let before = server.busy();
    let mut size = 0;
    for _ in 0..SCRAPES {
        size = client.done("GET", "/metrics", "", "");
    }
    let each = server.busy().saturating_sub(before) / SCRAPES;
    let share = each.as_secs_f64() / 15.0 * 100.0;
    println!(
        "| /metrics, {POOLS} pools | {size} bytes | {:.1} ms of processor time | {share:.2} % at one each 15 s |",
        each.as_secs_f64() * 1e3
    );
}

fn main() {
    scraped();
    watched();
}
