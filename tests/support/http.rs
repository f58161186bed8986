//! A raw HTTP/1.1 client. Tests need what client libraries hide: every byte of an answer, the time when a request was
//! sent, a missing answer, closing a connection while its request is parked, and bad behaviour.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest time without an answer. The longest `wait` that a server accepts is 60 s.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(75);

/// An answer as it was on the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub status_line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        self.parse()
    }

    #[track_caller]
    pub fn parse<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in the answer {}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The stable code of an error, or an empty text.
    pub fn code(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One kept-alive connection. Functions that begin with `try_` return the error of a broken connection; the others
/// panic.
pub struct Client<S = TcpStream> {
    pub reader: BufReader<S>,
    /// The answer to the present request has no body.
    is_head: bool,
    is_closing: bool,
}

impl Client<TcpStream> {
    #[track_caller]
    pub fn new(address: impl ToSocketAddrs) -> Self {
        Self::open(address).unwrap()
    }

    pub fn open(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::within(address, ANSWER_WITHIN)
    }

    /// The time limit of each read and each write.
    pub fn within(address: impl ToSocketAddrs, patience: Duration) -> io::Result<Self> {
        let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = TcpStream::connect_timeout(&address, patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        socket.set_nodelay(true)?;
        Ok(Self::on(socket))
    }

    pub fn socket(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Whether an answer has begun to arrive within `time`.
    pub fn is_answered(&mut self, time: Duration) -> bool {
        self.socket().set_read_timeout(Some(time)).unwrap();
        let answered = self.reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        self.socket().set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        answered
    }
}

impl Client<UnixStream> {
    #[track_caller]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        Self::on(socket)
    }
}

impl<S: Read + Write> Client<S> {
    pub fn on(stream: S) -> Self {
        Self { reader: BufReader::new(stream), is_head: false, is_closing: false }
    }

    /// Whether the server has announced that it will close this connection.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Sends these bytes: one request, several, or a part of one.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.is_head = bytes.as_ref().starts_with(b"HEAD ");
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// The next answer; `None` at the end of the connection.
    pub fn try_read(&mut self) -> io::Result<Option<Answer>> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        let status_line = line.trim_end().to_owned();
        let mut answer = Answer { status, status_line, headers: Vec::new(), body: Vec::new() };
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        self.is_closing |= answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if self.is_head {
            return Ok(Some(answer));
        }
        assert_eq!(answer.header("transfer-encoding"), None, "our answers are never chunked: {answer:?}");
        let length = answer.header("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        answer.body.resize(length, 0);
        self.reader.read_exact(&mut answer.body)?;
        Ok(Some(answer))
    }

    /// The next answer; the end of the connection is an error.
    pub fn receive(&mut self) -> io::Result<Answer> {
        self.try_read()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    #[track_caller]
    pub fn read(&mut self) -> Answer {
        self.receive().unwrap()
    }

    /// One request and its answer; `headers` are whole lines.
    pub fn ask(&mut self, method: &str, target: &str, headers: &str, body: &str) -> io::Result<Answer> {
        self.try_send(request(method, target, headers, body))?;
        self.receive()
    }

    /// The same for `METHOD target` and a body.
    #[track_caller]
    pub fn call(&mut self, line: &str, body: &str) -> Answer {
        self.start(line, body);
        self.read()
    }

    /// Sends `METHOD target` and a body without waiting for the answer.
    #[track_caller]
    pub fn start(&mut self, line: &str, body: &str) {
        let (method, target) = line.split_once(' ').expect("METHOD target");
        self.send(request(method, target, "", body));
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.call(&format!("GET {target}"), "")
    }

    /// Asserts that the connection ends without more data.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let end = self.reader.read_to_end(&mut rest).map_err(|e| e.kind());
        assert!(matches!(end, Ok(0) | Err(io::ErrorKind::ConnectionReset)), "{end:?} {rest:?}");
    }

    /// Whether the connection ends without another answer.
    pub fn is_over(&mut self) -> bool {
        !matches!(self.try_read(), Ok(Some(_)))
    }
}

/// The bytes of a request; `headers` are whole lines.
pub fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    // Like curl: with a content type that the server ignores, and without a length if there is no body.
    let body_lines = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", body.len())
    };
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}{body_lines}\r\n{body}")
}
