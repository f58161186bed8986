//! From settings to connections: which servers to ask, with which identity, over which route, within which limits.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use rustls::ClientConfig;

use super::transport::{ProxyTls, Route};
use super::{trouble, trust};
use crate::wire::escape::escape;
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::tls::Tls;

/// How long resolving the host name and connecting may each take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an unused connection to a locker server is kept. The server keeps it longer.
const IDLE: Duration = Duration::from_secs(15);

/// Everything that a client needs to know to reach a server.
#[derive(Debug, Clone)]
pub struct Access {
    /// The servers of one store.
    pub servers: Vec<ServerUrl>,
    pub identity: Identity,
    pub tls: Tls,
    /// Overrides the proxy that the environment names.
    pub proxy: Option<Secret>,
    /// The settings have a user name and a password that are not sent, because they are meant for somebody else.
    pub held_back: bool,
}

impl Access {
    /// Access to one server. Without `authorization`, the credentials in its URL are used.
    #[must_use]
    pub fn to(server: ServerUrl, authorization: Option<Authorization>, tls: Tls) -> Self {
        let identity = Identity::of(authorization);
        Self { servers: vec![server], identity, tls, proxy: None, held_back: false }
    }
}

/// How a client identifies itself to its servers.
#[derive(Debug, Clone)]
pub enum Identity {
    /// As nobody: not even credentials in a URL are sent.
    Nobody,
    /// The credentials in the URL of a server, sent only to that server.
    OfUrl,
    /// The same for every server.
    As(Authorization),
}

impl Identity {
    /// What to do when a server refuses this identity. `sent` says whether it has credentials for that server.
    pub(super) fn advice(&self, sent: bool, held_back: bool) -> Option<&'static str> {
        match self {
            Self::As(Authorization::Bearer(_)) => None,
            _ if sent => Some(trouble::CREDENTIALS),
            _ if held_back => Some(trouble::HELD_BACK),
            _ => Some(trouble::NO_CREDENTIALS),
        }
    }

    /// The given one, or else the credentials in the URLs.
    #[must_use]
    pub fn of(given: Option<Authorization>) -> Self {
        given.map_or(Self::OfUrl, Self::As)
    }

    /// The header for each of these servers.
    ///
    /// # Errors
    /// Some of the URLs have credentials and some have none.
    pub(super) fn headers(&self, servers: &[ServerUrl]) -> Result<Vec<Option<Arc<Secret>>>, String> {
        let same = match self {
            Self::Nobody => None,
            Self::As(authorization) => Some(Arc::new(authorization.header())),
            Self::OfUrl => {
                let own: Vec<_> = servers.iter().map(ServerUrl::credentials).collect();
                let some = own.iter().filter(|own| own.is_some()).count();
                if some > 0 && some < own.len() {
                    return Err(
                        "only some of the servers have a user and password in their URL: write them into each \
                                URL, or into none and set username and password"
                            .to_owned(),
                    );
                }
                let header = |own: &Credentials| Arc::new(Authorization::Basic(own.clone()).header());
                return Ok(own.into_iter().map(|own| own.map(header)).collect());
            }
        };
        Ok(servers.iter().map(|_| same.clone()).collect())
    }
}

/// What a client authenticates with.
#[derive(Debug, Clone)]
pub enum Authorization {
    /// A user name and a password (HTTP Basic).
    Basic(Credentials),
    /// A bearer token.
    Bearer(Secret),
}

impl Authorization {
    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> Secret {
        match self {
            Self::Basic(Credentials { username, password }) => {
                let pair = format!("{username}:{}", password.expose());
                Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
            }
            Self::Bearer(token) => Secret::new(format!("Bearer {}", token.expose())),
        }
    }
}

