//! From settings to connections: who is trusted, how a client shows who it is, proxies, limits.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::wire::escape::escape;
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::tls::Tls;

/// Time for finding the host and for connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// Time that an unused connection to a locker server is kept; the door keeps it longer.
const IDLE: Duration = Duration::from_secs(15);

/// Everything that a client needs to know to reach a server.
#[derive(Debug, Clone)]
pub struct Access {
    /// The servers of one store.
    pub servers: Vec<ServerUrl>,
    pub authorization: Option<Authorization>,
    pub tls: Tls,
    /// Instead of the proxy that the environment names.
    pub proxy: Option<Secret>,
}

impl Access {
    /// The way to one server; without credentials those in its URL are used.
    #[must_use]
    pub fn to(server: ServerUrl, credentials: Option<Credentials>, tls: Tls) -> Self {
        let authorization = credentials.or_else(|| server.credentials().cloned()).map(Authorization::Basic);
        Self { servers: vec![server], authorization, tls, proxy: None }
    }
}

/// How a client shows who it is.
#[derive(Debug, Clone)]
pub enum Authorization {
    /// User and password (HTTP Basic).
    Basic(Credentials),
    /// A token.
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

/// An agent with the limits that all calls share.
pub(super) fn agent(proxy: Option<ureq::Proxy>, tls: TlsConfig) -> ureq::Agent {
    agent_with(proxy, tls, IDLE)
}

/// The same, with the time that an unused connection is kept.
pub(crate) fn agent_with(proxy: Option<ureq::Proxy>, tls: TlsConfig, idle: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_resolve(Some(CONNECT))
        .max_response_header_size(64 * 1024)
        .max_idle_age(idle)
        .user_agent(concat!("locker/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .proxy(proxy)
        .build();
    config.new_agent()
}

/// An agent for one question to a server of this machine, past any proxy, which must be over within `patience`.
pub(crate) fn probe_agent(settings: &Tls, patience: Duration) -> Result<ureq::Agent, String> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(patience))
        .tls_config(tls(settings, &[])?)
        .proxy(None);
    Ok(config.build().new_agent())
}

/// The machine's certificates (in a Concourse container those that the worker mounts), and where there are none those
/// that browsers trust.
fn of_machine<'s>(mut servers: impl Iterator<Item = &'s ServerUrl>) -> RootCerts {
    // Reading them takes longer than a whole `check`, so it is done for those only who need them.
    if !servers.any(ServerUrl::is_tls) {
        return RootCerts::WebPki;
    }
    // Errors are about single files; those that could be read count.
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return RootCerts::WebPki;
    }
    let found: Vec<_> = found.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect();
    RootCerts::new_with_certs(&found)
}

/// Reads certificates and keys.
pub(crate) fn tls(settings: &Tls, servers: &[ServerUrl]) -> Result<TlsConfig, String> {
    let mut config = TlsConfig::builder();
    config = config.root_certs(match &settings.ca_cert {
        Some(pem) => RootCerts::new_with_certs(&certificates("ca_cert", pem)?),
        None => of_machine(servers.iter()),
    });
    if let Some((cert, key)) = &settings.client {
        let chain = certificates("client_cert", cert)?;
        let key = PrivateKey::from_pem(key.expose().as_bytes())
            .map_err(|_| "client_key contains no private key in PEM form".to_owned())?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(config.disable_verification(settings.skip_verification.is_some()).build())
}

fn certificates(what: &str, pem: &str) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem.as_bytes()) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(format!("{what} is not valid PEM text")),
        }
    }
    if found.is_empty() { Err(format!("{what} contains no certificate in PEM form")) } else { Ok(found) }
}

/// The proxy for this server: that of the settings, or that of the environment; `None` where it is excepted.
///
/// # Errors
/// The setting is no address.
pub(crate) fn proxy_for(
    server: &ServerUrl,
    named: Option<&Secret>,
    vars: &BTreeMap<String, String>,
) -> Result<Option<ureq::Proxy>, String> {
    match named {
        Some(named) => named_proxy(named, vars),
        None => Ok(proxy(server, vars)),
    }
}

/// The proxy of the settings. The exceptions of the environment hold for it, too.
fn named_proxy(named: &Secret, vars: &BTreeMap<String, String>) -> Result<Option<ureq::Proxy>, String> {
    let proxy = ureq::Proxy::new(named.expose())
        .map_err(|_| "proxy must be an address such as http://proxy:3128".to_owned())?;
    Ok(with_exceptions(&proxy, vars))
}

/// The proxy that the environment names for this server. One that is no valid address is left out.
fn proxy(server: &ServerUrl, vars: &BTreeMap<String, String>) -> Option<ureq::Proxy> {
    let var = |names: [&str; 2]| names.iter().find_map(|name| vars.get(*name)).filter(|value| !value.is_empty());
    let named = if server.is_tls() {
        var(["https_proxy", "HTTPS_PROXY"])
    } else {
        // Upper case HTTP_PROXY is left alone, as curl does: a web server may set it from a request header.
        vars.get("http_proxy").filter(|value| !value.is_empty())
    };
    with_exceptions(&ureq::Proxy::new(named.or_else(|| var(["all_proxy", "ALL_PROXY"]))?).ok()?, vars)
}

/// The proxy with the hosts of `no_proxy` excepted.
fn with_exceptions(named: &ureq::Proxy, vars: &BTreeMap<String, String>) -> Option<ureq::Proxy> {
    let var = |names: [&str; 2]| names.iter().find_map(|name| vars.get(*name)).filter(|value| !value.is_empty());
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

/// Whether the request has never reached a server, for want of a connection.
pub(super) fn is_unconnected(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => true,
        ureq::Error::Timeout(what) => matches!(what, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        ureq::Error::Io(io) => matches!(io.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable),
        _ => false,
    }
}

/// A transport error in words, with what to do where that is known; nothing of the request is in it.
pub(super) fn describe(error: &ureq::Error) -> String {
    let hint = if is_distrust(error) {
        ": give the certificate of the authority that signed the server's as ca_cert"
    } else {
        ""
    };
    format!("{}{hint}", in_words(error))
}

/// Whether the certificate of the server is not trusted.
pub(crate) fn is_distrust(error: &ureq::Error) -> bool {
    error.to_string().contains("invalid peer certificate")
}

/// A transport error in words; nothing of the request is in it.
pub(crate) fn in_words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(io) => escape(&io.to_string()),
        ureq::Error::Timeout(what) => format!("time over ({what})"),
        ureq::Error::HostNotFound => "its host name cannot be resolved".to_owned(),
        ureq::Error::BadUri(_) => "its address cannot be used".to_owned(),
        other => escape(&other.to_string()),
    }
}
