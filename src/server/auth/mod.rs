//! Authentication: every route is guarded unless the table of routes makes it public.
//!
//! A client proves its identity with HTTP Basic, with a token, with a certificate that TLS has verified, or with the
//! cookie of a session that it began with a password or a certificate. If neither is set up, it needs no proof: only trusted clients should be able
//! to reach the socket.

pub mod access;
pub mod browsers;
pub mod idtoken;
pub mod passwords;
pub mod refusals;
pub mod sessions;
pub mod tokens;

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::access::Live;
use self::browsers::Browsers;
use self::idtoken::shown::{Builds, Shown};
use self::passwords::{Login, Passwords};
use self::refusals::Refusals;
use self::sessions::Sessions;
use self::tokens::Tokens;
use super::door::ClientAuth;
use super::engine::{EngineError, NO_LONGER_LEADS};
use super::http::{Admission, Admitting, Answering, Handler, Identity, Request, Response};
use crate::client::http::encode;
use crate::core::names::ParkId;
use crate::wire::api::ErrorView;
use crate::wire::errors::Code;
use crate::wire::problems::quoted;
use crate::wire::secret::Secret;

/// Whether a route needs authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody may use it. It says whether the server works, or lets people sign in.
    Public,
    /// Only for clients that have authenticated.
    Guarded,
}

/// What proves the identity of a client.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// The user and password of HTTP Basic.
    pub basic: Option<(String, Secret)>,
    /// Whether TLS asks for client certificates.
    pub certificate: Option<ClientAuth>,
}

impl Proof {
    /// Whether clients must prove anything.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.basic.is_some() || self.certificate.is_some()
    }

    /// Describes the authentication, for the first line that the server prints.
    #[must_use]
    pub fn describe(&self) -> String {
        let proof = match (self.basic.is_some(), self.certificate) {
            (false, None) => return "no authentication: anyone who can connect may take and release locks".into(),
            (true, None) => "HTTP Basic authentication",
            (false, Some(_)) => "client certificates",
            (true, Some(ClientAuth::Optional)) => "HTTP Basic authentication or client certificates",
            (true, Some(ClientAuth::Required)) => "HTTP Basic authentication and client certificates",
        };
        match self.certificate {
            // TLS asks for the certificate before anybody knows what the request will be.
            Some(ClientAuth::Required) => {
                format!("{proof} for everything, and client certificates for health checks too")
            }
            _ => format!("{proof} for everything but health checks"),
        }
    }
}

/// The rule for a request. For a path that no route serves it is [`Access::Guarded`].
pub type Rule = fn(&Request) -> Access;

/// Lets only admitted requests through.
pub struct Guard {
    /// The user, and the SHA-256 of `user:password`. The password itself is not kept.
    basic: Option<(String, [u8; 32])>,
    certificate: Option<ClientAuth>,
    rule: Rule,
    browsers: Browsers,
    sessions: Sessions,
    access: Live,
    passwords: Passwords,
    /// Builds that prove who they are.
    builds: Option<Arc<Builds>>,
    /// Tokens of this server.
    tokens: Option<Tokens>,
    refusals: Refusals,
    inner: Arc<dyn Handler>,
}

impl Guard {
    /// Guards `inner`.
    #[must_use]
    pub fn new(proof: &Proof, rule: Rule, inner: Arc<dyn Handler>) -> Self {
        let basic = proof
            .basic
            .as_ref()
            .map(|(user, password)| (user.clone(), Sha256::digest(format!("{user}:{}", password.expose())).into()));
        let (browsers, sessions, access) = (Browsers::default(), Sessions::default(), Live::default());
        let passwords = Passwords::new(access.clone());
        let certificate = proof.certificate;
        let (builds, tokens, refusals) = (None, None, Refusals::default());
        Self { basic, certificate, rule, browsers, sessions, access, passwords, builds, tokens, refusals, inner }
    }

    /// The same guard, where this access file has users of its own and the routes check rights.
    #[must_use]
    pub fn with_access(self, access: Live) -> Self {
        Self { passwords: Passwords::new(access.clone()), access, ..self }
    }

