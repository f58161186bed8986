//! How fast Locker is: real sockets against the real server binary, beside what the disk alone can do.
//!
//! ```text
//! cargo bench --bench load                          # all, about ten minutes; the peers that are installed
//! LOCKER_BENCH_SECONDS=10 cargo bench --bench load  # longer rows
//! LOCKER_BENCH_STORES=sqlite cargo bench --bench load
//! LOCKER_BENCH_STORES=etcd,postgres cargo bench --bench load   # one server on a shared store; cycles only
//! LOCKER_BENCH_FOLLOWERS=2 LOCKER_BENCH_STORES=etcd cargo bench --bench load   # the same with two that follow it
//! cargo bench --bench load -- waiting               # only the rows of waiting clients
//! ```
//!
//! A cycle is a `PUT` of a claim answered 200 and its `DELETE` answered 200, each durable before its answer; every
//! connection has a lock of its own, and 10,000 other locks are present. Load and server share the machine, so the
//! figures are for comparing rows of one run; the table at the end sets Locker against its peers, and says what the load
//! itself has taken. Nothing is asserted but that every answer is the right one.

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::doc_markdown,
    clippy::type_complexity,
    clippy::format_collect,
    clippy::cast_possible_truncation
)]

#[path = "load/contenders.rs"]
mod contenders;
#[path = "load/generator.rs"]
mod generator;
#[path = "load/postgres.rs"]
mod postgres;
#[path = "load/rounds.rs"]
mod rounds;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "load/taker.rs"]
mod taker;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use contenders::{Contender, Store};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Server, Setup};
use taker::Taker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
const WAITERS: [usize; 3] = [1, 100, 1_000];
const HANDOVERS: usize = 300;
const PARKED: usize = 10_000;
/// Parked waiters wait in so many pools.
const PARKED_POOLS: usize = 10;
const IDLE: Duration = Duration::from_secs(50);
/// Each waiter asks again after so many seconds, like a step of Concourse.
const ASKS_AGAIN: u32 = 25;

fn main() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let seconds = std::env::var("LOCKER_BENCH_SECONDS").ok().map_or(Ok(4), |text| text.parse())?;
    let span = Duration::from_secs(seconds);
    let stores = std::env::var("LOCKER_BENCH_STORES").unwrap_or_else(|_| "sqlite,memory".into());
    let stores = stores.split(',').map(str::parse).collect::<anyhow::Result<Vec<Store>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!("| what | per second | p50 ms | p99 ms | |\n|---|---|---|---|---|");
    if std::env::args().any(|arg| arg == "waiting") {
        return stores.into_iter().try_for_each(|store| runtime.block_on(waiting(store)));
    }
    bare_sync(directory.path(), span)?;
    let table = rounds::all(&stores, span)?;
    for store in stores.into_iter().filter(|store| store.below().is_none()) {
        runtime.block_on(waiting(store))?;
    }
    bare_sync(directory.path(), span)?;
    print!("{table}");
    Ok(())
}

/// Rows of an idle server, hand-over and parked waiters.
async fn waiting(store: Store) -> anyhow::Result<()> {
    let name = store.name();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let server = Server::start_as(&store.setup(directory.path()));
    let (threads, memory) = (status(&server, "Threads:")?, status(&server, "VmRSS:")? / 1024.0);
    println!("| {name}: idle | - | - | - | {threads:.0} threads, {memory:.0} MiB resident |");
    Taker::prepare(Contender::Locker(store), server.socket())?;
    for waiters in WAITERS {
        let (mut answered, mut sent) = handovers(server.socket(), waiters).await?;
        let what = format!("{name}: hand-over");
        row(&what, &mut answered, None, &format!("release answered to next answer, {waiters} waiters"));
        row(&what, &mut sent, None, &format!("release sent to next answer, {waiters} waiters"));
    }
    drop(server);
    // On a store of its own: what the rows before have left in memory is not the waiters'.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    parked(name, &store.setup(directory.path())).await
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

/// Memory with many parked waiters, and what they cost while nothing happens but that they ask again.
async fn parked(name: &str, setup: &Setup) -> anyhow::Result<()> {
    let server = Server::start_as(setup);
    let mut control = Client::open(server.socket()).await?;
    for pool in 0..PARKED_POOLS {
        control.call(&claim(&format!("parked-holder-{pool}"), &format!("parked-{pool}"), false, 0)).await?;
    }
    let before = status(&server, "VmRSS:")? / 1024.0;
    let mut waiters = Vec::with_capacity(PARKED);
    for index in 0..PARKED {
        let mut client = Client::open(server.socket()).await?;
        let ask = claim(&format!("parked-{index}"), &format!("parked-{}", index % PARKED_POOLS), true, ASKS_AGAIN);
        waiters.push(tokio::spawn(async move { while client.call(&ask).await.is_ok() {} }));
        // As spread as they come.
        tokio::task::yield_now().await;
    }
    for pool in 0..PARKED_POOLS {
        settle(&mut control, &format!("parked-{pool}"), PARKED / PARKED_POOLS).await?;
    }
    let pid = u32::try_from(server.pid().as_raw())?;
    let (after, busy) = (status(&server, "VmRSS:")? / 1024.0, cpu_time(pid)?);
    tokio::time::sleep(IDLE).await;
    let percent = cpu_time(pid)?.saturating_sub(busy).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!(
        "| {name}: {PARKED} parked waiters | - | - | - | {after:.0} MiB resident ({before:.0} MiB before), {percent:.1} % CPU over \
         {} s in which each asks every {ASKS_AGAIN} s |",
        IDLE.as_secs()
    );
    waiters.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// A figure of the kernel about the server's process, in the unit that it counts in.
fn status(server: &Server, name: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|line| line.split_whitespace().next());
    Ok(figure.ok_or_else(|| anyhow::anyhow!("the kernel does not tell {name}"))?.parse()?)
}

/// User and system time of a process, which the kernel counts in hundredths of a second.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}

fn claim(id: &str, pool: &str, confirm: bool, wait_seconds: u32) -> Vec<u8> {
    let body = format!(r#"{{"pool":"{pool}","run":"bench","confirm":{confirm},"wait":"{wait_seconds}s"}}"#);
    request("PUT", &format!("/api/v1/claims/{id}"), &body)
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
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
