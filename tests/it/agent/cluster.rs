//! The part of a Kubernetes API server that the agent uses, with the answers of real ones, and a controller that
//! continues a workflow when a node has ended.
//!
//! | request | answer |
//! |---|---|
//! | GET of a workflow that exists | 200 |
//! | GET or PATCH of one that does not | 404, `Status`, reason NotFound, kind workflows |
//! | any other path, such as without Argo's CRD | 404 as plain text |
//! | merge patch with its current version | 200, and a new version |
//! | merge patch with another version | 409 |
//! | merge patch with another uid | 422 |
//! | another kind of patch | 415 |
//! | no token, a wrong token | 403 as anonymous, 401 |
//! | a namespace that is not allowed | 403, whether the workflow exists or not |

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value, json};

use crate::support::certs::Pair;

/// A running cluster.
pub struct Cluster {
    pub address: String,
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
pub struct World {
    workflows: BTreeMap<String, Value>,
    version: u64,
    /// The nodes that a patch has ended, in order.
    pub ends: Vec<(String, String)>,
    /// The method and status of each answer.
    pub answers: Vec<(String, u16)>,
    /// The valid token. Without one, the cluster accepts every request.
    pub token: Option<String>,
    /// Namespaces that the agent may not access.
    pub forbidden: Vec<String>,
    /// The answer that replaces all others for names that contain the text.
    pub instead: Vec<(String, u16, String)>,
    /// This many patches conflict with a write of the controller.
    pub rivals: usize,
    /// Argo is not installed.
    pub no_argo: bool,
}

impl Cluster {
    pub fn start() -> Self {
        Self::serve(None)
    }

    /// A cluster over TLS, with this certificate.
    pub fn start_tls(pair: &Pair) -> Self {
        let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        Self::serve(Some(Arc::new(config)))
    }

    fn serve(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let world: Arc<Mutex<World>> = Arc::default();
        let serving = Arc::clone(&world);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (world, tls) = (Arc::clone(&serving), tls.clone());
                std::thread::spawn(move || match tls {
                    None => connection(stream, &world),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(config).unwrap();
                        connection(rustls::StreamOwned::new(session, stream), &world);
                    }
                });
            }
        });
        Self { address, world }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    /// Makes a workflow in namespace `default`, with this status from Argo's controller.
    pub fn make(&self, name: &str, spec: Value, status: Value) {
        self.world(|world| {
            let uid = format!("uid-of-{name}-{}", world.version);
            let metadata = json!({ "name": name, "namespace": "default", "uid": uid });
            let kind = json!({ "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow" });
            let mut workflow =
                json!({ "metadata": metadata, "spec": spec, "status": status, "unknown": { "kept": [1] } });
            workflow.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
            world.store(&format!("default/{name}"), workflow);
        });
    }

    /// The present workflow.
    pub fn workflow(&self, name: &str) -> Value {
        self.world(|world| world.workflows[&format!("default/{name}")].clone())
    }

    /// The controller (or somebody else) writes.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.world(|world| {
            let key = format!("default/{name}");
            let mut workflow = world.workflows[&key].clone();
            change(&mut workflow);
            world.store(&key, workflow);
        });
    }

    /// Nodes that a patch has ended, in order.
    pub fn ends(&self) -> Vec<String> {
        self.world(|world| world.ends.iter().map(|(node, phase)| format!("{node} {phase}")).collect())
    }

    /// The number of answers to this method with this status.
    pub fn answers(&self, method: &str, status: u16) -> usize {
        self.world(|world| world.answers.iter().filter(|(m, s)| m == method && *s == status).count())
    }
}

/// A suspend node in this phase.
pub fn node(name: &str, phase: &str) -> Value {
    json!({ "id": name, "name": name, "displayName": name, "type": "Suspend", "phase": phase, "startedAt": "2026-01-01T00:00:00Z" })
}

/// A suspend node that names the latch it waits for.
pub fn node_of(name: &str, phase: &str, latch: &str) -> Value {
    let mut node = node(name, phase);
    node["inputs"] = json!({ "parameters": [{ "name": "lock-id", "value": latch }] });
    node
}

/// The status of a running workflow with these nodes.
pub fn running(nodes: &[Value]) -> Value {
    let nodes: Map<String, Value> =
        nodes.iter().map(|node| (node["id"].as_str().unwrap().to_owned(), node.clone())).collect();
    json!({ "phase": "Running", "nodes": nodes })
}

