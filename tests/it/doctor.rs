//! `locker doctor` against servers that work and servers that do not: each line says what is wrong and what to do.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::support::{Build, Done, Running, Server, Setup, binary, clean};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// Runs the doctor with this source in its environment.
fn doctor(source: &Value, args: &[&str]) -> Done {
    let mut command = clean(binary());
    command.env("LOCKER_SOURCE", source.to_string()).env("USER", "ada").arg("doctor").args(args);
    Running::start(&mut command, b"").finish()
}

fn source(uri: &str) -> Value {
    json!({"locker_uri": uri, "pool": "staging"})
}

/// Asserts the exit code, and that the output has these texts in this order.
fn shows(done: &Done, code: i32, texts: &[&str]) {
    assert_eq!(done.code, code, "{done:?}");
    let mut rest = done.stdout.as_str();
    for text in texts {
        let at = rest.find(text).unwrap_or_else(|| panic!("{text:?} is not (any more) in:\n{}", done.stdout));
        rest = &rest[at + text.len()..];
    }
}

/// A server that passes every connection to `serve`.
fn listen(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(&serve));
    address
}

#[test]
fn a_server_that_works() {
    let server = Server::start();
    server.cli(&["pool", "set", "staging", "--capacity", "2", "--max-hold", "4h"]).ok();
    let id = server.cli(&["claim", "staging", "--lock", "1", "--reason", "a look\u{1b}[31m"]).ok().stdout;
    let build = Build::new(&server, 7, "staging");
    let second = build.out(&json!({"claim": 2})).ok();
    let waiter = build.put(&json!({"claim": 1}));
    server.until_waiting("staging", 1);

    let done = doctor(&source(&server.url), &[]);
    let texts = [
        "ok    source    http://127.0.0.1:",
        "pool \"staging\", from LOCKER_SOURCE",
        "ok    resolve   127.0.0.1 is 127.0.0.1",
        "ok    connect   127.0.0.1:",
        "ok    server    answered in",
        "ok    auth      the server asks for no credentials",
        "ok    version   ",
        " on both sides",
        "ok    clock     the server's is ",
        "ok    store     ",
        "ok    pool      \"staging\": 2 locks, 0 free, 1 waiting; policy: max_hold 4h",
        "ok    lock      \"1\" by ada@",
        "because \"a look\\u{1b}[31m\"",
        "ok    lock      \"2\" by main/app/deploy #7",
        "ok    queue     1. main/app/deploy #7",
        &format!("ok    check     would print version {} (claimed at ", second.version()),
        "the resource works\n",
    ];
    shows(&done, 0, &texts);
    assert!(!done.stdout.contains('\u{1b}'), "no colour and no escape outside a terminal");
    assert_eq!(done.stderr, "");

    drop(waiter);
    server.cli(&["release", id.trim()]).ok();
}

#[test]
fn a_test_claim_leaves_nothing_behind() {
    let server = Server::start();
    server.cli(&["pool", "set", "staging", "--capacity", "1"]).ok();
    for args in [&["--try"][..], &["--try", "staging"]] {
        shows(
            &doctor(&source(&server.url), args),
            0,
            &["ok    try       lock ", "claimed with fence ", "released in "],
        );
    }
    let pools = server.cli(&["status", "--json"]).ok().json();
    assert_eq!((pools.as_array().unwrap().len(), &pools[0]["free"]), (1, &json!(1)), "{pools}");

    server.cli(&["claim", "staging"]).ok();
    let busy = doctor(&source(&server.url), &["--try", "staging"]);
    shows(&busy, 0, &["warn  try       no lock of pool \"staging\" is free: \"1\" by ada@", "next: nothing was taken"]);
    shows(&busy, 0, &["the resource works, with 1 warning"]);
    assert_eq!(server.pool("staging")["waiting"], 0);
}

#[test]
fn a_server_that_makes_no_pools() {
    let server = Server::start_with("memory:", &["--declared-only"], &[]);
    let done = doctor(&source(&server.url), &["--try"]);
    let texts =
        ["warn  pool      \"staging\" does not exist", "next: ", "FAIL  try ", "no_such_pool", "next: ", "--try POOL"];
    shows(&done, 4, &texts);
}

#[test]
fn a_missing_pool() {
    let server = Server::start();
    let done = doctor(&source(&server.url), &[]);
    shows(
        &done,
        0,
        &["warn  pool      \"staging\" does not exist", "next: the first `acquire` creates it", "with 1 warning"],
    );
    server.cli(&["lock", "add", "staging", "a"]).ok();
    server.cli(&["lock", "remove", "staging", "a"]).ok();
    shows(
        &doctor(&source(&server.url), &[]),
        0,
        &["warn  pool ", "0 locks", "next: an acquire of the resource waits until it has one"],
    );
}

