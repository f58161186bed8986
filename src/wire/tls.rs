//! How a client verifies a server over TLS, and identifies itself. Only texts; the code that connects parses them.

use super::secret::Secret;

/// Settings of TLS connections. The default trusts the machine's certificate authorities and sends no client
/// certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates in PEM form to trust instead of the machine's.
    pub ca_cert: Option<String>,
    /// The client's certificate chain and private key, both in PEM form.
    pub client: Option<(String, Secret)>,
    /// The name of the setting that turns off verification of the server, if it is set.
    pub skip_verification: Option<&'static str>,
}
