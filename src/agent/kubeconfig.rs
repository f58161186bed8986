//! Kubeconfig files, as far as the agent needs them: the address of the API server, the trusted certificates, and our
//! credentials.
//!
//! Unsupported features (credential programs, tunnels, impersonation) are refused by name: ignoring them would mean
//! talking to the wrong server, or as the wrong user. Everything else in the files is ignored.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::agent::limits;
use crate::env;
use crate::wire::escape::cut;
use crate::wire::secret::Secret;

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct Access {
    /// The address of the API server.
    pub server: String,
    /// Certificates in PEM form to trust instead of the machine's.
    pub ca_cert: Option<String>,
    /// The server's certificate is not verified.
    pub is_unchecked: bool,
    /// The certificate chain and the key, both in PEM form.
    pub client: Option<(String, Secret)>,
    pub credential: Credential,
}

/// The credential that is sent with each request.
#[derive(Debug, Clone)]
pub enum Credential {
    None,
    Token(Secret),
    /// Read again for each request, because tokens are renewed.
    TokenFile(PathBuf),
    Basic(String, Secret),
}

/// Merges the files; the first value wins. `context` overrides the current context.
///
/// # Errors
/// Says which file or part cannot be used. The text contains no part of a file that could be a secret.
pub fn read(files: &[PathBuf], context: Option<&str>) -> Result<Access, String> {
    let mut all = Config::default();
    for file in files {
        let text = read_file(file).map_err(|why| format!("the kubeconfig {why}"))?;
        let next =
            parse(&text).ok_or_else(|| format!("the kubeconfig {} is not a valid kubeconfig", file.display()))?;
        all.merge(next, file.parent().unwrap_or(Path::new(".")));
    }
    all.access(context).map_err(|why| {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        format!("the kubeconfig {}: {why}", files.join(", "))
    })
}

/// Goes through JSON values, which saves a separate reader for each type and makes the program smaller. The parser's
/// own error texts are dropped, because they repeat parts of the file.
fn parse(text: &str) -> Option<Config> {
    let value: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    serde_json::from_value(value).ok()
}

