//! The real server and the real resource, with an issuer over real sockets.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{claims, with};
use crate::support::certs::Files;
use crate::support::issuer::{Fault, Issuer, Key};
use crate::support::{Build, Running, Server, eventually};

/// What the rules of these tests say about builds and others.
const RULES: &str = "
rules:
- {to: team:ci/payments, may: claim, pools: payments-*}
- {to: pipeline:ci/search/site, may: [claim, break], pools: '*'}
- {to: anyone, may: look, pools: payments-db}
- {to: user:root, may: admin, pools: '*'}
";

struct World {
    issuer: Issuer,
    key: Key,
    files: Files,
}

impl World {
    fn new() -> Self {
        let key = Key::p256("1");
        Self { issuer: Issuer::start(&[&key]), key, files: Files::new() }
    }

    /// An access file with this issuer, and these rules.
    fn file(&self, rules: &str) -> String {
        let issuer = format!("{{name: ci, kind: concourse, issuer: '{}', audience: [locker, x]}}", self.issuer.url);
        self.files.write("access.yml", &format!("issuers:\n- {issuer}\n{rules}"))
    }

    fn server(&self) -> Server {
        let vars = [("AUTH_USER", "root"), ("AUTH_PASS", "secret")];
        Server::start_with("sqlite", &["--access", &self.file(RULES)], &vars)
    }

    fn token_of(&self, claims: &Value) -> String {
        self.key.token(claims)
    }

    /// What a token of this job says now.
    fn claims(&self, team: &str, pipeline: &str, job: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = claims(&self.issuer.url);
        for (name, value) in [("iat", json!(now)), ("exp", json!(now + 900)), ("team", json!(team))] {
            claims = with(claims, name, value);
        }
        with(with(claims, "pipeline", json!(pipeline)), "job", json!(job))
    }

    fn token(&self, team: &str, pipeline: &str, job: &str) -> String {
        self.token_of(&self.claims(team, pipeline, job))
    }

    /// Build 1 of job `deploy` of this team and pipeline, in the issuer's Concourse.
    fn build(&self, server: &Server, pool: &str, team: &str, pipeline: &str) -> Build {
        let build = Build::new(server, 1, pool).var("ATC_EXTERNAL_URL", &self.issuer.url);
        build.var("BUILD_TEAM_NAME", team).var("BUILD_PIPELINE_NAME", pipeline)
    }
}

fn call(server: &Server, line: &str, token: &str, body: &Value) -> (u16, Value) {
    let (method, target) = line.split_once(' ').unwrap();
    let headers = format!("authorization: Bearer {token}\r\n");
    let answer = server.connect().ask(method, target, &headers, &body_of(body)).unwrap();
    (answer.status, answer.json())
}

fn body_of(body: &Value) -> String {
    if body.is_null() { String::new() } else { body.to_string() }
}

/// Waits until the server has the keys of the issuer.
fn until_known(server: &Server, token: &str) {
    eventually("keys", || call(server, "GET /api/v1/info", token, &Value::Null).0 == 200);
}

#[test]
fn a_build_claims_what_its_team_may_and_the_history_says_who_it_was() {
    let world = World::new();
    let server = world.server();
    let token = world.token("payments", "app", "deploy");
    let build = world.build(&server, "payments-db", "payments", "app");
    let done = build.out(&json!({"acquire": true, "token": token})).ok();
    assert!(!done.stderr.contains(&token) && !done.stdout.contains(&token));
    let (_, history) = call(&server, "GET /api/v1/pools/payments-db/changes", &token, &Value::Null);
    let claimed = history["items"].as_array().unwrap().iter().find(|entry| entry["kind"] == "claimed").unwrap().clone();
    assert_eq!(claimed["proved"], "build:ci/payments/app/deploy", "{claimed}");
    // A new step has a new token. `check` and `in` have none, and look as anyone may.
    assert!(!build.check(None).is_empty());
    build.out(&json!({"release": "build", "token": world.token("payments", "app", "deploy")})).ok();
    // No pool of others.
    let build = world.build(&server, "search-db", "payments", "app");
    let done = build.out(&json!({"acquire": true, "token": world.token("payments", "app", "deploy")}));
    done.failed(1, "build:ci/payments/app/deploy does not have the right claim on pool");
    assert!(!server.log().contains(&token), "{}", server.log());
}

