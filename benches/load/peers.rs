//! What others do on the same machine in the same run, each write on disk before its answer: Redis and etcd, where they
//! are installed (`apt-get install redis-server etcd-server`). They keep no queue and no history.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CONNECTIONS, Client, OTHER_LOCKS, WARM_UP, request, row};

/// Operations in one transaction: its answer must fit into one piece.
const ETCD_OPERATIONS: u32 = 20;

#[derive(Debug, Clone, Copy)]
enum Peer {
    Redis,
    Etcd,
}

impl Peer {
    fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Etcd => "etcd",
        }
    }

    fn cycle(self) -> &'static str {
        match self {
            Self::Redis => "redis, appendfsync always: SET NX PX + DEL",
            Self::Etcd => "etcd, one node, JSON gateway: put if absent + delete",
        }
    }

    fn command(self, address: SocketAddr, directory: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(self.program());
        match self {
            Self::Redis => {
                command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--bind", "127.0.0.1"]);
                command.arg("--port").arg(address.port().to_string()).arg("--dir").arg(directory);
            }
            Self::Etcd => {
                let (clients, peers) = (format!("http://{address}"), format!("http://{}", free_address()?));
                command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
                command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
                command.args(["--initial-cluster", &format!("default={peers}"), "--data-dir"]).arg(directory);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rows of all peers that are installed; `ours` are Locker's cycles a second at the same numbers of connections.
pub async fn all(ours: &[f64], span: Duration) -> anyhow::Result<()> {
    for peer in [Peer::Redis, Peer::Etcd] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let address = free_address()?;
        let Ok(child) = peer.command(address, directory.path())?.spawn() else {
            println!("| {} | - | - | - | not installed |", peer.cycle());
            continue;
        };
        let _running = Running(child);
        let mut control = Taker::ready(peer, address).await?;
        control.others().await?;
        for (connections, ours) in CONNECTIONS.into_iter().zip(ours) {
            let mut spans = cycles(peer, address, connections, span).await?;
            let theirs = spans.len() as f64 / span.as_secs_f64();
            let note = format!("{connections} connections; locker on SQLite does {:.2} times as many", ours / theirs);
            row(peer.cycle(), &mut spans, Some(span), &note);
        }
    }
    Ok(())
}

async fn cycles(peer: Peer, address: SocketAddr, connections: usize, span: Duration) -> anyhow::Result<Vec<Duration>> {
    let start = Instant::now() + WARM_UP;
    let mut tasks = Vec::new();
    for index in 0..connections {
        tasks.push(tokio::spawn(async move {
            let mut taker = Taker::open(peer, address, &format!("bench-{index}")).await?;
            let mut spans = Vec::with_capacity(100_000);
            loop {
                let began = Instant::now();
                taker.take().await?;
                taker.give().await?;
                let now = Instant::now();
                if now > start + span {
                    return anyhow::Ok(spans);
                }
                if began >= start {
                    spans.push(now - began);
                }
            }
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

/// One client with one lock of its own, and its two requests.
enum Taker {
    Redis { stream: TcpStream, take: String, give: String },
    Etcd { client: Client, take: Vec<u8>, give: Vec<u8> },
}

impl Taker {
    async fn open(peer: Peer, address: SocketAddr, lock: &str) -> anyhow::Result<Self> {
        Ok(match peer {
            Peer::Redis => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let take = words(&["SET", lock, "bench", "NX", "PX", "600000"]);
                Self::Redis { stream, take, give: words(&["DEL", lock]) }
            }
            Peer::Etcd => {
                let key = BASE64_STANDARD.encode(lock);
                let absent = format!(r#"{{"target":"CREATE","key":"{key}","create_revision":"0"}}"#);
                let put = put(&key);
                let take = request("POST", "/v3/kv/txn", &format!(r#"{{"compare":[{absent}],"success":[{put}]}}"#));
                let give = request("POST", "/v3/kv/deleterange", &format!(r#"{{"key":"{key}"}}"#));
                Self::Etcd { client: Client::open(address).await?, take, give }
            }
        })
    }

    /// A client once the peer serves.
    async fn ready(peer: Peer, address: SocketAddr) -> anyhow::Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let tried = async {
                let mut taker = Self::open(peer, address, "ready").await?;
                taker.take().await?;
                taker.give().await?;
                anyhow::Ok(taker)
            };
            match tried.await {
                Ok(taker) => return Ok(taker),
                Err(error) => ensure!(Instant::now() < deadline, "{} does not serve: {error:#}", peer.program()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As many other locks as Locker has beside.
    async fn others(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Redis { stream, .. } => {
                for n in 0..OTHER_LOCKS {
                    say(stream, &words(&["SET", &format!("other-{n}"), "bench"]), "+OK\r\n").await?;
                }
            }
            Self::Etcd { client, .. } => {
                for first in (0..OTHER_LOCKS).step_by(ETCD_OPERATIONS as usize) {
                    let key = |n: u32| BASE64_STANDARD.encode(format!("other-{n}"));
                    let puts: Vec<String> = (first..first + ETCD_OPERATIONS).map(|n| put(&key(n))).collect();
                    let body = format!(r#"{{"success":[{}]}}"#, puts.join(","));
                    etcd(client, &request("POST", "/v3/kv/txn", &body), r#""succeeded":true"#).await?;
                }
            }
        }
        Ok(())
    }

    async fn take(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Redis { stream, take, .. } => say(stream, take, "+OK\r\n").await,
            Self::Etcd { client, take, .. } => etcd(client, take, r#""succeeded":true"#).await,
        }
    }

    async fn give(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Redis { stream, give, .. } => say(stream, give, ":1\r\n").await,
            Self::Etcd { client, give, .. } => etcd(client, give, r#""deleted":"1""#).await,
        }
    }
}

fn put(key: &str) -> String {
    format!(r#"{{"request_put":{{"key":"{key}","value":"YmVuY2g="}}}}"#)
}

/// A command as Redis reads it.
fn words(words: &[&str]) -> String {
    words.iter().fold(format!("*{}\r\n", words.len()), |text, word| format!("{text}${}\r\n{word}\r\n", word.len()))
}

async fn say(stream: &mut TcpStream, command: &str, expected: &str) -> anyhow::Result<()> {
    stream.write_all(command.as_bytes()).await?;
    let (mut answer, mut length) = ([0; 256], 0);
    while !answer[..length].ends_with(b"\r\n") {
        let got = stream.read(&mut answer[length..]).await?;
        ensure!(got > 0, "redis has closed the connection");
        length += got;
    }
    let answer = String::from_utf8_lossy(&answer[..length]);
    ensure!(answer == expected, "{command:?} was answered {answer:?}");
    Ok(())
}

async fn etcd(client: &mut Client, request: &[u8], expected: &str) -> anyhow::Result<()> {
    let status = client.call(request).await?;
    let answer = String::from_utf8_lossy(client.body()).into_owned();
    let asked = || String::from_utf8_lossy(request).into_owned();
    ensure!(status == 200 && answer.contains(expected), "{} was answered {status}: {answer}", asked());
    Ok(())
}
