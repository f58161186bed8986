//! Whom the client trusts, in the terms of its HTTP library.

use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::wire::trust::Trust;

/// The TLS settings for `trust`. Without a CA of its own it is the machine's certificates (in a Concourse container
/// those that the worker mounts), and where there are none those that browsers trust.
pub(super) fn config(trust: &Trust) -> TlsConfig {
    let roots = if trust.ca.is_empty() { of_machine() } else { specific(trust.ca.iter().map(Vec::as_slice)) };
    let shown = trust.shown.as_ref().and_then(|shown| {
        let chain: Vec<_> = shown.chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        // It was parsed before.
        let key = PrivateKey::from_pem(shown.key.expose().as_bytes()).ok()?;
        Some(ClientCert::new_with_certs(&chain, key))
    });
    TlsConfig::builder().root_certs(roots).client_cert(shown).disable_verification(trust.skip).build()
}

fn of_machine() -> RootCerts {
    // Errors are about single files; those that could be read count.
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() { RootCerts::WebPki } else { specific(found.iter().map(AsRef::as_ref)) }
}

fn specific<'d>(certificates: impl Iterator<Item = &'d [u8]>) -> RootCerts {
    RootCerts::new_with_certs(&certificates.map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>())
}
