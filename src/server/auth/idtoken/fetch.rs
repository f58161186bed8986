//! The keys of an issuer over HTTP: its discovery document names them (`OpenID` Connect Discovery 1.0).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::Deserialize;

use super::jwk::KeySet;
use super::limits::{IDTOKEN_DISCOVERY_BYTES, IDTOKEN_JWKS_BYTES, IDTOKEN_PEM_BYTES, IDTOKEN_TIMEOUT_MS};
use super::settings::{IssuerSettings, KeySource};
use crate::client::{connect, proxy, trust};
use crate::env;
use crate::wire::problems::quoted;
use crate::wire::server_url::ServerUrl;
use crate::wire::tls::Tls;

/// What a discovery document says, as far as it matters.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Fetches the keys of one issuer.
pub struct Fetch {
    issuer: String,
    url: ServerUrl,
    tls: Arc<ClientConfig>,
    /// The environment, which may name proxies.
    vars: BTreeMap<String, String>,
    timeout: Duration,
}

impl Fetch {
    /// Prepares it. Nothing is sent.
    ///
    /// # Errors
    /// A file of certificates cannot be used.
    pub fn open(settings: &IssuerSettings, base: &Path, vars: &BTreeMap<String, String>) -> Result<Self, String> {
        let url = ServerUrl::parse(&settings.issuer).map_err(|why| why.to_string())?;
        let ca_cert = match &settings.keys {
            KeySource::Discovery { ca_cert: Some(file) } => {
                let file = base.join(file);
                let read = env::whole_text(env::read_file(&file, IDTOKEN_PEM_BYTES), IDTOKEN_PEM_BYTES);
                Some(read.map_err(|why| format!("cannot read {}: {why}", file.display()))?)
            }
            KeySource::Discovery { ca_cert: None } | KeySource::File(_) => None,
        };
        let tls = Tls { ca_cert, ..Tls::default() };
        // The keys may be at another address than the discovery document, so TLS is set up in any case.
        let tls = trust::client_config(&tls, true).map_err(|why| format!("ca_cert: {why}"))?;
        let timeout = Duration::from_millis(IDTOKEN_TIMEOUT_MS);
        Ok(Self { issuer: settings.issuer.clone(), url, tls, vars: vars.clone(), timeout })
    }

    /// The same, with another limit for each of the two requests.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Asks for the keys as they are now: two requests, each with a limit of time and size. Blocks.
    ///
    /// # Errors
    /// Why there are none, and what to do.
    pub fn fetch(&self) -> Result<KeySet, String> {
        let at = self.url.join("/.well-known/openid-configuration");
        let document = self.get(&self.url, &at, IDTOKEN_DISCOVERY_BYTES)?;
        let found: Discovery = serde_json::from_slice(&document)
            .map_err(|_| format!("{at} is not a discovery document with `issuer` and `jwks_uri`"))?;
        if found.issuer != self.issuer {
            return Err(format!(
                "{at} is of the issuer {}: write exactly that as `issuer`, if it is the one that is meant",
                quoted(&found.issuer)
            ));
        }
        let keys = ServerUrl::parse(&found.jwks_uri).map_err(|why| format!("{at}: `jwks_uri` {why}"))?;
        if self.url.is_tls() && !keys.is_tls() {
            return Err(format!("{at}: `jwks_uri` must begin with https://, as the issuer does"));
        }
        let at = keys.join("");
        let set = self.get(&keys, &at, IDTOKEN_JWKS_BYTES)?;
        KeySet::parse(&set).map_err(|why| format!("{keys}: {why}"))
    }

    /// The body of a 200.
    fn get(&self, server: &ServerUrl, url: &str, max: u64) -> Result<Vec<u8>, String> {
        let proxy = proxy::proxy_for(server, None, &self.vars)?;
        let agent = connect::agent(server, proxy, Arc::clone(&self.tls), None, &self.vars);
        let asked = connect::guarded(|| {
            let request = agent.get(url).config().timeout_global(Some(self.timeout)).build();
            let mut response = request.header("accept", "application/json").call()?;
            let body = response.body_mut().with_config().limit(max).read_to_vec()?;
            Ok((response.status().as_u16(), body))
        });
        match asked {
            Ok((200, body)) => Ok(body),
            Ok((status @ 300..400, _)) => {
                Err(format!("{server} answers with {status}, and redirects are not followed: name the final address"))
            }
            Ok((status, _)) => Err(format!("{server} answers with {status}")),
            Err(ureq::Error::BodyExceedsLimit(_)) => Err(format!("the answer of {server} is longer than {max} bytes")),
            Err(error) => {
                Err(format!("no answer from {server}: {}", connect::in_words(&error, "ca_cert of the issuer")))
            }
        }
    }
}

/// The keys in a file.
///
/// # Errors
/// It cannot be read, or is not a JWK set.
pub fn of_file(file: &Path) -> Result<KeySet, String> {
    let read = env::whole(env::read_file(file, IDTOKEN_JWKS_BYTES), IDTOKEN_JWKS_BYTES);
    let text = read.map_err(|why| format!("cannot read {}: {why}", file.display()))?;
    KeySet::parse(&text).map_err(|why| format!("{}: {why}", file.display()))
}
