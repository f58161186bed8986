//! One request over HTTP and what its answer means (design section 6).
//!
//! Only an answer with our JSON `code` is final. Network errors, 408, 429, 5xx and answers that are not ours (a proxy
//! that speaks for a server that is away) mean: ask again, the outcome is unknown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::HeaderMap;

use super::tls;
use crate::wire::api::{ClaimView, HolderView};
use crate::wire::errors::{Code, exit};
use crate::wire::escape::escape;
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::trust::Trust;

/// Time for finding the host and for connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for a whole request, beside the wait that it asks the server for.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Longest answer that is read, bytes: a page of 1,000 changes with all their owners is below 8 MiB.
const BODY_BYTES: u64 = 32 * 1024 * 1024;
/// What stays readable in a path segment or query value; everything else is percent-encoded.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Text as one path segment or query value.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A client of one server. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    server: Arc<ServerUrl>,
    authorization: Option<Arc<Secret>>,
}

/// Why there is no answer of the wanted kind.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server understood and says no. Asking again will not help.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// No usable answer: whether the request took effect is unknown. Asking again is safe and may help.
    #[error("{0}")]
    NoAnswer(NoAnswer),
}

/// A final answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.text())]
pub struct Refused {
    /// `None` for a code that this release does not know.
    pub code: Option<Code>,
    /// The code as it came.
    pub word: String,
    pub message: String,
    pub problems: Vec<String>,
    /// The ended claim, with code `ended`.
    pub claim: Option<ClaimView>,
    pub holders: Vec<HolderView>,
}

impl Refused {
    fn text(&self) -> String {
        if self.problems.is_empty() {
            format!("{} ({})", self.message, self.word)
        } else {
            format!("{} ({}): {}", self.message, self.word, self.problems.join("; "))
        }
    }
}

/// No usable answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no answer from the locker server at {server}: {why}")]
pub struct NoAnswer {
    /// The server's address without credentials.
    pub server: String,
    pub why: String,
    /// Set when it was the locker server itself that cannot serve now.
    pub code: Option<Code>,
    /// How long the server asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// The exit code of the command line for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Refused(refused) => refused.code.map_or(exit::FAILED, Code::exit),
            Self::NoAnswer(no_answer) => no_answer.code.map_or(exit::UNAVAILABLE, Code::exit),
        }
    }

    /// The stable word of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refused) => refused.code,
            Self::NoAnswer(no_answer) => no_answer.code,
        }
    }
}

/// One request, ready to be sent.
pub(super) struct Request {
    pub method: Method,
    /// Path and query, encoded.
    pub path: String,
    pub body: Option<Vec<u8>>,
    pub patience: Duration,
}

#[derive(Clone, Copy)]
pub(super) enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

/// An answer with a status that a call may look at.
pub(super) struct Raw {
    pub status: u16,
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
    location: Option<String>,
}

/// What an error looks like. Lenient on purpose: a newer server may say more.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    code: String,
    #[serde(default)]
    problems: Vec<String>,
    #[serde(default)]
    claim: Option<ClaimView>,
    #[serde(default)]
    holders: Vec<HolderView>,
}

