//! A raw, blocking HTTP/1.1 connection. The proofs need what client libraries hide: when a request was sent, that
//! its answer never came, and a connection that is closed while its request is parked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No request of the proofs may stay unanswered for this long; the longest `wait` they send is 60 s.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(75);

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in the answer {}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in the answer {}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

/// One kept-alive connection.
pub struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    closed: bool,
}

impl Conn {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096), closed: false })
    }

    /// Whether the server has announced that it closes this connection.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sends a request without waiting for its answer.
    pub fn send(&mut self, method: &str, path: &str, body: Option<&str>) -> io::Result<()> {
        self.stream.write_all(request(method, path, body).as_bytes())
    }

    /// Sends what [`request`] has made, or several of it.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next answer on this connection.
    pub fn receive(&mut self) -> io::Result<Answer> {
        loop {
            if let Some((answer, used, close)) = parse(&self.buffer)? {
                self.buffer.drain(..used);
                self.closed |= close;
                return Ok(answer);
            }
            let mut piece = [0; 16 * 1024];
            let got = self.stream.read(&mut piece)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&piece[..got]);
        }
    }

    pub fn call(&mut self, method: &str, path: &str, body: Option<&str>) -> io::Result<Answer> {
        self.send(method, path, body)?;
        self.receive()
    }
}

/// One request, ready to be sent.
pub fn request(method: &str, path: &str, body: Option<&str>) -> String {
    let body = body.unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: locker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The first answer in `bytes`, its length, and whether the connection ends with it; `None` until it is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize, bool)>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes).map_err(|e| bad(&e.to_string()))? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.ok_or_else(|| bad("no status"))?;
    let header = |name: &str| response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let close = header("connection").is_some_and(|v| v.eq_ignore_ascii_case(b"close"));
    if header("transfer-encoding").is_some() {
        let body = unchunk(&bytes[head..]).map_err(|()| bad("bad chunk"))?;
        return Ok(body.map(|(body, used)| (Answer { status, body }, head + used, close)));
    }
    let length = match header("content-length") {
        Some(text) => {
            std::str::from_utf8(text).ok().and_then(|t| t.trim().parse().ok()).ok_or_else(|| bad("length"))?
        }
        None => 0_usize,
    };
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    Ok(Some((Answer { status, body: body.to_vec() }, head + length, close)))
}

/// A chunked body and its length on the wire; `None` until it is complete.
fn unchunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (start, size) = match httparse::parse_chunk_size(&bytes[at..]).map_err(|_| ())? {
            httparse::Status::Complete(found) => found,
            httparse::Status::Partial => return Ok(None),
        };
        let (from, size) = (at + start, usize::try_from(size).map_err(|_| ())?);
        let Some(data) = bytes.get(from..from + size) else { return Ok(None) };
        if bytes.len() < from + size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(data);
        at = from + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}
