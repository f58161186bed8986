//! HTTP Basic for every route but the two health checks.

use std::sync::Arc;

use base64::Engine as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::http::{Handler, Request, Response};
use crate::core::names::ParkId;
use crate::wire::api::ErrorView;
use crate::wire::errors::Code;

/// Paths that anybody may ask: they say nothing but whether the server works.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Lets only requests with the right user and password through.
pub struct BasicAuth {
    /// SHA-256 of `user:password`; the password itself is not kept.
    expected: [u8; 32],
    inner: Arc<dyn Handler>,
}

impl BasicAuth {
    /// Guards `inner`.
    #[must_use]
    pub fn new(user: &str, password: &str, inner: Arc<dyn Handler>) -> Self {
        Self { expected: Sha256::digest(format!("{user}:{password}")).into(), inner }
    }

    /// Compares digests of equal length in constant time, so that answers tell nothing about the password.
    fn admits(&self, request: &Request) -> bool {
        let given = request.header("authorization").and_then(|value| {
            let (scheme, encoded) = value.split_once(' ')?;
            let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
            scheme.eq_ignore_ascii_case("basic").then(|| Sha256::digest(decoded))
        });
        given.is_some_and(|digest| digest[..].ct_eq(&self.expected[..]).into())
    }
}

impl Handler for BasicAuth {
    fn handle(&self, request: Request) -> Response {
        if OPEN.contains(&request.path.as_str()) || self.admits(&request) {
            return self.inner.handle(request);
        }
        let view = ErrorView {
            error: "this server wants HTTP Basic credentials: set username and password".into(),
            code: Code::Unauthorized,
            problems: Vec::new(),
            claim: None,
        };
        Response {
            status: Code::Unauthorized.status(),
            headers: vec![("www-authenticate", "Basic realm=\"locker\", charset=\"UTF-8\"".into())],
            body: serde_json::to_vec(&view).unwrap_or_default(),
            park: None,
        }
    }

    fn left(&self, park: ParkId) {
        self.inner.left(park);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::http::Turn;

    struct Ok200;

    impl Handler for Ok200 {
        fn handle(&self, _: Request) -> Response {
            Response { status: 200, headers: Vec::new(), body: b"{}".to_vec(), park: None }
        }

        fn left(&self, _: ParkId) {}
    }

    #[test]
    fn only_the_right_pair_gets_in() {
        let auth = BasicAuth::new("ci", "s:ecret", Arc::new(Ok200));
        let encode = |pair: &str| base64::engine::general_purpose::STANDARD.encode(pair);
        let cases = [
            ("/api/v1/pools", None, 401),
            ("/healthz", None, 200),
            ("/readyz", None, 200),
            ("/healthz/", None, 401),
            ("/api/v1/pools", Some(format!("Basic {}", encode("ci:s:ecret"))), 200),
            ("/api/v1/pools", Some(format!("basic {}", encode("ci:s:ecret"))), 200),
            ("/api/v1/pools", Some(format!("Basic {}", encode("ci:s:ecre"))), 401),
            ("/api/v1/pools", Some(format!("Basic {}", encode("ci:"))), 401),
            ("/api/v1/pools", Some(format!("Bearer {}", encode("ci:s:ecret"))), 401),
            ("/api/v1/pools", Some("Basic !!".to_owned()), 401),
            ("/api/v1/pools", Some("Basic".to_owned()), 401),
        ];
        for (path, header, status) in cases {
            let request = Request {
                method: "GET".into(),
                path: path.into(),
                query: String::new(),
                headers: header.iter().map(|h| ("authorization".to_owned(), h.clone())).collect(),
                body: Vec::new(),
                peer: String::new(),
                id: "7-1".into(),
                identity: None,
                park: ParkId(1),
                can_park: false,
                turn: Turn::First,
            };
            let response = auth.handle(request);
            assert_eq!(response.status, status, "{path} {header:?}");
            assert!(!String::from_utf8_lossy(&response.body).contains("ecret"));
        }
    }
}