    /// The same guard with these rules for browsers.
    #[must_use]
    pub fn with_browsers(self, browsers: Browsers) -> Self {
        Self { browsers, ..self }
    }

    /// The same guard, which admits these sessions.
    #[must_use]
    pub fn with_sessions(self, sessions: Sessions) -> Self {
        Self { sessions, ..self }
    }

    /// The same guard, which admits builds with id tokens of trusted issuers.
    #[must_use]
    pub fn with_builds(self, builds: Arc<Builds>) -> Self {
        Self { builds: Some(builds), ..self }
    }

    /// The same guard, which counts here whom it refuses.
    #[must_use]
    pub fn with_refusals(self, refusals: Refusals) -> Self {
        Self { refusals, ..self }
    }

    /// The same guard, which admits clients with tokens of this server.
    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// What a request with an id token has shown. `None` if it has none, or if no issuer is trusted.
    async fn by_token(&self, request: &Request) -> Result<Option<Shown>, Response> {
        let Some((builds, token)) = self.builds.as_ref().zip(request.signed_token()) else { return Ok(None) };
        if builds.is_off() || (self.rule)(request) == Access::Public {
            return Ok(None);
        }
        match builds.identify(request, token).await {
            Ok(shown) => Ok(Some(shown)),
            Err(refused) => {
                builds.confirm(&refused).await.map_err(unproven)?;
                self.refusals.of_id_token(request, &refused);
                Err(refuse_token(&refused))
            }
        }
    }

    /// The identity of a request that is admitted, and what that proves. `None` if it has none and needs none.
    fn identify(&self, request: &Request) -> Result<(Option<Identity>, Admission), Response> {
        let refused = || self.refuse(request);
        let shown = request.identity.clone();
        if (self.rule)(request) == Access::Public {
            return Ok((shown, Admission::Public));
        }
        match (&self.basic, self.certificate) {
            (None, None) => Ok((None, Admission::Client)),
            (None, Some(_)) => shown.ok_or_else(refused).map(|shown| (Some(shown), Admission::Client)),
            (Some(_), Some(ClientAuth::Optional)) if shown.is_some() => Ok((shown, Admission::Client)),
            (Some(_), Some(ClientAuth::Required)) if shown.is_none() => Err(refused()),
            (Some((user, expected)), certificate) if has_password(request, expected) => {
                let user = Identity::User(user.clone());
                let identity = if certificate.is_some() { shown.unwrap_or(user) } else { user };
                Ok((Some(identity), Admission::Password))
            }
            (Some(_), _) => self.by_session(request)?.ok_or_else(refused),
        }
    }

    /// The same where an access file counts: whoever shows credentials must show the right ones, and whoever shows none
    /// is nobody. What either may do is for the routes to say.
    async fn identify_by_access(&self, request: &mut Request) -> Result<(Option<Identity>, Admission), Response> {
        let shown = request.identity.clone();
        if (self.rule)(request) == Access::Public {
            return Ok((shown, Admission::Public));
        }
        if let Some((tokens, token)) = self.tokens.as_ref().zip(request.own_token()) {
            let Some((identity, hash)) = tokens.identify(token) else {
                tokens.confirm().await.map_err(unproven)?;
                return Err(unknown_token());
            };
            request.token = Some(hash);
            return Ok((Some(identity), Admission::Client));
        }
        if request.header("authorization").is_some() {
            let user = self.user(request).await?;
            return Ok((Some(user), Admission::Password));
        }
        if shown.is_some() {
            return Ok((shown, Admission::Client));
        }
        if let Some(by_session) = self.by_session(request)? {
            return Ok(by_session);
        }
        // No body is read of a client that may do nothing.
        if self.access.caller(None).has_any() { Ok((None, Admission::Client)) } else { Err(self.refuse(request)) }
    }

