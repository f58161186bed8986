//! One request over HTTP and what its answer means (docs/design.md, "Waiting in out").
//!
//! An answer with our JSON `code` is final. After a network error, 408, 429, 5xx or an answer that is not ours (from a
//! proxy whose server is away) the outcome is unknown, and the caller retries. Before the first answer of a locker
//! server, what does not pass by itself is final, too: a certificate that is not trusted, another protocol, a proxy
//! that refuses.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::HeaderMap;

use super::connect::{self, Access};
use super::trouble::{self, Trouble};
use super::{proxy, trust};
use crate::wire::api::{ClaimView, HolderView};
use crate::wire::errors::{Code, exit};
use crate::wire::secret::Secret;
use crate::wire::server_url::ServerUrl;

/// How long a whole request may take, in addition to the wait that it asks the server for.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer that is read, in bytes. A page of 1,000 changes with all their owners is below 8 MiB.
const BODY_BYTES: u64 = 32 * 1024 * 1024;
/// The setting that takes trusted certificates: in a source, and on a command line.
const TRUST_SETTING: &str = "ca_cert (--ca-cert)";
/// What is not percent-encoded in a path segment or query value, in addition to letters and digits.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Encodes text as one path segment or query value.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A query of these parameters, with its question mark; those without a value are left out.
pub(super) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| value.map(|value| format!("{name}={}", encode(value))));
    let given: Vec<String> = given.collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

/// A client of one store, which one or more servers serve. Cheap to clone. Clones share their connections, the choice of
/// the server, and what they know of the servers.
#[derive(Clone)]
pub struct Client {
    /// Never empty.
    servers: Arc<[Endpoint]>,
    /// The server to ask next.
    current: Arc<AtomicUsize>,
    /// A locker server has answered. From then on every trouble may pass, because it worked before.
    met: Arc<AtomicBool>,
}

/// A server and how to reach it.
#[derive(Clone)]
struct Endpoint {
    agent: ureq::Agent,
    url: ServerUrl,
    authorization: Option<Arc<Secret>>,
    /// What to do if the server refuses the credentials, or the lack of them.
    advice: Option<&'static str>,
    /// The host and port of the proxy in between.
    proxy: Option<Arc<str>>,
    /// The last trouble with it does not pass by itself.
    hopeless: Arc<AtomicBool>,
}

/// Why a call did not return the expected answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server understood the request and refused it. Retrying will not help.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// No usable answer: whether the request took effect is unknown. Retrying is safe and may help.
    #[error("{0}")]
    NoAnswer(NoAnswer),
    /// No locker server can be reached in this way: no server has ever answered, and what is wrong with each of them
    /// does not pass by itself. Nothing was requested, and retrying will not help.
    #[error("{}", .0.with_next())]
    Hopeless(NoAnswer),
}

/// A final answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.text())]
pub struct Refused {
    /// `None` if this release does not know the code.
    pub code: Option<Code>,
    /// The code as received.
    pub word: String,
    pub message: String,
    pub problems: Vec<String>,
    /// The ended claim, with code `ended`.
    pub claim: Option<ClaimView>,
    pub holders: Vec<HolderView>,
    /// What to do about it, if that is known here.
    pub next: Option<&'static str>,
}

impl Refused {
    /// The message names the first problem. If there are more, all are listed.
    fn text(&self) -> String {
        let next = self.next.map(|next| format!(": {next}")).unwrap_or_default();
        match &self.problems[..] {
            [] | [_] => format!("{} ({}){next}", self.message, self.word),
            all => format!("{} ({}): {}{next}", self.message, self.word, all.join("; ")),
        }
    }
}

/// What to do when a server does not know what a client of this release asks.
const OLDER_SERVER: &str = "the server is older than this program: upgrade the server first";

/// No usable answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no answer from the locker server at {server}: {why}")]
pub struct NoAnswer {
    /// The server's address without credentials.
    pub server: String,
    pub why: String,
    /// What to do about it, if that is known.
    pub next: Option<String>,
    /// Set if the locker server itself answered that it cannot serve now.
    pub code: Option<Code>,
    /// How long the server asks the client to wait before it retries.
    pub retry_after: Option<Duration>,
}

impl NoAnswer {
    /// The text, with what to do about it.
    #[must_use]
    pub fn with_next(&self) -> String {
        self.next.as_ref().map_or_else(|| self.to_string(), |next| format!("{self}: {next}"))
    }
}

