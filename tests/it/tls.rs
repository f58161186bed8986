//! TLS as clients see it: `openssl s_client`, `curl` and `ureq` against a real server.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "tests may panic and print")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::certs::{Ca, Files, Pair};
use crate::support::{PATIENCE, Server, Setup, eventually};

/// A server with a certificate for localhost, and whatever `args` say.
struct Tls {
    ca: Ca,
    files: Files,
    server: Server,
}

impl Tls {
    fn start(args: &[&str]) -> Self {
        let (ca, files) = (Ca::new("test CA"), Files::new());
        let server = Self::serve(&files, &ca.issue(&["localhost", "127.0.0.1"], "server"), args);
        files.write("ca", &ca.pem());
        Self { ca, files, server }
    }

    fn serve(files: &Files, pair: &Pair, args: &[&str]) -> Server {
        let (cert, key) = (files.write("cert", &pair.cert), files.write("key", &pair.key));
        Server::start_with("memory:", args, &[("SSL_CERT", &cert), ("SSL_KEY", &key)])
    }

    fn replace(&self, pair: &Pair) {
        self.files.write("key", &pair.key);
        self.files.write("cert", &pair.cert);
    }

    fn file(&self, name: &str) -> String {
        self.files.path(name).to_str().unwrap().to_owned()
    }

    /// `curl` of the health check (or what `more` says) under this name.
    fn curl(&self, host: &str, more: &[&str]) -> Output {
        let url = format!("https://{host}:{}/healthz", self.server.port());
        let resolve = format!("{host}:{}:127.0.0.1", self.server.port());
        run(Command::new("curl").args(["-sS", "-m", "20", "--resolve", &resolve]).args(more).arg(url))
    }

    fn s_client(&self, more: &[&str]) -> Output {
        let address = self.server.address();
        run(Command::new("openssl").args(["s_client", "-connect", address, "-CAfile", &self.file("ca")]).args(more))
    }
}

/// Runs a tool without input.
#[track_caller]
fn run(command: &mut Command) -> Output {
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{tool} is needed here (apt-get install openssl curl): {error}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// A `ureq` client that trusts this CA only and shows this certificate.
fn agent(ca: &str, shown: Option<&Pair>) -> ureq::Agent {
    use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
    let root = Certificate::from_pem(ca.as_bytes()).unwrap().to_owned();
    let shown = shown.map(|pair| {
        let chain = [Certificate::from_pem(pair.cert.as_bytes()).unwrap().to_owned()];
        ClientCert::new_with_certs(&chain, PrivateKey::from_pem(pair.key.as_bytes()).unwrap().to_owned())
    });
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root])).client_cert(shown).build();
    let config = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false);
    config.timeout_global(Some(PATIENCE)).build().into()
}

fn get(agent: &ureq::Agent, url: &str) -> Result<u16, String> {
    agent.get(url).call().map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
}

#[test]
fn versions_and_ciphers() {
    let tls = Tls::start(&[]);
    // Protocol, what OpenSSL is told, whether it connects.
    let table = [
        ("-tls1_3", "", true),
        ("-tls1_2", "", true),
        ("-tls1_1", "DEFAULT@SECLEVEL=0", false),
        ("-tls1", "DEFAULT@SECLEVEL=0", false),
        ("-tls1_2", "ECDHE-ECDSA-AES128-GCM-SHA256", true),
        ("-tls1_2", "ECDHE-ECDSA-AES256-GCM-SHA384", true),
        ("-tls1_2", "ECDHE-ECDSA-CHACHA20-POLY1305", true),
        // Without forward secrecy, without authentication of the record, without a key.
        ("-tls1_2", "AES128-GCM-SHA256@SECLEVEL=0", false),
        ("-tls1_2", "ECDHE-ECDSA-AES128-SHA@SECLEVEL=0", false),
        ("-tls1_2", "aNULL@SECLEVEL=0", false),
        ("-tls1_2", "DHE@SECLEVEL=0", false),
    ];
    for (version, ciphers, connects) in table {
        let ciphers = if ciphers.is_empty() { vec![] } else { vec!["-cipher", ciphers] };
        let output = tls.s_client(&[&[version, "-verify_return_error"], &ciphers[..]].concat());
        let said = text(&output);
        assert_eq!(output.status.success(), connects, "{version} {ciphers:?}: {said}");
        assert!(!connects || said.contains("Verify return code: 0 (ok)"), "{version} {ciphers:?}: {said}");
    }
    let offered = text(&tls.s_client(&["-alpn", "h2,http/1.1"]));
    assert!(offered.contains("ALPN protocol: http/1.1"), "{offered}");
    // Renegotiation and compression have been holes; neither is there.
    let old = text(&tls.s_client(&["-tls1_2"]));
    assert!(old.contains("Compression: NONE"), "{old}");
}