#[test]
fn a_server_that_cannot_be_reached() {
    let mut server = Server::start();
    let url = server.url.clone();
    server.kill();
    let cases = [
        (url.as_str(), "FAIL  connect   port ", "next: nothing listens there: is the server running"),
        (
            "http://no-such-host.invalid:8910",
            "FAIL  resolve   the host name no-such-host.invalid cannot",
            "next: check the host",
        ),
    ];
    for (uri, text, next) in cases {
        let done = doctor(&source(uri), &[]);
        shows(&done, 6, &[text, next, ": see \"next\" above"]);
        assert!(!done.stdout.contains("  server "), "what needs the failed check is not tried: {}", done.stdout);
    }
}

#[test]
fn a_port_of_another_program() {
    let silent = listen(drop);
    let other = listen(|mut stream| drop(stream.write_all(b"220 mail.example.com ESMTP\r\n")));
    let tls = listen(|mut stream| {
        // A TLS server answers a plain-text request with an alert.
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x16]);
    });
    let web = listen(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnope\n");
    });
    let cases = [
        (&silent, "FAIL  server ", "is this the port of the locker server?"),
        (&other, "FAIL  server ", "is this the port of the locker server?"),
        (&tls, "the port speaks TLS", "next: write locker_uri with https://"),
        (
            &web,
            "FAIL  server    status 404 from something that is not a locker server",
            "next: does locker_uri lead to",
        ),
    ];
    for (address, text, next) in cases {
        shows(&doctor(&source(&format!("http://{address}")), &[]), 6, &[text, next]);
    }
    let server = Server::start();
    let plain = doctor(&source(&server.url.replace("http://", "https://")), &[]);
    shows(
        &plain,
        6,
        &["FAIL  tls       the server does not speak TLS at this port", "next: write http:// in the address"],
    );
}

#[test]
fn credentials() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "hunter2")]);
    let with = |password: &str| {
        let mut source = source(&server.url);
        source["username"] = json!("ci");
        source["password"] = json!(password);
        doctor(&source, &[])
    };
    shows(&with("hunter2"), 0, &["ok    auth      the credentials are accepted"]);
    let wrong = with("hunter3");
    shows(&wrong, 7, &["FAIL  auth      the server refuses the credentials", "next: compare username and password"]);
    assert!(!wrong.stdout.contains("hunter3") && !wrong.stderr.contains("hunter3"));
    let none = doctor(&source(&server.url), &[]);
    shows(&none, 7, &["FAIL  auth      the server asks for credentials", "next: set username and password"]);

    let open = Server::start();
    let url = open.url.replace("http://", "http://ci:hunter2@");
    let done = doctor(&source(&url), &[]);
    shows(&done, 0, &["warn  auth      the server does not check credentials"]);
    assert!(!done.stdout.contains("hunter2"));
}

#[test]
fn sources() {
    let server = Server::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let payload = json!({"source": source(&server.url), "params": {"acquire": true}});
    std::fs::write(file.path(), payload.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let run = |args: &[&str], stdin: &[u8]| Running::start(clean(binary()).arg("doctor").args(args), stdin).finish();

    shows(&run(&["--source", path], b""), 0, &["from --source"]);
    let bare = source(&server.url).to_string();
    shows(&run(&["--source", "-"], bare.as_bytes()), 0, &["pool \"staging\", from --source"]);
    shows(&run(&["--uri", &server.url, "--pool", "other"], b""), 0, &["from --uri", "\"other\" does not exist"]);
    shows(&run(&["--uri", &server.url], b""), 0, &["warn  pool      no pool is named", "--pool"]);
    run(&["--source", "/nonexistent"], b"").failed(2, "cannot read the source");
    shows(
        &run(&["--source", "-"], b"{"),
        2,
        &["FAIL  source    --source is not valid JSON", "next: give the `source:`"],
    );
    let wrong = doctor(&json!({"locker_uri": "locker:8910", "poll": "x", "password": "hunter2"}), &[]);
    shows(
        &wrong,
        2,
        &["FAIL  source ", "must begin with http://", "unknown source key \"poll\": did you mean \"pool\"?"],
    );
    assert!(!wrong.stdout.contains("hunter2"));
    let mut git = source(&server.url);
    git["uri"] = json!("git@example.com:locks.git");
    git["private_key"] = json!("hunter2");
    let done = doctor(&git, &[]);
    shows(&done, 0, &["warn  source    uri, private_key: no effect"]);
    assert!(!done.stdout.contains("hunter2"));
}

#[test]
fn json_for_programs() {
    let server = Server::start();
    let done = doctor(&source(&server.url), &["--json", "--try"]);
    assert_eq!(done.code, 0, "{done:?}");
    let report = done.json();
    assert_eq!((&report["server"], &report["exit"]), (&json!(server.url), &json!(0)));
    let checks: Vec<(&str, &str)> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (check["check"].as_str().unwrap(), check["state"].as_str().unwrap()))
        .collect();
    let expected = [
        ("source", "ok"),
        ("resolve", "ok"),
        ("connect", "ok"),
        ("server", "ok"),
        ("auth", "ok"),
        ("version", "ok"),
        ("clock", "ok"),
        ("store", "ok"),
        ("pool", "warn"),
        ("try", "ok"),
    ];
    assert_eq!(checks, expected);
    let failed = doctor(&source("http://no-such-host.invalid"), &["--json"]);
    assert_eq!((failed.code, &failed.json()["exit"]), (6, &json!(6)));
    assert_eq!(failed.json()["checks"][1]["state"], "fail");
    assert!(failed.json()["checks"][1]["next"].is_string());
}

