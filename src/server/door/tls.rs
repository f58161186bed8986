//! TLS at the door: certificates from files or text, handshakes with a time limit, and new certificates without a
//! restart.
//!
//! A connection keeps the configuration with which it began. A reload affects only later handshakes.

use std::convert::Infallible;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail, ensure};
use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use sha2::{Digest, Sha256};
use signal_hook::consts::SIGHUP;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::stop::Stop;
use crate::env::{hex, read_file};
use crate::server::door::limits;
use crate::server::http::Identity;
use crate::wire::secret::Secret;

/// Certificates or a key in PEM, or the file that contains them.
#[derive(Debug, Clone)]
pub enum Pem {
    File(PathBuf),
    Text(Secret),
}

/// PEM text if it looks like PEM, otherwise the path of a file.
impl FromStr for Pem {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text.contains("-----BEGIN ") { Self::Text(Secret::new(text)) } else { Self::File(text.into()) })
    }
}

impl Pem {
    /// The PEM text.
    ///
    /// # Errors
    /// The file cannot be read or is not text.
    pub fn text(&self) -> anyhow::Result<String> {
        String::from_utf8(self.read()?).map_err(|_| anyhow!("{} is not PEM text", self.name()))
    }

    /// The name used in messages.
    fn name(&self) -> String {
        match self {
            Self::File(path) => format!("{:?}", path.display().to_string()),
            Self::Text(_) => "the PEM text".to_owned(),
        }
    }

    fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text.expose().as_bytes().to_vec()),
            Self::File(path) => {
                let bytes =
                    read_file(path, limits::DOOR_PEM_BYTES).with_context(|| format!("cannot read {}", self.name()))?;
                bytes.with_context(|| format!("{} is too large for PEM", self.name()))
            }
        }
    }
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client without a certificate cannot connect.
    Required,
    /// A client that shows a certificate is identified by it. Others may connect without one.
    Optional,
}

impl FromStr for ClientAuth {
    type Err = &'static str;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            _ => Err("must be required or optional"),
        }
    }
}

/// The settings of TLS.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// The server's certificate, followed by the intermediate certificates.
    pub cert: Pem,
    /// The key of that certificate: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: Pem,
    /// The CA of the client certificates. Without it, clients are not asked for any.
    pub client_ca: Option<(Pem, ClientAuth)>,
    /// Time between two checks of the files.
    pub poll: Duration,
}

impl TlsSettings {
    /// Settings without client certificates.
    #[must_use]
    pub fn new(cert: Pem, key: Pem) -> Self {
        Self { cert, key, client_ca: None, poll: Duration::from_millis(limits::DOOR_TLS_POLL_MS) }
    }

    /// Whether clients are asked for certificates, and whether they must show one.
    #[must_use]
    pub fn client_auth(&self) -> Option<ClientAuth> {
        self.client_ca.as_ref().map(|(_, auth)| *auth)
    }
}

/// The TLS configuration. It can be replaced while connections continue.
pub struct Tls {
    settings: TlsSettings,
    current: ArcSwap<ServerConfig>,
    /// The digest of the last attempt, good or bad, so that it is reported only once.
    tried: Mutex<[u8; 32]>,
    /// When the certificate that is used expires, seconds since 1970.
    expiry: Gauge,
    /// Becomes readable on SIGHUP. The first [`keep_fresh`] takes it.
    hangups: Mutex<Option<UnixStream>>,
}

/// The result of a reload.
#[derive(Debug)]
enum Reload {
    Unchanged,
    /// The new ones are used from now on. Contains warnings about them.
    Done(Vec<String>),
    /// The new ones cannot be used. The old ones stay in use.
    Kept(anyhow::Error),
}

impl Tls {
    /// Reads certificate and key. Also returns warnings, for example that the certificate has expired. From now on
    /// SIGHUP no longer ends this process.
    ///
    /// # Errors
    /// A file cannot be read, contains no certificate or key, or the key does not fit. The message says what to do.
    pub fn open(settings: TlsSettings) -> anyhow::Result<(Arc<Self>, Vec<String>)> {
        let material = Material::read(&settings)?;
        let (config, warnings) = material.config()?;
        let tried = Mutex::new(material.digest());
        let (hangups, written) = UnixStream::pair().context("cannot create a socket pair for signals")?;
        signal_hook::low_level::pipe::register(SIGHUP, written).context("cannot listen for SIGHUP")?;
        hangups.set_nonblocking(true).context("cannot set up the socket pair for signals")?;
        let hangups = Mutex::new(Some(hangups));
        let expiry = Gauge::default();
        expiry.set(material.expires());
        Ok((Arc::new(Self { settings, current: ArcSwap::from_pointee(config), tried, expiry, hangups }), warnings))
    }