#[test]
fn clients_refuse_what_they_should() {
    let good = Tls::start(&[]);
    let (other, files) = (Ca::new("another CA"), Files::new());
    let other_ca = files.write("ca", &other.pem());
    let ca = good.file("ca");
    // Exit code 60 of curl: the certificate is not trusted.
    let table = [("localhost", &ca, 0), ("localhost", &other_ca, 60), ("wrong.example", &ca, 60)];
    for (host, ca, code) in table {
        let output = good.curl(host, &["--cacert", ca]);
        assert_eq!(output.status.code(), Some(code), "{host} {ca}: {}", text(&output));
    }
    let url = good.server.url.replace("127.0.0.1", "localhost") + "/healthz";
    assert_eq!(get(&agent(&good.ca.pem(), None), &url), Ok(200));
    assert!(get(&agent(&other.pem(), None), &url).unwrap_err().contains("UnknownIssuer"));
    let by_name = Tls::serve(&good.files, &good.ca.issue(&["wrong.example"], "server"), &[]);
    assert!(get(&agent(&good.ca.pem(), None), &by_name.url).unwrap_err().contains("not valid for name"));

    let expired = Tls::serve(&good.files, &good.ca.issue_expired(&["localhost", "127.0.0.1"]), &[]);
    eventually("the server warns", || expired.has_said("certificate 1 of SSL_CERT expired at 2021-01-01"));
    assert!(get(&agent(&good.ca.pem(), None), &expired.url).unwrap_err().contains("expired"));
    let expired = Tls { server: expired, ..good };
    assert_eq!(expired.curl("localhost", &["--cacert", &ca]).status.code(), Some(60));
}

