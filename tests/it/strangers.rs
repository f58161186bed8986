//! What a client without a password may do to others: nothing. Each test is an attack that worked once.

use base64::Engine as _;
use nix::sys::signal::{Signal, kill};

use crate::support::certs::{Ca, Files};
use crate::support::http::Client;
use crate::support::{Running, Server, Setup, clean, eventually};

const AUTH: [(&str, &str); 2] = [("AUTH_USER", "ci"), ("AUTH_PASS", "secret")];

fn basic(password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("ci:{password}"))
}

fn get(server: &Server, password: &str) -> crate::support::http::Answer {
    let mut client = Client::new(server.address());
    let credentials = basic(password);
    client.send(format!("GET /api/v1/info HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {credentials}\r\n\r\n"));
    client.read()
}

#[test]
fn guesses_are_not_looked_at_and_clients_of_the_same_address_go_on() {
    let server = Server::start_as(&Setup::memory().vars(&AUTH));
    assert_eq!(get(&server, "secret").status, 200);
    let mut checked = Client::new(server.address());
    let credentials = basic("shown-to-a-health-check");
    checked.send(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n\r\n"));
    assert_eq!(checked.read().status, 200);
    let mut statuses = Vec::new();
    for guess in 0..40 {
        // A guesser does not wait for its answer; it reads the status when there is one, and comes again.
        let answer = get(&server, &format!("guess-{guess}"));
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!((answer.code().as_str(), answer.header("retry-after").is_some()), ("too_many_logins", true));
        }
    }
    assert_eq!(get(&server, "shown-to-a-health-check").status, 429, "a health check proves nothing");
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 429).count() >= 20, "{statuses:?}");
    assert_eq!(get(&server, "secret").status, 200, "credentials that were right before are not held up by others");
}

