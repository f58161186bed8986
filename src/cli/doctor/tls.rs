//! A TLS handshake that reports what it saw: the version, the certificates and, in plain words, why it failed.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConnection, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::network::Address;
use super::report::Report;
use super::{Stop, Tools};
use crate::client::trust;
use crate::env::Env;
use crate::wire::errors::exit;
use crate::wire::tls::Tls;

/// How long each read and write of the handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A certificate that expires sooner than this gets a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// One certificate that the server presented.
#[derive(Debug, Clone)]
struct Shown {
    subject: String,
    issuer: String,
    not_after: String,
    /// Seconds since 1970.
    ends: Duration,
}

/// The result of a handshake.
struct Outcome {
    /// The certificates in the order in which the server sent them, its own first. Those that cannot be parsed are left
    /// out.
    chain: Vec<Shown>,
    /// Version and cipher suite.
    done: Result<String, Failure>,
}

enum Failure {
    /// The settings contain a certificate or key that cannot be used.
    Settings(String),
    Tls(rustls::Error),
    Io(io::Error),
}

/// Makes a handshake as the resource would, and reports the result.
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
                    report.warn(env, "tls", text, "renew it soon: it expires within 14 days")?;
                } else {
                    report.ok(env, "tls", text)?;
                }
            }
            Ok(())
        }
        Err(failure) => {
            let (text, next) = explain(&failure);
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
    let mut connection = ClientConnection::new(config(settings, chain)?, name).map_err(Failure::Tls)?;
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
    // The library writes `TLSv1_3`.
    let words = words.join(", ").replace("TLSv1_", "TLS 1.");
    let trust = if settings.skip_verification.is_some() { "not verified" } else { "trusted" };
    Ok(format!("{words}; the certificate is {trust}"))
}

/// The TLS configuration of the resource's HTTP client, which also records the certificates.
fn config(settings: &Tls, chain: &Chain) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let watched = |judge| -> Arc<dyn ServerCertVerifier> { Arc::new(Watch { judge, chain: Arc::clone(chain) }) };
    trust::client_config_with(settings, true, watched).map_err(Failure::Settings)
}

/// Records the certificates, and leaves the verification to the usual verifier.
#[derive(Debug)]
struct Watch {
    judge: Arc<dyn ServerCertVerifier>,
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

/// Why the handshake failed, and what to do.
fn explain(failure: &Failure) -> (String, String) {
    match failure {
        Failure::Tls(tls) => trust::explain(tls, "`ca_cert` of the source (--ca-cert)"),
        Failure::Settings(why) => (why.clone(), "correct it in the source".to_owned()),
        Failure::Io(error) => (
            format!("the connection was closed during the TLS handshake: {error}"),
            "does this port speak TLS, or plain http://? Check the proxies in between".to_owned(),
        ),
    }
}