#[test]
fn a_proxy_is_named_and_its_password_is_not() {
    let web = listen(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let mut command = clean(binary());
    command.env("http_proxy", format!("http://u:hunter2@{web}")).env("no_proxy", "skipped.invalid");
    let done = Running::start(command.args(["doctor", "--uri", "http://locker.invalid:8910"]), b"").finish();
    shows(
        &done,
        6,
        &["ok    proxy     requests go through 127.0.0.1:", "ok    connect   not checked: the proxy", "FAIL  server "],
    );
    assert!(!done.stdout.contains("hunter2"));
    let mut command = clean(binary());
    command.env("http_proxy", format!("http://{web}")).env("no_proxy", "skipped.invalid");
    let done = Running::start(command.args(["doctor", "--uri", "http://skipped.invalid:8910"]), b"").finish();
    shows(&done, 6, &["FAIL  resolve "]);
}

/// A TLS server with a certificate from these params, issued by a new authority. Returns its port and the certificate
/// of that authority.
fn tls_server(params: CertificateParams) -> (u16, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "Test Authority");
    let key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let address = listen(move |mut stream| {
        let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
    });
    (address.rsplit_once(':').unwrap().1.parse().unwrap(), authority_pem)
}

#[test]
fn certificates() {
    let named = |name: &str| CertificateParams::new(vec![name.to_owned()]).unwrap();
    let mut expired = named("localhost");
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let mut ending = named("localhost");
    ending.not_before = rcgen::date_time_ymd(2020, 1, 1);
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(3 * 24 * 3600);
    ending.not_after = soon.into();
    // Params of the certificate, whether the source names its authority, and the message. The test's server does not
    // speak HTTP after the handshake, so the line after a good one fails.
    let cases = [
        (named("localhost"), false, &["FAIL  tls ", "was issued by CN=Test Authority", "next: ", "`ca_cert`"][..]),
        (
            named("other.example.com"),
            true,
            &["FAIL  tls ", "is not for localhost, but for other.example.com", "next: use one of these names"],
        ),
        (expired, true, &["FAIL  tls ", "expired on 2021-01-01", "next: renew it on the server"]),
        (
            ending,
            true,
            &["ok    tls       TLS 1.3", "is trusted", "warn  tls ", "next: renew it soon", "FAIL  server "],
        ),
        (named("localhost"), true, &["ok    tls       TLS 1.3", "is trusted", "ok    tls ", "FAIL  server "]),
    ];
    for (params, trusted, texts) in cases {
        let (port, authority) = tls_server(params);
        let mut source = source(&format!("https://localhost:{port}"));
        if trusted {
            source["ca_cert"] = json!(authority);
        }
        shows(&doctor(&source, &[]), 6, texts);
        source["skip_ssl_validation"] = json!(true);
        let blind =
            ["warn  source    skip_ssl_validation: ", "next: give `ca_cert`", "is not verified", "FAIL  server "];
        shows(&doctor(&source, &[]), 6, &blind);
    }
}

#[test]
fn several_servers() {
    let (first, second) = (Server::start(), Server::start());
    let both = doctor(&source(&format!("{0},{0}", first.url)), &[]);
    shows(&both, 0, &["ok    store ", "ok    resolve ", "ok    store ", "the resource works"]);
    let apart = doctor(&source(&format!("{},{}", first.url, second.url)), &[]);
    shows(&apart, 5, &["FAIL  store     the servers in locker_uri have different stores", "next: name only servers"]);
}

#[test]
fn a_director_that_names_the_lock() {
    let server = Server::start();
    let director = listen(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 19\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(format!("{head}{{\"name\":\"bosh-one\"}}").as_bytes());
    });
    let source = json!({"locker_uri": server.url, "bosh_lock": format!("http://{director}")});
    shows(&doctor(&source, &[]), 0, &["pool \"bosh-one\", from LOCKER_SOURCE", "\"bosh-one\" does not exist"]);
}

#[test]
fn several_servers_none_of_which_leads() {
    let setup = Setup { store: "postgres://ci@127.0.0.1:1/x?sslmode=disable".to_owned(), ..Setup::memory() };
    let server = Server::start_as(&setup);
    let next = "none of the servers leads: the log of each says why";
    shows(&doctor(&source(&server.url), &[]), 6, &["FAIL  server", next]);
}
