//! One client of a contender with one lock of its own, and its two requests, ready to be sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::contenders::Contender;
use super::postgres;
use super::{Client, request};

/// Locks that are held beside those of the cycles.
const OTHER_LOCKS: u32 = 10_000;
/// Operations in one transaction: its answer must fit into one piece.
const ETCD_OPERATIONS: u32 = 20;

pub enum Taker {
    Locker { client: Client, take: Vec<u8>, give: Vec<u8>, turn: u32 },
    Redis { stream: TcpStream, take: String, give: String },
    Etcd { client: Client, take: Vec<u8>, give: Vec<u8> },
    Postgres(postgres::Session),
}

impl Taker {
    pub async fn open(contender: Contender, address: SocketAddr, lock: &str) -> anyhow::Result<Self> {
        Ok(match contender {
            Contender::Locker(_) => {
                let body = format!(r#"{{"pool":"{lock}","run":"bench"}}"#);
                // Ids have a fixed length, so that only they change in the prepared bytes.
                let path = format!("/api/v1/claims/{lock}-{:09}", 0);
                let (take, give) = (request("PUT", &path, &body), request("DELETE", &path, ""));
                Self::Locker { client: Client::open(address).await?, take, give, turn: 0 }
            }
            Contender::Redis => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let take = words(&["SET", lock, "bench", "NX", "PX", "600000"]);
                Self::Redis { stream, take, give: words(&["DEL", lock]) }
            }
            Contender::Etcd => {
                let key = BASE64_STANDARD.encode(lock);
                let absent = format!(r#"{{"target":"CREATE","key":"{key}","create_revision":"0"}}"#);
                let put = put(&key);
                let take = request("POST", "/v3/kv/txn", &format!(r#"{{"compare":[{absent}],"success":[{put}]}}"#));
                let give = request("POST", "/v3/kv/deleterange", &format!(r#"{{"key":"{key}"}}"#));
                Self::Etcd { client: Client::open(address).await?, take, give }
            }
            Contender::Postgres => Self::Postgres(postgres::Session::open(address, lock).await?),
        })
    }

    /// Waits until the contender serves, and has it hold many other locks.
    pub async fn prepare(contender: Contender, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let tried = async {
                let mut taker = Self::open(contender, address, "ready").await?;
                taker.take().await?;
                taker.give().await?;
                anyhow::Ok(taker)
            };
            match tried.await {
                Ok(mut taker) => return taker.others().await,
                Err(error) => ensure!(Instant::now() < deadline, "{} does not serve: {error:#}", contender.name()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn others(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Locker { client, .. } => {
                let body = format!(r#"{{"capacity":{OTHER_LOCKS}}}"#);
                client.done(&request("PUT", "/api/v1/pools/others", &body)).await?;
            }
            Self::Redis { stream, .. } => {
                // In one command: each has to reach the disk.
                let names: Vec<String> = (0..OTHER_LOCKS).map(|n| format!("other-{n}")).collect();
                let pairs = names.iter().flat_map(|name| [name.as_str(), "bench"]);
                let command: Vec<&str> = std::iter::once("MSET").chain(pairs).collect();
                say(stream, &words(&command), "+OK\r\n").await?;
            }
            Self::Etcd { client, .. } => {
                for first in (0..OTHER_LOCKS).step_by(ETCD_OPERATIONS as usize) {
                    let key = |n: u32| BASE64_STANDARD.encode(format!("other-{n}"));
                    let puts: Vec<String> = (first..first + ETCD_OPERATIONS).map(|n| put(&key(n))).collect();
                    let body = format!(r#"{{"success":[{}]}}"#, puts.join(","));
                    etcd(client, &request("POST", "/v3/kv/txn", &body), r#""succeeded":true"#).await?;
                }
            }
            Self::Postgres(session) => session.others(OTHER_LOCKS).await?,
        }
        Ok(())
    }

    pub async fn take(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Locker { client, take, turn, .. } => {
                number(take, *turn);
                client.done(take).await
            }
            Self::Redis { stream, take, .. } => say(stream, take, "+OK\r\n").await,
            Self::Etcd { client, take, .. } => etcd(client, take, r#""succeeded":true"#).await,
            Self::Postgres(session) => session.take().await,
        }
    }

    pub async fn give(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Locker { client, give, turn, .. } => {
                number(give, *turn);
                *turn += 1;
                client.done(give).await
            }
            Self::Redis { stream, give, .. } => say(stream, give, ":1\r\n").await,
            Self::Etcd { client, give, .. } => etcd(client, give, r#""deleted":"1""#).await,
            Self::Postgres(session) => session.give().await,
        }
    }
}

/// Writes `turn` over the nine digits at the end of the path.
fn number(request: &mut [u8], turn: u32) {
    let end = request.windows(5).position(|bytes| bytes == b" HTTP").expect("a request line");
    request[end - 9..end].copy_from_slice(format!("{turn:09}").as_bytes());
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