    /// The user whose password a request shows.
    async fn user(&self, request: &Request) -> Result<Identity, Response> {
        let pair = basic(request).ok_or_else(|| self.refuse(request))?;
        if let Some((user, expected)) = &self.basic
            && has_password(request, expected)
        {
            return Ok(Identity::User(user.clone()));
        }
        let (user, password) = pair.split_at(pair.iter().position(|byte| *byte == b':').unwrap_or(pair.len()));
        let user = std::str::from_utf8(user).map_err(|_| self.refuse(request))?;
        match self.passwords.check(user, password.get(1..).unwrap_or_default()).await {
            Login::Right => Ok(Identity::User(user.to_owned())),
            Login::Wrong => Err(self.refuse(request)),
            Login::Busy => {
                let mut refused =
                    refusal(Code::Unavailable, "too many passwords are being checked: try again".to_owned());
                refused.headers.push(("retry-after", "1".to_owned()));
                Err(refused)
            }
        }
    }

    /// Whether people can sign in with a password.
    fn has_users(&self) -> bool {
        self.basic.is_some() || self.access.has_users()
    }

    /// The identity of the session of a request, unless it shows credentials of another kind. What changes something
    /// must come from a page that was made for this session.
    fn by_session(&self, request: &Request) -> Result<Option<(Option<Identity>, Admission)>, Response> {
        let session = self.sessions.find(request, Instant::now()).filter(|_| request.header("authorization").is_none());
        let Some(session) = session else { return Ok(None) };
        if !reads(request) && !sessions::shows_page_token(request) {
            let error = "this request does not come from a page of this session: load the page again";
            return Err(refusal(Code::Forbidden, error.to_owned()));
        }
        Ok(Some((Some(session.identity), Admission::Client)))
    }

    /// Where to send a person who opens a page without being signed in.
    fn sign_in(&self, request: &Request) -> Option<Response> {
        let opens = self.has_users() && request.method == "GET" && accepts(request, "text/html");
        if !opens || request.header("authorization").is_some() {
            return None;
        }
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        let to = format!("/login?next={}", encode(&format!("{}{query}", request.path)));
        let headers = vec![("location", to), ("cache-control", "no-store".to_owned())];
        Some(Response { headers, ..Response::new(303, Vec::new()) })
    }

    /// The answer to a request that is not admitted: what is missing, or which user was refused.
    fn refuse(&self, request: &Request) -> Response {
        let lacks_certificate = self.certificate == Some(ClientAuth::Required) && request.identity.is_none();
        let wanted = match (&self.basic, self.certificate) {
            (None, _) if !self.access.is_on() => {
                "this server requires a client certificate: configure one in your client".to_owned()
            }
            _ if !lacks_certificate && let Some(user) = basic_user(request) => {
                let user: String = user.chars().take(SHOWN_USER).collect();
                format!("the server refused user {}: wrong username or password", quoted(&user))
            }
            _ if !lacks_certificate && self.sessions.has_ended(request, Instant::now()) => {
                "your session has ended: its time is over, the server was started again, or another server leads now: sign \
                 in again"
                    .to_owned()
            }
            _ if self.access.is_on() && !lacks_certificate => {
                let certificate = if self.certificate.is_some() { ", or a client certificate" } else { "" };
                format!("this server requires credentials: set a token, or username and password{certificate}")
            }
            (Some(_), Some(ClientAuth::Optional)) => {
                "this server requires HTTP Basic credentials or a client certificate: set username and password"
                    .to_owned()
            }
            _ => "this server requires HTTP Basic credentials: set username and password".to_owned(),
        };
        if !lacks_certificate && let Some(to_sign_in) = self.sign_in(request) {
            return to_sign_in;
        }
        let basic = "Basic realm=\"locker\", charset=\"UTF-8\"";
        // A challenge of this kind makes no browser ask for a password in a window of its own.
        let challenge = if is_of_page(request) { "Cookie realm=\"locker\"" } else { basic };
        let challenge = self.has_users().then(|| ("www-authenticate", challenge.to_owned()));
        Response { headers: challenge.into_iter().collect(), ..refusal(Code::Unauthorized, wanted) }
    }
}

/// Whether a request changes nothing.
fn reads(request: &Request) -> bool {
    matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS")
}

