//! How the resource reaches its server: several servers, TLS, client certificates, proxies, a BOSH director.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::support::certs::{Ca, Files};
use crate::support::proxy::read_message;
use crate::support::{Build, Impostor, Server};
use serde_json::{Value, json};

fn acquire() -> Value {
    json!({"acquire": true, "timeout": "20s"})
}

/// A source with `locker_uri` and these keys.
fn build(server: &Server, keys: &Value) -> Build {
    let mut source = keys.clone();
    source["pool"] = json!("p");
    Build::with_source(server, 1, &source)
}

// ---- several servers

#[test]
fn several_servers_are_asked_in_turn() {
    let mut away = Server::start();
    let server = Server::start();
    away.kill();
    let both = format!("{}, {}", away.url, server.url);
    let one = Build::new(&server, 1, "p").at(&both);
    let claimed = one.out(&acquire()).ok().said(&format!("asking {both} for")).version();
    one.get(&claimed, "p").ok();
    assert_eq!(one.check(None), [claimed]);
    // The client also leaves a gateway that has lost its server.
    let lost = Impostor::says("502 Bad Gateway", "oops");
    let other = Build::new(&server, 1, "p").at(&format!("{},{}", lost.url, server.url));
    other.check(None);
    other.out(&json!({"release": "build"})).ok().said("released \"p\"");
    assert_eq!(server.pool("p")["free"], 1);
}

#[test]
fn servers_of_different_stores_are_refused() {
    let (a, b) = (Server::start(), Server::start());
    let build = Build::new(&a, 1, "p").at(&format!("{},{}", a.url, b.url));
    let text = "serve different stores: name only servers of one store";
    build.out(&acquire()).failed(1, text).said(&a.url).said(&b.url);
    let payload = json!({"source": build.source}).to_string();
    build.raw("check", None, payload.as_bytes()).failed(1, text);
    let list = a.cli(&["status", "--json"]).ok();
    assert!(!list.stdout.contains("\"p\""), "no request was sent: {}", list.stdout);
}

#[test]
fn no_answer_from_any_server_is_one_clear_error() {
    let (mut a, mut b) = (Server::start(), Server::start());
    let build = Build::new(&a, 1, "p").at(&format!("{},{}", a.url, b.url));
    a.kill();
    b.kill();
    let payload = json!({"source": build.source}).to_string();
    let done = build.raw("check", None, payload.as_bytes()).failed(1, "no answer from the locker server at http://");
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
}

#[test]
fn a_check_costs_one_request() {
    let server = Server::start();
    let proxy = crate::support::proxy::Proxy::before(&server.url);
    let build = Build::new(&server, 1, "p").at(&proxy.url);
    let claimed = build.out(&acquire()).ok().version();
    for version in [None, Some(claimed.as_str())] {
        let before = proxy.seen("");
        build.check(version);
        assert_eq!(proxy.seen("") - before, 1);
    }
}

// ---- TLS

struct Tls {
    ca: Ca,
    files: Files,
    server: Server,
}

