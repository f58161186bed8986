//! Tokens that the server makes, and those that `locker login` keeps (docs/access.md#tokens).

use std::io::{BufRead as _, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use locker::core::command::Command;
use locker::core::settings::Settings;
use locker::core::time::Span;
use locker::server::auth::access::Live;
use locker::server::auth::tokens::{self, Tokens};
use locker::server::auth::{Guard, Proof};
use locker::server::http::{Handler, Request};
use locker::server::routes;
use locker::store;
use serde_json::{Value, json};

use crate::support::certs::Files;
use crate::support::clock::HandClock;
use crate::support::http::{Answer, request};
use crate::support::in_process::{self, House};
use crate::support::{Build, Running, Server, eventually};

const RULES: &str = "\
rules:
- {name: deployers, to: token:deploy, may: claim, pools: a-*}
- {to: token:chief, may: admin, pools: '*'}
- {to: user:root, may: admin, pools: '*'}
";

/// A server that keeps its state, and whose user `root` may do everything.
fn server(files: &Files, rules: &str) -> Server {
    let vars = [("AUTH_USER", "root"), ("AUTH_PASS", "secret")];
    Server::start_with("sqlite", &["--access", &files.write("access.yml", rules)], &vars)
}

fn call(server: &Server, line: &str, authorization: &str, body: &Value) -> Answer {
    let (method, target) = line.split_once(' ').unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.connect().ask(method, target, &format!("authorization: {authorization}\r\n"), &body).unwrap()
}

/// `root` with its password.
const ROOT: &str = "Basic cm9vdDpzZWNyZXQ=";

fn as_root(server: &Server, args: &[&str]) -> Running {
    let mut command = server.cli_command();
    command.args(args).env("LOCKER_USERNAME", "root").env("LOCKER_PASSWORD", "secret");
    Running::start(&mut command, b"")
}

/// A new token, as the command line prints it.
fn create(server: &Server, name: &str) -> String {
    let made = as_root(server, &["token", "create", name]).finish().ok();
    made.stdout.trim_end().to_owned()
}

fn status(server: &Server, token: &str) -> u16 {
    call(server, "GET /api/v1/info", &format!("Bearer {token}"), &Value::Null).status
}

#[test]
fn a_token_is_shown_once_and_does_what_the_rules_say() {
    let files = Files::new();
    let mut server = server(&files, RULES);
    let made = as_root(&server, &["token", "create", "deploy", "--ttl", "90d"]).finish().ok();
    let token = made.stdout.trim_end().to_owned();
    assert!(token.starts_with("locker_") && token.len() == 47, "{token}");
    made.said("token deploy is good until ").said("it is not shown again");
    as_root(&server, &["token", "create", "nobody"]).finish().ok().said("no rule of the access file is for it yet");
    let bearer = format!("Bearer {token}");
    let ask = |server: &Server, line: &str, body: &Value| call(server, line, &bearer, body).status;
    assert_eq!(ask(&server, "PUT /api/v1/claims/c", &json!({"pool": "a-1"})), 200);
    assert_eq!(ask(&server, "PUT /api/v1/claims/d", &json!({"pool": "b-1"})), 403);
    assert_eq!(call(&server, "GET /api/v1/info", &bearer, &Value::Null).json()["identity"], "token:deploy");
    // Nobody is shown it again, and the store does not have it.
    let listed = as_root(&server, &["token", "list", "--json"]).finish().ok();
    assert!(!listed.stdout.contains(&token), "{listed:?}");
    let first = &listed.json()[0];
    assert_eq!(
        (&first["name"], &first["by"], &first["has_rights"]),
        (&json!("deploy"), &json!("user:root"), &json!(true))
    );
    as_root(&server, &["token", "list"]).finish().ok().printed("nobody").printed("no rule is for it");
    server.stop();
    let store = std::fs::read(server.store().strip_prefix("sqlite:").unwrap()).unwrap();
    let has = |text: &str| store.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("deploy") && !has(&token) && !has(&token[7..]), "the store has a hash alone");
    // It outlives the server, and so does its last use.
    server.again();
    assert_eq!(status(&server, &token), 200);
    eventually("the use is noted", || {
        let listed = call(&server, "GET /api/v1/tokens", ROOT, &Value::Null).json();
        listed["items"][0]["used"].as_str().map(drop)
    });
}