fn accepts(request: &Request, media: &str) -> bool {
    request.header("accept").is_some_and(|accepted| accepted.contains(media))
}

/// Whether a script of the web page has sent a request: it says so, or a browser does, or it follows events.
fn is_of_page(request: &Request) -> bool {
    let says = [sessions::PAGE_TOKEN, "origin"].iter().any(|name| request.header(name).is_some());
    says || accepts(request, "text/event-stream")
}

/// The answer to a token of this server that proves nothing.
fn unknown_token() -> Response {
    let error = "the server does not know this token: it was revoked, its time is over, or it is of another server";
    let headers = vec![("www-authenticate", "Bearer error=\"invalid_token\"".to_owned())];
    Response { headers, ..refusal(Code::Unauthorized, error.to_owned()) }
}

/// The answer to a token that another server may know, which leads by now.
fn unproven(error: EngineError) -> Response {
    match error {
        EngineError::Overloaded => refusal(Code::Unavailable, error.to_string()),
        _ => refusal(Code::NoLeader, NO_LONGER_LEADS.to_owned()),
    }
}

/// The answer to an id token that proves nothing.
fn refuse_token(refused: &idtoken::Refusal) -> Response {
    match refused.retry_after() {
        Some(span) => {
            let headers = vec![("retry-after", span.as_secs().max(1).to_string())];
            Response { headers, ..refusal(Code::IssuerUnavailable, refused.to_string()) }
        }
        None => {
            let headers = vec![("www-authenticate", "Bearer error=\"invalid_token\"".to_owned())];
            Response { headers, ..refusal(Code::Unauthorized, refused.to_string()) }
        }
    }
}

fn refusal(code: Code, error: String) -> Response {
    let view = ErrorView { error, code, problems: Vec::new(), claim: None };
    Response::new(code.status(), serde_json::to_vec(&view).unwrap_or_default())
}

/// Most characters of a refused user's name in an answer.
const SHOWN_USER: usize = 64;

/// What a client sent as HTTP Basic, decoded: `USER:PASSWORD`.
fn basic(request: &Request) -> Option<Vec<u8>> {
    let (scheme, encoded) = request.header("authorization")?.split_once(' ')?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    scheme.eq_ignore_ascii_case("basic").then_some(decoded)
}

/// The user whose password a client sent, for the answer that refuses it.
fn basic_user(request: &Request) -> Option<String> {
    let pair = String::from_utf8(basic(request)?).ok()?;
    Some(pair.split_once(':')?.0.to_owned())
}

/// Compares digests of equal length in constant time, so that the response time reveals nothing about the password.
fn has_password(request: &Request, expected: &[u8; 32]) -> bool {
    basic(request).is_some_and(|given| Sha256::digest(given)[..].ct_eq(&expected[..]).into())
}

impl Handler for Guard {
    fn admit<'a>(&'a self, request: &'a mut Request) -> Admitting<'a> {
        Box::pin(async {
            self.browsers.check(request).map_err(|error| {
                self.refusals.of_browser();
                refusal(Code::Forbidden, error)
            })?;
            let shown = self.by_token(request).await?;
            let admitted = match &shown {
                Some(shown) => Ok((Some(shown.identity.clone()), Admission::Client)),
                None if self.access.is_on() => self.identify_by_access(request).await,
                None => self.identify(request),
            };
            let (identity, admission) =
                admitted.inspect_err(|response| self.refusals.of_stranger(request, response))?;
            (request.identity, request.shown) = (identity, shown.map(Arc::new));
            self.inner.admit(request).await?;
            request.admitted = true;
            Ok(admission)
        })
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        if !self.access.is_on() {
            return self.inner.handle(request);
        }
        Box::pin(async move {
            let response = self.inner.handle(request).await;
            if response.status != 403 {
                return response;
            }
            self.refusals.of_client(request, &response);
            if request.identity.is_some() {
                return response;
            }
            // Somebody with credentials might be allowed to do this.
            Response { route: response.route, ..self.refuse(request) }
        })
    }

    fn left(&self, park: ParkId) {
        self.inner.left(park);
    }
}

#[cfg(test)]
mod tests;
