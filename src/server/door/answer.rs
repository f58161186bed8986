//! The bytes of an answer. `tiny_http` writes the head, because its types know status lines, reason phrases and valid
//! headers. The headers that only the door knows (the request id, whether the connection stays open) are appended
//! (`docs/decisions/0018-one-way-through-the-server.md`).

use std::cell::RefCell;
use std::io::{Write as _, empty};
use std::time::{SystemTime, UNIX_EPOCH};

use tiny_http::{HTTPVersion, Header, StatusCode};

use super::keep::Keep;
use crate::server::http::Response;

/// The whole answer to the request with the given `id`. `with_body` is false for answers to HEAD.
pub(super) fn to_bytes(response: Response, with_body: bool, keep: Keep, id: &str) -> Vec<u8> {
    // RFC 9110, 8.6: a 204 has no length, and a 304 would state the length of another answer.
    let is_empty = matches!(response.status, 204 | 304);
    bytes(response, with_body && !is_empty, !is_empty, keep, id)
}

/// The head of an answer in parts, and its first part. Its end is the end of the connection, so every client that reads
/// HTTP can read it.
pub(super) fn first_part(response: Response, id: &str) -> Vec<u8> {
    bytes(response, true, false, Keep::Close, id)
}

fn bytes(response: Response, with_body: bool, with_length: bool, keep: Keep, id: &str) -> Vec<u8> {
    let Response { status, headers, body, .. } = response;
    let mut bytes = Vec::with_capacity(256 + body.len());
    if status == 200 && headers.is_empty() {
        add_usual_head(&mut bytes);
    } else {
        bytes.extend(head(status, headers));
    }
    if with_length {
        // Writing to memory cannot fail.
        let _ = write!(bytes, "Content-Length: {}\r\n", body.len());
    }
    for part in ["x-request-id: ", id, "\r\n", keep.header_and_end()] {
        bytes.extend_from_slice(part.as_bytes());
    }
    if with_body {
        bytes.extend_from_slice(&body);
    }
    bytes
}

thread_local! {
    /// The head of the usual answer, and the second in which it was made.
    static USUAL: RefCell<(u64, Vec<u8>)> = const { RefCell::new((0, Vec::new())) };
}

/// Adds the head of a 200 without headers of its own. Only its date changes, so it is made once in each second.
fn add_usual_head(bytes: &mut Vec<u8>) {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    USUAL.with_borrow_mut(|(made, usual)| {
        if *made != second || usual.is_empty() {
            (*made, *usual) = (second, head(200, Vec::new()));
        }
        bytes.extend_from_slice(usual);
    });
}

/// A head without its length and its end: status line and headers.
fn head(status: u16, headers: Vec<(&'static str, String)>) -> Vec<u8> {
    // Statuses below 200 are not final answers, and a number that is not a status is a bug in the handler.
    let status = if (200..=599).contains(&status) { status } else { 500 };
    let headers = [("Content-Type", "application/json".to_owned())]
        .into_iter()
        .chain(headers)
        .filter_map(|(name, value)| header(name, value))
        .collect();
    let head = tiny_http::Response::new(StatusCode(status), headers, empty(), Some(0), None)
        .with_chunked_threshold(usize::MAX);
    let mut bytes = Vec::with_capacity(256);
    // Writing to memory cannot fail.
    let _ = head.raw_print(&mut bytes, HTTPVersion(1, 1), &[], true, None);
    reopen(&mut bytes);
    bytes
}

/// The header that `tiny_http` always writes first. Clients have no use for it.
const SERVER: &[u8] = b"Server: tiny-http (Rust)\r\n";

/// Reopens a finished head, so that more headers can follow. The last header is always Content-Length; it goes.
fn reopen(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() - 2);
    if let Some(end) = bytes[..bytes.len() - 2].iter().rposition(|byte| *byte == b'\n') {
        bytes.truncate(end + 1);
    }
    let first = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if bytes[first..].starts_with(SERVER) {
        bytes.drain(first..first + SERVER.len());
    }
}

/// A header whose value cannot end it early: control and non-ASCII characters become question marks.
fn header(name: &str, mut value: String) -> Option<Header> {
    if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
        value = value.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
    }
    Header::from_bytes(name, value).ok()
}

#[cfg(test)]
mod tests {
    use super::super::refusal::Refusal;
    use super::*;

    fn text(response: Response, with_body: bool, keep: Keep) -> String {
        String::from_utf8(to_bytes(response, with_body, keep, "7-1")).unwrap()
    }

    #[test]
    fn header_values_cannot_break_out() {
        let made = header("retry-after", "1\r\nset-cookie: x\u{e9}\0".to_owned()).unwrap();
        assert_eq!(made.value.as_str(), "1??set-cookie: x??");
    }

    #[test]
    fn an_answer_is_whole_and_says_close() {
        let text = text(Refusal::busy("say \"later\"").into_response(), true, Keep::Close);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for line in ["x-request-id: 7-1", "retry-after: 1", "connection: close", "Content-Type: application/json"] {
            assert!(head.lines().any(|l| l == line), "{line} is missing in {head}");
        }
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json, serde_json::json!({ "error": "say \"later\"", "code": "busy" }));
    }

    #[test]
    fn answers_without_a_body_have_none() {
        let with = |status| Response::new(status, b"12345".to_vec());
        assert!(text(with(200), true, Keep::Open).ends_with("Content-Length: 5\r\nx-request-id: 7-1\r\n\r\n12345"));
        assert!(text(with(200), false, Keep::Open).ends_with("Content-Length: 5\r\nx-request-id: 7-1\r\n\r\n"));
        for status in [204, 304] {
            let text = text(with(status), true, Keep::Open);
            assert!(!text.to_lowercase().contains("content-length") && text.ends_with("x-request-id: 7-1\r\n\r\n"));
        }
    }

    #[test]
    fn statuses_that_are_none_are_mistakes_of_ours() {
        for status in [0, 101, 199, 600] {
            assert!(text(Response::new(status, Vec::new()), true, Keep::Open).starts_with("HTTP/1.1 500 "));
        }
    }
}