impl CallError {
    /// The exit code of the command line for this error.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Refused(refused) => refused.code.map_or(exit::FAILED, Code::exit),
            Self::NoAnswer(no_answer) | Self::Hopeless(no_answer) => {
                no_answer.code.map_or(exit::UNAVAILABLE, Code::exit)
            }
        }
    }

    /// The stable word of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refused) => refused.code,
            Self::NoAnswer(no_answer) | Self::Hopeless(no_answer) => no_answer.code,
        }
    }
}

/// One request, ready to send.
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

/// An answer, not yet interpreted: calls may look at its status.
pub(super) struct Raw {
    pub status: u16,
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
    location: Option<String>,
    /// For a listing: the revision up to which it is complete.
    revision: Option<u64>,
    /// The index of the server that sent it.
    server: usize,
}

/// The body of an error. Unknown members are allowed on purpose: a newer server may send more.
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
    /// A client of the servers that `access` names. `vars` is the environment, for the proxies in it.
    ///
    /// # Errors
    /// A certificate, a key or a proxy cannot be used. The text contains no secret.
    pub fn open(access: Access, vars: &BTreeMap<String, String>) -> Result<Self, String> {
        let proxy = |url: &ServerUrl| proxy::proxy_for(url, access.proxy.as_ref(), vars);
        let proxies = access.servers.iter().map(proxy).collect::<Result<Vec<_>, _>>()?;
        let uses_tls = access.servers.iter().zip(&proxies).any(|(url, to)| proxy::needs_tls(url, to.as_ref()));
        let tls = trust::client_config(&access.tls, uses_tls)?;
        let headers = access.identity.headers(&access.servers)?;
        let endpoint = |((url, proxy), authorization): ((ServerUrl, Option<ureq::Proxy>), Option<Arc<Secret>>)| {
            let through = proxy.as_ref().map(|proxy| format!("{}:{}", proxy.host(), proxy.port()).into());
            let agent = connect::agent(&url, proxy, Arc::clone(&tls), None, vars);
            let advice = access.identity.advice(authorization.is_some(), access.held_back);
            Endpoint { agent, url, authorization, advice, proxy: through, hopeless: Arc::default() }
        };
        let servers: Vec<_> = access.servers.into_iter().zip(proxies).zip(headers).map(endpoint).collect();
        if servers.is_empty() {
            return Err("no server is named".to_owned());
        }
        Ok(Self { servers: servers.into(), current: Arc::default(), met: Arc::default() })
    }

    /// The addresses of all servers, without credentials.
    #[must_use]
    pub fn server(&self) -> String {
        let all: Vec<String> = self.servers.iter().map(|server| server.url.to_string()).collect();
        all.join(", ")
    }

    /// Whether a locker server has answered.
    #[must_use]
    pub fn has_met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }

    /// How many servers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// A client of only the `index`th server.
    pub(super) fn only(&self, index: usize) -> Self {
        let server = self.servers[index % self.servers.len()].clone();
        Self { servers: [server].into(), current: Arc::default(), met: Arc::clone(&self.met) }
    }

    /// Sends one request and parses a 2xx answer as `T`. While there is no answer, a GET is repeated at the other
    /// servers.
    pub(super) fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, CallError> {
        let looks = if matches!(request.method, Method::Get) { self.servers.len() } else { 1 };
        let mut result = self.call_once(&request);
        for _ in 1..looks {
            if !matches!(result, Err(CallError::NoAnswer(_))) {
                break;
            }
            result = self.call_once(&request);
        }
        result
    }

    /// Makes one attempt of [`Self::call`]. Also returns the revision up to which the answer is complete, if the server
    /// sends it.
    pub(super) fn call_listing<T: DeserializeOwned>(&self, request: &Request) -> Result<(T, Option<u64>), CallError> {
        let raw = self.send(request)?;
        if !(200..300).contains(&raw.status) {
            return Err(self.error(&raw));
        }
        Ok((self.parse(&raw)?, raw.revision))
    }

    fn call_once<T: DeserializeOwned>(&self, request: &Request) -> Result<T, CallError> {
        self.call_listing(request).map(|(answer, _)| answer)
    }

    /// Sends one request; any status counts as an answer.
    pub(super) fn send(&self, request: &Request) -> Result<Raw, CallError> {
        self.send_by(|server| self.servers[server].send(server, request))
    }

    /// Sends one request whose answer is read as it comes. A 200 of another media type than this is not ours.
    pub(super) fn begin(&self, request: &Request, media: &str) -> Result<impl Read + Send + use<>, CallError> {
        let (server, response) = self.send_by(|server| Ok((server, self.servers[server].begin(request)?)))?;
        let is_success = response.status() == 200;
        if is_success && response.body().mime_type() == Some(media) {
            self.meet();
            return Ok(response.into_body().into_reader());
        }
        let raw = Raw::read(response, server).map_err(|error| {
            self.leave(server);
            self.trouble(server, self.look(server, &error), None, None)
        })?;
        if is_success {
            let why =
                format!("its answer (status {}) does not come from a locker server: it is not {media}", raw.status);
            return Err(self.foreign(&raw, why, None));
        }
        Err(self.error(&raw))
    }

    /// Sends one request. If a server cannot be connected to, the next one is asked at once, because the first has not
    /// seen the request.
    fn send_by<T>(&self, send: impl Fn(usize) -> Result<T, ureq::Error>) -> Result<T, CallError> {
        let mut left = self.servers.len();
        loop {
            let server = self.current.load(Ordering::Relaxed) % self.servers.len();
            let error = match connect::guarded(|| send(server)) {
                Ok(answer) => return Ok(answer),
                Err(error) if connect::is_bug(&error) => return Err(bug(&error)),
                Err(error) => error,
            };
            self.leave(server);
            left -= 1;
            let trouble = self.look(server, &error);
            let failed = self.trouble(server, trouble, None, None);
            if left == 0 || !(connect::is_unconnected(&error) || self.is_hopeless(server)) {
                return Err(failed);
            }
        }
    }

    /// Sends the next request to another server, unless another thread has already moved on.
    fn leave(&self, server: usize) {
        let next = (server + 1) % self.servers.len();
        // If this fails, another thread has moved on from the same server.
        let _ = self.current.compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Parses the body of a 2xx answer. A body that is not ours counts as no answer: something else answered.
    pub(super) fn parse<T: DeserializeOwned>(&self, raw: &Raw) -> Result<T, CallError> {
        let parsed = serde_json::from_slice(&raw.body);
        if parsed.is_ok() {
            self.meet();
        }
        parsed.map_err(|error| {
            let why = format!("its answer (status {}) does not come from a locker server: {error}", raw.status);
            self.foreign(raw, why, None)
        })
    }

    /// What an answer outside 2xx means.
    pub(super) fn error(&self, raw: &Raw) -> CallError {
        let Ok(body) = serde_json::from_slice::<ErrorBody>(&raw.body) else {
            return self.foreign(raw, foreign(raw), raw.retry_after);
        };
        self.meet();
        let code = serde_json::from_value::<Code>(body.code.clone().into()).ok();
        if !(400..500).contains(&raw.status) || matches!(raw.status, 408 | 429) {
            self.leave(raw.server);
            let trouble = Trouble { what: format!("{} ({})", body.error, body.code), next: None, lasts: false };
            return self.trouble(raw.server, trouble, code, raw.retry_after);
        }
        let next = match code {
            Some(Code::Unauthorized) => self.servers[raw.server].advice,
            // Our own requests have no other members or parameters than those of this release.
            Some(Code::BadRequest)
                if ["unknown member", "unknown parameter"].iter().any(|text| body.error.contains(text)) =>
            {
                Some(OLDER_SERVER)
            }
            _ => None,
        };
        CallError::Refused(Box::new(Refused {
            code,
            word: body.code,
            message: body.error,
            problems: body.problems,
            claim: body.claim,
            holders: body.holders,
            next,
        }))
    }

    /// For an answer that does not come from a locker server: moves on, because another server may give a better one.
    fn foreign(&self, raw: &Raw, why: String, retry_after: Option<Duration>) -> CallError {
        self.leave(raw.server);
        let Endpoint { url, proxy, .. } = &self.servers[raw.server];
        // The answer to a TLS server's request comes through the proxy, not from it.
        let proxy = proxy.as_deref().filter(|_| !url.is_tls());
        self.trouble(raw.server, Trouble::of_answer(why, raw.status, proxy), None, retry_after)
    }

    /// A locker server has answered.
    fn meet(&self) {
        self.met.store(true, Ordering::Relaxed);
    }

    /// Why a request failed. Before the first answer of a locker server, a plain port that gives no HTTP answer is
    /// looked at once more, to say what it speaks.
    fn look(&self, server: usize, error: &ureq::Error) -> Trouble {
        let Endpoint { url, proxy, .. } = &self.servers[server];
        let trouble = Trouble::of(error, TRUST_SETTING, proxy.as_deref());
        let is_plain = !url.is_tls() && proxy.is_none() && !self.has_met();
        if !is_plain || !connect::is_no_http(error) {
            return trouble;
        }
        let speaks = proxy::host_and_port(url).and_then(|(host, port)| trouble::greet(&host, port).ok());
        speaks.map_or(trouble.clone(), |speaks| trouble.after_look(speaks))
    }

    fn is_hopeless(&self, server: usize) -> bool {
        self.servers[server].hopeless.load(Ordering::Relaxed)
    }

    /// The error for a listing whose pages lead back to earlier ones and so never end: because of a cache or a broken
    /// server.
    pub(super) fn repeats(&self) -> CallError {
        let why = "its listing repeats itself: is there a cache in between?".to_owned();
        let trouble = Trouble { what: why, next: None, lasts: false };
        self.trouble(self.current.load(Ordering::Relaxed) % self.servers.len(), trouble, None, None)
    }

    /// The error for trouble with this server. It is hopeless if that is so for all servers, and none ever answered.
    fn trouble(&self, server: usize, trouble: Trouble, code: Option<Code>, retry_after: Option<Duration>) -> CallError {
        let Endpoint { url, hopeless, .. } = &self.servers[server];
        hopeless.store(trouble.lasts && !self.has_met(), Ordering::Relaxed);
        let no_answer = NoAnswer { server: url.to_string(), why: trouble.what, next: trouble.next, code, retry_after };
        let all = (0..self.servers.len()).all(|server| self.is_hopeless(server));
        if all { CallError::Hopeless(no_answer) } else { CallError::NoAnswer(no_answer) }
    }
}

