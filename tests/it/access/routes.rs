//! The table of all routes: by everybody, with every right, proved in every way.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine as _;
use locker::server::routes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::{BASE64, HASH};
use crate::support::certs::{Ca, Files, Pair};
use crate::support::http::{Answer, Client};
use crate::support::issuer::Key;
use crate::support::{Server, Setup};

/// Whoever has rights of its own below, under each kind of identity: it is named like its right.
const PEOPLE: [&str; 8] = ["look", "claim", "manage", "break", "admin", "metrics", "nobody", "root"];

/// How somebody proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Proof {
    Password,
    Token,
    IdToken,
    Certificate,
}

const PROOFS: [Proof; 4] = [Proof::Password, Proof::Token, Proof::IdToken, Proof::Certificate];

const LOOK: &str = "look claim manage break admin root";
const ANY: &str = "look claim manage break admin metrics root";
const CLAIM: &str = "claim admin root";
const MANAGE: &str = "manage admin root";
const BREAK: &str = "break admin root";
const ADMIN: &str = "admin root";
const EVERYBODY: &str = "look claim manage break admin metrics nobody root anonymous";
const KNOWN: &str = "look claim manage break admin metrics nobody root";

/// Each route with a request for it, and who gets further than to a refusal. `POOL` is a name of a pool, and a `#` means
/// that the route is about that pool alone.
#[rustfmt::skip]
fn table() -> Vec<(&'static str, &'static str, &'static str, Value, &'static str)> {
    vec![
        ("PUT /api/v1/claims/{id}", "PUT", "/api/v1/claims/new-WHO#", json!({"pool": "POOL", "queue": false}), CLAIM),
        ("GET /api/v1/claims/{id}", "GET", "/api/v1/claims/none", Value::Null, LOOK),
        ("DELETE /api/v1/claims/{id}", "DELETE", "/api/v1/claims/none-WHO", Value::Null, ANY),
        ("POST /api/v1/claims/{id}/release", "POST", "/api/v1/claims/none-WHO/release", json!({}), ANY),
        ("POST /api/v1/claims/{id}/confirm", "POST", "/api/v1/claims/none/confirm", json!({"fence": 1}), ANY),
        ("POST /api/v1/claims/{id}/renew", "POST", "/api/v1/claims/none/renew", json!({}), ANY),
        ("POST /api/v1/claims/{id}/deliver", "POST", "/api/v1/claims/none/deliver", json!({"revision": 1}), LOOK),
        ("POST /api/v1/claims/{id}/break", "POST", "/api/v1/claims/none/break", json!({"by": {"owner": {"person": "x"}, "reason": "x"}}), ANY),
        ("POST /api/v1/claims/{id}/move", "POST", "/api/v1/claims/none/move", json!({"to": "first", "by": {"owner": {"person": "x"}, "reason": "x"}}), BREAK),
        ("GET /api/v1/claims", "GET", "/api/v1/claims?pool=POOL#", Value::Null, LOOK),
        ("GET /api/v1/pools", "GET", "/api/v1/pools", Value::Null, LOOK),
        ("GET /api/v1/pools/{pool}", "GET", "/api/v1/pools/POOL#", Value::Null, LOOK),
        ("PUT /api/v1/pools/{pool}", "PUT", "/api/v1/pools/POOL#", json!({}), ADMIN),
        ("PATCH /api/v1/pools/{pool}", "PATCH", "/api/v1/pools/POOL#", json!({}), ADMIN),
        ("DELETE /api/v1/pools/{pool}", "DELETE", "/api/v1/pools/POOL#", Value::Null, ADMIN),
        ("GET /api/v1/pools/{pool}/locks/{lock}", "GET", "/api/v1/pools/POOL/locks/x#", Value::Null, LOOK),
        ("PUT /api/v1/pools/{pool}/locks/{lock}", "PUT", "/api/v1/pools/POOL/locks/WHO#", json!({}), MANAGE),
        ("PATCH /api/v1/pools/{pool}/locks/{lock}", "PATCH", "/api/v1/pools/POOL/locks/x#", json!({}), MANAGE),
        ("DELETE /api/v1/pools/{pool}/locks/{lock}", "DELETE", "/api/v1/pools/POOL/locks/x#", Value::Null, MANAGE),
        ("POST /api/v1/pools/{pool}/locks/{lock}/move", "POST", "/api/v1/pools/POOL/locks/x/move#", json!({"to": "p-2", "by": {"owner": {"person": "x"}, "reason": "x"}}), MANAGE),
        ("POST /api/v1/pools/{pool}/locks/{lock}/quarantine", "POST", "/api/v1/pools/POOL/locks/x/quarantine#", json!({"by": {"owner": {"person": "x"}, "reason": "x"}}), MANAGE),
        ("POST /api/v1/pools/{pool}/locks/{lock}/return", "POST", "/api/v1/pools/POOL/locks/x/return#", json!({}), MANAGE),
        ("GET /api/v1/pools/{pool}/changes", "GET", "/api/v1/pools/POOL/changes#", Value::Null, LOOK),
        ("POST /api/v1/pools/{pool}/changes", "POST", "/api/v1/pools/POOL/changes#", json!({}), CLAIM),
        ("GET /api/v1/pools/{pool}/changes/{revision}", "GET", "/api/v1/pools/POOL/changes/1#", Value::Null, LOOK),
        ("GET /api/v1/changes", "GET", "/api/v1/changes", Value::Null, LOOK),
        ("GET /api/v1/pools/{pool}/stats", "GET", "/api/v1/pools/POOL/stats#", Value::Null, LOOK),
        ("GET /api/v1/stats", "GET", "/api/v1/stats", Value::Null, LOOK),
        ("GET /api/v1/events", "HEAD", "/api/v1/events?pool=POOL#", Value::Null, LOOK),
        ("GET /api/v1/verify", "GET", "/api/v1/verify?pool=POOL&lock=x&fence=1#", Value::Null, LOOK),
        ("GET /api/v1/info", "GET", "/api/v1/info", Value::Null, ANY),
        ("GET /healthz", "GET", "/healthz", Value::Null, EVERYBODY),
        ("GET /readyz", "GET", "/readyz", Value::Null, EVERYBODY),
        ("GET /metrics", "GET", "/metrics", Value::Null, "metrics root"),
        ("POST /api/v1/tokens", "POST", "/api/v1/tokens", json!({"name": "made-by-WHO"}), "root"),
        ("GET /api/v1/tokens", "GET", "/api/v1/tokens", Value::Null, "root"),
        ("DELETE /api/v1/tokens/{name}", "DELETE", "/api/v1/tokens/none", Value::Null, "root"),
        ("POST /api/v1/session", "POST", "/api/v1/session", json!({}), KNOWN),
        ("GET /api/v1/session", "GET", "/api/v1/session", Value::Null, EVERYBODY),
        ("DELETE /api/v1/session", "DELETE", "/api/v1/session", Value::Null, KNOWN),
        ("GET /login", "GET", "/login", Value::Null, EVERYBODY),
        ("GET /", "GET", "/", Value::Null, LOOK),
        ("GET /pools/{pool}", "GET", "/pools/POOL#", Value::Null, LOOK),
        ("GET /claims/{id}", "GET", "/claims/none", Value::Null, LOOK),
        ("GET /history", "GET", "/history", Value::Null, LOOK),
        ("GET /figures", "GET", "/figures", Value::Null, LOOK),
        ("GET /assets/locker.css", "GET", "/assets/locker.css", Value::Null, EVERYBODY),
        ("GET /assets/locker.js", "GET", "/assets/locker.js", Value::Null, EVERYBODY),
        ("GET /assets/sign-in.js", "GET", "/assets/sign-in.js", Value::Null, EVERYBODY),
        ("GET /assets/locker.svg", "GET", "/assets/locker.svg", Value::Null, EVERYBODY),
        ("GET /openapi.json", "GET", "/openapi.json", Value::Null, ANY),
        ("GET /locks", "GET", "/locks", Value::Null, LOOK),
        ("PUT /lock/{name}", "PUT", "/lock/POOL#", json!({"key": "k", "lock_by": "WHO"}), CLAIM),
        ("GET /lock/{name}", "GET", "/lock/POOL#", Value::Null, LOOK),
        ("POST /lock/{name}", "POST", "/lock/POOL#", Value::Null, CLAIM),
        ("DELETE /lock/{name}", "DELETE", "/lock/POOL-free#", Value::Null, LOOK),
        ("POST /lock", "POST", "/lock", json!({"workflow": "w", "namespace": "n"}), "root"),
        ("GET /lock", "GET", "/lock?status=all", Value::Null, LOOK),
        ("PATCH /lock", "PATCH", "/lock?id=e9205d4a-2545-4c58-86ae-d0e7b3ecec23", json!({}), CLAIM),
        ("DELETE /lock", "DELETE", "/lock?id=e9205d4a-2545-4c58-86ae-d0e7b3ecec23", Value::Null, CLAIM),
    ]
}

