//! Requests that must be refused, as a table for any server behind the door.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// One shape: the bytes to send, and the status of the answer, after which the connection ends.
struct Shape(&'static str, Vec<u8>, u16);

fn shape(name: &'static str, bytes: &[u8], status: u16) -> Shape {
    Shape(name, bytes.to_vec(), status)
}

/// `GET /` with these header lines. Each ends with CRLF.
fn with_headers(name: &'static str, headers: &str, status: u16) -> Shape {
    Shape(name, format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n").into_bytes(), status)
}

/// `POST /` with these header lines and this body.
fn with_body(name: &'static str, headers: &str, body: &str, status: u16) -> Shape {
    Shape(name, format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}").into_bytes(), status)
}

/// `GET /` with this request line.
fn with_line(name: &'static str, line: &[u8], status: u16) -> Shape {
    Shape(name, [line, b"\r\nHost: a\r\n\r\n"].concat(), status)
}

fn request_lines() -> Vec<Shape> {
    vec![
        with_line("no version", b"GET /", 400),
        with_line("no target", b"GET HTTP/1.1", 400),
        with_line("two spaces", b"GET  / HTTP/1.1", 400),
        with_line("four parts", b"GET / x HTTP/1.1", 400),
        with_line("leading space", b" GET / HTTP/1.1", 400),
        with_line("trailing space", b"GET / HTTP/1.1 ", 400),
        with_line("tabs", b"GET\t/\tHTTP/1.1", 400),
        with_line("bare CR for a line end", b"GET / HTTP/1.1\rX: y", 400),
        with_line("NUL in the target", b"GET /\0 HTTP/1.1", 400),
        with_line("escape in the target", b"GET /\x1b[2J HTTP/1.1", 400),
        with_line("DEL in the target", b"GET /\x7f HTTP/1.1", 400),
        with_line("raw UTF-8 in the target", "GET /\u{e9} HTTP/1.1".as_bytes(), 400),
        with_line("fragment in the target", b"GET /a#b HTTP/1.1", 400),
        with_line("absolute target", b"GET http://other/ HTTP/1.1", 400),
        with_line("target without a slash", b"GET x HTTP/1.1", 400),
        with_line("asterisk", b"OPTIONS * HTTP/1.1", 400),
        with_line("lower-case protocol", b"GET / http/1.1", 400),
        with_line("other protocol", b"GET / HTTQ/1.1", 400),
        with_line("version with two digits", b"GET / HTTP/1.10", 400),
        with_line("method with a colon", b"GE:T / HTTP/1.1", 400),
        with_line("HTTP/2", b"GET / HTTP/2.0", 505),
        with_line("HTTP/1.2", b"GET / HTTP/1.2", 505),
        with_line("HTTP/0.9", b"GET / HTTP/0.9", 505),
        with_line("unknown method", b"BREW / HTTP/1.1", 501),
        with_line("lower-case method", b"get / HTTP/1.1", 501),
        with_line("CONNECT", b"CONNECT a:443 HTTP/1.1", 501),
        with_line("long target", format!("GET /{} HTTP/1.1", "x".repeat(9_000)).as_bytes(), 414),
        shape("endless target", format!("GET /{}", "x".repeat(20_000)).as_bytes(), 414),
        shape("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        shape("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        shape("two empty lines first", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        shape("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        shape("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ]
}

fn headers() -> Vec<Shape> {
    let many: String = (0..101).map(|n| format!("x-{n}: y\r\n")).collect();
    vec![
        shape("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
        with_headers("two Hosts", "Host: b\r\n", 400),
        shape("two Hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        with_headers("space before the colon", "X : y\r\n", 400),
        with_headers("tab before the colon", "X\t: y\r\n", 400),
        with_headers("no colon", "X\r\n", 400),
        with_headers("no name", ": y\r\n", 400),
        with_headers("folded line", "X: y\r\n z\r\n", 400),
        with_headers("folded line with a tab", "X: y\r\n\tz\r\n", 400),
        with_headers("bare LF", "X: y\nZ: z\r\n", 400),
        with_headers("bare CR", "X: y\rZ: z\r\n", 400),
        with_headers("NUL in a value", "X: a\0b\r\n", 400),
        with_headers("NUL in a name", "X\0: a\r\n", 400),
        with_headers("escape in a value", "X: \x1b[31m\r\n", 400),
        with_headers("not ASCII", "X: \u{e9}\r\n", 400),
        with_headers("smuggled length, folded", "X: y\r\n Content-Length: 5\r\n", 400),
        with_headers("unknown expectation", "Expect: tea\r\n", 417),
        with_headers("gzip", "Content-Encoding: gzip\r\n", 415),
        with_headers("gzip after identity", "Content-Encoding: identity, gzip\r\n", 415),
        with_headers("101 headers", &many, 431),
        with_headers("64 KiB in a header", &format!("X: {}\r\n", "y".repeat(65_536)), 431),
        shape("endless header", format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(20_000)).as_bytes(), 431),
    ]
}

fn bodies() -> Vec<Shape> {
    let cl = |name, value: &str, status| with_body(name, &format!("Content-Length: {value}\r\n"), "abcde", status);
    let te = |name, value: &str| with_body(name, &format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n", 400);
    let chunk = |name, body: &str, status| with_body(name, "Transfer-Encoding: chunked\r\n", body, status);
    vec![
        cl("negative length", "-1", 400),
        cl("signed length", "+5", 400),
        cl("hexadecimal length", "0x5", 400),
        cl("empty length", "", 400),
        cl("length with a letter", "5a", 400),
        cl("length with a space", "5 5", 400),
        cl("list of lengths", "5, 5", 400),
        cl("length of 9e18", "9000000000000000000", 400),
        cl("length of 30 digits", "999999999999999999999999999999", 400),
        cl("1 MiB and a byte", "1048577", 413),
        cl("40 GB", "40000000000", 413),
        with_body("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", "abcde", 400),
        with_body("two equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n", "abcde", 400),
        with_body("length and chunked", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        with_body("chunked and length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", 400),
        te("identity", "identity"),
        te("gzip, chunked", "gzip, chunked"),
        te("chunked, identity", "chunked, identity"),
        te("chunked twice", "chunked, chunked"),
        te("chunked with a parameter", "chunked;q=1"),
        te("xchunked", "xchunked"),
        te("quoted", "\"chunked\""),
        te("empty", ""),
        te("vertical tab", "\x0bchunked"),
        with_body("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        shape("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        chunk("chunk size that is none", "xyz\r\n", 400),
        chunk("negative chunk size", "-1\r\n", 400),
        chunk("chunk size with 0x", "0x5\r\nabcde\r\n0\r\n\r\n", 400),
        chunk("chunk line with a bare LF", "5\nabcde\r\n0\r\n\r\n", 400),
        chunk("chunk longer than it says", "3\r\nabcde\r\n0\r\n\r\n", 400),
        chunk("chunk without its end", "5\r\nabcde0\r\n\r\n", 400),
        chunk("chunk of 2^64", "10000000000000000\r\n", 413),
        chunk("chunk of 16 MiB", "1000000\r\n", 413),
        chunk("endless extension", &format!("5;{}", "x".repeat(1_000)), 400),
        chunk("endless trailers", &format!("0\r\n{}", "x: y\r\n".repeat(2_000)), 431),
    ]
}

/// Sends every shape on a new connection, and panics with a list of all that were not refused as required. An answer
/// must be complete, be JSON with `error` and `code`, and be the last on its connection. `credentials` is the header line
/// that a server wants before it reads a body; empty for a server that wants none.
pub fn check_all(server: SocketAddr, credentials: &str) {
    let shapes: Vec<Shape> = [request_lines(), headers(), bodies()].into_iter().flatten().collect();
    let problems: Vec<String> = shapes
        .iter()
        .filter_map(|Shape(name, bytes, status)| {
            check(server, &with_credentials(bytes, credentials), *status)
                .err()
                .map(|problem| format!("{name}: {problem}"))
        })
        .collect();
    assert!(problems.is_empty(), "{} of {} shapes:\n{}", problems.len(), shapes.len(), problems.join("\n"));
}

/// The shape of a body behind the head of a client that may come in.
fn with_credentials(bytes: &[u8], credentials: &str) -> Vec<u8> {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\n";
    match bytes.strip_prefix(HEAD) {
        Some(rest) => [HEAD, credentials.as_bytes(), rest].concat(),
        None => bytes.to_vec(),
    }
}

fn check(server: SocketAddr, request: &[u8], expected: u16) -> Result<(), String> {
    let mut socket = TcpStream::connect(server).map_err(|e| e.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).map_err(|e| e.to_string())?;
    // The bytes after it must never count as a request.
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    // The server may refuse before it has read everything.
    let _ = socket.write_all(request).and_then(|()| socket.write_all(smuggled));
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).map_err(|e| format!("{e} after {} bytes", answer.len()))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no whole answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok());
    if status != Some(expected) {
        return Err(format!("expected {expected}, got {answer:?}"));
    }
    let json: serde_json::Value = serde_json::from_str(body).map_err(|e| format!("{e} in {body:?}"))?;
    let has = |key: &str| json[key].as_str().is_some_and(|text| !text.is_empty());
    let closes = head.to_ascii_lowercase().contains("\r\nconnection: close");
    if has("error") && has("code") && closes { Ok(()) } else { Err(format!("not a proper refusal: {answer:?}")) }
}
