//! What people read while a step waits, or when it cannot: who, since when, what to do.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::certs::{Ca, Files};
use crate::support::proxy::{Act, Proxy, read_message};
use crate::support::{Build, Impostor, Running, Server, binary, clean, eventually};

fn acquire() -> Value {
    json!({"acquire": true})
}

/// A listener that treats each connection like this. Returns its address.
fn listen(handle: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(handle));
    address
}

/// Reads a request, then sends this.
fn answers(bytes: &'static [u8]) -> SocketAddr {
    listen(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(bytes);
    })
}

/// How the author of a pipeline would be told of this source: by its put.
fn told(source: &Value) -> String {
    let server = Server::start();
    let mut build = Build::with_source(&server, 1, source);
    build.source["locker_uri"] = source["locker_uri"].clone();
    let start = Instant::now();
    let done = build.out(&acquire()).failed(1, "error: no answer from the locker server at ");
    assert!(start.elapsed() < Duration::from_secs(20), "it fails at once, with a margin for a busy machine");
    assert!(!done.stderr.contains("asking again") && !done.stderr.contains("place in the queue"), "{}", done.stderr);
    done.stderr
}

// ---- before the first answer

#[test]
fn what_does_not_pass_by_itself_fails_at_once() {
    let (ca, files) = (Ca::new("test CA"), Files::new());
    let pair = ca.issue(&["127.0.0.1"], "server");
    let (cert, key) = (files.write("cert", &pair.cert), files.write("key", &pair.key));
    let tls = Server::start_with("memory:", &[], &[("SSL_CERT", &cert), ("SSL_KEY", &key)]);
    let old = ca.issue_expired(&["127.0.0.1"]);
    let (cert, key) = (files.write("old-cert", &old.cert), files.write("old-key", &old.key));
    let expired = Server::start_with("memory:", &[], &[("SSL_CERT", &cert), ("SSL_KEY", &key)]);
    let plain = Server::start();
    let port = |url: &str| url.rsplit_once('/').unwrap().1.to_owned();
    // As most TLS servers do. Our own one says it in HTTP.
    let other = answers(&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x16]);
    let mail = answers(b"220 mail.example.com ESMTP\r\n");
    let page = Impostor::says("200 OK", "<html>hello</html>");
    let login = answers(b"HTTP/1.1 302 Found\r\nlocation: https://login.example.com/\r\ncontent-length: 0\r\n\r\n");
    let gate = Impostor::says("401 Unauthorized", "who are you?");
    // The address, and what it says: the reason and the next step.
    let table = [
        (tls.url.clone(), "was issued by CN=test CA, which is not trusted here: give the certificate"),
        (expired.url.clone(), "expired on 2021-01-01T00:00:00Z: renew it on the server"),
        (format!("https://{}", port(&plain.url)), "does not speak TLS at this port: write http:// in the address"),
        (format!("http://{other}"), "the port speaks TLS, and the address says http://: write locker_uri"),
        (format!("http://{mail}"), "the port does not speak HTTP: is this the port of the locker server?"),
        (page.url.clone(), "does not come from a locker server"),
        (format!("http://{login}"), "it redirects (status 302) to https://login.example.com"),
        (gate.url.clone(), "status 401 from something that is not a locker server: does locker_uri lead to"),
        (format!("{},{}", tls.url, page.url), "does not come from a locker server"),
    ];
    for (uri, text) in &table {
        let expired = json!({"locker_uri": uri, "pool": "p", "ca_cert": ca.pem()});
        let untrusted = json!({"locker_uri": uri, "pool": "p"});
        let stderr = told(if text.contains("expired") { &expired } else { &untrusted });
        assert!(stderr.contains(text), "{uri}: {text:?} is not in {stderr}");
    }
    let ours = Build::new(&plain, 1, "p").at(&format!("http://{}", port(&tls.url)));
    ours.out(&acquire()).failed(1, "this port speaks TLS: use https");
    // Every other step and command does the same.
    let mut build = Build::new(&plain, 1, "p");
    build.source["locker_uri"] = json!(page.url);
    let payload = json!({"source": build.source, "version": {"ref": "5"}}).to_string();
    let text = "does not come from a locker server";
    for params in [json!({"release": "build"}), json!({"lock_op": "unlock", "key": "k"})] {
        let mut build = Build::new(&plain, 1, "p");
        if params.get("lock_op").is_some() {
            build = Build::with_source(&plain, 1, &json!({"lock_name": "p"}));
        }
        build.source["locker_uri"] = json!(page.url);
        let done = build.out(&params).failed(1, text);
        assert!(!done.stderr.contains("asking again"), "{}", done.stderr);
    }
    build.raw("in", Some(build.dir.path()), payload.as_bytes()).failed(1, text);
    build.raw("check", None, payload.as_bytes()).failed(1, text);
    for args in [&["claim", "p"][..], &["run", "p", "--", "true"], &["wait", "p", "--until", "free"], &["watch", "p"]] {
        let mut command = clean(binary());
        command.args(args).env("LOCKER_URI", &page.url);
        Running::start(&mut command, b"").finish().failed(6, text);
    }
}