fn tls(more: impl FnOnce(&Ca, &Files) -> Vec<(&'static str, String)>) -> Tls {
    let (ca, files) = (Ca::new("test CA"), Files::new());
    let pair = ca.issue(&["localhost", "127.0.0.1"], "server");
    let mut vars = vec![("SSL_CERT", files.write("cert", &pair.cert)), ("SSL_KEY", files.write("key", &pair.key))];
    vars.extend(more(&ca, &files));
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_with("memory:", &[], &vars);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    Tls { ca, files, server }
}

#[test]
fn a_server_is_known_by_its_authority() {
    let Tls { ca, files: _files, server } = tls(|_, _| Vec::new());
    let stranger = Ca::new("another CA").pem();
    let trusting = build(&server, &json!({"ca_cert": ca.pem()}));
    let claimed = trusting.out(&acquire()).ok().version();
    assert_eq!(trusting.check(None), std::slice::from_ref(&claimed));
    trusting.get(&claimed, "p").ok();
    trusting.out(&json!({"release": "build"})).ok();

    let refusing = json!({"acquire": true, "timeout": "500ms"});
    for keys in [json!({}), json!({"ca_cert": stranger})] {
        let text = "the server's certificate (CN=server) was issued by ";
        let done = build(&server, &keys).out(&refusing).failed(1, text);
        assert!(done.stderr.contains("give the certificate of that authority as ca_cert"), "{}", done.stderr);
    }
    for key in ["skip_ssl_validation", "skip_ssl_verification"] {
        let careless = build(&server, &json!({key: true}));
        let done = careless.out(&acquire()).ok();
        assert_eq!(done.stderr.matches("warning: source skip_ssl_").count(), 1, "{}", done.stderr);
        careless.out(&json!({"release": "build"})).ok().said("the server's certificate is not verified");
    }
    let bad = [
        (json!({"ca_cert": "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----"}), "ca_cert"),
        (json!({"ca_cert": "-----BEGIN PRIVATE KEY-----"}), "ca_cert"),
    ];
    for (keys, text) in bad {
        build(&server, &keys).out(&acquire()).failed(1, text);
    }
}

#[test]
fn a_client_shows_its_certificate() {
    let Tls { ca, files: _files, server } =
        tls(|ca, files| vec![("LOCKER_CLIENT_CA", files.write("client-ca", &ca.pem()))]);
    let pair = ca.issue(&[], "resource");
    let keys = json!({"ca_cert": ca.pem(), "client_cert": pair.cert, "client_key": pair.key});
    let done = build(&server, &keys).out(&acquire()).ok();
    assert!(!done.stderr.contains("PRIVATE"), "{}", done.stderr);
    let short = json!({"acquire": true, "timeout": "500ms"});
    build(&server, &json!({"ca_cert": ca.pem()})).out(&short).failed(1, "no answer from the locker server");
    let broken = json!({"ca_cert": ca.pem(), "client_cert": pair.cert, "client_key": "-----BEGIN hunter2"});
    let done = build(&server, &broken).out(&short).failed(1, "client_key is not valid PEM text");
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
}

// ---- proxies

/// A proxy like Squid: tunnels (CONNECT) to TLS servers, whole requests for others. Returns the first lines that it
/// got, and the credentials.
fn http_proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://ada:hunter2@{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || drop(proxied(client, &seen)));
        }
    });
    (url, asked)
}

fn proxied(mut client: TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    while let Some(request) = read_message(&mut client)? {
        let text = String::from_utf8(request).unwrap();
        let (first, rest) = text.split_once("\r\n").unwrap();
        let mut seen = seen.lock().unwrap();
        seen.push(first.to_owned());
        assert!(rest.contains("roxy-Authorization: Basic YWRhOmh1bnRlcjI="), "{text}");
        drop(seen);
        let (method, target) = first.split_once(' ').unwrap();
        if method == "CONNECT" {
            return tunnel(client, target.split(' ').next().unwrap());
        }
        let target = target.strip_prefix("http://").unwrap_or_else(|| panic!("Squid refuses: {first}"));
        let (address, path) = target.split_once('/').unwrap();
        let mut server = TcpStream::connect(address)?;
        write!(server, "{method} /{path}\r\n{rest}")?;
        client.write_all(&read_message(&mut server)?.unwrap())?;
    }
    Ok(())
}

fn tunnel(mut client: TcpStream, address: &str) -> std::io::Result<()> {
    let mut server = TcpStream::connect(address)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut up, mut from) = (server.try_clone()?, client.try_clone()?);
    let upward = std::thread::spawn(move || std::io::copy(&mut from, &mut up));
    std::io::copy(&mut server, &mut client)?;
    drop(upward);
    Ok(())
}

#[test]
fn a_plain_server_is_asked_through_a_proxy_and_a_tls_server_in_a_tunnel() {
    let (url, asked) = http_proxy();
    let plain = Server::start();
    let step = build(&plain, &json!({"proxy": url}));
    let claimed = step.out(&acquire()).ok().version();
    step.check(Some(&claimed));
    step.get(&claimed, "p").ok();
    step.out(&json!({"release": "build"})).ok();
    let lines = std::mem::take(&mut *asked.lock().unwrap());
    assert!(lines.len() > 4, "{lines:?}");
    let whole = format!(" {}/api/v1/", plain.url);
    assert!(lines.iter().all(|line| line.contains(&whole)), "{lines:?}");

    let Tls { ca, files: _files, server } = tls(|_, _| Vec::new());
    build(&server, &json!({"proxy": url, "ca_cert": ca.pem()})).out(&acquire()).ok();
    let lines = asked.lock().unwrap().clone();
    let host = server.url.trim_start_matches("https://");
    assert!(!lines.is_empty() && lines.iter().all(|line| *line == format!("CONNECT {host} HTTP/1.1")), "{lines:?}");
}

