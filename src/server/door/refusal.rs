//! Answers that the door gives itself: the request goes no further.

use super::keep::Keep;

/// Why a request is refused, as the client will read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    /// Stable word for programs.
    pub code: &'static str,
    /// Text for people.
    pub text: &'static str,
    /// Seconds after which another attempt makes sense.
    pub retry_after: Option<u32>,
}

impl Refusal {
    pub const fn new(status: u16, code: &'static str, text: &'static str) -> Self {
        Self { status, code, text, retry_after: None }
    }

    /// 400: not a request as RFC 9112 wants it, or a shape on which two servers could disagree.
    pub const fn malformed(text: &'static str) -> Self {
        Self::new(400, "malformed_request", text)
    }

    /// 503: it would work later.
    pub const fn busy(text: &'static str) -> Self {
        Self::new(503, "busy", text).retry_after(1)
    }

    /// Says when another attempt makes sense, in seconds.
    pub const fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The whole answer to the request called `id`. `with_body` is false for an answer to HEAD.
    pub fn to_bytes(self, with_body: bool, keep: Keep, id: &str) -> Vec<u8> {
        let body = serde_json::json!({ "error": self.text, "code": self.code }).to_string();
        let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
        let mut answer = format!(
            "HTTP/1.1 {} {}\r\ndate: {date}\r\nx-request-id: {id}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n",
            self.status,
            reason_phrase(self.status),
            body.len()
        );
        if let Some(seconds) = self.retry_after {
            answer += &format!("retry-after: {seconds}\r\n");
        }
        answer.push_str(keep.header_and_end());
        if with_body {
            answer.push_str(&body);
        }
        answer.into_bytes()
    }
}

/// The standard words for the statuses that the door itself answers with.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_and_says_close() {
        let text = String::from_utf8(Refusal::busy("say \"later\"").to_bytes(true, Keep::Close, "7-1")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for line in ["x-request-id: 7-1", "retry-after: 1", "connection: close", "content-type: application/json"] {
            assert!(head.lines().any(|l| l == line), "{line} is missing in {head}");
        }
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json, serde_json::json!({ "error": "say \"later\"", "code": "busy" }));
        assert!(Refusal::busy("x").to_bytes(false, Keep::Close, "7-1").ends_with(b"\r\n\r\n"));
    }
}