#[test]
fn what_a_step_says_otherwise_is_refused_by_name() {
    let world = World::new();
    let server = world.server();
    let token = world.token("payments", "app", "deploy");
    until_known(&server, &token);
    let good =
        json!({"cluster": world.issuer.url, "team": "payments", "pipeline": "app", "job": "deploy", "build_id": "1"});
    let table = [
        ("team", "search", r#"the token is of team "payments", but the request says team "search""#),
        ("pipeline", "other", r#"the token is of pipeline "app", but the request says pipeline "other""#),
        ("job", "other", r#"the token is of job "deploy", but the request says job "other""#),
        ("cluster", "https://other", r#"but the request says Concourse "https://other""#),
        ("instance_vars", "{\"a\":1}", "the token is of no instance vars, but the request says instance vars"),
    ];
    for (n, (field, value, expected)) in table.into_iter().enumerate() {
        let body = json!({"pool": "payments-db", "owner": with(good.clone(), field, json!(value))});
        let (status, answer) = call(&server, &format!("PUT /api/v1/claims/c{n}"), &token, &body);
        assert_eq!((status, &answer["code"]), (403, &json!("forbidden")), "{field}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(expected), "{answer}");
    }
    // Nothing was taken, and what is not said is filled in.
    let body = json!({"pool": "payments-db", "owner": {"build_id": "1"}});
    let (status, answer) = call(&server, "PUT /api/v1/claims/d", &token, &body);
    assert_eq!(status, 200, "{answer}");
    let owner = &answer["owner"];
    let said = ["team", "pipeline", "job", "build_id"].map(|name| owner[name].as_str().unwrap().to_owned());
    assert_eq!(said, ["payments", "app", "deploy", "1"]);
}

#[test]
fn a_token_begins_no_session_that_would_outlive_it() {
    let world = World::new();
    let server = world.server();
    let token = world.token("search", "site", "deploy");
    until_known(&server, &token);
    let (status, answer) = call(&server, "POST /api/v1/session", &token, &json!({}));
    assert_eq!((status, &answer["code"]), (403, &json!("forbidden")), "{answer}");
    assert!(answer["error"].as_str().unwrap().starts_with("a session would outlive the id token"), "{answer}");
}

/// Names of groups have slashes where rules separate their parts.
#[test]
fn a_team_with_a_slash_is_written_with_its_code() {
    let world = World::new();
    let rules = "rules:\n- {to: team:ci/acme%2Fcore, may: look, pools: '*'}\n";
    let server = Server::start_with("memory:", &["--access", &world.file(rules)], &[]);
    until_known(&server, &world.token("acme/core", "app", "deploy"));
    for (team, expected) in [("acme/core", 200), ("acme", 403), ("acme%2Fcore", 403)] {
        assert_eq!(
            call(&server, "GET /api/v1/pools", &world.token(team, "core", "x"), &Value::Null).0,
            expected,
            "{team}"
        );
    }
}

#[test]
fn an_issuer_that_is_away_delays_a_build_and_does_not_fail_it() {
    let world = World::new();
    world.issuer.fails(Fault::Refuses);
    let server = world.server();
    let token = world.token("payments", "app", "deploy");
    let (status, answer) = eventually("a reason", || {
        let (status, answer) = call(&server, "GET /api/v1/pools", &token, &Value::Null);
        answer["error"].as_str().unwrap().contains("no answer from").then_some((status, answer))
    });
    assert_eq!((status, &answer["code"]), (503, &json!("issuer_unavailable")), "{answer}");
    let build = world.build(&server, "payments-db", "payments", "app").var("LOCKER_RETRY_MAX", "100ms");
    let put = build.put(&json!({"acquire": true, "token": token}));
    put.until_stderr("the keys of issuer ci are not known yet");
    world.issuer.well();
    put.finish().ok();
}

#[test]
fn a_rotated_key_costs_one_more_question() {
    let world = World::new();
    let server = world.server();
    until_known(&server, &world.token("payments", "app", "deploy"));
    let new = Key::rsa("2", 0);
    world.issuer.publishes(&[&new]);
    let token = new.token(&world.claims("payments", "app", "deploy"));
    let build = world.build(&server, "payments-db", "payments", "app").var("LOCKER_RETRY_MAX", "100ms");
    build.out(&json!({"acquire": true, "token": token})).ok();
    assert_eq!(world.issuer.asked("/keys"), 2);
}

#[test]
fn a_bad_token_fails_a_step_with_its_reason_and_holds_up_nobody() {
    let world = World::new();
    let server = world.server();
    let good = world.token("payments", "app", "deploy");
    until_known(&server, &good);
    let other = world.token_of(&with(world.claims("payments", "app", "deploy"), "aud", json!("vault")));
    let build = world.build(&server, "payments-db", "payments", "app");
    let done = build.out(&json!({"acquire": true, "token": other}));
    let stderr = done.failed(1, r#"the token is meant for "vault", and this server accepts "locker", "x""#).stderr;
    assert!(!stderr.contains(&other));
    // Many failures from one address, as of one worker, make nobody wait: tokens cannot be guessed.
    for _ in 0..30 {
        assert_eq!(call(&server, "GET /api/v1/pools", &other, &Value::Null).0, 401);
    }
    assert_eq!(call(&server, "GET /api/v1/pools", &world.token("payments", "app", "x"), &Value::Null).0, 200);
}

#[test]
fn a_changed_file_changes_who_is_trusted() {
    let world = World::new();
    let server = world.server();
    let token = world.token("payments", "app", "deploy");
    until_known(&server, &token);
    // A file with a fault changes nothing.
    world.files.write("access.yml", "issuers:\n- {name: ci, kind: concorse}\nrules: []\n");
    eventually("the fault", || server.log().contains("line 2: issuers[0].kind: unknown kind"));
    assert_eq!(call(&server, "GET /api/v1/pools", &token, &Value::Null).0, 200);
    world.files.write("access.yml", "rules:\n- {to: user:root, may: admin, pools: '*'}\n");
    eventually("nobody is trusted", || call(&server, "GET /api/v1/pools", &token, &Value::Null).0 == 401);
}

/// A put that waits longer than its token lives, as Concourse runs it: from the queue to the hold.
#[test]
fn a_put_outlives_its_token() {
    let world = World::new();
    let server = world.server();
    let root = |line: &str, body: &Value| {
        let (method, target) = line.split_once(' ').unwrap();
        let headers = "authorization: Basic cm9vdDpzZWNyZXQ=\r\n";
        let answer = server.connect().ask(method, target, headers, &body_of(body)).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    root("PUT /api/v1/claims/root", &json!({"pool": "payments-db", "scope": "person"}));
    let claims = world.claims("payments", "app", "deploy");
    // Good for three seconds more: its end and the leeway.
    let token = world.token_of(&with(claims.clone(), "exp", json!(claims["iat"].as_u64().unwrap() - 57)));
    until_known(&server, &world.token("payments", "app", "x"));
    let build = world.build(&server, "payments-db", "payments", "app");
    let put = build.put(&json!({"acquire": true, "token": token}));
    put.until_stderr("in the queue");
    eventually("it expires", || call(&server, "GET /api/v1/pools", &token, &Value::Null).0 == 401);
    root("DELETE /api/v1/claims/root", &Value::Null);
    let done = put.finish().ok();
    let claim = done.metadata("claim").unwrap();
    // And it may still look at its own claim, and at nothing else.
    assert_eq!(call(&server, &format!("GET /api/v1/claims/{claim}"), &token, &Value::Null).0, 200);
    assert_eq!(call(&server, "GET /api/v1/claims", &token, &Value::Null).0, 401);
}

#[test]
fn the_command_line_shows_a_token() {
    let world = World::new();
    let server = world.server();
    let token = world.token("payments", "app", "deploy");
    until_known(&server, &token);
    let with_token = |args: &[&str], token: &str| {
        Running::start(server.cli_command().args(args).env("LOCKER_TOKEN", token), b"").finish()
    };
    with_token(&["claim", "payments-db", "--id", "mine"], &token).ok();
    assert_eq!(call(&server, "GET /api/v1/claims/mine", &token, &Value::Null).1["state"], "held");
    let refused = with_token(&["claim", "search-db"], &token);
    assert!(!refused.stderr.contains(&token));
    refused.failed(7, "build:ci/payments/app/deploy does not have the right claim on pool");
    let doctor = with_token(&["doctor", "--pool", "payments-db"], &token);
    assert!(doctor.stdout.contains("the credentials are accepted: build:ci/payments/app/deploy"), "{doctor:?}");
    // GitLab leaves the variable empty if it is not allowed to make a token.
    with_token(&["claim", "payments-db"], "").failed(7, "requires credentials: set a token, or username and password");
    with_token(&["status", "payments-db"], "").ok();
    with_token(&["release", "mine"], &token).ok();
}

#[test]
fn the_state_of_an_issuer_is_shown_to_those_who_may_look() {
    let world = World::new();
    let server = world.server();
    let token = world.token("payments", "app", "deploy");
    until_known(&server, &token);
    let root = |path: &str| {
        let headers = "authorization: Basic cm9vdDpzZWNyZXQ=\r\n";
        server.connect().ask("GET", path, headers, "").unwrap()
    };
    let info = root("/api/v1/info").json();
    let issuer = &info["issuers"][0];
    assert_eq!((&issuer["name"], &issuer["keys"], &issuer["failures"]), (&json!("ci"), &json!(1), &json!(0)), "{info}");
    assert!(issuer["fetched"].is_string() && issuer["why"].is_null(), "{info}");
    assert!(call(&server, "GET /api/v1/info", &token, &Value::Null).1["issuers"].is_null());
    let forged = Key::p256("1").token(&world.claims("payments", "app", "deploy"));
    assert_eq!(call(&server, "GET /api/v1/pools", &forged, &Value::Null).0, 401);
    let metrics = root("/metrics");
    for sample in [
        "locker_issuer_keys{issuer=\"ci\"} 1\n",
        "locker_issuer_failures{issuer=\"ci\"} 0\n",
        "locker_refusals_total{credential=\"id_token\",reason=\"signature\"} 1\n",
    ] {
        assert!(metrics.text().contains(sample), "{sample}{}", metrics.text());
    }
    server.until_log("refused");
}
