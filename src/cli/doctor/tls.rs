//! A TLS handshake that tells what it saw: version, certificates, and in plain words why it failed.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::network::Address;
use super::report::Report;
use super::{Stop, Tools};
use crate::env::Env;
use crate::wire::errors::exit;
use crate::wire::tls::Tls;

/// Time for each read and write of the handshake.
const PATIENCE: Duration = Duration::from_secs(5);
/// A certificate that ends sooner than this is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// One certificate that the server showed.
#[derive(Debug, Clone)]
struct Shown {
    subject: String,
    issuer: String,
    not_after: String,
    /// Since 1970.
    ends: Duration,
}

/// What a handshake came to.
struct Outcome {
    /// In the order in which the server sent them, its own first; those that cannot be read are left out.
    chain: Vec<Shown>,
    /// Version and cipher suite.
    done: Result<String, Failure>,
}

enum Failure {
    Tls(rustls::Error),
    Io(io::Error),
}

/// Shakes hands as the resource would, and says how it went.
pub(super) fn examine(
    address: &Address,
    settings: &Tls,
    stream: TcpStream,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<(), Stop> {
    let (host, settings) = (address.host.clone(), settings.clone());
    let (outcome, _) = tools.time(move || shake(&host, &settings, stream))?;
    let now = Duration::from_millis(tools.clock.wall_ms());
    match outcome.done {
        Ok(how) => {
            report.ok(env, "tls", how)?;
            for shown in &outcome.chain {
                let text = format!("{}, issued by {}, good until {}", shown.subject, shown.issuer, shown.not_after);
                if shown.ends < now + EXPIRES_SOON {
                    report.warn(env, "tls", text, "renew it soon: it ends within 14 days")?;
                } else {
                    report.ok(env, "tls", text)?;
                }
            }
            Ok(())
        }
        Err(failure) => {
            let (text, next) = explain(&failure, address, outcome.chain.first());
            Err(report.fail(env, "tls", exit::UNAVAILABLE, text, next)?)
        }
    }
}

fn shake(host: &str, settings: &Tls, mut stream: TcpStream) -> Outcome {
    let chain = Arc::new(Mutex::new(Vec::new()));
    let done = try_shake(host, settings, &mut stream, &chain);
    let chain = chain.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(|der| read(der)).collect();
    Outcome { chain, done }
}

type Chain = Arc<Mutex<Vec<CertificateDer<'static>>>>;

fn try_shake(host: &str, settings: &Tls, stream: &mut TcpStream, chain: &Chain) -> Result<String, Failure> {
    let io = Failure::Io;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        Failure::Io(io::Error::new(io::ErrorKind::InvalidInput, "the host is not a valid name for TLS"))
    })?;
    let mut connection = ClientConnection::new(Arc::new(config(settings, chain)?), name).map_err(Failure::Tls)?;
    while connection.is_handshaking() {
        connection.complete_io(stream).map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(tls) => Failure::Tls(rustls::Error::clone(tls)),
                None => Failure::Io(error),
            }
        })?;
    }
    let version = connection.protocol_version().and_then(|version| version.as_str().map(str::to_owned));
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str().map(str::to_owned));
    let words: Vec<String> = [version, suite].into_iter().flatten().collect();
    // `TLSv1_3` is how the library writes it.
    let words = words.join(", ").replace("TLSv1_", "TLS 1.");
    let trust = if settings.skip_verification.is_some() { "not verified" } else { "trusted" };
    Ok(format!("{words}; the certificate is {trust}"))
}

/// The settings of the resource's HTTP client, with an eye on the certificates.
fn config(settings: &Tls, chain: &Chain) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(settings)?), Arc::clone(&provider))
        .build()
        .map_err(|error| Failure::Tls(rustls::Error::General(error.to_string())))?;
    let skip = settings.skip_verification.is_some();
    let watch = Arc::new(Watch { judge, skip, chain: Arc::clone(chain) });
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(Failure::Tls)?.dangerous().with_custom_certificate_verifier(watch);
    let Some((certificate, key)) = &settings.client else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| unreadable("client_key"))?;
    builder.with_client_auth_cert(certificates("client_cert", certificate)?, key).map_err(Failure::Tls)
}

