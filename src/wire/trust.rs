//! What a client trusts, and what it shows: certificates and a key, parsed once from PEM.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::secret::Secret;

/// How a client makes sure that it talks to its server. By default it trusts whom the machine trusts.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Trust these issuers only, DER; empty for those of the machine.
    pub ca: Arc<[Vec<u8>]>,
    /// Shown to servers that ask for it.
    pub shown: Option<Shown>,
    /// Do not look at the server's certificate at all. Whoever uses it says so each time.
    pub skip: bool,
}

/// A client certificate.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The certificate, then those above it, DER.
    pub chain: Arc<[Vec<u8>]>,
    /// Its key, PEM.
    pub key: Secret,
}

impl Trust {
    /// From PEM texts.
    ///
    /// # Errors
    /// What is wrong with which of them, without any of their text.
    pub fn parse(ca: Option<&str>, cert: Option<&str>, key: Option<&str>, skip: bool) -> Result<Self, String> {
        let ca = ca.map(|pem| certificates("ca_cert", pem)).transpose()?.unwrap_or_default();
        let shown = match (cert, key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let chain = certificates("client_cert", cert)?;
                // The error may quote the key.
                PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|_| "client_key must be an unencrypted PEM key".to_owned())?;
                Some(Shown { chain, key: Secret::new(key) })
            }
            _ => return Err("client_cert and client_key belong together".to_owned()),
        };
        Ok(Self { ca, shown, skip })
    }
}

fn certificates(name: &str, pem: &str) -> Result<Arc<[Vec<u8>]>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found.into_iter().map(|der| der.to_vec()).collect()),
        _ => Err(format!("{name} must be PEM text with a block BEGIN CERTIFICATE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_and_not_shown() {
        let table = [
            ((Some("x"), None, None), "ca_cert must be PEM text with a block BEGIN CERTIFICATE"),
            ((None, Some("x"), None), "client_cert and client_key belong together"),
            ((None, None, Some("hunter2")), "client_cert and client_key belong together"),
            ((None, Some("x"), Some("hunter2")), "client_cert must be PEM text with a block BEGIN CERTIFICATE"),
        ];
        for ((ca, cert, key), expected) in table {
            assert_eq!(Trust::parse(ca, cert, key, false).unwrap_err(), expected);
        }
        assert!(Trust::parse(None, None, None, false).unwrap().ca.is_empty());
    }
}
