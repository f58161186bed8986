//! How bytes travel: TCP, TLS as set up by [`super::trust`], and plain requests through a proxy.
//!
//! ureq's own TLS code panics if a certificate or key does not fit, and its own proxy code asks for a tunnel (CONNECT)
//! even for plain HTTP, which Squid refuses for every port but 443. Both can be replaced, so this file replaces them
//! (docs/decisions/0016-our-own-transport-below-ureq.md).

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector,
    Transport, TransportAdapter,
};
use ureq::{Error, ProxyProtocol};

use super::proxy::host_and_port;
use super::trust;
use crate::wire::secret::Secret;
use crate::wire::server_url::ServerUrl;

/// How to reach one server.
#[derive(Clone)]
pub(super) struct Route {
    /// A tunnel through this proxy (CONNECT).
    pub tunnel: Option<ureq::Proxy>,
    /// Whole requests sent to this proxy.
    forward: Option<Arc<Forward>>,
    tls: Arc<ClientConfig>,
    /// For TLS to a proxy, which is not shown the client's certificate.
    tls_to_proxy: Arc<ClientConfig>,
    /// An address is looked up once, and not for each request.
    keeps_address: bool,
    /// The planted bug: every connection panics.
    #[cfg(feature = "plant")]
    panics: bool,
}

/// What a plain request needs to go through a proxy.
struct Forward {
    proxy: Uri,
    /// Scheme, host and port of the server, which a proxy expects in the request line.
    origin: String,
    authorization: Option<Secret>,
}

impl Route {
    /// The route to `server`. Through a proxy: a tunnel if the server speaks TLS, otherwise requests that name the
    /// server.
    pub(super) fn new(server: &ServerUrl, proxy: Option<ureq::Proxy>, tls: Arc<ClientConfig>) -> Self {
        let mut route = Self {
            tunnel: None,
            forward: None,
            tls_to_proxy: trust::without_client(&tls),
            tls,
            keeps_address: false,
            #[cfg(feature = "plant")]
            panics: false,
        };
        match proxy {
            Some(proxy) if !server.is_tls() => {
                route.forward = Forward::new(server, &proxy).map(Arc::new);
            }
            other => route.tunnel = other,
        }
        route
    }

    /// For an agent that lives no longer than its connections.
    pub(super) fn keeping_address(mut self) -> Self {
        self.keeps_address = true;
        self
    }

    /// Switches the planted bug on or off.
    #[cfg(feature = "plant")]
    pub(super) fn panics(&mut self, panics: bool) {
        self.panics = panics;
    }

    /// An agent whose connections take this route.
    pub(super) fn agent(self, config: Config) -> ureq::Agent {
        let kept = self.keeps_address.then(OnceLock::new);
        let resolver = RouteResolver { forward: self.forward.clone(), kept };
        let connector = ().chain(Start {
            #[cfg(feature = "plant")]
            panics: self.panics,
        });
        let connector = connector.chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
        let (tls, to_proxy, has_tunnel) = (self.tls, self.tls_to_proxy, self.tunnel.is_some());
        let tls = TlsConnector { tls, to_proxy, has_tunnel, forward: self.forward.clone() };
        let connector = connector.chain(tls).chain(ForwardConnector(self.forward));
        ureq::Agent::with_parts(config, connector, resolver)
    }
}

impl Forward {
    /// `None` if the server's address cannot be parsed; no request can reach such a server.
    fn new(server: &ServerUrl, proxy: &ureq::Proxy) -> Option<Self> {
        let (host, port) = host_and_port(server)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let user = proxy.username().map(|user| {
            let pair = format!("{user}:{}", proxy.password().unwrap_or_default());
            Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        });
        let scheme = if proxy.protocol() == ProxyProtocol::Https { "https" } else { "http" };
        let address = format!("{scheme}://{}:{}/", proxy.host(), proxy.port());
        Some(Self { proxy: address.parse().ok()?, origin: format!("http://{host}:{port}"), authorization: user })
    }
}

/// The start of the chain. It does nothing, except for the planted bug.
#[derive(Debug)]
struct Start {
    #[cfg(feature = "plant")]
    panics: bool,
}

impl<In: Transport> Connector<In> for Start {
    type Out = In;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<In>, Error> {
        #[cfg(feature = "plant")]
        assert!(!self.panics, "the planted bug of the client");
        Ok(chained)
    }
}

/// Resolves the proxy instead of the server if requests go to the proxy. ureq resolves before each request, also where a
/// connection is open, and starts a thread for it.
struct RouteResolver {
    forward: Option<Arc<Forward>>,
    /// What was found, where it is kept.
    kept: Option<OnceLock<ResolvedSocketAddrs>>,
}

impl fmt::Debug for RouteResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouteResolver")
    }
}

impl Resolver for RouteResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        if let Some(found) = self.kept.as_ref().and_then(OnceLock::get) {
            return Ok(found.clone());
        }
        let uri = self.forward.as_ref().map_or(uri, |forward| &forward.proxy);
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        Ok(self.kept.as_ref().map_or_else(|| found.clone(), |kept| kept.get_or_init(|| found.clone()).clone()))
    }
}

