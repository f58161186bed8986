//! Answers that the door gives itself: the request goes no further.

use crate::server::http::Response;

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

    /// The answer.
    pub fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.text, "code": self.code }).to_string().into_bytes();
        let mut response = Response::new(self.status, body);
        response.headers.extend(self.retry_after.map(|seconds| ("retry-after", seconds.to_string())));
        response
    }
}