    /// Shows when the certificate that is used expires, seconds since 1970, also after a reload.
    #[must_use]
    pub fn expiry(&self) -> Gauge {
        self.expiry.clone()
    }

    /// Reads the files again. `anyway`: even if nothing has changed since the last time.
    fn reload(&self, anyway: bool) -> Reload {
        let read = Material::read(&self.settings);
        let digest = match &read {
            Ok(material) => material.digest(),
            Err(error) => Sha256::digest(format!("{error:#}")).into(),
        };
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if *tried == digest && !anyway {
            return Reload::Unchanged;
        }
        *tried = digest;
        match read.and_then(|material| Ok((material.expires(), material.config()?))) {
            Ok((expires, (config, warnings))) => {
                self.current.store(Arc::new(config));
                self.expiry.set(expires);
                Reload::Done(warnings)
            }
            Err(error) => Reload::Kept(error),
        }
    }

    /// Does the handshake. A failure affects only this client.
    pub(super) async fn accept(&self, stream: TcpStream, limit: Duration) -> Result<Accepted, NoTls> {
        timeout(limit, self.handshake(stream)).await.unwrap_or(Err(NoTls::Failed("the handshake took too long".into())))
    }

    async fn handshake(&self, stream: TcpStream) -> Result<Accepted, NoTls> {
        /// The first byte of a TLS connection: a handshake record (RFC 8446, 5.1).
        const HANDSHAKE: u8 = 22;
        let mut first = [0; 1];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => {}
            Ok(1) => return Err(NoTls::Plain(stream)),
            _ => return Err(NoTls::Silent),
        }
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let stream = acceptor.accept(stream).await.map_err(|error| NoTls::Failed(error.to_string()))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = shown.map(subject).transpose().map_err(|error| NoTls::Failed(format!("{error:#}")))?;
        Ok(Accepted { stream: Box::new(stream), identity: identity.map(Identity::Certificate) })
    }
}

/// A connection after its handshake.
pub(super) struct Accepted {
    pub stream: Box<TlsStream<TcpStream>>,
    /// The identity in the client's certificate.
    pub identity: Option<Identity>,
}

/// Why there is no TLS connection.
pub(super) enum NoTls {
    /// The client speaks another protocol, perhaps HTTP.
    Plain(TcpStream),
    /// The client left without sending anything.
    Silent,
    Failed(String),
}

/// Reloads on SIGHUP and when the files have changed, until the stop. Logs the result.
pub(super) async fn keep_fresh(tls: Arc<Tls>, stop: Stop) {
    let hangups = tls.hangups.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut hangups = hangups.and_then(|stream| tokio::net::UnixStream::from_std(stream).ok());
    loop {
        let told = async {
            match &mut hangups {
                // Signals that arrive together count as one.
                Some(hangups) => drop(hangups.read(&mut [0; 64]).await),
                None => std::future::pending().await,
            }
        };
        let anyway = tokio::select! {
            () = told => true,
            () = sleep(tls.settings.poll) => false,
            () = stop.triggered() => return,
        };
        let reloading = Arc::clone(&tls);
        // The files may be on a slow disk.
        let Ok(outcome) = tokio::task::spawn_blocking(move || reloading.reload(anyway)).await else { continue };
        match outcome {
            Reload::Unchanged => {}
            Reload::Done(warnings) => {
                info!("the TLS certificate was reloaded: new connections use it");
                warnings.iter().for_each(|warning| warn!("{warning}"));
            }
            Reload::Kept(error) => {
                warn!(reason = format!("{error:#}"), "the new TLS certificate is not used, the old one stays");
            }
        }
    }
}