impl World {
    fn store(&mut self, key: &str, mut workflow: Value) {
        self.version += 1;
        workflow["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.workflows.insert(key.to_owned(), workflow);
    }

    /// Status, content type and body for a request.
    fn answer(&mut self, method: &str, path: &str, head: &str, body: &[u8]) -> (u16, String) {
        let plain = |status: u16, text: &str| (status, text.to_owned());
        if let Some((_, status, text)) = self.instead.iter().find(|(part, ..)| path.contains(part.as_str())) {
            return (*status, text.clone());
        }
        match (&self.token, head.lines().find_map(|line| line.strip_prefix("authorization: "))) {
            (Some(_), None) => return status(403, "Forbidden", "User \"system:anonymous\" cannot do that"),
            (Some(token), Some(shown)) if shown != format!("Bearer {token}") => {
                return status(401, "Unauthorized", "Unauthorized");
            }
            _ => {}
        }
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "apis", "argoproj.io", "v1alpha1", "namespaces", namespace, "workflows", name] = parts[..] else {
            return plain(404, "404 page not found\n");
        };
        if self.no_argo {
            return plain(404, "404 page not found\n");
        }
        if self.forbidden.iter().any(|forbidden| forbidden == namespace) {
            return status(403, "Forbidden", "User cannot get resource \"workflows\"");
        }
        let key = format!("{namespace}/{name}");
        let Some(found) = self.workflows.get(&key).cloned() else {
            return status(404, "NotFound", &format!("workflows.argoproj.io \"{name}\" not found"));
        };
        match method {
            "GET" => (200, found.to_string()),
            "PATCH" if !head.contains("content-type: application/merge-patch+json") => {
                status(415, "UnsupportedMediaType", "unsupported")
            }
            "PATCH" => self.patch(&key, found, &serde_json::from_slice(body).unwrap()),
            _ => status(405, "MethodNotAllowed", "no"),
        }
    }

    fn patch(&mut self, key: &str, mut found: Value, patch: &Value) -> (u16, String) {
        if self.rivals > 0 {
            self.rivals -= 1;
            self.store(key, found.clone());
            found = self.workflows[key].clone();
        }
        let metadata = &patch["metadata"];
        if metadata["uid"].is_string() && metadata["uid"] != found["metadata"]["uid"] {
            return status(422, "Invalid", "metadata.uid: field is immutable");
        }
        if metadata["resourceVersion"].is_string()
            && metadata["resourceVersion"] != found["metadata"]["resourceVersion"]
        {
            return status(409, "Conflict", "the object has been modified");
        }
        let before = found.clone();
        merge(&mut found, patch);
        if found != before {
            for (id, node) in found["status"]["nodes"].as_object().into_iter().flatten() {
                let old = &before["status"]["nodes"][id]["phase"];
                if *old != node["phase"] {
                    self.ends.push((id.clone(), node["phase"].as_str().unwrap_or_default().to_owned()));
                }
            }
            self.store(key, found);
            self.go_on(key);
        }
        (200, self.workflows[key].to_string())
    }

    /// The controller: when `a` has succeeded and `b` waits to begin, `b` is suspended.
    fn go_on(&mut self, key: &str) {
        let mut workflow = self.workflows[key].clone();
        let nodes = &mut workflow["status"]["nodes"];
        if nodes["a"]["phase"] == "Succeeded" && nodes["b"]["phase"] == "Pending" {
            nodes["b"]["phase"] = "Running".into();
            self.store(key, workflow);
        }
    }
}

/// A JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn status(code: u16, reason: &str, message: &str) -> (u16, String) {
    let details = json!({ "group": "argoproj.io", "kind": "workflows" });
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "details": details, "code": code
    });
    (code, body.to_string())
}

fn connection(mut stream: impl Read + Write, world: &Mutex<World>) {
    let mut request = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&chunk[..read]),
        }
        let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).into_owned();
        let lower: String = head.lines().map(header_in_lower_case).collect();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if request.len() < end + 4 + length {
            continue;
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let body = request[end + 4..end + 4 + length].to_vec();
        request.drain(..end + 4 + length);
        let (status, body) = {
            let mut world = world.lock().unwrap();
            let answer = world.answer(&method, &path, &lower, &body);
            world.answers.push((method, answer.0));
            answer
        };
        let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).is_err() {
            return;
        }
        let _ = stream.flush();
    }
}

fn header_in_lower_case(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_ascii_lowercase()),
        None => format!("{line}\n"),
    }
}
