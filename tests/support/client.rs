//! A small client that can behave badly.
#![allow(dead_code, reason = "each suite needs another part of it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::server::PATIENCE;

pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// An answer as read from a socket.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The stable word of an error; empty without one.
    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub struct Client<S: Stream> {
    pub reader: BufReader<S>,
}

impl Client<TcpStream> {
    pub fn tcp(address: &str) -> Self {
        Self::try_tcp(address, PATIENCE).unwrap()
    }

    pub fn try_tcp(address: &str, patience: Duration) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        socket.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(socket) })
    }
}

impl Client<UnixStream> {
    pub fn unix(path: &str) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(socket) }
    }
}

impl<S: Stream> Client<S> {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// The next answer; `None` at the end of the connection.
    pub fn read(&mut self) -> io::Result<Option<Answer>> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        answer.body.resize(length, 0);
        self.reader.read_exact(&mut answer.body)?;
        Ok(Some(answer))
    }

    pub fn ask(&mut self, method: &str, target: &str, headers: &str, body: &str) -> io::Result<Answer> {
        self.send(request(method, target, headers, body))?;
        self.read()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Whether the connection ends without another answer.
    pub fn is_over(&mut self) -> bool {
        !matches!(self.read(), Ok(Some(_)))
    }
}

/// A request; `headers` are whole lines.
pub fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}
