//! A step never hangs: certificates, trust and proxies are checked first, and a bug in the client becomes an error.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::support::certs::{Ca, Files, Pair};
use crate::support::concourse::Concourse;
use crate::support::{Build, Done, Running, Server, binary, clean, eventually};

/// Runs the binary as `name`, with these arguments and variables.
fn run(name: &str, args: &[&str], vars: &[(&str, &str)]) -> Done {
    let mut command = clean(binary());
    command.arg0(name).args(args).envs(vars.iter().copied());
    Running::start(&mut command, b"").finish()
}

/// A self-signed certificate that OpenSSL makes with this kind of key. Without extensions it has version 1.
fn openssl(files: &Files, key: &[&str], version_1: bool) -> Pair {
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").args(args).stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    openssl(&[&["genpkey", "-out", &path("k")], key].concat());
    openssl(&["req", "-new", "-key", &path("k"), "-subj", "/CN=client", "-out", &path("r")]);
    std::fs::write(path("e"), "basicConstraints=CA:FALSE\n").unwrap();
    let (extensions, file) = (["-extfile"], path("e"));
    let extensions = if version_1 { vec![] } else { vec![extensions[0], &file] };
    openssl(
        &[&["x509", "-req", "-in", &path("r"), "-signkey", &path("k"), "-out", &path("c")], &extensions[..]].concat(),
    );
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    Pair { cert: read("c"), key: read("k") }
}

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P521: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"];
const RSA_1024: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];

#[test]
fn certificates_and_proxies_of_a_source_are_checked_before_the_first_request() {
    let (ca, files, server) = (Ca::new("test CA"), Files::new(), Server::start());
    let (one, other) = (ca.issue(&[], "one"), ca.issue(&[], "other"));
    let shows = |pair: &Pair| json!({"client_cert": pair.cert, "client_key": pair.key});
    let rubbish = one.cert.replace("\nM", "\n?");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2\n-----END ENCRYPTED PRIVATE KEY-----";
    let table = [
        (json!({"client_cert": one.cert, "client_key": other.key}), "client_key does not belong to client_cert: give "),
        (
            shows(&openssl(&files, P256, true)),
            "client_cert is an X.509 version 1 certificate, which TLS servers refuse",
        ),
        (
            shows(&openssl(&files, P521, false)),
            "client_key is of a kind that cannot be used (ECDSA on P-521): supported",
        ),
        (shows(&openssl(&files, RSA_1024, false)), "client_key is of a kind that cannot be used (RSA of 1024 bits)"),
        (json!({"client_cert": rubbish, "client_key": one.key}), "client_cert is not valid PEM text: give the whole"),
        (json!({"client_cert": one.cert, "client_key": encrypted}), "client_key is encrypted: give the key without"),
        (json!({"ca_cert": rubbish}), "ca_cert is not valid PEM text"),
        (
            json!({"proxy": "socks5://u:hunter2@127.0.0.1:1"}),
            "proxy is the address of a SOCKS proxy, which Locker does",
        ),
    ];
    let silent =
        |done: &Done| assert!(!done.stderr.contains("hunter2") && !done.stderr.contains("panicked"), "{done:?}");
    for (keys, text) in &table {
        let mut source = keys.clone();
        source["pool"] = json!("p");
        let build = Build::with_source(&server, 1, &source);
        let payload = json!({"source": build.source, "version": {"ref": "1"}}).to_string();
        silent(&build.raw("check", None, payload.as_bytes()).failed(1, text));
        silent(&build.raw("in", Some(build.dir.path()), payload.as_bytes()).failed(1, text));
        silent(&build.out(&json!({"acquire": true})).failed(1, text));
        let doctor = run("locker", &["doctor"], &[("LOCKER_SOURCE", &build.source.to_string())]);
        assert_eq!(doctor.code, 2, "{doctor:?}");
        assert!(doctor.stdout.contains(text), "{doctor:?}");
        silent(&doctor);
    }
    for variable in ["ALL_PROXY", "http_proxy"] {
        let build = Build::new(&server, 1, "p").var(variable, "socks5h://127.0.0.1:1");
        build.out(&json!({"acquire": true})).failed(1, &format!("{variable} is the address of a SOCKS proxy"));
        let vars = [(variable, "socks5h://127.0.0.1:1"), ("LOCKER_URI", &server.url)];
        run("locker", &["status"], &vars).failed(2, "add the server to no_proxy");
        run("lockcli", &["list"], &vars).failed(2, "use an HTTP proxy such as");
        let excepted = [vars[0], vars[1], ("no_proxy", "127.0.0.1")];
        run("locker", &["status"], &excepted).ok();
    }
    let mismatch = [("LOCKER_CLIENT_CERT", one.cert.as_str()), ("LOCKER_CLIENT_KEY", &other.key)];
    run("locker", &["status"], &mismatch).failed(2, "client_key does not belong to client_cert");
    run("lockcli", &["list"], &mismatch).failed(2, "client_key does not belong to client_cert");
    run("lockagt", &["--once"], &mismatch).failed(2, "client_key does not belong to client_cert");
}

