//! The cluster: the address of its API, our credentials, and the two calls that the agent makes.
//!
//! Nothing here makes decisions. What an answer means for a latch is up to [`super::plan`]. This module only
//! distinguishes what the API server itself says from what something in between says.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::kubeconfig::{self, Access, Credential};
use crate::agent::limits;
use crate::client::connect::{self, Authorization};
use crate::client::{proxy, trust};
use crate::core::latch::{Namespace, WorkflowName};
use crate::wire::escape::cut;
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::tls::Tls;

/// The directory where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Names another directory, for tests. Used only for the cluster of the pod.
const SERVICE_ACCOUNT_VARIABLE: &str = "LOCKER_SERVICE_ACCOUNT_DIR";
/// The time limit for one call, from its start to the end of the answer. Enough for a large workflow over a slow line.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// The longest error text that is shown, in bytes.
const ERROR_BYTES: usize = 300;

/// The cluster to use, according to the options.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub in_cluster: bool,
}

/// How the cluster was found. It is read again for each new connection, to pick up new credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// These files. The first one that sets a value wins.
    Kubeconfig { files: Vec<PathBuf>, context: Option<String> },
    /// The cluster that this pod runs in.
    Pod { server: String, account: PathBuf },
}

impl Source {
    /// Finds the cluster: from the options, else the files in `KUBECONFIG`, else `~/.kube/config`, else the cluster of
    /// the pod.
    ///
    /// # Errors
    /// None of these exists. The text says where it looked.
    pub fn find(wish: &Wish, vars: &BTreeMap<String, String>) -> Result<Self, String> {
        let var = |name: &str| vars.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if wish.in_cluster {
            return Self::pod(vars).ok_or_else(|| {
                "--in-cluster: KUBERNETES_SERVICE_HOST is not set, so this does not run in a pod".to_owned()
            });
        }
        let context = wish.context.clone();
        if let Some(file) = &wish.kubeconfig {
            return Ok(Self::Kubeconfig { files: vec![file.clone()], context });
        }
        let named: Vec<PathBuf> = var("KUBECONFIG")
            .map(|list| list.split(':').filter(|file| !file.is_empty()).map(PathBuf::from).collect())
            .unwrap_or_default();
        let home = var("HOME").map(|home| Path::new(home).join(".kube/config"));
        let looked_for = if named.is_empty() { home.into_iter().collect() } else { named };
        let files: Vec<PathBuf> = looked_for.iter().filter(|file| file.is_file()).cloned().collect();
        if !files.is_empty() {
            return Ok(Self::Kubeconfig { files, context });
        }
        if let Some(context) = context {
            return Err(format!("--context {context}: there is no kubeconfig ({})", list(&looked_for)));
        }
        Self::pod(vars).ok_or_else(|| {
            format!(
                "no cluster: there is no kubeconfig ({}), and KUBERNETES_SERVICE_HOST is not set; give --kubeconfig FILE",
                list(&looked_for)
            )
        })
    }

    fn pod(vars: &BTreeMap<String, String>) -> Option<Self> {
        let var = |name: &str| vars.get(name).filter(|value| !value.is_empty());
        let host = var("KUBERNETES_SERVICE_HOST")?;
        let port = var("KUBERNETES_SERVICE_PORT").map_or("443", String::as_str);
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let account = var(SERVICE_ACCOUNT_VARIABLE).map_or(SERVICE_ACCOUNT, String::as_str);
        Some(Self::Pod { server: format!("https://{host}:{port}"), account: account.into() })
    }