/// Speaks TLS to servers and proxies whose address is https://.
struct TlsConnector {
    tls: Arc<ClientConfig>,
    to_proxy: Arc<ClientConfig>,
    /// Whether the server is reached in a tunnel. ureq then connects to the proxy first, with settings that name no
    /// proxy.
    has_tunnel: bool,
    /// The proxy that whole requests are sent to.
    forward: Option<Arc<Forward>>,
}

/// TLS to the proxy fails. The server was not asked.
#[derive(Debug)]
pub(super) struct ProxyTls(Error);

impl fmt::Display for ProxyTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS to the proxy fails")
    }
}

impl std::error::Error for ProxyTls {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        trust::find(&self.0).map(|error| error as &(dyn std::error::Error + 'static))
    }
}

impl TlsConnector {
    /// The handshake with `host`.
    fn handshake<In: Transport>(
        config: &Arc<ClientConfig>,
        host: &str,
        transport: In,
        details: &ConnectionDetails,
    ) -> Result<Wrapped<StreamOwned<ClientConnection, TransportAdapter>>, Error> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| Error::Tls("the host is not a valid name for TLS"))?;
        let mut connection =
            ClientConnection::new(Arc::clone(config), name).map_err(|error| Error::Other(Box::new(error)))?;
        let mut socket = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        Ok(Wrapped::new(StreamOwned::new(connection, socket), details.config))
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, Wrapped<StreamOwned<ClientConnection, TransportAdapter>>>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        let is_proxy = self.forward.is_some() || (self.has_tunnel && details.config.proxy().is_none());
        let uri = self.forward.as_ref().map_or(details.uri, |forward| &forward.proxy);
        if uri.scheme_str() != Some("https") || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let config = if is_proxy { &self.to_proxy } else { &self.tls };
        let stream = Self::handshake(config, uri.host().unwrap_or_default(), transport, details);
        let stream = stream.map_err(|error| if is_proxy { Error::Other(Box::new(ProxyTls(error))) } else { error })?;
        Ok(Some(Either::B(stream)))
    }
}

/// A stream on top of another transport, with its own buffers.
struct Wrapped<S> {
    stream: S,
    buffers: LazyBuffers,
}

impl<S> Wrapped<S> {
    fn new(stream: S, config: &Config) -> Self {
        Self { stream, buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()) }
    }
}

impl<S> fmt::Debug for Wrapped<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrapped")
    }
}

impl Transport for Wrapped<StreamOwned<ClientConnection, TransportAdapter>> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Turns requests to a plain-HTTP server into requests to its proxy.
struct ForwardConnector(Option<Arc<Forward>>);

impl fmt::Debug for ForwardConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForwardConnector")
    }
}

impl<In: Transport> Connector<In> for ForwardConnector {
    type Out = Either<In, Forwarded>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        let Some(forward) = &self.0 else { return Ok(Some(Either::A(transport))) };
        let adapter = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        let inner = Wrapped::new(adapter, details.config);
        Ok(Some(Either::B(Forwarded { inner, forward: Arc::clone(forward), is_at_start: true })))
    }
}

/// A connection to a proxy. It rewrites the head of each request.
struct Forwarded {
    inner: Wrapped<TransportAdapter>,
    forward: Arc<Forward>,
    /// Whether the next bytes are the start of a request.
    is_at_start: bool,
}

impl fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forwarded")
    }
}

impl Forwarded {
    /// Puts the whole address into the request line, and the credentials for the proxy after it.
    fn head(&self, output: &[u8]) -> Vec<u8> {
        let Some(space) = output.iter().position(|byte| *byte == b' ') else { return output.to_vec() };
        let (method, rest) = output.split_at(space + 1);
        let mut head = [method, self.forward.origin.as_bytes()].concat();
        let line = rest.windows(2).position(|pair| pair == b"\r\n").map(|end| end + 2);
        match (&self.forward.authorization, line) {
            (Some(secret), Some(end)) => {
                head.extend_from_slice(&rest[..end]);
                head.extend_from_slice(format!("Proxy-Authorization: {}\r\n", secret.expose()).as_bytes());
                head.extend_from_slice(&rest[end..]);
            }
            _ => head.extend_from_slice(rest),
        }
        head
    }
}

impl Transport for Forwarded {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.inner.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.stream.set_timeout(timeout);
        if std::mem::take(&mut self.is_at_start) {
            let output = self.inner.buffers.output()[..amount].to_vec();
            let head = self.head(&output);
            return Ok(self.inner.stream.write_all(&head)?);
        }
        Ok(self.inner.stream.write_all(&self.inner.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // The first bytes sent after an answer are the next request.
        self.is_at_start = true;
        self.inner.stream.set_timeout(timeout);
        let read = self.inner.stream.read(self.inner.buffers.input_append_buf())?;
        self.inner.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.inner.stream.get_mut().is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_only_where_that_is_asked_for() {
        let ports = |kept: Option<OnceLock<ResolvedSocketAddrs>>| {
            let resolver = RouteResolver { forward: None, kept };
            let port = |uri: &'static str| {
                let found =
                    resolver.resolve(&Uri::from_static(uri), &Config::default(), NextTimeout::default()).unwrap();
                found[0].port()
            };
            [port("http://127.0.0.1:1"), port("http://127.0.0.1:2")]
        };
        assert_eq!(ports(None), [1, 2]);
        assert_eq!(ports(Some(OnceLock::new())), [1, 1]);
    }
}
