//! Which servers a client trusts, and which certificate it presents: from PEM text to a TLS configuration. Every flaw
//! in the settings is found before the first connection, and every rejected certificate is explained in words.
//!
//! A certificate from the settings is trusted as it is, for the names and the time in it, even if it is its own
//! authority. Most home-made servers have such a certificate, and curl, Go and Java accept it.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InconsistentKeys, OtherError,
    RootCertStore, SignatureScheme,
};
use x509_cert::certificate::Version;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::env::check_trusted_files;
use crate::wire::escape::escape;
use crate::wire::secret::Secret;
use crate::wire::tls::Tls;

/// The supported kinds of key, for messages.
const KEYS: &str = "RSA keys of 2048 to 8192 bits, ECDSA keys on P-256 and P-384, and Ed25519 keys";
/// How many names of a certificate an error lists at most.
const NAMES_LISTED: usize = 10;
/// The largest file of the machine's certificates, bytes: many times what systems have (200 KiB).
const TRUSTED_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The TLS configuration for connections, fully checked. `uses_tls` says whether any connection will use TLS: if not,
/// the machine's certificates are not read, because that takes longer than a whole `check`.
///
/// # Errors
/// Which certificate or key cannot be used, why, and what to do. The text contains no part of a key.
pub(crate) fn client_config(settings: &Tls, uses_tls: bool) -> Result<Arc<ClientConfig>, String> {
    client_config_with(settings, uses_tls, |verifier| verifier)
}

/// The same, with a verifier wrapped around the usual one.
pub(crate) fn client_config_with(
    settings: &Tls,
    uses_tls: bool,
    wrap: impl FnOnce(Arc<dyn ServerCertVerifier>) -> Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = wrap(Arc::new(Verifier::new(settings, uses_tls, &provider)?));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(Arc::new(match &settings.client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let shown = SingleCertAndKey::from(certified(cert, key, &provider)?);
            builder.with_client_cert_resolver(Arc::new(shown))
        }
    }))
}

/// The same configuration without the client's certificate, which is meant for the server alone: for a proxy.
pub(super) fn without_client(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.client_auth_cert_resolver = Arc::new(Nothing);
    Arc::new(config)
}

/// Shows no certificate.
#[derive(Debug)]
struct Nothing;

impl ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The client's certificate with its key, if they match.
fn certified(cert: &str, key: &Secret, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = certificates("client_cert", cert)?;
    let own = chain.first().and_then(|der| x509_cert::Certificate::from_der(der).ok());
    if own.as_ref().is_some_and(|own| own.tbs_certificate().version() == Version::V1) {
        return Err("client_cert is an X.509 version 1 certificate, which TLS servers refuse: issue it as version 3 \
                    (openssl x509 -req with -extfile, or with -copy_extensions copy)"
            .to_owned());
    }
    let text = key.expose();
    if text.contains("ENCRYPTED") {
        return Err("client_key is encrypted: give the key without a passphrase (openssl pkey -in KEY)".to_owned());
    }
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => "client_key contains no private key in PEM form".to_owned(),
        _ => "client_key is not valid PEM text: give the whole text from -----BEGIN to -----END".to_owned(),
    })?;
    let signer = provider.key_provider.load_private_key(der).map_err(|_| {
        let kind = own.as_ref().and_then(key_kind).map(|kind| format!(" ({kind})")).unwrap_or_default();
        format!("client_key is of a kind that cannot be used{kind}: supported are {KEYS}")
    })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        // A key that does not reveal its public half cannot be compared.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err("client_key does not belong to client_cert: give the key that \
             the certificate was issued for, and put the client's own certificate first in client_cert"
            .to_owned()),
        Err(_) => Err("client_cert cannot be read as an X.509 certificate: issue it anew".to_owned()),
    }
}

/// The certificates in a PEM text: at least one.
fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|_| {
        format!("{what} is not valid PEM text: give the whole text from -----BEGIN CERTIFICATE----- to -----END")
    })?;
    if found.is_empty() { Err(format!("{what} contains no certificate in PEM form")) } else { Ok(found) }
}