/// Reads a small text file.
pub(super) fn read_file(file: &Path) -> Result<String, String> {
    let broken = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let bytes = env::read_file(file, limits::KUBECONFIG_BYTES).map_err(|error| broken(&error))?;
    let bytes = bytes.ok_or_else(|| broken(&format!("larger than {} bytes", limits::KUBECONFIG_BYTES)))?;
    String::from_utf8(bytes).map_err(|_| broken(&"not valid UTF-8"))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Config {
    current_context: Option<String>,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
    #[serde(skip)]
    dir: PathBuf,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
    #[serde(skip)]
    dir: PathBuf,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
}

fn is_set(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// PEM text from the kubeconfig itself, or from a file that it names.
fn pem(data: &Option<String>, file: &Option<PathBuf>, dir: &Path, what: &str) -> Result<Option<String>, String> {
    if let Some(data) = is_set(data) {
        let bytes = BASE64.decode(data.trim()).map_err(|_| format!("{what}-data is not valid base64"))?;
        return String::from_utf8(bytes).map(Some).map_err(|_| format!("{what}-data is not PEM text"));
    }
    let file = file.as_ref().filter(|file| !file.as_os_str().is_empty());
    file.map(|file| read_file(&dir.join(file)).map_err(|why| format!("{what}: {why}"))).transpose()
}

impl Config {
    fn merge(&mut self, next: Self, dir: &Path) {
        self.current_context = self.current_context.take().filter(|name| !name.is_empty()).or(next.current_context);
        let clusters = next.clusters.unwrap_or_default().into_iter().map(|c| NamedCluster { dir: dir.into(), ..c });
        self.clusters.get_or_insert_default().extend(clusters);
        let users = next.users.unwrap_or_default().into_iter().map(|u| NamedUser { dir: dir.into(), ..u });
        self.users.get_or_insert_default().extend(users);
        self.contexts.get_or_insert_default().extend(next.contexts.unwrap_or_default());
    }

    fn access(&self, context: Option<&str>) -> Result<Access, String> {
        let shown = |name: &str| cut(name, 100).to_owned();
        let wanted = context.or_else(|| is_set(&self.current_context));
        let wanted = wanted.ok_or("it has no current context; give --context NAME")?;
        let context = self.contexts.iter().flatten().find(|c| c.name == wanted);
        let Context { cluster, user } =
            &context.ok_or_else(|| format!("there is no context {}", shown(wanted)))?.context;
        let found = self.clusters.iter().flatten().find(|c| c.name == *cluster);
        let found = found.ok_or_else(|| format!("there is no cluster {}", shown(cluster)))?;
        let nobody = NamedUser { name: String::new(), user: User::default(), dir: PathBuf::new() };
        let named = match self.users.iter().flatten().find(|u| u.name == *user) {
            Some(named) => named,
            None if user.is_empty() => &nobody,
            None => return Err(format!("there is no user {}", shown(user))),
        };
        let (at_cluster, at_user) = (shown(cluster), shown(user));
        let (cluster, user) = (&found.cluster, &named.user);
        cluster.check().map_err(|why| format!("cluster {at_cluster}: {why}"))?;
        let authority = pem(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
            &found.dir,
            "certificate-authority",
        );
        let (credential, client) = user.shown(&named.dir).map_err(|why| format!("user {at_user}: {why}"))?;
        Ok(Access {
            server: cluster.server.clone(),
            ca_cert: authority.map_err(|why| format!("cluster {at_cluster}: {why}"))?,
            is_unchecked: cluster.insecure_skip_tls_verify,
            client,
            credential,
        })
    }
}

impl Cluster {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self { server, .. } if server.is_empty() => Err("it has no server"),
            Self { proxy_url, .. } if is_set(proxy_url).is_some() => {
                Err("proxy-url is not supported; set HTTPS_PROXY in the environment instead")
            }
            Self { tls_server_name, .. } if is_set(tls_server_name).is_some() => {
                Err("tls-server-name is not supported; use the name that is in the certificate as server")
            }
            _ => Ok(()),
        }
    }
}

