//! One connection of a contender with one lock of its own, and its two requests, ready to be sent.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::contenders::Contender;
use super::{length, postgres, request};

/// Locks that are held beside those of the cycles.
const OTHER_LOCKS: u32 = 10_000;
/// Operations in one transaction: its answer must fit into one piece.
const ETCD_OPERATIONS: usize = 20;
/// Longer than any answer.
const ANSWER: usize = 16 * 1024;

const OK: &[u8] = b"HTTP/1.1 200 ";
const SUCCEEDED: Expected = Expected { begins: OK, has: br#""succeeded":true"# };

/// How the end of an answer is found.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    /// A head that says the length of the body.
    Http,
    /// One line.
    Redis,
    Postgres,
}

impl Protocol {
    /// Whether these bytes are a whole answer.
    fn is_whole(self, bytes: &[u8]) -> anyhow::Result<bool> {
        Ok(match self {
            Self::Redis => bytes.ends_with(b"\r\n"),
            Self::Postgres => postgres::is_ready(bytes),
            Self::Http => {
                let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
                let Some(length) = length(&bytes[..head + 2]) else { bail!("an answer without a length") };
                bytes.len() >= head + 4 + length
            }
        })
    }
}

/// What the right answer looks like.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub begins: &'static [u8],
    pub has: &'static [u8],
}

impl Expected {
    fn is(self, answer: &[u8]) -> bool {
        let has = |part: &[u8]| part.is_empty() || answer.windows(part.len()).any(|bytes| bytes == part);
        answer.starts_with(self.begins) && has(self.has)
    }
}

/// A request that is sent again and again.
pub struct Step {
    request: Vec<u8>,
    expected: Expected,
    /// Where the number of the turn is in it, if it has one.
    turn_at: Option<usize>,
}

impl Step {
    pub fn new(request: Vec<u8>, expected: Expected) -> Self {
        Self { request, expected, turn_at: None }
    }

    /// A request to a path that ends with nine digits.
    fn numbered(request: Vec<u8>, expected: Expected) -> Self {
        let end = request.windows(5).position(|bytes| bytes == b" HTTP").expect("a request line");
        Self { request, expected, turn_at: Some(end - 9) }
    }

    /// The bytes to send in this turn.
    pub fn request(&mut self, turn: usize) -> &[u8] {
        if let Some(at) = self.turn_at {
            self.request[at..at + 9].copy_from_slice(format!("{turn:09}").as_bytes());
        }
        &self.request
    }

    /// Whether these bytes are the whole answer, which must be the right one.
    pub fn is_answered(&self, protocol: Protocol, bytes: &[u8]) -> anyhow::Result<bool> {
        let whole = protocol.is_whole(bytes)?;
        let shown = String::from_utf8_lossy;
        let right = !whole || self.expected.is(bytes);
        ensure!(right, "{:?} was answered {:?}", shown(&self.request), shown(bytes));
        Ok(whole)
    }
}

pub struct Taker {
    pub stream: TcpStream,
    pub protocol: Protocol,
    /// Takes the lock, gives it back.
    pub steps: [Step; 2],
}

