//! Answers that the door gives itself: the request goes no further, and the connection is closed.

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
        Self { status: 503, code: "busy", text, retry_after: Some(1) }
    }

    /// The whole answer. `with_body` is false for an answer to HEAD.
    pub fn to_bytes(self, with_body: bool) -> Vec<u8> {
        let body = serde_json::json!({ "error": self.text, "code": self.code }).to_string();
        let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
        let mut answer = format!(
            "HTTP/1.1 {} {}\r\ndate: {date}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            self.status,
            reason_phrase(self.status),
            body.len()
        );
        if let Some(seconds) = self.retry_after {
            answer += &format!("retry-after: {seconds}\r\n");
        }
        answer.push_str("connection: close\r\n\r\n");
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
        417 => "Expectation Failed",
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
        let text = String::from_utf8(Refusal::busy("say \"later\"").to_bytes(true)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for line in ["retry-after: 1", "connection: close", "content-type: application/json"] {
            assert!(head.lines().any(|l| l == line), "{line} is missing in {head}");
        }
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json, serde_json::json!({ "error": "say \"later\"", "code": "busy" }));
        assert!(Refusal::busy("x").to_bytes(false).ends_with(b"\r\n\r\n"));
    }
}
