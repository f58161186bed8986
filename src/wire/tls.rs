//! How a client knows a server, and shows who it is, over TLS. Texts only: who connects reads them.

use super::secret::Secret;

/// Settings of TLS connections. The default trusts what the machine trusts and shows no certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates in PEM form that are trusted instead of the machine's.
    pub ca_cert: Option<String>,
    /// The client's certificate chain and private key, both in PEM form.
    pub client: Option<(String, Secret)>,
    /// The setting that asks not to verify the server at all, by its name.
    pub skip_verification: Option<&'static str>,
}