impl Raw {
    /// Reads the rest of an answer.
    fn read(mut response: ureq::http::Response<ureq::Body>, server: usize) -> Result<Self, ureq::Error> {
        let body = response.body_mut().with_config().limit(BODY_BYTES).read_to_vec()?;
        let location = header(response.headers(), "location").map(str::to_owned);
        let retry_after = header(response.headers(), "retry-after").and_then(|v| v.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let revision = header(response.headers(), "locker-revision").and_then(|v| v.parse().ok());
        Ok(Self { status: response.status().as_u16(), body, retry_after, location, revision, server })
    }
}

impl Endpoint {
    /// Sends one request. `server` is the index of this endpoint.
    fn send(&self, server: usize, request: &Request) -> Result<Raw, ureq::Error> {
        Raw::read(self.begin(request)?, server)
    }

    /// Sends one request, and reads the head of its answer.
    fn begin(&self, request: &Request) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let Request { method, path, body, patience } = request;
        let (agent, url, patience) = (&self.agent, self.url.join(path), *patience);
        match method {
            Method::Get => self.without_body(agent.get(url), patience),
            Method::Delete if body.is_none() => self.without_body(agent.delete(url), patience),
            Method::Delete => self.with_body(agent.delete(url).force_send_body(), patience, body.as_deref()),
            Method::Put => self.with_body(agent.put(url), patience, body.as_deref()),
            Method::Post => self.with_body(agent.post(url), patience, body.as_deref()),
            Method::Patch => self.with_body(agent.patch(url), patience, body.as_deref()),
        }
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
        body: Option<&[u8]>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = request.config().timeout_global(Some(patience)).build();
        let request = request.header("content-type", "application/json");
        let body = body.unwrap_or_default();
        match &self.authorization {
            Some(secret) => request.header("authorization", secret.expose()).send(body),
            None => request.send(body),
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The error for a call that failed because of a bug in this program: retrying will not help.
fn bug(error: &ureq::Error) -> CallError {
    CallError::Refused(Box::new(Refused {
        code: Some(Code::Internal),
        word: Code::Internal.word().to_owned(),
        message: error.to_string(),
        problems: Vec::new(),
        claim: None,
        holders: Vec::new(),
        next: None,
    }))
}

/// Describes an answer that did not come from a locker server.
fn foreign(raw: &Raw) -> String {
    match &raw.location {
        Some(place) => {
            format!("it redirects (status {}) to {}: name that address instead", raw.status, without_userinfo(place))
        }
        None => format!("status {} from something that is not a locker server", raw.status),
    }
}

fn without_userinfo(url: &str) -> String {
    match ServerUrl::parse(url.split(['?', '#']).next().unwrap_or_default()) {
        Ok(url) => url.to_string(),
        Err(_) => "another address".to_owned(),
    }
}