#[test]
fn what_may_pass_is_said_at_once_and_then_again_with_how_long() {
    let mut server = Server::start();
    let url = server.url.clone();
    server.kill();
    let gateway = Impostor::says("503 Service Unavailable", "no healthy upstream");
    let unknown = "http://no-such-host.invalid:8910".to_owned();
    let table = [
        (unknown, "its host name cannot be resolved: check the host in locker_uri"),
        (url, "nothing listens there: is the server running, is this its port (8910 unless set)"),
        (gateway.url.clone(), "status 503 from something that is not a locker server: does locker_uri lead to"),
    ];
    for (uri, text) in table {
        let build = Build::new(&server, 1, "p").at(&uri).var("LOCKER_PROGRESS", "10ms");
        let waiter = build.put(&acquire());
        let first = waiter.until_stderr("no answer from the locker server at ");
        assert!(first.contains(text) && first.ends_with("; asking again"), "{first}");
        let later = waiter.until_stderr("no answer for ");
        assert!(later.contains(text) && later.contains("from the locker server at http://"), "{later}");
        assert!(!waiter.stderr().contains("place in the queue"), "{}", waiter.stderr());
    }
}

#[test]
fn the_server_may_come_back_after_the_first_answer_with_a_wrong_certificate() {
    let (ca, files) = (Ca::new("test CA"), Files::new());
    let serve = |pair: &crate::support::certs::Pair| {
        files.write("cert", &pair.cert);
        files.write("key", &pair.key)
    };
    let key = serve(&ca.issue(&["127.0.0.1"], "server"));
    let cert = files.path("cert").to_str().unwrap().to_owned();
    let vars = [("SSL_CERT", cert.as_str()), ("SSL_KEY", key.as_str())];
    let mut server = Server::start_with("memory:", &[], &vars);
    let source = json!({"pool": "p", "ca_cert": ca.pem()});
    Build::with_source(&server, 1, &source).out(&acquire()).ok();
    let build = Build::with_source(&server, 2, &source).var("LOCKER_PROGRESS", "0s").var("LOCKER_WAIT", "200ms");
    let waiter = build.put(&acquire());
    waiter.until_stderr("waiting: place 1");
    server.kill();
    serve(&ca.issue_expired(&["127.0.0.1"]));
    server.again();
    let line = eventually("the wrong certificate is told", || waiter.said("expired on 2021-01-01T00:00:00Z"));
    assert!(line.contains("asking again, and the claim keeps its place in the queue"), "{line}");
    server.kill();
    serve(&ca.issue(&["127.0.0.1"], "server"));
    server.again();
    waiter.finish().ok();
}

// ---- proxies