impl User {
    /// The credential, and the client certificate with its key.
    fn shown(&self, dir: &Path) -> Result<(Credential, Option<(String, Secret)>), String> {
        if self.exec.is_some() || self.auth_provider.is_some() {
            let text = "its credentials come from a program (exec, auth-provider), which lockagt does not run; \
                        use a token, a tokenFile, a client certificate, or --in-cluster";
            return Err(text.to_owned());
        }
        if is_set(&self.impersonate).is_some() {
            return Err("impersonation (as) is not supported".to_owned());
        }
        let cert = pem(&self.client_certificate_data, &self.client_certificate, dir, "client-certificate")?;
        let key = pem(&self.client_key_data, &self.client_key, dir, "client-key")?;
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, Secret::new(key))),
            (None, None) => None,
            _ => return Err("client-certificate and client-key must be given together".to_owned()),
        };
        let file = self.token_file.as_ref().filter(|file| !file.as_os_str().is_empty());
        // The same order as in kubectl: the file may contain a renewed token, so it comes before the token.
        let credential = match (file, is_set(&self.token), is_set(&self.username)) {
            (Some(file), ..) => Credential::TokenFile(dir.join(file)),
            (None, Some(token), _) => Credential::Token(Secret::new(token)),
            (None, None, Some(name)) => {
                Credential::Basic(name.to_owned(), Secret::new(self.password.clone().unwrap_or_default()))
            }
            (None, None, None) => Credential::None,
        };
        Ok((credential, client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
apiVersion: v1
kind: Config
preferences: {}
current-context: here
clusters:
- {name: c, cluster: {server: 'https://c:6443', certificate-authority-data: UEVN, extensions: [{name: x, extension: {a: 1}}]}}
- {name: d, cluster: {server: 'http://d', certificate-authority: ca.pem, insecure-skip-tls-verify: true}}
- {name: tunnel, cluster: {server: 'https://c', proxy-url: 'socks5://x'}}
- {name: renamed, cluster: {server: 'https://c', tls-server-name: x}}
- {name: empty, cluster: {server: ''}}
users:
- {name: token, user: {token: hunter2}}
- {name: file, user: {tokenFile: token, token: hunter2}}
- {name: cert, user: {client-certificate-data: Q0VSVA==, client-key: key.pem}}
- {name: half, user: {client-certificate-data: Q0VSVA==}}
- {name: basic, user: {username: ada, password: hunter2}}
- {name: exec, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks]}}}
- {name: gcp, user: {auth-provider: {name: gcp}}}
- {name: other, user: {token: hunter2, as: root}}
- {name: broken, user: {client-certificate-data: '%', client-key-data: ''}}
contexts:
- {name: here, context: {cluster: c, user: token, namespace: x}}
";

    fn access(cluster: &str, user: &str) -> Result<Access, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let more = format!("- {{name: it, context: {{cluster: '{cluster}', user: '{user}'}}}}\n");
        std::fs::write(&file, format!("{CONFIG}{more}")).unwrap();
        std::fs::write(dir.path().join("ca.pem"), "PEM of a file").unwrap();
        std::fs::write(dir.path().join("key.pem"), "KEY").unwrap();
        read(&[file], Some("it"))
    }

    #[test]
    fn clusters_and_users_are_read() {
        let found = access("c", "token").unwrap();
        assert_eq!((found.server.as_str(), found.ca_cert.as_deref()), ("https://c:6443", Some("PEM")));
        assert!(matches!(&found.credential, Credential::Token(token) if token.expose() == "hunter2"));
        assert!(!format!("{found:?}").contains("hunter2"));
        let found = access("d", "file").unwrap();
        assert_eq!((found.ca_cert.as_deref(), found.is_unchecked), (Some("PEM of a file"), true));
        assert!(matches!(&found.credential, Credential::TokenFile(file) if file.ends_with("token")));
        assert_eq!(access("c", "cert").unwrap().client, Some(("CERT".to_owned(), Secret::new("KEY"))));
        assert!(matches!(access("c", "basic").unwrap().credential, Credential::Basic(name, _) if name == "ada"));
        assert!(matches!(access("c", "").unwrap().credential, Credential::None));
    }

    #[test]
    fn unsupported_features_are_refused_by_name() {
        let table = [
            ("tunnel", "token", "cluster tunnel: proxy-url is not supported"),
            ("renamed", "token", "tls-server-name"),
            ("empty", "token", "no server"),
            ("nowhere", "token", "there is no cluster nowhere"),
            ("c", "nobody", "there is no user nobody"),
            ("c", "half", "must be given together"),
            ("c", "exec", "user exec: its credentials come from a program"),
            ("c", "gcp", "--in-cluster"),
            ("c", "other", "impersonation"),
            ("c", "broken", "client-certificate-data is not valid base64"),
        ];
        for (cluster, user, says) in table {
            let why = access(cluster, user).unwrap_err();
            assert!(why.contains(says) && !why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn the_first_of_several_files_wins() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let first = write("1", "current-context: ''\nusers: [{name: u, user: {token: first}}]\nclusters:\n");
        let second = write(
            "2",
            "current-context: a\nclusters: [{name: c, cluster: {server: s}}]\nusers: [{name: u, user: {token: second}}]\n\
             contexts: [{name: a, context: {cluster: c, user: u}}]",
        );
        let found = read(&[first, second.clone()], None).unwrap();
        assert!(matches!(found.credential, Credential::Token(token) if token.expose() == "first"));
        assert!(read(std::slice::from_ref(&second), Some("b")).unwrap_err().contains("there is no context b"));
        let bad = write("3", "users: [{token: hunter2]");
        let why = read(&[bad], None).unwrap_err();
        assert!(why.contains("is not a valid kubeconfig") && !why.contains("hunter2"), "{why}");
        assert!(read(&[dir.path().join("4")], None).unwrap_err().contains("No such file"));
    }
}