/// An agent for one server, with the limits that all calls share. `idle` is how long an unused connection is kept;
/// `vars` is the environment.
pub(crate) fn agent(
    server: &ServerUrl,
    proxy: Option<ureq::Proxy>,
    tls: Arc<ClientConfig>,
    idle: Option<Duration>,
    #[cfg_attr(not(feature = "plant"), expect(unused_variables, reason = "only a planted bug reads it here"))]
    vars: &BTreeMap<String, String>,
) -> ureq::Agent {
    #[cfg_attr(not(feature = "plant"), expect(unused_mut, reason = "only a planted bug changes it"))]
    let mut route = Route::new(server, proxy, tls);
    #[cfg(feature = "plant")]
    route.panics(vars.get("LOCKER_PLANT").is_some_and(|bug| bug == "client-panic"));
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_resolve(Some(CONNECT))
        .max_response_header_size(64 * 1024)
        .max_idle_age(idle.unwrap_or(IDLE))
        .user_agent(concat!("locker/", env!("CARGO_PKG_VERSION")))
        .proxy(route.tunnel.clone())
        .build();
    route.agent(config)
}

/// An agent for one server, to be dropped after an error. It bypasses any proxy, looks up the address once, and takes at
/// most `patience` for a request.
pub(crate) fn probe_agent(server: &ServerUrl, settings: &Tls, patience: Duration) -> Result<ureq::Agent, String> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience)).proxy(None);
    let route = Route::new(server, None, trust::client_config(settings, server.is_tls())?);
    Ok(route.keeping_address().agent(config.build()))
}

/// Makes a call and turns a panic in it into an error, so that no caller waits for an answer that never comes.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, ureq::Error>) -> Result<T, ureq::Error> {
    // A call can leave only its own connection in an inconsistent state, and that is dropped with it.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(ureq::Error::Other(Box::new(Panicked(escape(&text)))))
    })
}

/// A call panicked, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client failed ({0}); this is a bug in locker, please report it")]
struct Panicked(String);

/// Whether the call failed because of a bug: retrying will not help.
pub(super) fn is_bug(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Other(other) if other.is::<Panicked>())
}

/// Whether TLS to the proxy failed.
fn is_proxy_tls(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Other(other) if other.is::<ProxyTls>())
}

/// Whether the request never reached a server, because there was no connection.
pub(super) fn is_unconnected(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    match error {
        _ if is_proxy_tls(error) || is_unknown_host(error) => true,
        ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => true,
        ureq::Error::Timeout(what) => *what == ureq::Timeout::Connect,
        ureq::Error::Io(io) => matches!(io.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable),
        _ => false,
    }
}

/// Whether the host name has no address, as far as is known now.
pub(super) fn is_unknown_host(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::Timeout(ureq::Timeout::Resolve) => true,
        // The standard library has no kind for it.
        ureq::Error::Io(io) => io.to_string().starts_with("failed to lookup address information"),
        _ => false,
    }
}

/// Whether a server took the request and gave no HTTP answer.
pub(super) fn is_no_http(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        ureq::Error::Protocol(_) => true,
        ureq::Error::Io(io) => {
            matches!(io.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
        }
        _ => false,
    }
}

/// If the error is one of TLS: that error, what it means, and the next step.
pub(super) fn tls_in_words<'e>(error: &'e ureq::Error, setting: &str) -> Option<(&'e rustls::Error, String, String)> {
    let tls = trust::find(error)?;
    let (what, next) = trust::explain(tls, setting);
    let at = if is_proxy_tls(error) { "TLS to the proxy fails (here the proxy is the server): " } else { "" };
    Some((tls, format!("{at}{what}"), next))
}

/// A transport error in words, with the next step where that is known. It contains nothing of the request. `setting` is
/// the setting that takes trusted certificates.
pub(crate) fn in_words(error: &ureq::Error, setting: &str) -> String {
    if let Some((_, what, next)) = tls_in_words(error, setting) {
        return format!("{what}: {next}");
    }
    if is_proxy_tls(error) {
        return "TLS to the proxy fails: is it really an https:// proxy? Most proxies have an http:// address"
            .to_owned();
    }
    match error {
        _ if is_unknown_host(error) => "its host name cannot be resolved".to_owned(),
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the connection was closed before the answer".to_owned()
        }
        ureq::Error::Io(io) => escape(&io.to_string()),
        ureq::Error::Timeout(what) => format!("timed out ({what})"),
        ureq::Error::BadUri(_) => "its address cannot be used".to_owned(),
        ureq::Error::ConnectProxyFailed(why) => format!("the proxy refuses to connect to it: {}", escape(why)),
        ureq::Error::Protocol(_) => "it does not answer in HTTP: does it expect https://?".to_owned(),
        other => escape(&other.to_string()),
    }
}