#[test]
fn the_password_is_checked_before_a_body_is_read() {
    let server = Server::start_as(&Setup::memory().vars(&AUTH));
    for credentials in ["", "Authorization: Basic eDp5\r\n"] {
        let mut client = Client::new(server.address());
        // It announces a body, sends none of it, and is answered all the same: not asked for the body.
        client.send(format!(
            "PUT /api/v1/claims/a HTTP/1.1\r\nHost: 127.0.0.1\r\n{credentials}Content-Length: 60000\r\nExpect: 100-continue\r\n\r\n"
        ));
        assert_eq!(client.read().status, 401);
        client.expect_end();
    }
    // A small body that has come already costs nobody the connection.
    let mut client = Client::new(server.address());
    client.send("PUT /api/v1/claims/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(client.read().status, 401);
    client.send("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert_eq!(client.read().status, 200);
}

#[test]
fn bodies_that_are_only_announced_take_nothing_from_others() {
    let server = Server::start();
    let mut crowd: Vec<Client> = (0..300).map(|_| Client::new(server.address())).collect();
    for client in &mut crowd {
        client.send("PUT /api/v1/pools/p/locks/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n{");
    }
    let metadata = "m".repeat(60_000);
    let body = format!(r#"{{"metadata":"{metadata}"}}"#);
    let mut good = Client::new(server.address());
    good.send(format!(
        "PUT /api/v1/pools/p/locks/good HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(good.read().status, 200);
    good.send("GET /api/v1/pools/p/locks/good HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert!(good.read().body.len() > 60_000, "large answers have a budget of their own");
}

#[test]
fn pages_of_other_sites_cannot_use_the_server_through_a_browser() {
    let server = Server::start_as(&Setup::memory().flag("--allowed-host", "locks.example"));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let table = [
        ("a form of a stranger's page", "POST /lock/prod", format!("Origin: https://evil.example\r\n{form}"), 403),
        ("a sandboxed page", "POST /lock/prod", format!("Origin: null\r\n{form}"), 403),
        ("an image of a stranger's page", "GET /locks", "Sec-Fetch-Site: cross-site\r\n".to_owned(), 403),
        ("a form of our own page", "POST /lock/prod", format!("Origin: http://127.0.0.1\r\n{form}"), 403),
        ("curl and old clients", "POST /lock/prod", String::new(), 200),
        ("curl sends forms by default", "POST /lock/other", form.to_owned(), 200),
    ];
    for (who, line, headers, expected) in table {
        let mut client = Client::new(server.address());
        client.send(format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: 0\r\n\r\n"));
        let answer = client.read();
        assert_eq!(answer.status, expected, "{who}: {}", answer.text());
    }
    for (host, expected) in [("evil.example", 403), ("locks.example", 200), ("localhost:1", 200), ("[::1]:1", 200)] {
        let mut client = Client::new(server.address());
        client.send(format!("GET /api/v1/info HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = client.read();
        assert_eq!(answer.status, expected, "{host}");
        assert!(expected == 200 || answer.text().contains("--allowed-host"), "{}", answer.text());
    }
}

#[test]
fn a_reload_without_certificates_changes_nothing() {
    let server = Server::start();
    kill(server.pid(), Signal::SIGHUP).unwrap();
    kill(server.pid(), Signal::SIGHUP).unwrap();
    eventually("it still serves", || {
        let mut client = Client::new(server.address());
        client.send("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        client.read().status == 200
    });
}

#[test]
fn a_client_with_certificate_and_password_is_remembered() {
    let (ca, files) = (Ca::new("test CA"), Files::new());
    let (own, client) = (ca.issue(&["127.0.0.1"], "server"), ca.issue(&[], "ci"));
    let (cert, key) = (files.write("cert", &own.cert), files.write("key", &own.key));
    let (shown, its_key) = (files.write("shown", &client.cert), files.write("its-key", &client.key));
    let ca = files.write("ca", &ca.pem());
    let tls = [("SSL_CERT", cert.as_str()), ("SSL_KEY", key.as_str()), ("LOCKER_CLIENT_CA", ca.as_str())];
    let server = Server::start_as(&Setup::memory().vars(&AUTH).vars(&tls));
    let status = |password: &str| {
        let mut curl = clean("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &ca, "--cert", &shown]);
        curl.args(["--key", &its_key, "-u", &format!("ci:{password}"), &format!("{}/api/v1/info", server.url)]);
        Running::start(&mut curl, b"").finish().stdout
    };
    assert_eq!(status("secret"), "200");
    let guesses: Vec<String> = (0..15).map(|guess| status(&format!("guess-{guess}"))).collect();
    assert!(guesses.iter().any(|status| status == "429"), "{guesses:?}");
    assert_eq!(status("secret"), "200", "it is not held up by others with its address");
}

/// A connection from this address of the machine.
fn from(source: [u8; 4], server: &Server) -> std::net::TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&server.socket().into()).unwrap();
    socket.into()
}

#[test]
fn a_crowd_of_silent_strangers_keeps_nobody_out() {
    let server = Server::start_as(&Setup::memory().vars(&AUTH).flag("--max-connections", "200"));
    let ask = |client: &mut Client| {
        let credentials = basic("secret");
        client.send(format!("GET /api/v1/info HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {credentials}\r\n\r\n"));
        client.read().status
    };
    let mut known = Client::new(server.address());
    assert_eq!(ask(&mut known), 200);
    let healthy = || {
        let mut probe = Client::new(server.address());
        probe.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        probe.read().status == 200
    };
    let mut crowd = Vec::new();
    for round in 0..5_u8 {
        // Some are silent, some stop in the middle of a head, some have asked for their health and are idle.
        for n in 0..150_u8 {
            let mut stranger = Client::on(from([127, 0, 1, round], &server));
            match n % 3 {
                0 => {}
                1 => drop(stranger.try_send(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(15_000)))),
                _ => drop(stranger.try_send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")),
            }
            crowd.push(stranger);
        }
        assert!(healthy(), "health checks are answered");
        assert_eq!(ask(&mut Client::new(server.address())), 200, "a new client of a known address");
    }
    assert_eq!(ask(&mut known), 200, "an idle client of a known address was not disturbed");
}

#[test]
fn the_system_keeps_little_for_a_client_that_takes_nothing() {
    let mut server = Server::start_as(&Setup::memory().flag("--write-timeout", "500ms"));
    assert!(server.call("GET /openapi.json", "").body.len() > 100_000);
    let mut deaf = Client::new(server.address());
    socket2::SockRef::from(deaf.socket()).set_recv_buffer_size(4_096).unwrap();
    deaf.send("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(60));
    eventually("it is let go", || {
        server.call("GET /metrics", "").text().contains("\nlocker_connections_deaf_ended_total 1\n")
    });
    server.stop();
    // The system would take dozens of them off the server's hands, and keep them.
    let answers = server.log().matches("route=\"/openapi.json\"").count();
    assert!((2..10).contains(&answers), "{answers} answers");
}

/// Every way to name a file, and what it may say about one that cannot be read as a whole.
#[test]
fn files_that_never_end_or_never_answer_are_refused_at_once() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let fifo = path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let huge = path("huge");
    std::fs::File::create(&huge).unwrap().set_len(3 << 40).unwrap();
    let (copy, other) = (path("copy"), format!("sqlite:{}", path("other")));
    for file in [fifo.as_str(), "/dev/zero", &huge] {
        let concourse = format!("https://ci.example,ci,{file}");
        let ca = format!("url=https://ci.example,ca={file}");
        let store = format!("sqlite:{file}");
        let tls = [("SSL_CERT", file), ("SSL_KEY", file)];
        // Name, arguments, variables.
        let table: [(&str, &[&str], &[(&str, &str)]); 17] = [
            ("server", &["server", "--concourse", &concourse], &[]),
            ("server", &["server", "--concourse", &ca], &[]),
            ("server", &["server"], &tls),
            ("server", &["server"], &[("AUTH_USER", "ci"), ("AUTH_PASS_FILE", file)]),
            ("server", &["server"], &[("LOCKER_CONFIG", file)]),
            ("import", &["import", "locker-state", file], &[]),
            ("import", &["import", "json", file], &[]),
            ("metadata", &["lock", "add", "p", "l", "--metadata", file], &[]),
            ("CA", &["status", "--ca-cert", file], &[]),
            ("certificate", &["status"], &[("LOCKER_CLIENT_CERT", file), ("LOCKER_CLIENT_KEY", file)]),
            ("machine", &["status", "--uri", "https://127.0.0.1:1"], &[("SSL_CERT_FILE", file)]),
            ("doctor", &["doctor", "--source", file], &[]),
            ("agent", &["agent", "--once", "--kubeconfig", file], &[]),
            ("store", &["server", "--store", &store], &[]),
            ("store", &["store", "check", "--store", &store], &[]),
            ("store", &["backup", "--store", &store, &copy], &[]),
            ("store", &["restore", file, "--store", &other], &[]),
        ];
        for (what, args, vars) in table {
            if file == huge && what == "store" {
                // A store may have any size. SQLite says what this one is.
                continue;
            }
            let mut command = server.cli_command();
            command.args(args).envs(vars.iter().copied());
            if what == "server" {
                command.args(["--listen", "127.0.0.1:0", "--store", "memory:"]);
            }
            let began = std::time::Instant::now();
            let done = Running::start(&mut command, b"").finish();
            assert!(done.code != 0, "{args:?}: {done:?}");
            let why = ["is not a regular file", "too l", "longer than", "larger than"];
            assert!(why.iter().any(|why| done.stderr.contains(why)), "{args:?}: {done:?}");
            assert!(began.elapsed().as_secs() < 10, "{args:?}: {done:?}");
        }
    }
}
