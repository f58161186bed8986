//! Answers that the door gives without calling a route.

use crate::server::http::Response;

/// Why a request is refused, as the client reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Refusal {
    pub status: u16,
    /// A stable word for programs.
    pub code: &'static str,
    /// The text for people.
    pub text: &'static str,
    /// The number of seconds after which a retry makes sense.
    pub retry_after: Option<u32>,
}

impl Refusal {
    pub const fn new(status: u16, code: &'static str, text: &'static str) -> Self {
        Self { status, code, text, retry_after: None }
    }

    /// 400: not a valid request by RFC 9112, or one that two servers could read differently.
    pub const fn malformed(text: &'static str) -> Self {
        Self::new(400, "malformed_request", text)
    }

    /// 503: the request would work later.
    pub const fn busy(text: &'static str) -> Self {
        Self::new(503, "busy", text).retry_after(1)
    }

    /// Sets the number of seconds after which a retry makes sense.
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