/// A server that knows each of these people by each proof.
struct World {
    server: Server,
    tls: HashMap<&'static str, Arc<ClientConfig>>,
    tokens: HashMap<&'static str, String>,
    key: Key,
    /// One connection for each identity.
    open: HashMap<(Proof, &'static str), Client<StreamOwned<ClientConnection, TcpStream>>>,
    _files: Files,
}

const ISSUER: &str = "https://ci.example.com";

/// An access file in which each of these people has its right on the pools `p-*`.
fn access_file() -> String {
    let users: Vec<String> = PEOPLE.iter().map(|name| format!("  {name}: {HASH}")).collect();
    let issuer = format!("{{name: ci, kind: concourse, issuer: '{ISSUER}', audience: locker, jwks: keys.json}}");
    let rule = |name: &str, may: &str, pools: &str| {
        let to = format!("[user:{name}, token:{name}, team:{name}, 'certificate:CN={name}']");
        format!("- {{to: {to}, may: {may}{pools}}}")
    };
    let mut rules: Vec<String> =
        ["look", "claim", "manage", "break", "admin"].iter().map(|name| rule(name, name, ", pools: p-*")).collect();
    rules.extend([rule("metrics", "metrics", ""), rule("root", "admin", ", pools: '*'")]);
    format!("users:\n{}\nissuers:\n- {issuer}\nrules:\n{}\n", users.join("\n"), rules.join("\n"))
}

impl World {
    fn new() -> Self {
        let (ca, files, key) = (Ca::new("test CA"), Files::new(), Key::p256("1"));
        let pair = ca.issue(&["localhost"], "server");
        files.write("keys.json", &json!({"keys": [key.jwk()]}).to_string());
        let setup = Setup::memory()
            .flags(&["--access", &files.write("access.yml", &access_file())])
            .flags(&["--client-ca", &files.write("ca", &ca.pem()), "--client-auth", "optional"])
            .vars(&[("SSL_CERT", &files.write("cert", &pair.cert)), ("SSL_KEY", &files.write("key", &pair.key))]);
        let server = Server::start_as(&setup);
        let mut tls: HashMap<_, _> =
            PEOPLE.into_iter().map(|name| (name, config(&ca, Some(&ca.issue(&[], name))))).collect();
        tls.insert("", config(&ca, None));
        let mut world = Self { server, tls, tokens: HashMap::new(), key, open: HashMap::new(), _files: files };
        for name in PEOPLE {
            let made = world.ask(Proof::Password, "root", "POST", "/api/v1/tokens", &json!({"name": name}));
            world.tokens.insert(name, made.json()["token"].as_str().unwrap().to_owned());
        }
        world
    }