/// TLS in front of that proxy. It asks for client certificates, and reports whether it has seen one.
fn behind_tls(proxy: &str, ca: &Ca) -> (String, Arc<AtomicBool>) {
    let inner = proxy.rsplit_once('@').unwrap().1.to_owned();
    let pair = ca.issue(&["127.0.0.1"], "proxy");
    let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let asks = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(asks.allow_unauthenticated().build().unwrap())
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://ada:hunter2@{}", listener.local_addr().unwrap());
    let shown = Arc::<AtomicBool>::default();
    let seen = Arc::clone(&shown);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        listener.set_nonblocking(true).unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (acceptor, seen, inner) = (acceptor.clone(), Arc::clone(&seen), inner.clone());
                tokio::spawn(async move {
                    // A client that distrusts it leaves.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    seen.fetch_or(client.get_ref().1.peer_certificates().is_some(), Ordering::Relaxed);
                    let mut proxy = tokio::net::TcpStream::connect(inner).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut proxy).await;
                });
            }
        });
    });
    (url, shown)
}

#[test]
fn a_proxy_may_speak_tls_itself() {
    let (plain_proxy, asked) = http_proxy();
    let Tls { ca, files: _files, server } =
        tls(|ca, files| vec![("LOCKER_CLIENT_CA", files.write("client-ca", &ca.pem()))]);
    let (url, shown) = behind_tls(&plain_proxy, &ca);
    let pair = ca.issue(&[], "resource");
    let keys = json!({"proxy": url, "ca_cert": ca.pem(), "client_cert": pair.cert, "client_key": pair.key});
    // To a plain server: whole requests, as through any proxy. To a TLS server: a tunnel, with TLS inside TLS.
    let plain = Server::start();
    for (server, line) in [(&plain, format!(" {}/api/v1/", plain.url)), (&server, "CONNECT ".to_owned())] {
        let step = build(server, &keys);
        let claimed = step.out(&acquire()).ok().version();
        step.check(Some(&claimed));
        let lines = std::mem::take(&mut *asked.lock().unwrap());
        assert!(!lines.is_empty() && lines.iter().all(|asked| asked.contains(&line)), "{lines:?}");
    }
    assert!(!shown.load(Ordering::Relaxed), "the client's certificate is for the server alone");

    let short = json!({"acquire": true, "timeout": "500ms"});
    let text = "TLS to the proxy fails";
    build(&plain, &json!({"proxy": url})).out(&short).failed(1, text).said("(CN=proxy) was issued by");
    let no_tls = plain.url.replace("http://", "https://");
    build(&plain, &json!({"proxy": no_tls})).out(&short).failed(1, text).said("does not speak TLS");
}

#[test]
fn a_proxy_of_the_source_or_the_environment_is_used() {
    let server = Server::start();
    let (url, asked) = http_proxy();
    let host = server.url.trim_start_matches("http://").to_owned();
    let uses = |build: Build| {
        asked.lock().unwrap().clear();
        build.out(&acquire()).ok();
        build.out(&json!({"release": "build"})).ok();
        asked.lock().unwrap().clone()
    };
    let through = uses(build(&server, &json!({"proxy": url})));
    assert!(through.iter().any(|line| line.contains(&host)), "{through:?}");
    let through = uses(build(&server, &json!({})).var("http_proxy", &url));
    assert!(through.iter().any(|line| line.contains(&host)), "{through:?}");
    for exceptions in ["x.example, 127.0.0.1", "127.0.0.0/8", &host, "*"] {
        let direct = uses(build(&server, &json!({"proxy": url})).var("no_proxy", exceptions));
        assert!(direct.is_empty(), "{exceptions}: {direct:?}");
    }
    assert!(uses(build(&server, &json!({})).var("HTTP_PROXY", &url)).is_empty(), "a request header may set it");
    let done =
        build(&server, &json!({"proxy": "ftp://u:hunter2@x"})).out(&acquire()).failed(1, "proxy must be an address");
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
}

// ---- a BOSH director