/// The contents of the files, not parsed yet.
struct Material<'s> {
    settings: &'s TlsSettings,
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl<'s> Material<'s> {
    fn read(settings: &'s TlsSettings) -> anyhow::Result<Self> {
        Ok(Self {
            settings,
            cert: settings.cert.read().context("no TLS certificate (SSL_CERT)")?,
            key: settings.key.read().context("no TLS key (SSL_KEY)")?,
            client_ca: match &settings.client_ca {
                Some((pem, _)) => Some(pem.read().context("no CA of client certificates (--client-ca)")?),
                None => None,
            },
        })
    }

    /// When the first certificate of the chain to expire does so, seconds since 1970. 0 if none can be read.
    fn expires(&self) -> i64 {
        let expires = |der: &CertificateDer<'_>| {
            let certificate = Certificate::from_der(der).ok()?;
            let at = certificate.tbs_certificate().validity().not_after.to_unix_duration();
            i64::try_from(at.as_secs()).ok()
        };
        let chain = certificates(&self.cert).unwrap_or_default();
        chain.iter().filter_map(expires).min().unwrap_or_default()
    }

    fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            all.update(Sha256::digest(part.map_or(&[][..], |part| part)));
        }
        all.finalize().into()
    }

    /// Returns the configuration, and warnings about the certificate.
    fn config(&self) -> anyhow::Result<(ServerConfig, Vec<String>)> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .context("this build supports neither TLS 1.3 nor TLS 1.2")?;
        let chain = certificates(&self.cert)
            .with_context(|| format!("no TLS certificate in {} (SSL_CERT)", self.settings.cert.name()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            // The error may quote the text that could not be read, which may be a key.
            let why = match error {
                rustls::pki_types::pem::Error::NoItemsFound => {
                    "it has no unencrypted PEM key (PKCS #8, PKCS #1, SEC 1)"
                }
                _ => "it is not well-formed PEM",
            };
            anyhow!("no TLS key in {} (SSL_KEY): {why}", self.settings.key.name())
        })?;
        let warnings = warnings(&chain);
        let builder = match (&self.client_ca, &self.settings.client_ca) {
            (Some(bytes), Some((pem, auth))) => {
                let name = pem.name();
                let mut roots = RootCertStore::empty();
                let found = certificates(bytes).with_context(|| format!("no CA in {name} (--client-ca)"))?;
                for root in found {
                    roots.add(root).with_context(|| format!("unusable CA in {name} (--client-ca)"))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                let built = verifier.build();
                builder.with_client_cert_verifier(built.map_err(|error: VerifierBuilderError| anyhow!("{error}"))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let (cert, key) = (self.settings.cert.name(), self.settings.key.name());
            match error {
                rustls::Error::InconsistentKeys(_) => {
                    anyhow!("the TLS key {key} (SSL_KEY) does not fit the first certificate of {cert} (SSL_CERT)")
                }
                other => anyhow!("TLS certificate {cert} with key {key} cannot be used: {other}"),
            }
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((config, warnings))
    }
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| anyhow!("it is not well-formed PEM"))?;
    if found.is_empty() {
        bail!("it has no BEGIN CERTIFICATE block");
    }
    Ok(found)
}

/// Warnings about a chain that is used anyway: the clock may be wrong, or a client may not mind.
fn warnings(chain: &[CertificateDer<'_>]) -> Vec<String> {
    let now = SystemTime::now();
    let warn = |(number, der): (usize, &CertificateDer<'_>)| {
        let certificate = Certificate::from_der(der).ok()?;
        let validity = certificate.tbs_certificate().validity();
        let said = |what: &str| Some(format!("certificate {} of SSL_CERT {what}", number + 1));
        if validity.not_after.to_system_time() < now {
            said(&format!("expired at {}: clients will refuse it", validity.not_after))
        } else if validity.not_before.to_system_time() > now {
            said(&format!("is not valid before {}: clients will refuse it", validity.not_before))
        } else {
            None
        }
    };
    chain.iter().enumerate().filter_map(warn).collect()
}

/// The subject of a verified certificate. A certificate without a subject is identified by its digest.
fn subject(der: &CertificateDer<'_>) -> anyhow::Result<String> {
    let certificate = Certificate::from_der(der).context("the client certificate cannot be read")?;
    let subject = certificate.tbs_certificate().subject().to_string();
    ensure!(subject.len() <= limits::DOOR_SUBJECT_BYTES, "the subject of the client certificate is too long");
    Ok(if subject.is_empty() { format!("sha256={}", hex(&Sha256::digest(der))) } else { subject })
}