impl Client {
    /// A client of `server`. `vars` is the environment, for the proxy settings in it.
    #[must_use]
    pub fn new(
        server: ServerUrl,
        credentials: Option<Credentials>,
        trust: &Trust,
        vars: &BTreeMap<String, String>,
    ) -> Self {
        let credentials = credentials.or_else(|| server.credentials().cloned());
        let authorization = credentials.map(|Credentials { username, password }| {
            let pair = format!("{username}:{}", password.expose());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            Arc::new(Secret::new(format!("Basic {encoded}")))
        });
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_resolve(Some(CONNECT))
            .max_response_header_size(64 * 1024)
            .user_agent(concat!("locker/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy(&server, vars));
        // Reading the machine's certificates takes a while.
        let config =
            if server.join("").starts_with("https:") { config.tls_config(tls::config(trust)) } else { config }.build();
        Self { agent: config.new_agent(), server: Arc::new(server), authorization }
    }

    /// The server's address, without credentials.
    #[must_use]
    pub fn server(&self) -> String {
        self.server.to_string()
    }

    /// Sends one request and reads an answer of kind `T` from a 2xx.
    pub(super) fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, CallError> {
        let raw = self.send(request)?;
        if (200..300).contains(&raw.status) { self.parse(&raw) } else { Err(self.error(&raw)) }
    }

    /// Sends one request; any status is an answer.
    pub(super) fn send(&self, request: Request) -> Result<Raw, CallError> {
        let Request { method, path, body, patience } = request;
        let url = self.server.join(&path);
        let sent = match method {
            Method::Get => self.without_body(self.agent.get(url), patience),
            Method::Delete if body.is_none() => self.without_body(self.agent.delete(url), patience),
            Method::Delete => self.with_body(self.agent.delete(url).force_send_body(), patience, body),
            Method::Put => self.with_body(self.agent.put(url), patience, body),
            Method::Post => self.with_body(self.agent.post(url), patience, body),
            Method::Patch => self.with_body(self.agent.patch(url), patience, body),
        };
        let read = sent.and_then(|mut response| {
            let body = response.body_mut().with_config().limit(BODY_BYTES).read_to_vec()?;
            Ok((response, body))
        });
        let (response, body) = read.map_err(|error| self.no_answer(describe(&error), None, None))?;
        let location = header(response.headers(), "location").map(str::to_owned);
        let retry_after = header(response.headers(), "retry-after").and_then(|v| v.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        Ok(Raw { status: response.status().as_u16(), body, retry_after, location })
    }

    fn without_body(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        patience: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = request.config().timeout_global(Some(patience)).build();
        match &self.authorization {
            Some(secret) => request.header("authorization", secret.expose()).call(),
            None => request.call(),
        }
    }

    fn with_body(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        patience: Duration,
        body: Option<Vec<u8>>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = request.config().timeout_global(Some(patience)).build();
        let request = request.header("content-type", "application/json");
        let body = body.unwrap_or_default();
        match &self.authorization {
            Some(secret) => request.header("authorization", secret.expose()).send(body.as_slice()),
            None => request.send(body.as_slice()),
        }
    }

    /// Reads the body of a good answer. One that is not ours is no answer: somebody else speaks there.
    pub(super) fn parse<T: DeserializeOwned>(&self, raw: &Raw) -> Result<T, CallError> {
        serde_json::from_slice(&raw.body).map_err(|error| {
            let why = format!("its answer (status {}) is not that of a locker server: {error}", raw.status);
            self.no_answer(why, None, None)
        })
    }

    /// What an answer outside 2xx means.
    pub(super) fn error(&self, raw: &Raw) -> CallError {
        let Ok(body) = serde_json::from_slice::<ErrorBody>(&raw.body) else {
            return self.no_answer(foreign(raw), None, raw.retry_after);
        };
        let code = serde_json::from_value::<Code>(body.code.clone().into()).ok();
        if !(400..500).contains(&raw.status) || matches!(raw.status, 408 | 429) {
            return self.no_answer(format!("{} ({})", body.error, body.code), code, raw.retry_after);
        }
        CallError::Refused(Box::new(Refused {
            code,
            word: body.code,
            message: body.error,
            problems: body.problems,
            claim: body.claim,
            holders: body.holders,
        }))
    }

    fn no_answer(&self, why: String, code: Option<Code>, retry_after: Option<Duration>) -> CallError {
        CallError::NoAnswer(NoAnswer { server: self.server(), why, code, retry_after })
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An answer that no locker server gave.
fn foreign(raw: &Raw) -> String {
    match &raw.location {
        Some(place) => {
            format!("it redirects (status {}) to {}: name that address instead", raw.status, without_userinfo(place))
        }
        None => format!("status {} from something that is no locker server", raw.status),
    }
}

fn without_userinfo(url: &str) -> String {
    match ServerUrl::parse(url.split(['?', '#']).next().unwrap_or_default()) {
        Ok(url) => url.to_string(),
        Err(_) => "another address".to_owned(),
    }
}

/// A transport error in words; nothing of the request is in it.
fn describe(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(io) => io.to_string(),
        ureq::Error::Timeout(what) => format!("time over ({what})"),
        ureq::Error::HostNotFound => "its host name is unknown".to_owned(),
        ureq::Error::BadUri(_) => "its address is not usable".to_owned(),
        other => escape(&other.to_string()),
    }
}

/// The proxy that the environment names for this server. One that is no valid address is left out.
fn proxy(server: &ServerUrl, vars: &BTreeMap<String, String>) -> Option<ureq::Proxy> {
    let var = |names: [&str; 2]| names.iter().find_map(|name| vars.get(*name)).filter(|value| !value.is_empty());
    let named = if server.join("").starts_with("https:") {
        var(["https_proxy", "HTTPS_PROXY"])
    } else {
        // Upper case HTTP_PROXY is left alone, as curl does: a web server may set it from a request header.
        var(["http_proxy", "http_proxy"])
    };
    let named = ureq::Proxy::new(named.or_else(|| var(["all_proxy", "ALL_PROXY"]))?).ok()?;
    let mut proxy = ureq::Proxy::builder(named.protocol()).host(named.host()).port(named.port());
    if let Some(user) = named.username() {
        proxy = proxy.username(user);
    }
    if let Some(password) = named.password() {
        proxy = proxy.password(password);
    }
    let exceptions = var(["no_proxy", "NO_PROXY"]).map(String::as_str).unwrap_or_default();
    let hosts = exceptions.split(',').map(str::trim).filter(|host| !host.is_empty());
    // `example.com` covers its subdomains too, as everywhere but in ureq.
    let proxy = hosts.fold(proxy, |proxy, host| {
        let host = host.trim_start_matches("*.").trim_start_matches('.');
        proxy.no_proxy(host).no_proxy(&format!(".{host}"))
    });
    proxy.build().ok()
}