#[test]
fn a_proxy_that_refuses_is_named_at_once() {
    let refuses = |status: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = read_message(&mut stream);
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 6\r\nconnection: close\r\n\r\ndenied");
            }
        });
        address
    };
    let table = [
        ("403 Forbidden", "refuses to connect to it (status 403): ask those who run the proxy to allow"),
        ("407 Proxy Authentication Required", "wants other credentials (status 407): write them into its address"),
    ];
    for (status, text) in table {
        let proxy = refuses(status);
        for uri in ["https://locker.example.com", "http://locker.example.com:8910"] {
            let source = json!({"locker_uri": uri, "pool": "p", "proxy": format!("http://ada:hunter2@{proxy}")});
            let stderr = told(&source);
            assert!(stderr.contains(&format!("the proxy {proxy} {text}")), "{status} {uri}: {stderr}");
            assert!(!stderr.contains("hunter2"), "{stderr}");
        }
    }
    // One that cannot connect may be able to later.
    let server = Server::start();
    let proxy = refuses("503 Service Unavailable");
    for uri in ["https://locker.example.com", "http://locker.example.com:8910"] {
        let mut build = Build::with_source(&server, 1, &json!({"pool": "p", "proxy": format!("http://{proxy}")}));
        build.source["locker_uri"] = json!(uri);
        let waiter = build.put(&acquire());
        waiter.until_stderr(&format!("the proxy {proxy} cannot connect to it (status 503)"));
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let build = Build::with_source(&server, 1, &json!({"pool": "p", "proxy": format!("http://{gone}")}));
    build.put(&acquire()).until_stderr(&format!("the proxy {gone} cannot be reached: "));
}

#[test]
fn release_add_and_remove_say_that_they_ask_again() {
    let mut server = Server::start();
    let build = Build::new(&server, 1, "p").var("LOCKER_RELEASE_LIMIT", "500ms").var("LOCKER_GET_LIMIT", "500ms");
    build.input_with("lock", &[("name", b"a"), ("metadata", b"")]);
    server.kill();
    let puts = [
        json!({"release": "build"}),
        json!({"release": "lock"}),
        json!({"release": {"lock": "a"}}),
        json!({"add": "lock"}),
        json!({"add_claimed": "lock"}),
        json!({"remove": "lock"}),
    ];
    for params in puts {
        let done = build.out(&params).failed(1, "gave up after 500ms");
        assert!(done.stderr.contains("; asking again\n"), "{params}: {}", done.stderr);
    }
    build.get("5", "x").failed(1, "nothing listens there").said("; asking again\n");
    let mut command = clean(binary());
    command.args(["latch", "get", "x", "--wait", "--timeout", "1s"]).env("LOCKER_URI", &server.url);
    Running::start(&mut command, b"").finish().failed(6, "nothing listens there").said("; asking again\n");
}

// ---- while it waits

#[test]
fn a_wait_says_what_changed_and_that_it_still_waits() {
    let server = Server::start();
    let (first, second) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    first.out(&json!({"acquire": true, "reason": "release 1.2"})).ok();
    let ahead = second.put(&acquire());
    server.until_waiting("p", 1);
    let build = Build::new(&server, 3, "p").var("LOCKER_PROGRESS", "10ms").var("LOCKER_WAIT", "100ms");
    let waiter = build.put(&acquire());
    let line = waiter.until_stderr("waiting: place 2 in the queue; held: \"p\" by main/app/deploy #1 ");
    assert!(line.contains(" s ago), because \"release 1.2\"; ahead: main/app/deploy #2 "), "{line}");
    let still = waiter.until_stderr("still waiting after ");
    assert!(still.contains(" s: place 2 in the queue; held ") && still.contains(" by main/app/deploy #1"), "{still}");
    first.out(&json!({"release": "build"})).ok();
    ahead.finish().ok();
    let changed = waiter.until_stderr("waiting: place 1 in the queue (was 2); held: \"p\" by main/app/deploy #2 ");
    assert!(!changed.contains("ahead"), "{changed}");
    second.out(&json!({"release": "build"})).ok();
    waiter.finish().ok();
}

#[test]
fn of_many_holders_five_are_written_out_one_a_line() {
    let server = Server::start();
    let names: Vec<String> = (1..=22).map(|n| format!("lock-{n:02}")).collect();
    for (id, name) in (1..).zip(&names) {
        server.cli(&["lock", "add", "many", name]).ok();
        Build::new(&server, id, "many").out(&json!({"claim": name})).ok();
    }
    let waiter = Build::new(&server, 99, "many").put(&acquire());
    waiter.until_stderr("  and 17 more");
    let stderr = waiter.stderr();
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines[1], "waiting: place 1 in the queue; 22 holders");
    for (line, n) in lines[2..7].iter().zip(1..) {
        assert!(line.starts_with(&format!("  held: \"lock-{n:02}\" by main/app/deploy #{n} (")), "{line}");
        assert!(line.ends_with(" ago)"), "{line}");
    }
    assert_eq!((lines.len(), lines[7]), (8, "  and 17 more"));
    drop(waiter);
    let refused = Build::new(&server, 98, "many").out(&json!({"acquire": true, "queue": false}));
    refused.failed(1, "and 17 more\nerror: not free, and queue: false says not to wait; 22 holders\n");
    server.cli(&["claim", "many", "--try"]).failed(3, "and 17 more\nlocker: not free; 22 holders\n");
}