impl Taker {
    pub fn open(contender: Contender, address: SocketAddr, lock: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let with = |protocol, steps| Self { stream, protocol, steps };
        Ok(match contender {
            Contender::Locker(_) => {
                let body = format!(r#"{{"pool":"{lock}","run":"bench"}}"#);
                // Ids have a fixed length, so that only they change in the prepared bytes.
                let path = format!("/api/v1/claims/{lock}-{:09}", 0);
                let (take, give) = (request("PUT", &path, &body), request("DELETE", &path, ""));
                let held = Expected { begins: OK, has: b"" };
                with(Protocol::Http, [Step::numbered(take, held), Step::numbered(give, held)])
            }
            Contender::Redis => {
                let (take, give) = (words(&["SET", lock, "bench", "NX", "PX", "600000"]), words(&["DEL", lock]));
                let says = |begins| Expected { begins, has: b"" };
                with(Protocol::Redis, [Step::new(take, says(b"+OK\r\n")), Step::new(give, says(b":1\r\n"))])
            }
            Contender::Etcd => {
                let key = BASE64_STANDARD.encode(lock);
                let absent = format!(r#"{{"target":"CREATE","key":"{key}","create_revision":"0"}}"#);
                let take = format!(r#"{{"compare":[{absent}],"success":[{}]}}"#, put(&key));
                let take = Step::new(request("POST", "/v3/kv/txn", &take), SUCCEEDED);
                let give = request("POST", "/v3/kv/deleterange", &format!(r#"{{"key":"{key}"}}"#));
                let deleted = Expected { begins: OK, has: br#""deleted":"1""# };
                with(Protocol::Http, [take, Step::new(give, deleted)])
            }
            Contender::Postgres => {
                let mut taker = with(Protocol::Postgres, postgres::steps(lock));
                taker.say(&mut postgres::greetings())?;
                taker
            }
        })
    }

    /// Waits until the contender serves, and has it hold many other locks.
    pub fn prepare(contender: Contender, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let tried = Self::open(contender, address, "ready").and_then(|mut taker| {
                let Self { stream, protocol, steps } = &mut taker;
                steps.iter_mut().try_for_each(|step| say(stream, *protocol, step))?;
                Ok(taker)
            });
            match tried {
                Ok(mut taker) => return taker.say(&mut others(contender)),
                Err(error) => ensure!(Instant::now() < deadline, "{} does not serve: {error:#}", contender.name()),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn say(&mut self, steps: &mut [Step]) -> anyhow::Result<()> {
        steps.iter_mut().try_for_each(|step| say(&mut self.stream, self.protocol, step))
    }
}

/// Sends a request and waits for its answer.
fn say(stream: &mut TcpStream, protocol: Protocol, step: &mut Step) -> anyhow::Result<()> {
    stream.write_all(step.request(0))?;
    let (mut answer, mut got) = (vec![0; ANSWER], 0);
    while !step.is_answered(protocol, &answer[..got])? {
        let more = stream.read(&mut answer[got..])?;
        ensure!(more > 0, "the connection was closed");
        got += more;
    }
    Ok(())
}

/// What has a contender hold many other locks.
fn others(contender: Contender) -> Vec<Step> {
    let names = (0..OTHER_LOCKS).map(|n| format!("other-{n}"));
    match contender {
        Contender::Locker(_) => {
            let body = format!(r#"{{"capacity":{OTHER_LOCKS}}}"#);
            vec![Step::new(request("PUT", "/api/v1/pools/others", &body), Expected { begins: OK, has: b"" })]
        }
        Contender::Redis => {
            // In one command: each has to reach the disk.
            let names: Vec<String> = names.collect();
            let pairs = names.iter().flat_map(|name| [name.as_str(), "bench"]);
            let command: Vec<&str> = std::iter::once("MSET").chain(pairs).collect();
            vec![Step::new(words(&command), Expected { begins: b"+OK\r\n", has: b"" })]
        }
        Contender::Etcd => {
            let puts: Vec<String> = names.map(|name| put(&BASE64_STANDARD.encode(name))).collect();
            let body = |puts: &[String]| format!(r#"{{"success":[{}]}}"#, puts.join(","));
            let step = |puts| Step::new(request("POST", "/v3/kv/txn", &body(puts)), SUCCEEDED);
            puts.chunks(ETCD_OPERATIONS).map(step).collect()
        }
        Contender::Postgres => postgres::others(OTHER_LOCKS),
    }
}

fn put(key: &str) -> String {
    format!(r#"{{"request_put":{{"key":"{key}","value":"YmVuY2g="}}}}"#)
}

/// A command as Redis reads it.
fn words(words: &[&str]) -> Vec<u8> {
    let parts = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    std::iter::once(format!("*{}\r\n", words.len())).chain(parts).collect::<String>().into_bytes()
}