#[test]
fn a_revoked_token_is_refused_at_once() {
    let files = Files::new();
    let server = server(&files, RULES);
    let (token, chief) = (create(&server, "deploy"), format!("Bearer {}", create(&server, "chief")));
    let bearer = format!("Bearer {token}");
    call(&server, "PUT /api/v1/claims/first", ROOT, &json!({"pool": "a-1"}));
    // One of its requests waits, and one follows events.
    let mut waiting = {
        let mut connection = server.connect();
        let body = json!({"pool": "a-1", "wait": "60s"}).to_string();
        connection.send(request("PUT", "/api/v1/claims/second", &format!("authorization: {bearer}\r\n"), &body));
        connection
    };
    let mut follower = server.connect();
    follower.send(request("GET", "/api/v1/events?pool=a-1", &format!("authorization: {bearer}\r\n"), ""));
    let mut line = String::new();
    while !line.starts_with("event: now") {
        line.clear();
        assert_ne!(follower.reader.read_line(&mut line).unwrap(), 0, "the events go on");
    }
    eventually("the claim waits", || {
        let claim = call(&server, "GET /api/v1/claims/second", ROOT, &Value::Null);
        (claim.status == 200).then_some(())
    });
    // A token may end another one, if the rules say so.
    assert_eq!(call(&server, "DELETE /api/v1/tokens/deploy", &chief, &Value::Null).status, 200);
    let mut rest = String::new();
    follower.reader.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("error"), "its events end: {rest}");
    let refused = call(&server, "GET /api/v1/pools/a-1", &bearer, &Value::Null);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("unauthorized")));
    assert!(refused.text().contains("the server does not know this token") && !refused.text().contains(&token));
    // The lock comes free: whoever waited with the token does not get it.
    call(&server, "DELETE /api/v1/claims/first", ROOT, &Value::Null);
    assert_eq!(waiting.read().status, 401);
    let again = call(&server, "DELETE /api/v1/tokens/deploy", ROOT, &Value::Null);
    assert_eq!((again.status, again.json()["code"].as_str()), (404, Some("no_such_token")));
    // However often it comes, others at its address get in, also such as were never here before.
    for _ in 0..20 {
        assert_eq!(status(&server, &token), 401);
    }
    server.until_log("why=\"the token is not known\"");
    // The name is free for another token, and the old one stays dead.
    assert_eq!(status(&server, &create(&server, "deploy")), 200);
    assert_eq!(status(&server, &token), 401);
}