#[test]
fn a_deadlock_names_the_way_out() {
    let server = Server::start();
    let (a, b) = (Build::new(&server, 1, "a"), Build::new(&server, 2, "b"));
    a.out(&acquire()).ok();
    b.out(&acquire()).ok();
    let other = |id, pool| Build::new(&server, id, pool).put(&acquire());
    let (first, second) = (other(1, "b"), other(2, "a"));
    let line = eventually("the deadlock is told", || first.said("DEADLOCK").or_else(|| second.said("DEADLOCK")));
    assert!(line.contains("the way out: abort one of these builds; so that it does not happen again, let"), "{line}");
}

#[test]
fn a_try_lock_ends_when_its_server_dies_before_the_confirmation() {
    let mut server = Server::start();
    let proxy = Proxy::before(&server.url);
    proxy.rule("/confirm ", Act::StopRequest);
    let mut command = server.cli_command();
    command.args(["claim", "p", "--try"]).env("LOCKER_URI", &proxy.url);
    let claim = Running::start(&mut command, b"");
    proxy.until_stopped();
    server.kill();
    let start = Instant::now();
    claim.finish().failed(6, "no answer from the locker server");
    assert!(start.elapsed() < Duration::from_secs(15), "a few seconds, with a margin for a busy machine");
}

// ---- mistakes

#[test]
fn a_misspelt_name_gets_a_hint_instead_of_what_seems_to_be_missing() {
    let server = Server::start();
    let pool = |params: Value| Build::new(&server, 1, "p").out(&params);
    let lock = |params: Value| Build::with_source(&server, 1, &json!({"lock_name": "p"})).out(&params);
    let source = |source: Value| {
        let mut build = Build::new(&server, 1, "p");
        build.source = source;
        build.out(&acquire())
    };
    let table = [
        (pool(json!({"aquire": true})), "unknown params key \"aquire\": did you mean \"acquire\"?"),
        (pool(json!({"relaese": "build"})), "unknown params key \"relaese\": did you mean \"release\"?"),
        (pool(json!({"release": {"lok": "a"}})), "unknown params.release key \"lok\": did you mean \"lock\"?"),
        (lock(json!({"lock_pp": "lock", "key": "k"})), "unknown params key \"lock_pp\": did you mean \"lock_op\"?"),
        (lock(json!({"lock_op": "lock", "keyy": "k"})), "unknown params key \"keyy\": did you mean \"key\"?"),
        (
            source(json!({"locker_url": server.url, "pool": "p"})),
            "unknown source key \"locker_url\": did you mean \"locker_uri\"?",
        ),
        (
            source(json!({"locker_uri": server.url, "poool": "p"})),
            "unknown source key \"poool\": did you mean \"pool\"?",
        ),
    ];
    for (done, text) in table {
        let done = done.failed(1, &format!("invalid payload ({text})"));
        assert!(!done.stderr.contains("missing"), "{}", done.stderr);
    }
    // Where nothing is like it, the problem is what is missing.
    pool(json!({})).failed(1, "invalid payload (missing acquire, claim, release, add");

    server.cli(&["lock", "add", "envs", "Env 1", "--label", "region=eu", "--label", "size=large"]).ok();
    let envs = Build::new(&server, 1, "envs");
    let hint = "pool \"envs\" has no lock \"env 1\": did you mean \"Env 1\"?";
    envs.out(&json!({"claim": "env 1"})).failed(1, hint);
    envs.out(&json!({"release": {"lock": "env 1"}})).failed(1, hint);
    server.cli(&["claim", "envs", "--lock", "env 1"]).failed(4, hint);
    server.cli(&["lock", "remove", "envs", "env 1"]).failed(4, hint);
    envs.out(&json!({"claim": "production"})).failed(1, "has no lock \"production\"; check the name, or add it first");
    let hint = "no lock of pool \"envs\" has region=ue: did you mean \"region=eu\"?";
    envs.out(&json!({"acquire": true, "labels": {"region": "ue"}})).failed(1, hint);
    let hint = "has regoin=eu and size=large: did you mean \"region=eu\"?";
    envs.out(&json!({"acquire": true, "labels": {"regoin": "eu", "size": "large"}})).failed(1, hint);
    let hint = "the command of `locker run` comes after the pool, such as: locker run";
    server.cli(&["run", "envs"]).failed(2, hint);
    server.cli(&["--uri", &server.url, "run", "envs", "--lock", "Env 1"]).failed(2, hint);
    server.cli(&["claim", "envs", "--lock", "ENV 1"]).failed(4, "did you mean \"Env 1\"?");
    let other = server.cli(&["run", "envs", "--bogus", "--", "true"]).failed(2, "--bogus");
    assert!(!other.stderr.contains("comes after"), "{}", other.stderr);
}