#[test]
fn a_bug_in_the_client_is_an_error_for_everybody() {
    let plant = ("LOCKER_PLANT", "client-panic");
    let server = Server::start();
    let build = Build::new(&server, 1, "p").var(plant.0, plant.1);
    let text = "this is a bug in locker, please report it";
    let payload = json!({"source": build.source, "version": {"ref": "1"}}).to_string();
    build.raw("check", None, payload.as_bytes()).failed(1, text);
    build.raw("in", Some(build.dir.path()), payload.as_bytes()).failed(1, text);
    build.out(&json!({"acquire": true})).failed(1, text);
    build.out(&json!({"release": "build"})).failed(1, text);
    let vars = [plant, ("LOCKER_URI", &server.url)];
    for args in [&["status"][..], &["claim", "p"], &["wait", "p", "--until", "free"], &["run", "p", "--", "true"]] {
        run("locker", args, &vars).failed(1, text);
    }
    let doctor = run("locker", &["doctor"], &vars);
    assert!(doctor.code == 1 && doctor.stdout.contains(text), "{doctor:?}");
    run("lockcli", &["list"], &vars).failed(1, text);
    let files = Files::new();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [], "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}]
    });
    let config = files.write("config", &config.to_string());
    let agent = run("lockagt", &["--once"], &[plant, ("LOCKER_URI", &server.url), ("KUBECONFIG", &config)]);
    assert!(agent.code == 1 && agent.stderr.contains(text), "{agent:?}");

    // The build watch reports it and continues; the server serves.
    let ci = Concourse::start();
    let watching = Server::start_with("memory:", &["--concourse", &ci.url], &[plant]);
    let why = eventually("the watch says why", || {
        let info = watching.cli(&["doctor", "--json"]).json().to_string();
        info.contains(text).then_some(info)
    });
    assert!(why.contains("has been unable to see the builds"), "{why}");
    watching.cli(&["claim", "p"]).ok();
}

/// A self-signed certificate, as `openssl req -x509` makes it.
fn own_authority(hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "home-made");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn served_with(files: &Files, pair: &Pair) -> Server {
    let (cert, key) = (files.write("cert", &pair.cert), files.write("key", &pair.key));
    Server::start_with("memory:", &[], &[("SSL_CERT", &cert), ("SSL_KEY", &key)])
}

fn at(server: &Server, keys: Value) -> Build {
    let mut source = keys;
    source["pool"] = json!("p");
    Build::with_source(server, 1, &source)
}

#[test]
fn a_self_signed_server_certificate_is_trusted_when_given() {
    let files = Files::new();
    let pair = own_authority(&["localhost", "127.0.0.1"], |_| {});
    let server = served_with(&files, &pair);
    let (cert, given) = (pair.cert.as_str(), files.write("given", &pair.cert));
    let step = at(&server, json!({"ca_cert": cert}));
    let claimed = step.out(&json!({"acquire": true})).ok().version();
    step.get(&claimed, "p").ok();
    run("locker", &["status", "--uri", &server.url, "--ca-cert", &given], &[]).ok();
    let doctor = run("locker", &["doctor", "--uri", &server.url, "--ca-cert", &given], &[]);
    assert!(doctor.code == 0 && doctor.stdout.contains("the certificate is trusted"), "{doctor:?}");

    let ci = Concourse::start_tls(&pair.cert, &pair.key);
    let watching = Server::start_with("memory:", &["--concourse", &format!("url={},ca={given}", ci.url)], &[]);
    eventually("the watch is at work", || {
        watching.cli(&["doctor", "--json"]).stdout.contains("is watched").then_some(())
    });
}

#[test]
fn distrust_says_what_is_wrong_and_what_to_do() {
    let files = Files::new();
    let now = own_authority(&["localhost", "127.0.0.1"], |_| {});
    let old = own_authority(&["127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = own_authority(&["127.0.0.1"], |params| params.not_before = date_time_ymd(2990, 1, 1));
    let elsewhere = own_authority(&["a.example", "10.0.0.1"], |_| {});
    let nowhere = own_authority(&[], |_| {});
    let stranger = own_authority(&["127.0.0.1"], |_| {});
    let issued = Ca::new("test CA").issue(&["127.0.0.1"], "leaf");
    let it = "the server's certificate (CN=home-made)";
    // What the server presents, what the client trusts, the message, and the next step.
    let table = [
        (
            &now,
            Some(&stranger),
            format!("{it} is self-signed, and not the one that is trusted: give that certificate as ca_cert"),
        ),
        (&now, None, format!("{it} is self-signed: give that certificate as ca_cert (--ca-cert)")),
        (&old, Some(&old), format!("{it} expired on 2021-01-01T00:00:00Z: renew it on the server")),
        (&early, Some(&early), format!("{it} is not valid before 2990-01-01T00:00:00Z: compare the clocks")),
        (
            &elsewhere,
            Some(&elsewhere),
            format!("{it} is not for 127.0.0.1, but for a.example, 10.0.0.1: use one of these"),
        ),
        (&nowhere, Some(&nowhere), format!("{it} is for no host: it has no subjectAltName: issue one with 127.0.0.1")),
        (
            &issued,
            Some(&now),
            "(CN=leaf) was issued by CN=test CA, which is not trusted here: give the certificate of that".to_owned(),
        ),
    ];
    for (shown, given, text) in table {
        let server = served_with(&files, shown);
        let keys = given.map_or(json!({}), |given| json!({"ca_cert": given.cert}));
        let done = at(&server, keys).out(&json!({"acquire": true, "timeout": "300ms"})).failed(1, &text);
        for debug in ["OtherError", "UnknownIssuer", "NotValid", "invalid peer"] {
            assert!(!done.stderr.contains(debug), "{}", done.stderr);
        }
    }
}
