//! How fast Locker is: real sockets against the real server binary, beside what the disk alone can do.
//!
//! ```text
//! cargo bench --bench load                          # all, about three minutes; Redis and etcd if they are installed
//! LOCKER_BENCH_SECONDS=10 cargo bench --bench load  # longer rows
//! LOCKER_BENCH_STORES=sqlite cargo bench --bench load
//! ```
//!
//! A cycle is a `PUT` of a claim answered 200 and its `DELETE` answered 200, each durable before its answer; every
//! connection has a lock of its own, and 10,000 other locks are present. Load and server share the machine, so the
//! figures are for comparing rows of one run. Nothing is asserted but that every answer is the right one.

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::type_complexity,
    clippy::format_collect,
    clippy::cast_possible_truncation
)]

#[path = "load/peers.rs"]
mod peers;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Server, Setup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
const WAITERS: [usize; 3] = [1, 100, 1_000];
const HANDOVERS: usize = 300;
const PARKED: usize = 10_000;
/// Parked waiters wait in so many pools.
const PARKED_POOLS: usize = 10;
const OTHER_LOCKS: u32 = 10_000;
const WARM_UP: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let seconds = std::env::var("LOCKER_BENCH_SECONDS").ok().map_or(Ok(4), |text| text.parse())?;
    let span = Duration::from_secs(seconds);
    let stores = std::env::var("LOCKER_BENCH_STORES").unwrap_or_else(|_| "sqlite,memory".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!("| what | per second | p50 ms | p99 ms | |\n|---|---|---|---|---|");
    bare_sync(directory.path(), span)?;
    let mut durable = Vec::new();
    for store in stores.split(',') {
        let setup = match store {
            "memory" => Setup::memory(),
            _ => Setup::sqlite(directory.path()),
        };
        let rates = runtime.block_on(one_store(store, &setup, span))?;
        if store == "sqlite" {
            durable = rates;
        }
    }
    runtime.block_on(peers::all(&durable, span))?;
    bare_sync(directory.path(), span)
}