    fn access(&self) -> Result<Access, String> {
        match self {
            Self::Kubeconfig { files, context } => kubeconfig::read(files, context.as_deref()),
            Self::Pod { server, account } => {
                let in_pod =
                    |why: String| format!("in-cluster: {why}; does the pod have a service account with its token?");
                let token = account.join("token");
                kubeconfig::read_file(&token).map_err(in_pod)?;
                Ok(Access {
                    server: server.clone(),
                    ca_cert: Some(kubeconfig::read_file(&account.join("ca.crt")).map_err(in_pod)?),
                    is_unchecked: false,
                    client: None,
                    credential: Credential::TokenFile(token),
                })
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubeconfig { files, context: None } => write!(f, "kubeconfig {}", list(files)),
            Self::Kubeconfig { files, context: Some(context) } => {
                write!(f, "kubeconfig {}, context {context}", list(files))
            }
            Self::Pod { account, .. } => write!(f, "in-cluster, service account {}", account.display()),
        }
    }
}

fn list(files: &[PathBuf]) -> String {
    if files.is_empty() {
        return "neither KUBECONFIG nor HOME is set".to_owned();
    }
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Why a call returned no workflow. After `Trouble`, the effect of a PATCH is unknown; after any other error, it had
/// none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterError {
    /// The object has changed since it was read.
    Conflict,
    /// 401: the credentials are wrong or have expired.
    Unauthorized,
    /// 403, as the API server explains it.
    Forbidden(String),
    /// The API server rejected the request. A retry will not help.
    Refused(String),
    /// There was no answer, or it was not about the workflow.
    Trouble(String),
}

/// A cluster. Calls block; one thread makes them.
pub struct Cluster {
    source: Source,
    vars: BTreeMap<String, String>,
    connection: Connection,
    /// Credentials or certificates may be out of date. They are read again before the next call.
    is_doubtful: bool,
}

struct Connection {
    agent: ureq::Agent,
    server: ServerUrl,
    credential: Credential,
    is_unchecked: bool,
}

enum Call<'a> {
    Get,
    Patch(&'a [u8]),
}

impl Cluster {
    /// Prepares to call the cluster, but sends nothing yet. `vars` is the environment, which may name proxies.
    ///
    /// # Errors
    /// Credentials, certificates or addresses cannot be used.
    pub fn open(source: Source, vars: &BTreeMap<String, String>) -> Result<Self, String> {
        let connection = Connection::open(&source, vars)?;
        Ok(Self { source, vars: vars.clone(), connection, is_doubtful: false })
    }

    /// The address of the API server.
    #[must_use]
    pub fn server(&self) -> String {
        self.connection.server.to_string()
    }

    /// Whether the server's certificate is not verified (`insecure-skip-tls-verify`).
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.connection.is_unchecked
    }

    /// The workflow. `None` if the API server itself says that it does not exist.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn get(&mut self, namespace: &Namespace, name: &WorkflowName) -> Result<Option<Value>, ClusterError> {
        match self.call(&path(namespace, name), &Call::Get) {
            // The token may have been renewed: retry once, immediately.
            Err(ClusterError::Unauthorized) => self.call(&path(namespace, name), &Call::Get),
            other => other,
        }
    }

    /// Applies a JSON merge patch and returns the resulting workflow. `None` as for [`Self::get`].
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn patch(
        &mut self,
        namespace: &Namespace,
        name: &WorkflowName,
        patch: &Value,
    ) -> Result<Option<Value>, ClusterError> {
        let body = serde_json::to_vec(patch).map_err(|error| ClusterError::Refused(error.to_string()))?;
        self.call(&path(namespace, name), &Call::Patch(&body))
    }

    fn call(&mut self, path: &str, call: &Call<'_>) -> Result<Option<Value>, ClusterError> {
        if self.is_doubtful {
            self.connection = Connection::open(&self.source, &self.vars).map_err(ClusterError::Trouble)?;
            self.is_doubtful = false;
        }
        let answer = self.connection.call(path, call);
        self.is_doubtful = matches!(answer, Err(ClusterError::Unauthorized | ClusterError::Trouble(_)));
        answer
    }
}