    /// What this one gets. An empty name shows no credentials.
    #[track_caller]
    fn ask(&mut self, by: Proof, who: &'static str, method: &str, target: &str, body: &Value) -> Answer {
        let credentials = match by {
            _ if who.is_empty() => None,
            Proof::Password => Some(format!("Basic {}", BASE64.encode(format!("{who}:pw")))),
            Proof::Token => Some(format!("Bearer {}", self.tokens[who])),
            Proof::IdToken => Some(format!("Bearer {}", self.id_token(who))),
            Proof::Certificate => None,
        };
        let headers = credentials.map(|it| format!("Authorization: {it}\r\n")).unwrap_or_default();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let config = &self.tls[if by == Proof::Certificate { who } else { "" }];
        let address = self.server.address();
        if self.open.get(&(by, who)).is_none_or(Client::is_closing) {
            let socket = TcpStream::connect(address).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
            self.open.insert((by, who), Client::on(StreamOwned::new(connection, socket)));
        }
        self.open.get_mut(&(by, who)).unwrap().ask(method, target, &headers, &body).unwrap()
    }

    fn id_token(&self, team: &str) -> String {
        let now = chrono::Utc::now().timestamp();
        self.key.token(&json!({"iss": ISSUER, "aud": "locker", "iat": now, "exp": now + 900, "team": team,
            "pipeline": "app", "job": "deploy"}))
    }
}

/// TLS of a client that trusts this authority, and shows this certificate.
fn config(ca: &Ca, shown: Option<&Pair>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    Arc::new(match shown {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
    })
}

#[test]
fn every_route_by_everybody_with_every_right() {
    let mut world = World::new();
    let table = table();
    let all: Vec<String> = routes::all().map(|(method, path)| format!("{method} {path}")).collect();
    let listed: Vec<&str> = table.iter().map(|(route, ..)| *route).collect();
    assert_eq!(all, listed, "the table names every route, in the order of the server's own");
    let proved = PROOFS.into_iter().flat_map(|by| PEOPLE.map(|who| (by, who)));
    let everybody: Vec<(Proof, &str)> = proved.chain([(Proof::Password, "")]).collect();
    for (route, method, target, body, expected) in &table {
        let is_about_one = target.ends_with('#');
        for &(by, who) in &everybody {
            let name = if who.is_empty() { "anonymous" } else { who };
            let unique = format!("{name}-{by:?}");
            // A session would outlive a token.
            let is_session = *route == "POST /api/v1/session" && matches!(by, Proof::Token | Proof::IdToken);
            // A pool of theirs, one that exists and is none of theirs, and one that does not exist.
            for pool in ["p-1", "q-1", "q-2"] {
                let fill = |text: &str| text.replace("POOL", pool).replace("WHO", &unique);
                let body =
                    if body.is_null() { Value::Null } else { serde_json::from_str(&fill(&body.to_string())).unwrap() };
                let answer = world.ask(by, who, method, fill(target).trim_end_matches('#'), &body);
                let may = expected.split(' ').any(|one| one == name)
                    && (pool == "p-1" || !is_about_one || who == "root")
                    && !is_session;
                // Who has no credentials is asked for some.
                let refused = if who.is_empty() { 401 } else { 403 };
                let is_refused = matches!(answer.status, 401 | 403);
                let said = String::from_utf8_lossy(&answer.body);
                let what = format!("{route} by {unique} on {pool}: {} {said}", answer.status);
                assert_eq!(is_refused, !may, "{what}");
                assert!(may || answer.status == refused, "{what}");
                assert_ne!(answer.status, 400, "the table has a wrong request: {what}");
            }
        }
        world.ask(Proof::Password, "root", "PUT", "/api/v1/pools/q-1", &json!({}));
    }
}
