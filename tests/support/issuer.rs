//! A pretend issuer of id tokens: real keys, real signatures, its discovery document and keys over real sockets, and the
//! ways in which it can fail.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::port::Port;
use super::proxy;

/// A key of an issuer, with its name.
pub struct Key {
    id: String,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The two RSA keys of the tests: making one takes seconds.
const RSA: [&str; 2] = [include_str!("keys/rsa-1.pem"), include_str!("keys/rsa-2.pem")];

pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    /// The first or the second RSA key.
    pub fn rsa(id: &str, which: usize) -> Self {
        let der = PrivatePkcs8KeyDer::from_pem_slice(RSA[which].as_bytes()).unwrap();
        Self { id: id.to_owned(), pair: Pair::Rsa(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap()) }
    }

    /// A new key of the curve P-256.
    pub fn p256(id: &str) -> Self {
        let (kind, random) = (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let der = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, der.as_ref(), &random).unwrap();
        Self { id: id.to_owned(), pair: Pair::P256(pair) }
    }

    /// A new Ed25519 key.
    pub fn ed25519(id: &str) -> Self {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id: id.to_owned(), pair: Pair::Ed25519(Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap()) }
    }

    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// As it is published.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "n": encoded(public.n), "e": encoded(public.e)})
            }
            Pair::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)})
            }
            Pair::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key())}),
        };
        jwk["kid"] = json!(self.id);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm(), "kid": self.id}), claims)
    }

    /// A token with this header, whatever the key is.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = encoded(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// How an issuer fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Refuses connections.
    Refuses,
    /// Accepts connections and sends nothing.
    Silent,
    /// Sends an answer without end, one byte at a time.
    Trickles,
    /// Sends a set of keys without end.
    Endless,
    /// Answers with this status.
    Says(u16),
    /// Its discovery document is of this issuer.
    IsCalled(String),
    /// Its keys are this text.
    KeysAre(String),
    /// Its keys are at this address.
    KeysAt(String),
}

struct Shared {
    keys: Mutex<Value>,
    fault: Mutex<Option<Fault>>,
    requests: Mutex<Vec<String>>,
    /// Connections that get no answer.
    kept: Mutex<Vec<TcpStream>>,
    url: String,
}

/// An issuer on a free port.
pub struct Issuer {
    pub url: String,
    port: Port,
    shared: Arc<Shared>,
}

impl Issuer {
    pub fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared {
            keys: Mutex::default(),
            fault: Mutex::default(),
            requests: Mutex::default(),
            kept: Mutex::default(),
            url: url.clone(),
        };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let issuer = Self { url, port: Port::open(listener, move |stream| theirs.serve(stream)), shared };
        issuer.publishes(keys);
        issuer
    }

    /// Publishes these keys from now on.
    pub fn publishes(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        *self.shared.keys.lock().unwrap() = json!({"keys": keys});
    }

    /// Fails like this from now on.
    pub fn fails(&self, fault: Fault) {
        self.well();
        if fault == Fault::Refuses {
            self.port.refuses();
        }
        *self.shared.fault.lock().unwrap() = Some(fault);
    }

    /// Works again.
    pub fn well(&self) {
        *self.shared.fault.lock().unwrap() = None;
        self.shared.kept.lock().unwrap().clear();
        self.port.accepts();
    }

    /// How many requests it has had for this path.
    pub fn asked(&self, path: &str) -> usize {
        let line = format!("GET {path} ");
        self.shared.requests.lock().unwrap().iter().filter(|request| request.starts_with(&line)).count()
    }

    /// All requests so far, as text.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    /// Answers one request. The client may have left at any time.
    fn serve(&self, mut stream: TcpStream) {
        let Ok(Some(request)) = proxy::read_message(&mut stream) else { return };
        let request = String::from_utf8_lossy(&request).into_owned();
        let is_discovery = request.starts_with("GET /.well-known/openid-configuration ");
        self.requests.lock().unwrap().push(request);
        let fault = self.fault.lock().unwrap().clone();
        let mut status = 200;
        let mut discovery = json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)});
        let mut keys = self.keys.lock().unwrap().to_string();
        match fault {
            Some(Fault::Silent) => return self.kept.lock().unwrap().push(stream),
            Some(Fault::Says(other)) => status = other,
            Some(Fault::IsCalled(other)) => discovery["issuer"] = json!(other),
            Some(Fault::KeysAt(other)) => discovery["jwks_uri"] = json!(other),
            Some(Fault::KeysAre(text)) => keys = text,
            Some(endless @ (Fault::Endless | Fault::Trickles)) if !is_discovery => {
                let (piece, pause) = if endless == Fault::Endless { (64 * 1024, 0) } else { (1, 20) };
                let mut sent =
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"keys\":[");
                while sent.is_ok() {
                    std::thread::sleep(Duration::from_millis(pause));
                    sent = stream.write_all(&vec![b' '; piece]);
                }
                return;
            }
            Some(Fault::Refuses | Fault::Endless | Fault::Trickles) | None => {}
        }
        let body = if is_discovery { discovery.to_string() } else { keys };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    }
}