#[test]
fn a_token_ends_on_its_day() {
    let (files, clock) = (Files::new(), HandClock::default());
    files.write("access.yml", "rules: [{to: [token:short, token:chief], may: admin, pools: '*'}]\n");
    let access = Live::open(files.path("access.yml"), None).unwrap();
    let (store, settings) = (store::open("memory:").unwrap(), Settings::default());
    let house = House::open_with(store, settings, Arc::new(clock.clone()), access.clone());
    let hash = tokens::hash("locker_chief");
    let make = Command::CreateToken { name: "chief".parse().unwrap(), hash, expires: None };
    house.engine.call_blocking(make).unwrap();
    let guard = Guard::new(&Proof::default(), routes::access, Arc::clone(&house.routes) as Arc<dyn Handler>);
    let guard = guard.with_access(access).with_tokens(Tokens::new(house.engine.clone()));
    let send = |line: &str, token: &str, body: &str| {
        let (method, path) = line.split_once(' ').unwrap();
        let headers = vec![("authorization".to_owned(), format!("Bearer {token}"))];
        let mut request = Request { headers, ..in_process::request(method, path, body) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = match runtime.block_on(guard.admit(&mut request)) {
            Err(refused) => refused,
            Ok(_) => runtime.block_on(guard.handle(&request)),
        };
        (answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap_or_default())
    };
    let make = || send("POST /api/v1/tokens", "locker_chief", r#"{"name": "short", "ttl": "1h"}"#);
    let (status, made) = make();
    assert_eq!(status, 200, "{made}");
    let short = made["token"].as_str().unwrap();
    clock.pass(Span(3_599_999));
    assert_eq!((send("GET /api/v1/pools", short, "").0, make().0), (200, 409));
    clock.pass(Span(1));
    assert_eq!(send("GET /api/v1/pools", short, "").0, 401);
    let listed = send("GET /api/v1/tokens", "locker_chief", "").1;
    assert_eq!(
        (&listed["items"][1]["name"], &listed["items"][1]["expired"]),
        (&json!("short"), &json!(true)),
        "{listed}"
    );
    // Its name is free, and the old secret stays dead.
    assert_eq!(make().0, 200);
    assert_eq!(send("GET /api/v1/pools", short, "").0, 401);
    drop(guard);
}

#[test]
fn making_and_revoking_is_for_admins_of_everything_and_audited() {
    let files = Files::new();
    let server = server(&files, RULES);
    let bearer = format!("Bearer {}", create(&server, "deploy"));
    for (line, body) in [
        ("POST /api/v1/tokens", json!({"name": "more"})),
        ("GET /api/v1/tokens", Value::Null),
        ("DELETE /api/v1/tokens/deploy", Value::Null),
    ] {
        assert_eq!(call(&server, line, &bearer, &body).status, 403, "{line}");
        assert_eq!(call(&server, line, "Bearer x", &body).status, 401, "{line}");
    }
    let create = |body: Value| call(&server, "POST /api/v1/tokens", ROOT, &body);
    for (body, status, text) in [
        (json!({"name": "deploy"}), 409, "there is a token \\\"deploy\\\" already"),
        (json!({"name": "a/b"}), 400, "token name contains '/'"),
        (json!({"name": "n".repeat(65)}), 400, "token name is too long"),
        (json!({}), 400, "name"),
        (json!({"name": "x", "ttl": "1s"}), 400, "is not between 1m and"),
        (json!({"name": "x", "ttl": "100years"}), 400, "is not between 1m and"),
        (json!({"name": "x", "secret": "mine"}), 400, "unknown"),
    ] {
        let answer = create(body.clone());
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.text().contains(text), "{body}: {}", answer.text());
    }
    // A session of the web page would outlive the token.
    assert_eq!(call(&server, "POST /api/v1/session", &bearer, &json!({})).status, 403);
    assert_eq!(call(&server, "DELETE /api/v1/tokens/deploy", ROOT, &Value::Null).status, 200);
    let history = call(&server, "GET /api/v1/changes", ROOT, &Value::Null).json();
    let entries: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|e| (&e["kind"], &e["token"], &e["proved"])).collect();
    let of = |kind: &str| (json!(kind), json!("deploy"), json!("user:root"));
    let expected = [of("token_created"), of("token_revoked")];
    assert_eq!(entries, expected.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
    let page = call(&server, "GET /history", ROOT, &Value::Null);
    assert!(page.text().contains("<b>token revoked</b> deploy by user:root"), "{}", page.text());
    as_root(&server, &["history"]).finish().ok().printed("token deploy").printed("user:root from 127.0.0.1 by line 4");
    let line = server.until_log("token_revoked");
    assert!(line.contains("token=\"deploy\"") && line.contains("identity=\"user:root\""), "{line}");
}

#[test]
fn only_who_may_make_tokens_sees_who_made_them() {
    let files = Files::new();
    let server = server(&files, &RULES.replace("may: claim, pools: a-*", "may: look, pools: '*'"));
    let bearer = format!("Bearer {}", create(&server, "deploy"));
    let shown = call(&server, "GET /api/v1/changes", &bearer, &Value::Null);
    assert_eq!((shown.status, shown.json()["items"].as_array().map(Vec::len)), (200, Some(0)), "{}", shown.text());
}

#[test]
fn a_token_serves_metrics_alone_or_a_put() {
    let files = Files::new();
    let rules = format!("{RULES}- {{to: token:prometheus, may: metrics}}\n");
    let server = server(&files, &rules);
    let (deploy, scraper) = (create(&server, "deploy"), format!("Bearer {}", create(&server, "prometheus")));
    assert_eq!(call(&server, "GET /metrics", &scraper, &Value::Null).status, 200);
    for line in ["GET /api/v1/pools", "GET /api/v1/changes", "GET /", "GET /locks", "GET /api/v1/tokens"] {
        assert_eq!(call(&server, line, &scraper, &Value::Null).status, 403, "{line}");
    }
    assert_eq!(call(&server, "GET /metrics", &format!("Bearer {deploy}"), &Value::Null).status, 403);
    // A put may show it; in the source it would be part of the resource's identity.
    let build = Build::new(&server, 1, "a-1");
    let done = build.out(&json!({"acquire": true, "token": deploy})).ok();
    assert!(!done.stderr.contains(&deploy) && !done.stdout.contains(&deploy) && !server.log().contains(&deploy));
    let history = call(&server, "GET /api/v1/changes?kind=claimed", ROOT, &Value::Null).json();
    assert_eq!((&history["items"][0]["proved"], &history["items"][0]["rule"]), (&json!("token:deploy"), &json!("own")));
    as_root(&server, &["token", "revoke", "deploy"]).finish().ok();
    let refused = build.out(&json!({"release": "build", "token": deploy})).failed(1, "does not know this token");
    assert!(!refused.stderr.contains(&deploy));
}

#[test]
fn without_an_access_file_there_are_no_tokens() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "root"), ("AUTH_PASS", "secret")]);
    as_root(&server, &["token", "create", "x"]).finish().failed(2, "tokens need an access file (--access)");
    assert_eq!(status(&server, "locker_0123"), 401);
}