/// The kind of key in a certificate, for errors about kinds that are not supported.
fn key_kind(certificate: &x509_cert::Certificate) -> Option<String> {
    let spki = certificate.tbs_certificate().subject_public_key_info();
    match spki.algorithm.oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" => {
            let bits = modulus_bits(spki.subject_public_key.raw_bytes())?;
            Some(format!("RSA of {bits} bits"))
        }
        "1.2.840.10045.2.1" => {
            let curve = spki.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?.to_string();
            Some(match curve.as_str() {
                "1.2.840.10045.3.1.7" => "ECDSA on P-256".to_owned(),
                "1.3.132.0.34" => "ECDSA on P-384".to_owned(),
                "1.3.132.0.35" => "ECDSA on P-521".to_owned(),
                "1.3.132.0.10" => "ECDSA on secp256k1".to_owned(),
                other => format!("ECDSA on the curve {other}"),
            })
        }
        "1.3.101.113" => Some("Ed448".to_owned()),
        "1.2.840.10040.4.1" => Some("DSA".to_owned()),
        other => Some(format!("algorithm {other}")),
    }
}

/// The length in bits of the first number in `SEQUENCE { n, e }`.
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let number = content(content(key, 0x30)?, 0x02)?;
    let number = &number[number.iter().position(|byte| *byte != 0)?..];
    Some(number.len() * 8 - number[0].leading_zeros() as usize)
}

/// The content of the DER value at the start of `bytes`, if it has this tag.
fn content(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (&[found, length], rest) = bytes.split_first_chunk::<2>()?;
    let many = usize::from(length & 0x7f);
    let (length, rest) = match length {
        0..0x80 => (many, rest),
        _ if many <= 4 => (rest.get(..many)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), &rest[many..]),
        _ => return None,
    };
    if found == tag { rest.get(..length) } else { None }
}

/// Verifies servers: by trusted authorities, or because the settings contain their certificate itself.
#[derive(Debug)]
struct Verifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates that are trusted as they are.
    given: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(settings: &Tls, uses_tls: bool, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let given = settings.ca_cert.as_deref().map(|pem| certificates("ca_cert", pem)).transpose()?;
        if settings.skip_verification.is_some() {
            return Ok(Self { authorities: None, given: Vec::new(), provider: Arc::clone(provider) });
        }
        let mut roots = RootCertStore::empty();
        for (index, certificate) in given.iter().flatten().enumerate() {
            roots.add(certificate.clone()).map_err(|_| {
                format!("certificate {} in ca_cert cannot be read as an X.509 certificate: export it anew", index + 1)
            })?;
        }
        if given.is_none() {
            of_machine(&mut roots, uses_tls)?;
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let authorities = authorities.map_err(|error| format!("TLS cannot be set up: {error}"))?;
        Ok(Self { authorities: Some(authorities), given: given.unwrap_or_default(), provider: Arc::clone(provider) })
    }
}

/// Adds the machine's certificates (in a Concourse container, those that the worker mounts). If there are none, adds
/// those that browsers trust.
fn of_machine(roots: &mut RootCertStore, uses_tls: bool) -> Result<(), String> {
    if uses_tls {
        check_trusted_files(TRUSTED_FILE_BYTES)?;
        // Errors concern single files. The files that could be read are used.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        let judged = if self.given.iter().any(|given| given == own) {
            verify_given(own, name, now)
        } else {
            authorities.verify_server_cert(own, above, name, ocsp, now)
        };
        judged.map_err(|error| match error {
            rustls::Error::InvalidCertificate(why) => {
                let distrust = Distrust::new(&why, own, name, !self.given.is_empty());
                rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(distrust))))
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.authorities.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.authorities.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        if self.authorities.is_none() {
            // Nothing is verified, so servers with other kinds of keys are accepted, too.
            schemes.extend([SignatureScheme::ECDSA_NISTP521_SHA512, SignatureScheme::RSA_PKCS1_SHA1]);
        }
        schemes
    }
}

