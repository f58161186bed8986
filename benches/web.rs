//! What those who look cost those who claim: the web page, readers of the history, and metrics.
//!
//! ```text
//! cargo bench --bench web
//! cargo bench --bench web -- looked_back    # only this: scraped, watched or looked_back
//! LOCKER_BINARY=/usr/local/bin/locker cargo bench --bench web    # this program instead of the one that is built here
//! ```
//!
//! - 64 connections claim and release, each a lock of its own, on a store in a file: alone, and while 200 browsers show
//!   the list of pools live. A browser follows the events of the server, and loads its page again when something is new,
//!   as the script of the page does.
//! - The same connections alone, and while somebody reads a day of a busy pool, 100,000 entries, again and again.
//! - A scrape of `/metrics` with 10,000 pools: the processor time of the server.
//!
//! Load and server share the machine, so browsers and readers also take time from the load. Nothing is asserted but that every
//! answer is the right one.

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CONNECTIONS: usize = 64;
const BROWSERS: usize = 200;
const ROUNDS: usize = 7;
const SPAN: Duration = Duration::from_secs(4);
/// As in the script of the page.
const PAUSE: Duration = Duration::from_millis(700);
const POOLS: usize = 10_000;
const SCRAPES: u32 = 20;
/// The entries of a busy day: each cycle makes two.
const ENTRIES: usize = 100_000;
const PAGE: usize = 1_000;

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

    /// The body of a `GET`.
    fn text(&mut self, path: &str) -> String {
        String::from_utf8(self.call("GET", path, "", "")).unwrap()
    }

    /// Sends a request and reads its whole answer, which must be a 200. Returns the size of its body.
    fn done(&mut self, method: &str, path: &str, headers: &str, body: &str) -> usize {
        self.call(method, path, headers, body).len()
    }

    fn call(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let length = self.head();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        body
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

/// What the connections reach.
#[derive(Clone, Copy)]
struct Load {
    /// Cycles a second.
    rate: f64,
    /// The time of a cycle that 99 of 100 did not exceed, ms.
    p99: f64,
}

/// The connections claim and release for a while.
fn cycles(address: &str) -> Load {
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let mut times: Vec<f64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let over = &over;
                scope.spawn(move || {
                    let (mut client, mut times) = (Client::open(address), Vec::new());
                    while !over.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        let unique =
                            format!("c{n}-{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos());
                        cycle(&mut client, &unique, &format!("pool-{n}"));
                        times.push(start.elapsed().as_secs_f64() * 1e3);
                    }
                    times
                })
            })
            .collect();
        thread::sleep(SPAN);
        over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Load { rate, p99: times[times.len() * 99 / 100] }
}

/// One claim and its release.
fn cycle(client: &mut Client, id: &str, pool: &str) {
    let path = format!("/api/v1/claims/{id}");
    client.done("PUT", &path, "", &format!(r#"{{"pool":"{pool}"}}"#));
    client.done("DELETE", &path, "", "");
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
    let _ = cycles(address);
    let (mut alone, mut seen, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = cycles(address).rate;
        let (over, pages) = (AtomicBool::new(false), AtomicU64::new(0));
        let during = thread::scope(|scope| {
            for _ in 0..BROWSERS {
                scope.spawn(|| browse(address, &over, &pages));
            }
            thread::sleep(Duration::from_secs(1));
            let during = cycles(address).rate;
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

/// Reads the history of a pool from its oldest entry to its newest, page by page. Returns the number of entries.
fn read_all(client: &mut Client) -> usize {
    let (mut entries, mut after) = (0, 0_u64);
    loop {
        let path = format!("/api/v1/pools/busy/changes?limit={PAGE}&after={after}");
        let page = client.text(&path);
        entries += page.matches("\"kind\":").count();
        let Some((_, next)) = page.rsplit_once("\"next\":\"") else { return entries };
        after = next.split('"').next().unwrap().parse().unwrap();
    }
}

/// Claims and releases alone, and while somebody, in a process that does not compete with them, reads a day of a busy pool, in turns.
fn looked_back() {
    let directory = std::env::temp_dir().join(format!("locker-bench-back-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let server = Server::start(&format!("sqlite:{}", directory.join("locker.db").display()));
    let address = server.address.as_str();
    Client::open(address).done("PUT", "/api/v1/pools/busy", "", &format!(r#"{{"capacity":{CONNECTIONS}}}"#));
    thread::scope(|scope| {
        for n in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut client = Client::open(address);
                (0..ENTRIES.div_ceil(2 * CONNECTIONS))
                    .for_each(|turn| cycle(&mut client, &format!("d{n}-{turn}"), "busy"));
            });
        }
    });
    let _ = cycles(address);
    let (mut alone, mut read, mut ratios, mut entries) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let before = cycles(address);
        let during = thread::scope(|scope| {
            let mut reader = Command::new("chrt")
                .args(["--idle", "0"])
                .arg(std::env::current_exe().unwrap())
                .args(["read", address])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(reader.stdout.take().unwrap()).lines();
            let read = scope.spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
            let during = cycles(address);
            reader.kill().unwrap();
            reader.wait().unwrap();
            (during, read.join().unwrap())
        });
        let (during, read_times) = during;
        entries = read_times.last().map_or(0, |last| last.parse().unwrap());
        println!(
            "| round | {:.0} alone, p99 {:.1} ms | {:.0} beside a reader, p99 {:.1} ms | read {} times |",
            before.rate,
            before.p99,
            during.rate,
            during.p99,
            read_times.len()
        );
        ratios.push(during.rate / before.rate);
        alone.push(before);
        read.push(during);
    }
    let rate = |of: &[Load]| median(of.iter().map(|load| load.rate).collect());
    let p99 = |of: &[Load]| median(of.iter().map(|load| load.p99).collect());
    println!(
        "| {CONNECTIONS} connections, cycles a second (p99 ms) | {:.0} ({:.1}) alone | {:.0} ({:.1}) beside a reader of \
         {entries} entries | ratio {:.3} |",
        rate(&alone),
        p99(&alone),
        rate(&read),
        p99(&read),
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

/// All, or only those that are named.
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, address] = args.as_slice()
        && word == "read"
    {
        let mut client = Client::open(address);
        loop {
            println!("{}", read_all(&mut client));
        }
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let all: [(&str, fn()); 3] = [("scraped", scraped), ("watched", watched), ("looked_back", looked_back)];
    for (_, run) in all.iter().filter(|(name, _)| named.is_empty() || named.iter().any(|word| word == name)) {
        run();
    }
}
