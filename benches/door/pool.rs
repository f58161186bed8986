//! One GET of a pool: the real server on `memory:` beside a bare one that only parses the head and sends as many bytes,
//! each in a process of its own, in turns. One thread asks for all connections, so that most of the machine is the
//! server's. And what it takes to compose such an answer.

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, empty};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tiny_http::{HTTPVersion, Header, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc;

use super::row;
use super::support::{Server, Setup};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(500);
const GET: &[u8] = b"GET /api/v1/pools/bench HTTP/1.1\r\nHost: localhost\r\n\r\n";
const PUT: &[u8] = b"PUT /api/v1/pools/bench HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n{\"capacity\":1}";
const COMPOSED: u32 = 200_000;
/// Set in the process that is the bare server: how many bytes it answers.
const BARE: &str = "LOCKER_BENCH_BARE";

pub fn all(span: Duration) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Server::start_as(&Setup::memory());
    let answer = runtime.block_on(async {
        let mut asker = Asker::open(server.socket()).await?;
        asker.ask(PUT).await?;
        asker.ask(GET).await?;
        anyhow::Ok(asker.buffer)
    })?;
    let bare = Bare::start(answer.len())?;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let ours = runtime.block_on(rate("GET of a pool, locker in memory, TCP", server.socket(), span))?;
        let theirs = runtime.block_on(rate("as many bytes, bare tokio + httparse, TCP", bare.address, span))?;
        ratios.push(ours / theirs);
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ROUNDS / 2];
    println!("| GET of a pool: locker / bare, median of {ROUNDS} rounds | {CONNECTIONS} | {ratio:.2} times | - | - |");
    let (length, nanoseconds) = (answer.len(), compose(&answer)?);
    println!("| composing an answer of {length} bytes with tiny_http | - | {nanoseconds:.0} ns each | - | - |");
    Ok(())
}

/// Requests a second, after it has printed its row.
async fn rate(name: &str, address: SocketAddr, span: Duration) -> anyhow::Result<f64> {
    let mut askers = Vec::new();
    for _ in 0..CONNECTIONS {
        askers.push(Asker::open(address).await?);
    }
    let start = Instant::now() + WARM_UP;
    let tasks: Vec<_> = askers.into_iter().map(|asker| tokio::spawn(asker.run(start, span))).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    Ok(row(name, CONNECTIONS, times, span))
}

/// A connection that asks, reads the answer and asks again.
struct Asker {
    stream: TcpStream,
    /// The newest answer.
    buffer: Vec<u8>,
}

impl Asker {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024) })
    }

    async fn run(mut self, start: Instant, span: Duration) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(100_000);
        loop {
            let began = Instant::now();
            self.ask(GET).await?;
            let now = Instant::now();
            if now > start + span {
                return Ok(times);
            }
            if began >= start {
                times.push(now - began);
            }
        }
    }

    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        while !is_whole(&self.buffer) {
            let got = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(got > 0, "the connection has ended: {}", self.buffer.escape_ascii());
        }
        ensure!(self.buffer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", self.buffer.escape_ascii());
        Ok(())
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(body)) = head.parse(answer) else { return false };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= body + length)
}

/// The bare server, in a process of its own that ends with this value.
struct Bare {
    address: SocketAddr,
    process: Child,
}

impl Bare {
    fn start(length: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.env(BARE, length.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("its output is a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { address: line.trim().parse()?, process })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How many bytes this process has to answer, if it is the bare server.
pub fn bare_length() -> Option<usize> {
    std::env::var(BARE).ok()?.parse().ok()
}

/// Serves until its standard input ends, on an address that it prints.
pub fn serve_bare(length: usize) -> anyhow::Result<()> {
    let head = |body: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {body:09}\r\n\r\n").into_bytes();
    let mut answer = head(length - head(0).len());
    answer.resize(length, b'x');
    let answer: Arc<[u8]> = answer.into();
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let cores = thread::available_parallelism()?.get();
    let workers: Vec<_> = (0..cores).map(|_| bare_worker(Arc::clone(&answer))).collect();
    thread::spawn(move || {
        for (stream, worker) in listener.incoming().zip(workers.iter().cycle()) {
            // The clients of a worker that has failed see the end of their connections.
            let _ = stream.map(|stream| worker.send(stream));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A thread with a runtime of its own, as the door has them, that answers on each connection that it is sent.
fn bare_worker(answer: Arc<[u8]>) -> mpsc::UnboundedSender<std::net::TcpStream> {
    let (sender, mut streams) = mpsc::unbounded_channel::<std::net::TcpStream>();
    thread::spawn(move || {
        runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            while let Some(stream) = streams.recv().await {
                stream.set_nonblocking(true)?;
                let (stream, answer) = (TcpStream::from_std(stream)?, Arc::clone(&answer));
                tokio::spawn(async move { answer_all(stream, &answer).await });
            }
            anyhow::Ok(())
        })
    });
    sender
}

async fn answer_all(mut stream: TcpStream, answer: &[u8]) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(1024);
    while stream.read_buf(&mut buffer).await? > 0 {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        if let httparse::Status::Complete(length) = httparse::Request::new(&mut headers).parse(&buffer)? {
            buffer.drain(..length);
            stream.write_all(answer).await?;
        }
    }
    Ok(())
}

/// Nanoseconds to write this answer's head, as the door has `tiny_http` write it, and its body.
fn compose(answer: &[u8]) -> anyhow::Result<f64> {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("a head")?;
    let body = &answer[head + 4..];
    let start = Instant::now();
    for _ in 0..COMPOSED {
        let kind = Header::from_bytes("Content-Type", "application/json").ok().context("a header")?;
        let response = tiny_http::Response::new(StatusCode(200), vec![kind], empty(), Some(body.len()), None);
        let mut bytes = Vec::with_capacity(256 + body.len());
        response.with_chunked_threshold(usize::MAX).raw_print(&mut bytes, HTTPVersion(1, 1), &[], true, None)?;
        bytes.extend_from_slice(black_box(body));
        black_box(bytes);
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(COMPOSED))
}