#[test]
fn the_lock_of_a_director_is_named_like_it() {
    let server = Server::start();
    let director = Impostor::says("200 OK", r#"{"name":"bosh-eu","uuid":"x","version":"280","user":null}"#);
    let source = json!({"bosh_lock": director.url, "username": "ci", "password": "hunter2"});
    let build = Build::with_source(&server, 1, &source);
    let locked = build.out(&json!({"lock_op": "lock", "key": "k"})).ok();
    assert_eq!(locked.metadata("lock").as_deref(), Some("bosh-eu"));
    build.get(&locked.version(), "l").ok();
    let lock = std::fs::read_to_string(build.input("l").join("lock")).unwrap();
    assert_eq!(lock, r#"{"key":"k","locked_by":{"k":1}}"#);
    assert_eq!(build.check(None), [locked.version()]);
    build.out(&json!({"lock_op": "unlock", "key": "k"})).ok();
    let asked = director.requests();
    assert!(asked.iter().all(|request| request.starts_with("GET /info ")), "{asked:?}");
    assert!(!asked.concat().to_ascii_lowercase().contains("authorization"), "the password is not the director's");

    let nameless = Impostor::says("200 OK", r#"{"uuid":"x"}"#);
    let build = Build::with_source(&server, 1, &json!({"bosh_lock": nameless.url}));
    build.out(&json!({"lock_op": "lock", "key": "k"})).failed(1, "source.bosh_lock: no usable answer from http://");
    let hostile = Impostor::says("200 OK", r#"{"name":"../etc"}"#);
    let build = Build::with_source(&server, 1, &json!({"bosh_lock": hostile.url}));
    let locked = build.out(&json!({"lock_op": "lock", "key": "k"})).ok();
    let lock = locked.metadata("lock").unwrap();
    assert!(lock.starts_with("---etc-"), "{lock}");
    locked.said(&format!("the lock of the director at {} is {lock:?}", hostile.url));
}

#[test]
fn a_director_never_sees_the_certificate_for_the_locker_server() {
    let (ca, files) = (Ca::new("test CA"), Files::new());
    let pair = ca.issue(&["localhost", "127.0.0.1"], "server");
    let (cert, key) = (files.write("cert", &pair.cert), files.write("key", &pair.key));
    let authority = files.write("ca", &ca.pem());
    let vars = [("SSL_CERT", cert.as_str()), ("SSL_KEY", &key), ("LOCKER_CLIENT_CA", &authority)];
    // It stands for the director: a server that requires a client certificate.
    let strict = Server::start_with("memory:", &[], &vars);
    let shown = ca.issue(&[], "resource");
    let keys = json!({"ca_cert": ca.pem(), "client_cert": shown.cert, "client_key": shown.key, "pool": null,
        "bosh_lock": strict.url});
    let mut step = build(&strict, &keys);
    step.source.as_object_mut().unwrap().remove("pool");
    step.out(&json!({"lock_op": "lock", "key": "k"})).failed(1, "source.bosh_lock: no usable answer");
}

// ---- credentials

#[test]
fn credentials_go_to_the_server_that_they_were_written_for() {
    let first = Impostor::says("502 Bad Gateway", "oops");
    let second = Impostor::says("502 Bad Gateway", "oops");
    let with = |user: &str, url: &str| url.replace("http://", &format!("http://{user}:hunter2@"));
    let server = Server::start();
    let both = format!("{},{}", with("ada", &first.url), with("bob", &second.url));
    let payload = |uri: &str| json!({"source": {"locker_uri": uri, "pool": "p"}}).to_string();
    let check = |uri: &str| build(&server, &json!({})).raw("check", None, payload(uri).as_bytes());
    check(&both).failed(1, "no answer");
    let sent = |to: &Impostor, pair: &str| {
        let requests = to.requests();
        assert!(!requests.is_empty() && requests.iter().all(|request| request.contains(pair)), "{requests:?}");
    };
    sent(&first, "Basic YWRhOmh1bnRlcjI=");
    sent(&second, "Basic Ym9iOmh1bnRlcjI=");
    let before = second.requests().len();
    let mixed = format!("{},{}", with("ada", &first.url), second.url);
    check(&mixed).failed(1, "only some of the servers have a user and password in their URL: write them into each");
    assert_eq!(second.requests().len(), before, "no request was sent");
}