/// Prints its rows and brings its cycles a second.
async fn one_store(name: &str, setup: &Setup, span: Duration) -> anyhow::Result<Vec<f64>> {
    let server = Server::start_as(setup);
    let mut control = Client::open(server.socket()).await?;
    let others = format!(r#"{{"capacity":{OTHER_LOCKS}}}"#);
    control.done(&request("PUT", "/api/v1/pools/others", &others)).await?;
    let mut rates = Vec::new();
    for connections in CONNECTIONS {
        let mut cycles = cycles(server.socket(), connections, span).await?;
        rates.push(cycles.len() as f64 / span.as_secs_f64());
        let note = format!("{connections} connections, {OTHER_LOCKS} other locks");
        row(&format!("{name}: claim + release"), &mut cycles, Some(span), &note);
    }
    for waiters in WAITERS {
        let (mut answered, mut sent) = handovers(server.socket(), waiters).await?;
        row(
            &format!("{name}: hand-over"),
            &mut answered,
            None,
            &format!("release answered to next answer, {waiters} waiters"),
        );
        row(&format!("{name}: hand-over"), &mut sent, None, &format!("release sent to next answer, {waiters} waiters"));
    }
    drop(server);
    // On a store of its own: what the rows before have left in memory is not the waiters'.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let store = if name == "memory" { setup.store.clone() } else { Setup::sqlite(directory.path()).store };
    parked(name, &Setup { store, ..setup.clone() }).await?;
    Ok(rates)
}

fn row(what: &str, spans: &mut [Duration], over: Option<Duration>, note: &str) {
    spans.sort_unstable();
    let at = |percent: usize| spans.get((spans.len() * percent / 100).min(spans.len().saturating_sub(1)));
    let ms = |percent: usize| at(percent).map_or("-".into(), |span| format!("{:.2}", span.as_secs_f64() * 1e3));
    let rate = over.map_or("-".into(), |over| format!("{:.0}", spans.len() as f64 / over.as_secs_f64()));
    println!("| {what} | {rate} | {} | {} | {note} |", ms(50), ms(99));
}

/// What the disk alone can do: append 4 KiB, make it durable, repeat.
fn bare_sync(directory: &Path, span: Duration) -> anyhow::Result<()> {
    let mut file = File::create(directory.join("bare"))?;
    let mut spans = Vec::new();
    let start = Instant::now();
    while start.elapsed() < span {
        let began = Instant::now();
        file.write_all(&[b'x'; 4096])?;
        file.sync_data()?;
        spans.push(began.elapsed());
    }
    row("disk: append 4 KiB + fdatasync", &mut spans, Some(span), "one after the other");
    Ok(())
}

/// Claim and release on each connection, as fast as the answers come.
async fn cycles(address: SocketAddr, connections: usize, span: Duration) -> anyhow::Result<Vec<Duration>> {
    let start = Instant::now() + WARM_UP;
    let mut tasks = Vec::new();
    for index in 0..connections {
        tasks.push(tokio::spawn(async move {
            let mut client = Client::open(address).await?;
            let body = format!(r#"{{"pool":"bench-{index}","run":"bench"}}"#);
            // Ids have a fixed length, so that only they change in the prepared bytes.
            let path = format!("/api/v1/claims/b{connections:03}-{index:03}-{:09}", 0);
            let (mut ask, mut end) = (request("PUT", &path, &body), request("DELETE", &path, ""));
            let mut spans = Vec::with_capacity(100_000);
            for turn in 0_u32.. {
                number(&mut ask, turn);
                number(&mut end, turn);
                let began = Instant::now();
                client.done(&ask).await?;
                client.done(&end).await?;
                let now = Instant::now();
                if now > start + span {
                    break;
                }
                if began >= start {
                    spans.push(now - began);
                }
            }
            anyhow::Ok(spans)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

/// Writes `turn` over the nine digits at the end of the path.
fn number(request: &mut [u8], turn: u32) {
    let end = request.windows(5).position(|bytes| bytes == b" HTTP").expect("a request line");
    request[end - 9..end].copy_from_slice(format!("{turn:09}").as_bytes());
}

/// One lock, always so many waiters: the time from a release to the next waiter's answer, counted from the release's
/// own answer and from its sending.
async fn handovers(address: SocketAddr, waiters: usize) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let pool = format!("relay-{waiters}");
    let mut control = Client::open(address).await?;
    let (mut holder, _) = (format!("{pool}-first"), 0);
    control.done(&claim(&holder, &pool, false, 0)).await?;
    let (served, mut next) = mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for index in 0..waiters {
        let (served, pool) = (served.clone(), pool.clone());
        tasks.push(tokio::spawn(async move {
            let mut client = Client::open(address).await?;
            for turn in 0.. {
                let id = format!("{pool}-{index}-{turn}");
                let ask = claim(&id, &pool, true, 60);
                while client.call(&ask).await? == 423 {}
                let now = Instant::now();
                let fence = client.fence()?;
                if served.send((id, fence, now)).is_err() {
                    break;
                }
            }
            anyhow::Ok(())
        }));
    }
    settle(&mut control, &pool, waiters).await?;
    let (mut answered, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..HANDOVERS {
        let began = Instant::now();
        control.done(&request("DELETE", &format!("/api/v1/claims/{holder}"), "")).await?;
        let released = Instant::now();
        let (id, fence, at) = next.recv().await.ok_or_else(|| anyhow::anyhow!("the waiters have gone"))?;
        answered.push(at.saturating_duration_since(released));
        sent.push(at - began);
        let confirm = format!(r#"{{"run":"bench","fence":{fence}}}"#);
        control.done(&request("POST", &format!("/api/v1/claims/{id}/confirm"), &confirm)).await?;
        holder = id;
        // The one that was served has to be back in the queue.
        settle(&mut control, &pool, waiters).await?;
    }
    for task in tasks {
        task.abort();
    }
    Ok((answered, sent))
}

/// Waits until so many wait.
async fn settle(control: &mut Client, pool: &str, waiters: usize) -> anyhow::Result<()> {
    let list = request("GET", "/api/v1/pools", "");
    let (name, count) = (format!(r#""pool":"{pool}","#), format!(r#""waiting":{waiters},"#));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        control.done(&list).await?;
        let text = String::from_utf8_lossy(control.body()).into_owned();
        let about = text.split(&name).nth(1).unwrap_or_default();
        if about.split('}').next().unwrap_or_default().contains(&count) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "not all waiters arrive: {about}");
    }
}

/// Memory with many parked waiters, and what they cost while nothing happens.
async fn parked(name: &str, setup: &Setup) -> anyhow::Result<()> {
    let server = Server::start_as(setup);
    let mut control = Client::open(server.socket()).await?;
    for pool in 0..PARKED_POOLS {
        control.call(&claim(&format!("parked-holder-{pool}"), &format!("parked-{pool}"), false, 0)).await?;
    }
    let before = resident_mib(&server)?;
    let mut waiters = Vec::with_capacity(PARKED);
    for index in 0..PARKED {
        let mut client = Client::open(server.socket()).await?;
        let ask = claim(&format!("parked-{index}"), &format!("parked-{}", index % PARKED_POOLS), true, 60);
        client.stream.write_all(&ask).await?;
        waiters.push(client);
    }
    for pool in 0..PARKED_POOLS {
        settle(&mut control, &format!("parked-{pool}"), PARKED / PARKED_POOLS).await?;
    }
    let (after, busy) = (resident_mib(&server)?, cpu_ticks(&server)?);
    tokio::time::sleep(IDLE).await;
    // The kernel counts in hundredths of a second.
    let percent = (cpu_ticks(&server)? - busy) as f64 / IDLE.as_secs_f64();
    println!(
        "| {name}: {PARKED} parked waiters | - | - | - | {after:.0} MiB resident ({before:.0} MiB before), {percent:.1} % CPU over \
         {} s idle |",
        IDLE.as_secs()
    );
    drop(waiters);
    Ok(())
}

fn resident_mib(server: &Server) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|l| l.split_whitespace().next()).unwrap_or("0").parse()?;
    Ok(kib / 1024.0)
}

fn cpu_ticks(server: &Server) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Ok(ticks(11) + ticks(12))
}

fn claim(id: &str, pool: &str, confirm: bool, wait_seconds: u32) -> Vec<u8> {
    let body = format!(r#"{{"pool":"{pool}","run":"bench","confirm":{confirm},"wait":"{wait_seconds}s"}}"#);
    request("PUT", &format!("/api/v1/claims/{id}"), &body)
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: locker\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A kept-alive connection that reads no more of an answer than it must.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the newest answer's body is in the buffer.
    body: std::ops::Range<usize>,
}

impl Client {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024), body: 0..0 })
    }

    fn body(&self) -> &[u8] {
        &self.buffer[self.body.clone()]
    }

    fn fence(&self) -> anyhow::Result<u64> {
        let view: locker::wire::api::ClaimView = serde_json::from_slice(self.body())?;
        view.fence.ok_or_else(|| anyhow::anyhow!("an answer without a fence: {view:?}"))
    }

    /// Sends a request that must be answered 200.
    async fn done(&mut self, request: &[u8]) -> anyhow::Result<()> {
        let status = self.call(request).await?;
        let said = || String::from_utf8_lossy(self.body()).into_owned();
        anyhow::ensure!(status == 200, "{} was answered {status}: {}", String::from_utf8_lossy(request), said());
        Ok(())
    }

    async fn call(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            let got = self.stream.read_buf(&mut self.buffer).await?;
            anyhow::ensure!(got > 0, "the server has closed the connection");
            let Some(head) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
            let length =
                length(&self.buffer[..head + 2]).ok_or_else(|| anyhow::anyhow!("an answer without a length"))?;
            self.body = head + 4..head + 4 + length;
            if self.buffer.len() >= self.body.end {
                // "HTTP/1.1 200 OK"
                return Ok(std::str::from_utf8(&self.buffer[9..12])?.parse()?);
            }
        }
    }
}

fn length(head: &[u8]) -> Option<usize> {
    let lines = head.split(|byte| *byte == b'\n');
    let name = b"content-length:";
    let line = lines.into_iter().find(|l| l.len() > name.len() && l[..name.len()].eq_ignore_ascii_case(name))?;
    std::str::from_utf8(&line[name.len()..]).ok()?.trim().parse().ok()
}