#[test]
fn a_certificate_says_who_a_client_is() {
    let (clients, files) = (Ca::new("clients"), Files::new());
    let client_ca = files.write("clients", &clients.pem());
    let alice = clients.issue(&[], "alice\n\u{1b}[31m\u{e9}");
    let nameless = clients.issue(&["a.example"], "");
    let stranger = Ca::new("strangers").issue(&[], "mallory");
    let late = clients.issue_expired(&[]);

    let required = Tls::start(&["--client-ca", &client_ca]);
    let ca = required.ca.pem();
    let info = format!("{}/api/v1/info", required.server.url);
    let ask = |shown: Option<&Pair>, url: &str| get(&agent(&ca, shown), url);
    assert_eq!(ask(Some(&alice), &info), Ok(200));
    assert_eq!(ask(Some(&nameless), &info), Ok(200));
    for (name, shown) in [("none", None), ("stranger", Some(&stranger)), ("expired", Some(&late))] {
        assert!(ask(shown, &info).is_err(), "{name}");
    }
    let said = |text: &str| eventually(text, || required.server.has_said(text));
    said(r"certificate:CN=alice");
    said("certificate:sha256=");
    said("no TLS connection");
    for line in required.server.log().lines() {
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
    assert!(
        required
            .server
            .log()
            .lines()
            .next()
            .unwrap()
            .ends_with("for everything, and client certificates for health checks too")
    );

    let optional = Tls::start(&["--client-ca", &client_ca, "--client-auth", "optional"]);
    let ca = optional.ca.pem();
    let ask = |shown: Option<&Pair>, path: &str| get(&agent(&ca, shown), &(optional.server.url.clone() + path));
    assert_eq!(ask(Some(&alice), "/api/v1/info"), Ok(200));
    assert_eq!(ask(None, "/api/v1/info"), Ok(401));
    assert_eq!(ask(None, "/healthz"), Ok(200));
    assert!(ask(Some(&stranger), "/healthz").is_err(), "a bad certificate is worse than none");
}

#[test]
fn the_wrong_protocol_gets_an_error_or_is_disconnected() {
    let tls = Tls::start(&["--handshake-timeout", "500ms"]);
    let ask = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(tls.server.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let plain = ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(plain.starts_with("HTTP/1.1 400 Bad Request\r\n") && plain.contains("speaks TLS"), "{plain}");
    for (name, bytes) in [
        ("nothing", &b""[..]),
        ("the start of a record", b"\x16\x03\x01"),
        ("a record of nonsense", b"\x16\x03\x01\x00\x05hello"),
        ("a record that is too long", b"\x16\x03\x01\xff\xff\x01"),
        ("SSL 2", b"\x80\x2e\x01\x00\x02"),
    ] {
        let answer = ask(bytes);
        assert!(!answer.contains("HTTP/1.1 2"), "{name}: {answer}");
    }
    let plain_server = Server::start();
    let address = plain_server.address();
    let output = run(Command::new("openssl").args(["s_client", "-connect", address]));
    assert!(!output.status.success());
    assert_eq!(tls.curl("localhost", &["--cacert", &tls.file("ca")]).status.code(), Some(0));
}

#[test]
fn a_slow_handshake_holds_nobody_up() {
    let tls = Tls::start(&[]);
    let client = agent(&tls.ca.pem(), None);
    let half_open: Vec<TcpStream> = (0..500)
        .map(|n| {
            let mut socket = TcpStream::connect(tls.server.address()).unwrap();
            socket.write_all(if n % 2 == 0 { b"" } else { b"\x16\x03\x01\x02\x00\x01" }).unwrap();
            socket
        })
        .collect();
    let start = Instant::now();
    assert_eq!(get(&client, &(tls.server.url.clone() + "/healthz")), Ok(200));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(half_open);
}

#[test]
fn starts_that_are_refused() {
    let (ca, files) = (Ca::new("test CA"), Files::new());
    let (one, two) = (ca.issue(&["localhost"], "one"), ca.issue(&["localhost"], "two"));
    let (cert, key, other_key) =
        (files.write("cert", &one.cert), files.write("key", &one.key), files.write("other", &two.key));
    let endless = files.write("endless", &"x".repeat(2 << 20));
    let empty = files.write("empty", "");
    let nowhere = "/nonexistent/file";
    let with = |cert: &str, key: &str| vec![("SSL_CERT", cert.to_owned()), ("SSL_KEY", key.to_owned())];
    let (missing_ca, ca_alone) = (["--client-ca", nowhere], ["--client-ca", &cert]);
    let table: Vec<(Vec<(&str, String)>, &[&str], &str)> = vec![
        (vec![("SSL_CERT", cert.clone())], &[], "SSL_CERT is set without SSL_KEY"),
        (vec![("SSL_KEY", key.clone())], &[], "SSL_KEY is set without SSL_CERT"),
        (vec![("AUTH_USER", "a".into())], &[], "AUTH_USER is set without AUTH_PASS"),
        (vec![("AUTH_PASS", "a".into())], &[], "AUTH_PASS is set without AUTH_USER"),
        (vec![("AUTH_USER", "a:b".into()), ("AUTH_PASS", "c".into())], &[], "must not contain a colon"),
        (with(&cert, &other_key), &[], "(SSL_KEY) does not fit the first certificate of"),
        (with(nowhere, &key), &[], "no TLS certificate (SSL_CERT): cannot read \"/nonexistent/file\""),
        (with(&cert, nowhere), &[], "no TLS key (SSL_KEY): cannot read \"/nonexistent/file\""),
        (with(&empty, &key), &[], "it has no BEGIN CERTIFICATE block"),
        (with(&key, &key), &[], "it has no BEGIN CERTIFICATE block"),
        (with(&cert, &cert), &[], "it has no unencrypted PEM key"),
        (with("/dev/zero", &key), &[], "it is not a regular file"),
        (with(&endless, &key), &[], "is too large for PEM"),
        (with("-----BEGIN CERTIFICATE-----\nno!\n", &key), &[], "it is not well-formed PEM"),
        (with(&cert, &key), &missing_ca, "no CA of client certificates (--client-ca)"),
        (with(&cert, &key), &["--listen", "unix:x"], "TLS is for network addresses"),
        (with(&cert, &key), &["--listen", "0.0.0.0:0"], "without authentication"),
        (vec![], &ca_alone, "--client-ca needs SSL_CERT and SSL_KEY"),
    ];
    for (vars, args, expected) in table {
        let mut command = Setup::memory().flags(args).command();
        let output = command.envs(vars.iter().map(|(n, v)| (*n, v))).stdin(Stdio::null()).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success() && said.contains(expected), "{expected}: {said}");
        assert!(!said.contains("PRIVATE KEY"), "{said}");
    }
    // Text does as well as files.
    let server = Server::start_with("memory:", &[], &[("SSL_CERT", &one.cert), ("SSL_KEY", &one.key)]);
    assert_eq!(get(&agent(&ca.pem(), None), &server.url.replace("127.0.0.1", "localhost")), Ok(200));
}

/// The subject that a new connection is shown.
fn shown_subject(tls: &Tls) -> String {
    let said = text(&tls.s_client(&[]));
    let line = said.lines().find(|line| line.trim_start().starts_with("0 s:")).unwrap_or_default();
    line.trim().to_owned()
}

#[test]
fn certificates_are_replaced_under_load() {
    let tls = Tls::start(&[]);
    let url = tls.server.url.clone() + "/healthz";
    let (done, failed, served) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        // Two that keep their connection, two that make a new one each time.
        for keeps in [true, true, false, false] {
            let (url, done, failed, served, ca) = (&url, &done, &failed, &served, tls.ca.pem());
            scope.spawn(move || {
                let mut client = agent(&ca, None);
                while !done.load(Ordering::Relaxed) {
                    if !keeps {
                        client = agent(&ca, None);
                    }
                    match get(&client, url) {
                        Ok(200) => served.fetch_add(1, Ordering::Relaxed),
                        other => {
                            eprintln!("{other:?}");
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        // The others must be stopped whatever happens here.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..10 {
                let before = served.load(Ordering::Relaxed);
                let name = format!("round-{round}");
                tls.replace(&tls.ca.issue(&["localhost", "127.0.0.1"], &name));
                tls.server.signal(Signal::SIGHUP);
                eventually("the new certificate is shown", || shown_subject(&tls).contains(&name));
                eventually("all clients continue", || served.load(Ordering::Relaxed) > before + 20);
            }
        }));
        done.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {} requests", served.load(Ordering::Relaxed));
    println!("{} requests over 10 reloads, none failed", served.load(Ordering::Relaxed));
}

#[test]
fn bad_new_certificates_change_nothing_and_good_ones_are_found_without_a_signal() {
    let tls = Tls::start(&[]);
    let client = agent(&tls.ca.pem(), None);
    let url = tls.server.url.clone() + "/healthz";
    assert_eq!(get(&client, &url), Ok(200));
    let (first, second) = (tls.ca.issue(&["localhost", "127.0.0.1"], "x"), tls.ca.issue(&["127.0.0.1"], "second"));
    let stays = || tls.server.log().lines().filter(|line| line.contains("the old one stays")).count();
    for (round, (cert, key)) in
        [(&first.cert, &second.key), (&first.cert, &first.cert), (&String::from("rubbish"), &first.key)]
            .into_iter()
            .enumerate()
    {
        tls.replace(&Pair { cert: cert.clone(), key: key.clone() });
        tls.server.signal(Signal::SIGHUP);
        eventually("the log says so", || stays() > round);
        assert!(shown_subject(&tls).contains("server"));
    }
    std::fs::remove_file(tls.files.path("cert")).unwrap();
    tls.server.signal(Signal::SIGHUP);
    eventually("the log says that it is missing", || stays() == 4);
    assert_eq!(get(&client, &url), Ok(200), "the old connection goes on");
    // Nobody sends a signal now.
    tls.replace(&second);
    eventually("the change is noticed", || shown_subject(&tls).contains("second"));
    assert_eq!(get(&client, &url), Ok(200), "the old connection still goes on");
    assert!(!tls.server.has_said("PRIVATE"));
}

#[test]
fn parked_clients_are_answered_over_tls_when_the_server_stops() {
    let mut tls = Tls::start(&[]);
    let ca = Arc::new(tls.ca.pem());
    let url = tls.server.url.clone();
    let claim = |id: &str, wait: &str| {
        let body = serde_json::json!({ "pool": "p", "wait": wait }).to_string();
        let answer =
            agent(&ca, None).put(format!("{url}/api/v1/claims/{id}")).content_type("application/json").send(body);
        answer.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
    };
    assert_eq!(claim("holder", "1s"), Ok(200));
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..20).map(|n| scope.spawn(move || claim(&format!("w{n}"), "60s"))).collect();
        let parked = || {
            let pool =
                agent(&ca, None).get(format!("{url}/api/v1/pools/p")).call().unwrap().into_body().read_to_string();
            pool.unwrap().matches(r#""claim":"w"#).count() == 20
        };
        eventually("all wait", parked);
        tls.server.signal(Signal::SIGTERM);
        let start = Instant::now();
        for waiter in waiting {
            assert_eq!(waiter.join().unwrap(), Ok(423));
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(tls.server.wait().success());
    });
}

/// `locker` with these arguments, variables and standard input.
fn locker(args: &[&str], vars: &[(&str, &str)], stdin: &str) -> Output {
    let mut command = Command::new(crate::support::binary());
    command.env_clear().args(args).envs(vars.iter().copied());
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // It may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn the_command_line_and_the_resource_check_certificates() {
    let clients = Ca::new("clients");
    let files = Files::new();
    let client_ca = files.write("clients", &clients.pem());
    let tls = Tls::start(&["--client-ca", &client_ca, "--client-auth", "optional"]);
    let me = clients.issue(&[], "me");
    let (cert, key) = (files.write("cert", &me.cert), files.write("key", &me.key));
    let (ca, other) = (tls.ca.pem(), Ca::new("another").pem());
    let uri = tls.server.url.replace("127.0.0.1", "localhost");
    let base = |more: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        let shown = [("LOCKER_URI", uri.as_str()), ("LOCKER_CLIENT_CERT", &cert), ("LOCKER_CLIENT_KEY", &key)];
        shown.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    // Variables, exit code, what is said.
    let table = [
        (base(&[("LOCKER_CA_CERT", &ca)]), 0, ""),
        (base(&[("LOCKER_CA_CERT", &other)]), 6, "was issued by CN=test CA, which is not trusted here"),
        (base(&[]), 6, "was issued by CN=test CA, which is not trusted here"),
        (base(&[("LOCKER_SKIP_SSL_VALIDATION", "1")]), 0, "anybody could pose as the server"),
        (base(&[("LOCKER_CA_CERT", "-----BEGIN no")]), 2, "ca_cert is not valid PEM text"),
        (base(&[("LOCKER_CA_CERT", &ca), ("LOCKER_CLIENT_CERT", "")]), 2, "need each other"),
        (
            base(&[("LOCKER_CA_CERT", &ca), ("LOCKER_CLIENT_CERT", ""), ("LOCKER_CLIENT_KEY", "")]),
            7,
            "requires a client certificate",
        ),
    ];
    for (vars, code, expected) in table {
        let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = locker(&["status"], &vars, "");
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{expected}: {said}");
        assert!(said.contains(expected) && !said.contains("PRIVATE"), "{expected}: {said}");
    }

    let check = |source: serde_json::Value| {
        let mut payload = serde_json::json!({ "source": { "locker_uri": uri, "pool": "p" }, "version": null });
        let whole = payload["source"].as_object_mut().unwrap();
        whole.extend(source.as_object().unwrap().clone());
        whole.extend(serde_json::json!({ "client_cert": me.cert, "client_key": me.key }).as_object().unwrap().clone());
        locker(&["check"], &[], &payload.to_string())
    };
    let good = check(serde_json::json!({ "ca_cert": ca }));
    assert!(good.status.success() && good.stdout.starts_with(b"[]"), "{}", text(&good));
    let bad = check(serde_json::json!({ "ca_cert": other }));
    assert!(!bad.status.success() && text(&bad).contains("which is not trusted here"), "{}", text(&bad));
    let blind = check(serde_json::json!({ "skip_ssl_validation": true }));
    assert!(
        blind.status.success()
            && text(&blind).contains("skip_ssl_validation: the server's certificate is not verified"),
        "{}",
        text(&blind)
    );
}

#[test]
fn a_health_check_asks_with_the_settings_of_the_server() {
    let clients = Ca::new("clients");
    let files = Files::new();
    let client_ca = files.write("clients", &clients.pem());
    let me = clients.issue(&[], "probe");
    let (my_cert, my_key) = (files.write("cert", &me.cert), files.write("key", &me.key));
    let tls = Tls::start(&["--client-ca", &client_ca, "--client-auth", "optional"]);
    let strict = Tls::start(&["--client-ca", &client_ca]);
    let plain = Server::start();
    let socket = files.path("socket").to_str().unwrap().to_owned();
    let listen = format!("unix:{socket}");
    let unix = Server::start_with("memory:", &["--listen", &listen], &[]);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    // LOCKER_LISTEN, PORT, whose certificates (which only their being there counts), is one shown, exit code.
    let port = |server: &Server| server.port().to_string();
    let table = [
        ("0.0.0.0", port(&plain), false, false, 0),
        ("127.0.0.1", port(&plain), false, false, 0),
        (&format!("127.0.0.1:{}", plain.port()), String::from("1"), false, false, 0),
        ("", port(&plain), false, false, 0),
        (&listen, String::new(), false, false, 0),
        ("unix:/nowhere", String::new(), false, false, 6),
        ("127.0.0.1", nobody, false, false, 6),
        ("127.0.0.1", port(&tls.server), true, false, 0),
        ("127.0.0.1", port(&tls.server), false, false, 6),
        ("127.0.0.1", port(&plain), true, false, 6),
        ("127.0.0.1", port(&strict.server), true, true, 0),
        ("127.0.0.1", port(&strict.server), true, false, 6),
    ];
    let cert = tls.file("cert");
    let key = tls.file("key");
    for (listen, port, over_tls, shown, code) in table {
        let mut vars = vec![("LOCKER_LISTEN", listen), ("PORT", port.as_str()), ("LOCKER_STORE", "sqlite:/nowhere/x")];
        if over_tls {
            vars.extend([("SSL_CERT", cert.as_str()), ("SSL_KEY", &key)]);
        }
        if shown {
            vars.extend([("LOCKER_CLIENT_CERT", my_cert.as_str()), ("LOCKER_CLIENT_KEY", &my_key)]);
        }
        let output = locker(&["server", "--ask-ready"], &vars, "");
        assert_eq!(output.status.code(), Some(code), "{vars:?}: {}", text(&output));
    }
    drop(unix);
}
