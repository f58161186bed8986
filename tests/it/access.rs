//! The access file: who may do what ([`routes`] has the table of all routes), and what one team may learn of another
//! ([`teams`], docs/access.md).

mod routes;
mod teams;

use std::io::{BufRead as _, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::certs::Files;
use crate::support::http::{Answer, request};
use crate::support::{Server, Setup, eventually};

/// The hash of `pw`, with the least cost.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$LSf8dWS2rDg/5QPLiItELqsao0qJtl8C2FnmF6Ddpms";

/// Everybody that a table below names, each with the password `pw`.
const PEOPLE: [&str; 11] =
    ["look", "claim", "manage", "break", "admin", "metrics", "nobody", "root", "a", "b", "shared"];

fn file(rules: &str) -> String {
    let users: Vec<String> = PEOPLE.iter().map(|name| format!("  {name}: {HASH}")).collect();
    format!("users:\n{}\nrules:\n{rules}", users.join("\n"))
}

/// A server with this access file.
fn server(files: &Files, rules: &str) -> Server {
    let path = files.write("access.yml", &file(rules));
    Server::start_as(&Setup::memory().flag("--access", &path))
}

/// What this user gets. An empty name shows no credentials.
#[track_caller]
fn ask(server: &Server, user: &str, method: &str, target: &str, body: &Value) -> Answer {
    let headers = match user {
        "" => String::new(),
        user => format!("Authorization: Basic {}\r\n", BASE64.encode(format!("{user}:pw"))),
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.connect().ask(method, target, &headers, &body).unwrap()
}

#[test]
fn wrong_credentials_are_refused_even_where_anybody_may() {
    let files = Files::new();
    let server = server(&files, "- {to: anyone, may: look, pools: '*'}\n- {to: user:a, may: claim, pools: '*'}\n");
    assert_eq!(ask(&server, "", "GET", "/api/v1/pools", &Value::Null).status, 200);
    assert_eq!(ask(&server, "a", "GET", "/api/v1/pools", &Value::Null).status, 200);
    let claim = json!({"pool": "p"});
    assert_eq!(ask(&server, "", "PUT", "/api/v1/claims/c", &claim).status, 401, "somebody with credentials may");
    for wrong in ["Basic YTp4", "Basic !!", "Bearer x", "Basic "] {
        let headers = format!("Authorization: {wrong}\r\n");
        let answer = server.connect().ask("GET", "/api/v1/pools", &headers, "").unwrap();
        assert_eq!(answer.status, 401, "{wrong}");
    }
}

#[test]
fn a_page_offers_what_its_reader_may_do() {
    let files = Files::new();
    let server = server(
        &files,
        "- {to: user:root, may: admin, pools: '*'}\n- {to: [user:look, anyone], may: look, pools: p}\n- {to: [user:a, user:b], may: claim, pools: p}\n",
    );
    assert_eq!(ask(&server, "a", "PUT", "/api/v1/claims/c", &json!({"pool": "p"})).status, 200);
    let offered = |user: &str| {
        let page = ask(&server, user, "GET", "/pools/p", &Value::Null);
        let all = ["Take", "Mine next", "Add a lock", "Release", "Break", "Quarantine", "Change the policy"];
        let has = |name: &&&str| page.text().contains(&format!(">{name}</button>"));
        all.iter().filter(has).copied().collect::<Vec<_>>().join(", ")
    };
    assert_eq!(offered(""), "");
    assert_eq!(offered("look"), "");
    assert_eq!(offered("a"), "Take, Release, Break");
    assert_eq!(offered("b"), "Take");
    assert_eq!(offered("root"), "Take, Mine next, Add a lock, Release, Break, Quarantine, Change the policy");
}

#[test]
fn a_changed_file_counts_and_a_bad_one_does_not() {
    let files = Files::new();
    let path = files.write("live.yml", &file("- {to: user:a, may: look, pools: p}\n"));
    let server = Server::start_as(&Setup::memory().flag("--access", &path));
    let status = || ask(&server, "a", "GET", "/api/v1/pools/p/changes", &Value::Null).status;
    assert_eq!(status(), 404, "there is no such pool, and A may know that");
    files.write("live.yml", &file("- {to: user:a, may: lok, pools: p}\n"));
    server.until_log("what it said before still counts");
    assert_eq!(status(), 404);
    files.write("live.yml", &file("- {to: user:a, may: look, pools: q}\n"));
    eventually("the new file counts", || status() == 403);
    server.signal(Signal::SIGHUP);
    server.until_log("the access file has not changed");
    Server::start().until_log("there is no access file (--access): everybody who may come in may do everything");
}

#[test]
fn a_follower_who_loses_its_rights_sees_its_events_end() {
    let files = Files::new();
    let rules = |who: &str| {
        file(&format!("- {{to: user:root, may: admin, pools: '*'}}\n- {{to: {who}, may: look, pools: p}}\n"))
    };
    let server = Server::start_as(&Setup::memory().flag("--access", &files.write("live.yml", &rules("user:a"))));
    ask(&server, "root", "PUT", "/api/v1/pools/p", &json!({}));
    let mut follower = server.connect();
    let headers = format!("Authorization: Basic {}\r\n", BASE64.encode("a:pw"));
    follower.send(request("GET", "/api/v1/events?pool=p", &headers, ""));
    let mut line = String::new();
    while !line.starts_with("event: now") {
        line.clear();
        assert_ne!(follower.reader.read_line(&mut line).unwrap(), 0, "the events go on");
    }
    files.write("live.yml", &rules("user:b"));
    server.until_log("the access file was read again");
    ask(&server, "root", "PUT", "/api/v1/pools/p/locks/secret", &json!({}));
    let mut rest = String::new();
    follower.reader.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("secret") && !rest.contains("{\"error\"") && !rest.contains("403"), "{rest}");
}

#[test]
fn a_file_that_gets_its_first_user_opens_the_form() {
    let files = Files::new();
    let rules = "rules:\n- {to: anyone, may: look, pools: p}\n- {to: user:a, may: claim, pools: p}\n";
    let path = files.write("live.yml", rules);
    let server = Server::start_as(&Setup::memory().flag("--access", &path));
    let form = || server.call("GET /login", "").status;
    assert_eq!(form(), 303, "there is nobody to sign in");
    files.write("live.yml", &format!("users:\n  a: {HASH}\n{rules}"));
    eventually("there is a form", || form() == 200);
    assert_eq!(ask(&server, "a", "POST", "/api/v1/session", &json!({})).status, 200);
}

#[test]
fn refusals_are_counted_and_logged_by_identity() {
    let files = Files::new();
    let rules = "- {to: user:root, may: admin, pools: '*'}\n- {to: user:a, may: look, pools: p}\n";
    let server = server(&files, rules);
    ask(&server, "a", "PUT", "/api/v1/claims/c", &json!({"pool": "p"}));
    ask(&server, "a", "GET", "/api/v1/pools/q", &Value::Null);
    ask(&server, "", "GET", "/api/v1/pools/q", &Value::Null);
    for authorization in ["Basic YTp4", "Bearer locker_00", "Bearer x"] {
        let headers = format!("Authorization: {authorization}\r\n");
        server.connect().ask("GET", "/api/v1/pools", &headers, "").unwrap();
    }
    let line = server.until_log("refused identity=\"user:a\"");
    assert!(line.contains("does not have the right claim on any pool"), "{line}");
    let metrics = ask(&server, "root", "GET", "/metrics", &Value::Null);
    for (credential, reason, count) in [
        ("password", "right", 2),
        ("none", "missing", 1),
        ("password", "wrong", 1),
        ("token", "unknown", 1),
        ("other", "malformed", 1),
    ] {
        let sample = format!("locker_refusals_total{{credential=\"{credential}\",reason=\"{reason}\"}} {count}\n");
        assert!(metrics.text().contains(&sample), "{sample}{}", metrics.text());
    }
}

#[test]
fn the_file_is_checked_and_explained_without_a_server() {
    let files = Files::new();
    let rules = file("- {name: pay, to: 'team:payments', may: claim, pools: payments-*}\n");
    let issuer = "issuers: [{name: ci, kind: concourse, issuer: 'https://ci.example.com', audience: locker}]\n";
    let good = files.write("good.yml", &format!("{issuer}{rules}"));
    let bad = files.write("bad.yml", "rules:\n- {to: anyone, may: looc, pools: p}\n");
    let server = Server::start();
    let done = server.cli(&["access", "check", &good]).ok();
    assert!(done.stdout.ends_with("11 users, 1 rules, no faults\n"), "{}", done.stdout);
    let done = server.cli(&["access", "check", &bad]);
    let fault = "bad.yml:2: may: unknown right \"looc\": did you mean \"look\"?";
    assert!(done.stderr.contains(fault), "{}", done.stderr);
    for (who, pool, right, said) in [
        (
            "team:payments",
            "payments-db",
            "claim",
            "yes: team:payments has the right claim on pool \"payments-db\", by the rule pay\n",
        ),
        (
            "team:payments",
            "payments-db",
            "break",
            "no: no rule gives team:payments the right break on pool \"payments-db\"\n",
        ),
        ("team:web", "payments-db", "look", "no: no rule gives team:web the right look on pool \"payments-db\"\n"),
    ] {
        let done = server.cli(&["access", "explain", &good, "--as", who, "--pool", pool, "--to", right]);
        assert_eq!(done.stdout, said);
    }
    let hash = server.cli_with(&["user", "hash"], b"hunter2\n").ok().stdout;
    let users = format!("users:\n  x: {hash}rules:\n- {{to: user:x, may: look, pools: p}}\n");
    let path = files.write("users.yml", &users);
    let guarded = Server::start_as(&Setup::memory().flag("--access", &path));
    for (password, status) in [("hunter2", 404), ("hunter3", 401)] {
        let headers = format!("Authorization: Basic {}\r\n", BASE64.encode(format!("x:{password}")));
        assert_eq!(guarded.connect().ask("GET", "/api/v1/pools/p", &headers, "").unwrap().status, status);
    }
}

/// Every example of the page is a whole access file.
#[test]
fn the_examples_of_the_page_are_good_files() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/access.md")).unwrap();
    let examples: Vec<&str> = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3, "{}", examples.len());
    let (files, server) = (Files::new(), Server::start());
    for example in examples {
        let path = files.write("example.yml", example);
        server.cli(&["access", "check", &path]).ok();
    }
}