/// A command of a user with this home directory and no credentials.
fn at_home(server: &Server, home: &str, args: &[&str]) -> std::process::Command {
    let mut command = server.cli_command();
    command.args(args).env("HOME", home);
    command
}

#[test]
fn a_token_that_login_keeps_is_for_its_server_alone() {
    let files = Files::new();
    let (server, other) = (server(&files, RULES), self::server(&files, RULES));
    let home = files.path("home").display().to_string();
    let (token, stdin) = (create(&server, "deploy"), |token: &str| format!("{token}\n").into_bytes());
    let run = |server: &Server, args: &[&str], input: &[u8]| {
        Running::start(&mut at_home(server, &home, args), input).finish()
    };
    run(&server, &["claims"], b"").failed(7, "requires");
    // Only one that the server accepts is kept.
    run(&server, &["login"], &stdin("locker_wrong")).failed(7, "the server does not know this token");
    run(&server, &["login"], b"").failed(2, "the token is empty");
    let file = files.path("home/.config/locker/tokens.json");
    assert!(!file.exists());
    run(&server, &["login"], &stdin(&token)).ok().printed("knows you as token:deploy; the token is kept in ");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    run(&server, &["claim", "a-1", "--id", "mine"], b"").ok();
    run(&server, &["latch", "list"], b"").ok();
    // Another server never sees it.
    run(&other, &["claims"], b"").failed(7, "requires");
    run(&other, &["latch", "--api-endpoint", &format!("{}/lock", other.url), "list"], b"").failed(7, "requires");
    // What is given counts more.
    let mut given = at_home(&server, &home, &["claim", "a-2"]);
    Running::start(given.env("LOCKER_TOKEN", "locker_wrong"), b"").finish().failed(7, "does not know this token");
    let mut given = at_home(&server, &home, &["claim", "b-2"]);
    Running::start(given.env("LOCKER_USERNAME", "root").env("LOCKER_PASSWORD", "secret"), b"").finish().ok();
    // Nor is it used where others could read it.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = run(&server, &["claims"], b"").failed(1, "others may read or change it (mode 0640): run `chmod 600 ");
    assert!(!refused.stderr.contains(&token));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    run(&server, &["logout"], b"").ok().printed("the token is forgotten here");
    run(&server, &["logout"], b"").ok().printed("no token was kept");
    run(&server, &["claims"], b"").failed(7, "requires");
    assert!(!std::fs::read_to_string(&file).unwrap().contains("locker_"));
}
