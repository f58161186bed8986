//! Request heads: where a head ends, what it says, and every reason to refuse it. Pure.
//!
//! Stricter than RFC 9112 wherever two servers could read the same bytes differently. Such requests are used to smuggle
//! others past a proxy, and no honest client sends them.

use httparse::Header;

use super::keep::Keep;
use super::listen::Client;
use super::refusal::Refusal;
use super::settings::DoorSettings;
use crate::core::names::ParkId;
use crate::server::http::{Attempt, Request};

/// The methods that are passed on to the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Trace,
    Query,
}

impl Method {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"PATCH" => Self::Patch,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            // No route has these methods. The answer (405) lists the methods that exist and never repeats what was
            // sent.
            b"TRACE" => Self::Trace,
            b"QUERY" => Self::Query,
            _ => return None,
        })
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Query => "QUERY",
        }
    }
}

/// How the length of the body is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The body has this many bytes; 0 if there is no body.
    Length(usize),
    Chunked,
}

/// A valid request head.
#[derive(Debug)]
pub(super) struct Head<'h, 'b> {
    pub method: Method,
    pub target: &'b str,
    pub framing: Framing,
    pub keep: Keep,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    headers: &'h [Header<'b>],
}

impl Head<'_, '_> {
    /// The request without its body. Headers about this connection or the framing are left out.
    pub fn to_request(&self, park: ParkId, id: &str, client: &Client) -> Request {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let passed = |h: &&Header<'_>| matches!(role(h.name), Role::Passed | Role::Host | Role::Authorization);
        let headers = self.headers.iter().filter(passed);
        // All values are ASCII at this point, so nothing is replaced.
        let text = |h: &Header<'_>| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned());
        Request {
            method: self.method.as_str().to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers.map(text).collect(),
            body: Vec::new(),
            peer: client.peer.clone(),
            id: id.to_owned(),
            identity: client.identity.clone(),
            park,
            shown: None,
            token: None,
            admitted: false,
            can_park: false,
            attempt: Attempt::First,
        }
    }
}

/// Finds the end of the head at the front of `bytes`. Returns the length of the head with its empty line, or `None`
/// while it is incomplete. Earlier calls have already searched `scanned` bytes.
pub(super) fn find_end(bytes: &[u8], scanned: &mut usize, settings: &DoorSettings) -> Result<Option<usize>, Refusal> {
    // One empty line before a request is ignored (RFC 9112, 2.2).
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    match bytes.get(start) {
        Some(b'\r') if start == 0 && bytes.len() == 1 => return Ok(None),
        // Whatever this is (TLS, perhaps), more bytes will not make it a request.
        Some(first) if !first.is_ascii_alphabetic() => return Err(Refusal::malformed("this is not an HTTP request")),
        _ => {}
    }
    let from = (*scanned).max(start);
    let mut next = from;
    while let Some(offset) = bytes[next..].iter().position(|byte| *byte == b'\n') {
        let at = next + offset;
        next = at + 1;
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Refusal::malformed("a line of the head ends without a carriage return"));
        }
        if bytes[..at].ends_with(b"\r\n\r") {
            return if at < settings.head_bytes { Ok(Some(at + 1)) } else { Err(head_too_large()) };
        }
    }
    *scanned = bytes.len();
    if bytes.len() < settings.head_bytes.min(settings.target_bytes) {
        return Ok(None);
    }
    let first_line = bytes[start..].iter().position(|b| *b == b'\n');
    match first_line {
        None if bytes.len() > settings.target_bytes + REQUEST_LINE_REST => Err(target_too_long()),
        _ if bytes.len() >= settings.head_bytes => Err(head_too_large()),
        _ => Ok(None),
    }
}

/// The most that a request line has in addition to its target, bytes: the method, the version and spaces.
const REQUEST_LINE_REST: usize = 32;

fn head_too_large() -> Refusal {
    Refusal::new(431, "head_too_large", "the request line and the headers together are too large")
}

fn target_too_long() -> Refusal {
    Refusal::new(414, "target_too_long", "the request target is too long")
}

/// Parses a complete head, as delimited by [`find_end`]. `slots` has room for one header more than a request may have.
pub(super) fn parse<'h, 'b>(
    head: &'b [u8],
    slots: &'h mut [Header<'b>],
    settings: &DoorSettings,
) -> Result<Head<'h, 'b>, Refusal> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let line_end = head.iter().position(|b| *b == b'\n').map_or(head.len(), |at| at + 1);
    let (line, rest) = head.split_at(line_end);
    let line = line.strip_suffix(b"\r\n").ok_or(Refusal::malformed("the request line does not end with CRLF"))?;
    let (method, target, version) = parse_request_line(line, settings)?;
    let room = settings.headers.min(slots.len());
    let headers = match httparse::parse_headers(rest, &mut slots[..room]) {
        Ok(httparse::Status::Complete((end, headers))) if end == rest.len() => headers,
        Ok(_) => return Err(Refusal::malformed("the headers are not well-formed")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431, "too_many_headers", "the request has too many headers"));
        }
        Err(_) => return Err(Refusal::malformed("a header is not well-formed")),
    };
    let told = Told::collect(headers)?;
    if told.hosts != 1 && (version == Version::Http11 || told.hosts > 1) {
        return Err(Refusal::malformed("there must be exactly one Host header"));
    }
    Ok(Head {
        method,
        target,
        framing: told.framing(version, settings)?,
        keep: told.keep(version),
        expects_continue: told.expects_continue && version == Version::Http11,
        headers,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn parse_request_line<'b>(line: &'b [u8], settings: &DoorSettings) -> Result<(Method, &'b str, Version), Refusal> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::malformed("the request line is not METHOD TARGET VERSION"));
    };
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Refusal::new(505, "http_version", "this server speaks only HTTP/1.1 and HTTP/1.0"));
        }
        _ => return Err(Refusal::malformed("the request line does not end with an HTTP version")),
    };
    if method.is_empty() || !method.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)) {
        return Err(Refusal::malformed("the request method is not valid"));
    }
    let Some(method) = Method::parse(method) else {
        return Err(Refusal::new(501, "unknown_method", "this server does not know the request method"));
    };
    if target.len() > settings.target_bytes {
        return Err(target_too_long());
    }
    if target.first() != Some(&b'/') {
        return Err(Refusal::malformed("the request target does not begin with a slash"));
    }
    let valid = |b: &u8| b.is_ascii_graphic() && *b != b'#';
    match std::str::from_utf8(target) {
        Ok(text) if target.iter().all(valid) => Ok((method, text, version)),
        _ => Err(Refusal::malformed("the request target has characters that must be percent-encoded")),
    }
}