/// Verifies a certificate that the settings contain: only its names and its validity period count.
fn verify_given(
    own: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, rustls::Error> {
    let parsed = ParsedCertificate::try_from(own)?;
    let encoding = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
    let certificate = x509_cert::Certificate::from_der(own).map_err(|_| encoding())?;
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    if now.as_secs() < seconds(validity.not_before) {
        return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now.as_secs() > seconds(validity.not_after) {
        return Err(rustls::Error::InvalidCertificate(CertificateError::Expired));
    }
    rustls::client::verify_server_name(&parsed, name)?;
    Ok(ServerCertVerified::assertion())
}

/// Why a server's certificate was rejected, in words.
#[derive(Debug, Clone)]
pub(crate) struct Distrust {
    /// What is wrong with it.
    pub what: String,
    next: Next,
}

/// What to do about it.
#[derive(Debug, Clone)]
enum Next {
    /// Trust this certificate.
    Give(&'static str),
    Do(String),
}

impl Distrust {
    fn new(why: &CertificateError, own: &CertificateDer<'_>, name: &ServerName<'_>, some_given: bool) -> Self {
        use CertificateError as E;
        let certificate = x509_cert::Certificate::from_der(own).ok();
        let body = certificate.as_ref().map(x509_cert::Certificate::tbs_certificate);
        let subject = body.map(|body| escape(&body.subject().to_string())).filter(|subject| !subject.is_empty());
        let it = format!("the server's certificate{}", subject.map(|s| format!(" ({s})")).unwrap_or_default());
        let is_its_own = body.is_some_and(|body| body.subject() == body.issuer());
        let date = |time: x509_cert::time::Time| {
            DateTime::<Utc>::from(time.to_system_time()).to_rfc3339_opts(SecondsFormat::Secs, true)
        };
        let host = escape(&name.to_str());
        let act = |text: &str| Next::Do(text.to_owned());
        let (what, next) = match why {
            _ if body.is_some_and(|body| body.version() == Version::V1) => (
                format!("{it} is an X.509 version 1 certificate, which cannot contain host names"),
                act("issue a version 3 certificate with the host as subjectAltName"),
            ),
            E::Expired | E::ExpiredContext { .. } => {
                let at = body.map(|body| format!(" on {}", date(body.validity().not_after))).unwrap_or_default();
                (format!("{it} expired{at}"), act("renew it on the server, or correct the clock of this machine"))
            }
            E::NotValidYet | E::NotValidYetContext { .. } => {
                let at = body.map(|body| format!(" before {}", date(body.validity().not_before))).unwrap_or_default();
                (format!("{it} is not valid{at}"), act("compare the clocks of both machines"))
            }
            E::NotValidForName | E::NotValidForNameContext { .. } => match body.map(names).unwrap_or_default() {
                none if none.is_empty() => (
                    format!("{it} is for no host: it has no subjectAltName"),
                    Next::Do(format!("issue one with {host} as subjectAltName")),
                ),
                names => (
                    format!("{it} is not for {host}, but for {}", names.join(", ")),
                    Next::Do(format!("use one of these names in the address, or issue a certificate for {host}")),
                ),
            },
            E::UnknownIssuer | E::Other(_) if is_its_own => {
                let more = if some_given { ", and not the one that is trusted" } else { "" };
                (format!("{it} is self-signed{more}"), Next::Give("that certificate"))
            }
            E::UnknownIssuer => {
                let issuer = body.map(|body| format!(" by {}", escape(&body.issuer().to_string())));
                let what = format!("{it} was issued{}, which is not trusted here", issuer.unwrap_or_default());
                (what, Next::Give("the certificate of that authority"))
            }
            E::BadSignature => {
                let what = format!("{it} was not signed by the authority that it names");
                (what, Next::Give("the certificate of the authority that signed it"))
            }
            E::Revoked => (format!("{it} was revoked"), act("replace it on the server")),
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => (
                format!("{it} was not issued for servers (extendedKeyUsage)"),
                act("issue one with the purpose serverAuth"),
            ),
            E::UnsupportedSignatureAlgorithmContext { .. }
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                let kind = certificate.as_ref().and_then(key_kind).map(|kind| format!(" ({kind})"));
                (
                    format!("{it} has a key or signature of a kind that cannot be used{}", kind.unwrap_or_default()),
                    Next::Do(format!("issue one with a supported key: {KEYS}")),
                )
            }
            // It is an authority's certificate, and not the one in the settings.
            E::Other(_) => (
                format!("{it} is that of an authority, not of a server"),
                act("issue one for the server, without CA:TRUE, or give this certificate itself as trusted"),
            ),
            _ => (format!("{it} is damaged, or its format is not supported"), act("issue a new one")),
        };
        Self { what, next }
    }

    /// What to do. `setting` is the setting that takes trusted certificates.
    pub(crate) fn next(&self, setting: &str) -> String {
        match &self.next {
            Next::Give(what) => format!("give {what} as {setting}"),
            Next::Do(what) => what.clone(),
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Distrust {}

/// The host names and addresses that a certificate is valid for.
fn names(body: &x509_cert::TbsCertificate) -> Vec<String> {
    let Ok(Some((_, SubjectAltName(all)))) = body.get_extension::<SubjectAltName>() else { return Vec::new() };
    let mut names: Vec<String> = all
        .iter()
        .filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(escape(name.as_str())),
            GeneralName::IpAddress(bytes) => {
                let bytes = bytes.as_bytes();
                let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
                let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from));
                ip.ok().map(|ip| ip.to_string())
            }
            _ => None,
        })
        .collect();
    if names.len() > NAMES_LISTED {
        let more = names.len() - NAMES_LISTED;
        names.truncate(NAMES_LISTED);
        names.push(format!("{more} more"));
    }
    names
}

/// What a TLS error means, and what to do. `setting` is the setting that takes trusted certificates.
pub(crate) fn explain(error: &rustls::Error, setting: &str) -> (String, String) {
    use AlertDescription as Alert;
    let (what, next) = match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            match other.downcast_ref::<Distrust>() {
                Some(distrust) => return (distrust.what.clone(), distrust.next(setting)),
                None => ("the server's certificate cannot be used", "issue a new one"),
            }
        }
        rustls::Error::InvalidCertificate(_) => ("the server's certificate cannot be used", "issue a new one"),
        rustls::Error::InvalidMessage(_) => (
            "the server does not speak TLS at this port",
            "write http:// in the address, or give the server a certificate (SSL_CERT, SSL_KEY)",
        ),
        rustls::Error::PeerIncompatible(_) | rustls::Error::AlertReceived(Alert::ProtocolVersion) => {
            ("client and server have no TLS version or cipher in common", "the server must speak TLS 1.2 or newer")
        }
        rustls::Error::AlertReceived(Alert::HandshakeFailure) => (
            "the server ended the TLS handshake: there is no common TLS version or cipher, or it requires a client certificate",
            "compare with: openssl s_client -connect HOST:PORT",
        ),
        rustls::Error::AlertReceived(Alert::UnrecognisedName) => {
            ("the server does not serve this host name", "check the host in the address")
        }
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            ("the server requires a client certificate", "give client_cert and client_key")
        }
        rustls::Error::AlertReceived(Alert::CertificateExpired) => {
            ("the server says that the client certificate has expired", "renew client_cert")
        }
        rustls::Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => (
            "the server refuses the client certificate",
            "set client_cert to one that was issued by the authority that the server asks for",
        ),
        rustls::Error::NoApplicationProtocol => {
            ("the server expects another protocol", "give the port of the locker server")
        }
        _ => ("the TLS handshake failed", "compare with: openssl s_client -connect HOST:PORT"),
    };
    (what.to_owned(), next.to_owned())
}

/// Whether asking again does not help, because a certificate, a setting or an address has to change first.
pub(crate) fn lasts(error: &rustls::Error) -> bool {
    match error {
        // A server that is stopping or short of something may send these.
        rustls::Error::AlertReceived(alert) => !matches!(
            alert,
            AlertDescription::CloseNotify | AlertDescription::InternalError | AlertDescription::UserCanceled
        ),
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::PeerIncompatible(_)
        | rustls::Error::NoApplicationProtocol => true,
        _ => false,
    }
}

/// The TLS error inside another error, if there is one.
pub(crate) fn find(error: &ureq::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = match error {
        ureq::Error::Io(io) => io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
        ureq::Error::Other(other) => Some(other.as_ref() as &(dyn std::error::Error + 'static)),
        _ => None,
    };
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