#[test]
fn metadata_names_every_lock_of_the_claim() {
    let server = Server::start();
    server.cli(&["pool", "set", "many", "--capacity", "3"]).ok();
    let build = Build::new(&server, 1, "many");
    let also = json!([{"pool": "other"}]);
    let claimed = build.out(&json!({"acquire": true, "count": 2, "also": also})).ok();
    let locks = claimed.metadata("locks").unwrap();
    assert_eq!((locks.split(", ").count(), locks.ends_with(", other/other")), (3, true), "{locks}");
    assert_eq!(claimed.metadata("lock_name").as_deref(), locks.split(", ").next());
    assert_eq!(build.get(&claimed.version(), "got").ok().metadata("locks"), Some(locks));
    let one = Build::new(&server, 2, "one").out(&acquire()).ok();
    assert_eq!((one.metadata("lock_name").as_deref(), one.metadata("locks")), (Some("one"), None));
}

#[test]
fn a_json_log_is_json_from_its_first_line() {
    let files = Files::new();
    let state = files.write("state", "{}");
    let running = |args: &[&str], vars: &[(&str, &str)]| {
        let mut command = clean(binary());
        command.args(["server", "--log", "json", "--listen", "127.0.0.1:0"]).args(args).envs(vars.iter().copied());
        Running::start(&mut command, b"")
    };
    let server =
        running(&["--store", "memory:"], &[("LOCKER_CONFIG", &state), ("AUTH_USER", "ci"), ("AUTH_PASS", "change-me")]);
    server.until_stderr("change-me");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let done = server.finish().ok();
    let failed =
        running(&["--store", "sqlite:/nonexistent/locker.db"], &[]).finish().failed(1, "does not exist: create it");
    let wrong = running(&["--store", "memory:"], &[("AUTH_USER", "ci")]).finish().failed(2, "AUTH_PASS");
    for (done, level) in [(&done, "INFO"), (&failed, "ERROR"), (&wrong, "ERROR")] {
        let lines: Vec<Value> = done
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        assert_eq!(lines[0]["level"], level, "{lines:?}");
        assert!(lines.iter().all(|line| line["timestamp"].is_string()), "{lines:?}");
    }
    let first: Value = serde_json::from_str(done.stderr.lines().next().unwrap()).unwrap();
    assert!(first["message"].as_str().unwrap().contains(" listening on http://127.0.0.1:"), "{first}");
}

// ---- holds that were taken away

