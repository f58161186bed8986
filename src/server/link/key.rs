//! How two servers know each other: TLS 1.3 with a bare key (RFC 7250) that the leader makes at its start, and that whoever
//! follows expects. No certificates, no names, nothing to renew.

use std::fmt;
use std::sync::Arc;

use anyhow::Context;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{default_provider, sign};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, ServerConfig, SignatureScheme,
};

/// The public key of a server, which others expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

/// What stands before the 32 bytes of an Ed25519 key in its general form (RFC 8410).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl PublicKey {
    /// The general form in which TLS sends it.
    fn general(&self) -> Vec<u8> {
        [&ED25519[..], &self.0].concat()
    }
}

/// The key of this server, new at each start. It is never stored.
#[derive(Clone)]
pub struct Key {
    config: Arc<ServerConfig>,
    public: PublicKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.public)
    }
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn random() -> anyhow::Result<Self> {
        let secret = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let secret = secret.map_err(|_| anyhow::anyhow!("the operating system gives no random bytes"))?;
        let pair = Ed25519KeyPair::from_pkcs8(secret.as_ref());
        let pair = pair.map_err(|why| anyhow::anyhow!("the new key cannot be used: {why}"))?;
        let bytes = <[u8; 32]>::try_from(pair.public_key().as_ref()).context("the new key is not an Ed25519 key")?;
        let public = PublicKey(bytes);
        let signer = sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(secret.as_ref())).context("cannot use the key")?;
        let key = CertifiedKey::new(vec![CertificateDer::from(public.general())], signer);
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .context("this build does not support TLS 1.3")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(key))));
        // Each link proves the key anew.
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), public })
    }

    /// What others must know of it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// How this server accepts links.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// How to reach the server that has this key, and no other.
///
/// # Errors
/// This build does not support TLS 1.3.
pub fn only(key: PublicKey) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(default_provider());
    let verifier = Pinned { expected: key.general(), provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .context("this build does not support TLS 1.3")?
        // Not less than a certificate: whoever has the expected key is the expected server.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts one key.
#[derive(Debug)]
struct Pinned {
    expected: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if shown.as_ref() == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