/// How the door treats a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Host,
    Authorization,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    ContentEncoding,
    /// Concerns only this connection.
    Dropped,
    Passed,
}

fn role(name: &str) -> Role {
    const ROLES: [(&str, Role); 12] = [
        ("host", Role::Host),
        ("authorization", Role::Authorization),
        ("content-length", Role::ContentLength),
        ("transfer-encoding", Role::TransferEncoding),
        ("connection", Role::Connection),
        ("expect", Role::Expect),
        ("content-encoding", Role::ContentEncoding),
        ("te", Role::Dropped),
        ("trailer", Role::Dropped),
        ("upgrade", Role::Dropped),
        ("keep-alive", Role::Dropped),
        ("proxy-connection", Role::Dropped),
    ];
    ROLES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(Role::Passed, |known| known.1)
}

/// The headers that concern the door.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each flag is one header that was seen or not")]
struct Told<'b> {
    hosts: usize,
    has_credentials: bool,
    length: Option<&'b [u8]>,
    coding: Option<&'b [u8]>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'b> Told<'b> {
    fn collect(headers: &[Header<'b>]) -> Result<Self, Refusal> {
        let mut told = Self::default();
        for header in headers {
            // No header below may have other characters, and a value that two servers may read differently is refused.
            if !header.value.is_ascii() {
                return Err(Refusal::malformed("a header has characters that are not ASCII"));
            }
            match role(header.name) {
                Role::Host => told.hosts += 1,
                Role::Authorization if std::mem::replace(&mut told.has_credentials, true) => {
                    return Err(Refusal::malformed("there are two Authorization headers"));
                }
                Role::ContentLength if told.length.replace(header.value).is_some() => {
                    return Err(Refusal::malformed("there are two Content-Length headers"));
                }
                Role::TransferEncoding if told.coding.replace(header.value).is_some() => {
                    return Err(Refusal::malformed("there are two Transfer-Encoding headers"));
                }
                Role::Connection => {
                    for option in header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                        told.close |= option.eq_ignore_ascii_case(b"close");
                        told.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                Role::Expect if header.value.eq_ignore_ascii_case(b"100-continue") => told.expects_continue = true,
                Role::Expect => {
                    return Err(Refusal::new(417, "unknown_expectation", "only 100-continue can be expected"));
                }
                Role::ContentEncoding if !header.value.eq_ignore_ascii_case(b"identity") => {
                    return Err(Refusal::new(415, "content_encoding", "compressed request bodies are not supported"));
                }
                Role::ContentEncoding => {}
                Role::Authorization | Role::ContentLength | Role::TransferEncoding | Role::Dropped | Role::Passed => {}
            }
        }
        Ok(told)
    }

    fn framing(&self, version: Version, settings: &DoorSettings) -> Result<Framing, Refusal> {
        match (self.length, self.coding) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(_), Some(_)) => {
                Err(Refusal::malformed("a request cannot have both Content-Length and Transfer-Encoding"))
            }
            (None, Some(coding)) if version == Version::Http11 && coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked)
            }
            (None, Some(_)) => {
                Err(Refusal::malformed("the only supported Transfer-Encoding is chunked, and only with HTTP/1.1"))
            }
            (Some(length), None) => {
                // 18 digits always fit. No honest length has more.
                if length.is_empty() || length.len() > 18 || !length.iter().all(u8::is_ascii_digit) {
                    return Err(Refusal::malformed("the Content-Length is not a valid number of bytes"));
                }
                let length = length.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
                match usize::try_from(length) {
                    Ok(length) if length <= settings.body_bytes => Ok(Framing::Length(length)),
                    _ => Err(body_too_large()),
                }
            }
        }
    }

    fn keep(&self, version: Version) -> Keep {
        match version {
            _ if self.close => Keep::Close,
            Version::Http11 => Keep::Open,
            Version::Http10 if self.keep_alive => Keep::OpenSaid,
            Version::Http10 => Keep::Close,
        }
    }
}

/// 413, for declared and for chunked bodies.
pub(super) fn body_too_large() -> Refusal {
    Refusal::new(413, "body_too_large", "the request body is too large")
}

#[cfg(test)]
mod tests;