impl Connection {
    fn open(source: &Source, vars: &BTreeMap<String, String>) -> Result<Self, String> {
        let Access { server, ca_cert, is_unchecked, client, credential } = source.access()?;
        let server = ServerUrl::parse(&server).map_err(|why| format!("{source}: the server {why}"))?;
        let tls = Tls { ca_cert, client, skip_verification: is_unchecked.then_some("insecure-skip-tls-verify") };
        let tls = trust::client_config(&tls, server.is_tls()).map_err(|why| format!("{source}: {why}"))?;
        let proxy = proxy::proxy_for(&server, None, vars)?;
        Ok(Self { agent: connect::agent(&server, proxy, tls, Some(IDLE), vars), server, credential, is_unchecked })
    }

    fn authorization(&self) -> Result<Option<Secret>, ClusterError> {
        Ok(match &self.credential {
            Credential::None => None,
            Credential::Token(token) => Some(Authorization::Bearer(token.clone()).header()),
            Credential::TokenFile(file) => {
                let token = kubeconfig::read_file(file).map_err(ClusterError::Trouble)?;
                Some(Authorization::Bearer(Secret::new(token.trim())).header())
            }
            Credential::Basic(username, password) => {
                let credentials = Credentials { username: username.clone(), password: password.clone() };
                Some(Authorization::Basic(credentials).header())
            }
        })
    }

    fn call(&self, path: &str, call: &Call<'_>) -> Result<Option<Value>, ClusterError> {
        let authorization = self.authorization()?;
        let url = self.server.join(path);
        let answered = connect::guarded(|| {
            let mut response = match call {
                Call::Get => with_headers(self.agent.get(url), authorization.as_ref()).call(),
                Call::Patch(body) => with_headers(self.agent.patch(url), authorization.as_ref())
                    .header("content-type", "application/merge-patch+json")
                    .send(*body),
            }?;
            let body = response.body_mut().with_config().limit(limits::ARGO_ANSWER_BYTES).read_to_vec()?;
            Ok((response.status().as_u16(), body))
        });
        let trouble = |error: ureq::Error| {
            ClusterError::Trouble(connect::in_words(&error, "certificate-authority in the kubeconfig"))
        };
        let (status, body) = answered.map_err(trouble)?;
        if status != 200 {
            return refusal(status, &body);
        }
        match serde_json::from_slice::<Value>(&body) {
            Ok(value) if value["kind"] == "Workflow" => Ok(Some(value)),
            _ => Err(ClusterError::Trouble("the answer is not a workflow".to_owned())),
        }
    }
}

fn with_headers<B>(request: ureq::RequestBuilder<B>, authorization: Option<&Secret>) -> ureq::RequestBuilder<B> {
    let request = request.header("accept", "application/json").config().timeout_global(Some(PATIENCE)).build();
    match authorization {
        Some(secret) => request.header("authorization", secret.expose()),
        None => request,
    }
}

/// The API server's body for an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    kind: String,
    reason: String,
    message: String,
    details: Details,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    kind: String,
}

/// The meaning of a status other than 200. A 404 means that the workflow does not exist only if the API server says so
/// about a workflow: a proxy, or a cluster without Argo, also answers 404.
fn refusal(code: u16, body: &[u8]) -> Result<Option<Value>, ClusterError> {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let is_api = status.kind == "Status";
    let text = cut(&status.message, ERROR_BYTES).to_owned();
    match code {
        404 if is_api && status.reason == "NotFound" && status.details.kind == "workflows" => Ok(None),
        404 => Err(ClusterError::Trouble(
            "404 that is not about the workflow: is Argo installed in this cluster?".to_owned(),
        )),
        401 => Err(ClusterError::Unauthorized),
        409 if is_api => Err(ClusterError::Conflict),
        403 if is_api => Err(ClusterError::Forbidden(text)),
        400 | 405 | 406 | 413 | 415 | 422 if is_api => Err(ClusterError::Refused(text)),
        _ => Err(ClusterError::Trouble(format!("status {code} {text}").trim_end().to_owned())),
    }
}

/// Both names are safe in a path. Their types guarantee it.
fn path(namespace: &Namespace, name: &WorkflowName) -> String {
    format!("/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows/{name}")
}