/// Who may vouch for the server, as for the resource: `ca_cert` alone where it is given, else whom the machine trusts,
/// else whom browsers trust.
fn roots(settings: &Tls) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &settings.ca_cert {
        roots.add_parsable_certificates(certificates("ca_cert", pem)?);
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| unreadable(what))
}

fn unreadable(what: &str) -> Failure {
    Failure::Io(io::Error::new(io::ErrorKind::InvalidData, format!("{what} of the source is not valid PEM text")))
}

/// Notes the certificates, and leaves the judgement to the usual verifier.
#[derive(Debug)]
struct Watch {
    judge: Arc<WebPkiServerVerifier>,
    /// Accept whoever it is, because the settings say so.
    skip: bool,
    chain: Chain,
}

impl ServerCertVerifier for Watch {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(end_entity).chain(intermediates).map(|der| der.clone().into_owned());
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
        if self.skip {
            return Ok(ServerCertVerified::assertion());
        }
        self.judge.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

fn read(der: &CertificateDer<'_>) -> Option<Shown> {
    let certificate = Certificate::from_der(der).ok()?;
    let body = certificate.tbs_certificate();
    let not_after = body.validity().not_after;
    let ends = not_after.to_system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(Shown {
        subject: body.subject().to_string(),
        issuer: body.issuer().to_string(),
        not_after: not_after.to_string(),
        ends,
    })
}

/// Why there was no handshake, and what to do.
fn explain(failure: &Failure, address: &Address, shown: Option<&Shown>) -> (String, String) {
    let host = &address.host;
    let tls = match failure {
        Failure::Tls(tls) => tls,
        Failure::Io(error) => {
            let text = format!("the handshake was cut: {error}");
            return (text, "does TLS end at this port, or is it a plain http:// one? Look at proxies between".into());
        }
    };
    match tls {
        rustls::Error::InvalidCertificate(why) => explain_certificate(why, host, shown),
        rustls::Error::InvalidMessage(_) => (
            "what answers there does not speak TLS".to_owned(),
            format!("write locker_uri with http://, or give the server a certificate (SSL_CERT, SSL_KEY) at {host}"),
        ),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) | rustls::Error::PeerIncompatible(_) => {
            (format!("no common TLS version: {tls}"), "the server must speak TLS 1.2 or newer".to_owned())
        }
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            (format!("the server does not serve the name {host}"), "check the host in locker_uri".to_owned())
        }
        other => (format!("the handshake failed: {other}"), "compare with: openssl s_client -connect HOST:PORT".into()),
    }
}

fn explain_certificate(why: &CertificateError, host: &str, shown: Option<&Shown>) -> (String, String) {
    let subject =
        shown.map_or_else(|| "the certificate".to_owned(), |shown| format!("the certificate {}", shown.subject));
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let until = shown.map(|shown| format!(" ({})", shown.not_after)).unwrap_or_default();
            (
                format!("{subject} has expired{until}"),
                "renew the certificate of the server; check this clock".to_owned(),
            )
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (format!("{subject} is not valid yet"), "check the clocks of both sides".to_owned())
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("{subject} is not for the name {host}: {why}"),
            "name the server in locker_uri as its certificate does, or have one issued for this name".to_owned(),
        ),
        CertificateError::UnknownIssuer => {
            let issuer = shown.map(|shown| format!(" by {}", shown.issuer)).unwrap_or_default();
            let next = "put the certificate of that authority into `ca_cert` of the source; \
                        if it is a public one, let the server send its intermediate certificates, too";
            (format!("{subject} was issued{issuer}, which is not trusted here"), next.to_owned())
        }
        other => (
            format!("{subject} is not accepted: {other}"),
            "have one issued by an authority, for this host, as the certificate of a server".to_owned(),
        ),
    }
}