#[test]
fn a_release_tells_what_was_broken_or_lost_and_may_fail_for_it() {
    let server = Server::start();
    server.cli(&["pool", "set", "envs", "--capacity", "2"]).ok();
    let build = Build::new(&server, 1, "envs");
    let broken = build.out(&json!({"acquire": true, "as": "one"})).ok();
    let kept = build.out(&json!({"acquire": true, "as": "two"})).ok();
    build.get(&broken.version(), "broken").ok();
    let claim = broken.metadata("claim").unwrap();
    let lock = broken.metadata("lock_name").unwrap();
    let mut command = server.cli_command();
    command.args(["break", &claim, "--reason", "disk full"]).env("USER", "ada");
    Running::start(&mut command, b"").finish().ok();

    // What the build still has is released, and the log says who, when and why.
    let done = build.out(&json!({"release": "build"})).ok().said("released \"");
    let line = done.stderr.lines().find(|line| line.starts_with("LOST: ")).unwrap_or_else(|| panic!("{done:?}"));
    let start = format!("LOST: the hold of this build on {lock:?} of pool \"envs\" was broken by ada");
    assert!(line.starts_with(&start), "{line}");
    assert!(line.ends_with(" s ago), because \"disk full\": later work ran without it"), "{line}");
    assert_eq!(done.stderr.matches("LOST").count(), 1, "only what was lost: {}", done.stderr);
    assert!(server.pool("envs")["free"] == 1 || kept.metadata("claim").is_some(), "the other one is free");
    build.out(&json!({"release": "build", "on_lost": "tell"})).ok().said("LOST: the hold of this build");
    // The directory of that hold, and the name of its lock.
    build
        .out(&json!({"release": "broken"}))
        .failed(1, "has already ended: broken by ada")
        .said("because \"disk full\"");
    build.out(&json!({"release": {"lock": lock}})).failed(1, "is not held").said("was broken by ada");
    let fails = build.out(&json!({"release": "build", "on_lost": "fail"}));
    fails.failed(1, "error: on_lost: fail: this build lost a lock while it worked").said("was broken by ada");

    // What somebody released by hand is told, too.
    let taken = Build::new(&server, 5, "envs");
    taken.out(&json!({"claim": "1"})).ok();
    server
        .cli(&["release", "--pool", "envs", "--lock", "1"])
        .ok()
        .printed("released \"1\" of pool \"envs\", held by main/app/deploy #5 ");
    let told = taken.out(&json!({"release": "build", "on_lost": "fail"})).ok();
    assert!(told.stderr.contains("on \"1\" of pool \"envs\" was released by hand by ada@"), "{}", told.stderr);

    // Other builds have lost nothing.
    let other = Build::new(&server, 2, "envs").out(&json!({"release": "build", "on_lost": "fail"})).ok();
    assert!(!other.stderr.contains("LOST"), "{}", other.stderr);
    build.out(&json!({"release": "build", "on_lost": "maybe"})).failed(1, "params.on_lost: must be tell or fail");
    build.out(&json!({"acquire": true, "on_lost": "fail"})).failed(1, "params.on_lost: does not go with acquire");

    // A ttl that is over, and an unlock.
    let build = Build::with_source(&server, 3, &json!({"lock_name": "l"}));
    build.out(&json!({"lock_op": "lock", "key": "k", "ttl": "1s"})).ok();
    eventually("the hold is lost", || (server.pool("l")["items"][0]["holders"] == json!([])).then_some(()));
    let fails =
        build.out(&json!({"lock_op": "unlock", "key": "k", "on_lost": "fail"})).failed(1, "error: on_lost: fail");
    assert!(fails.stderr.contains("on \"l\" of pool \"l\" was lost at "), "{}", fails.stderr);
    assert!(fails.stderr.contains("because \"its ttl is over\""), "{}", fails.stderr);
}

#[test]
fn a_get_makes_its_destination() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let claimed = build.out(&acquire()).ok().version();
    let dir = build.dir.path().join("not/there/yet");
    let payload = json!({"source": build.source, "version": {"ref": claimed}}).to_string();
    build.raw("in", Some(&dir), payload.as_bytes()).ok();
    assert_eq!(std::fs::read_to_string(dir.join("name")).unwrap(), "p\n");
    build.raw("in", Some(&dir.join("name")), payload.as_bytes()).failed(1, "name");
}

#[test]
fn the_agent_takes_flags_with_one_dash() {
    let agent = |args: &[&str]| {
        let mut command = clean(binary());
        std::os::unix::process::CommandExt::arg0(&mut command, "lockagt").args(args);
        Running::start(&mut command, b"").finish()
    };
    // The address is read, and refused for what it is.
    let text = "must begin with http:// or https://";
    for args in [
        &["--once", "--api-endpoint", "ftp://x"][..],
        &["-once", "-api-endpoint", "ftp://x"],
        &["-once", "-api-endpoint=ftp://x"],
    ] {
        agent(args).failed(2, text);
    }
    agent(&["-bogus"]).failed(2, "-b");
}
