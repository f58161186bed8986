//! The access file: who may do what ([`routes`] has the table of all routes), and what one team may learn of another
//! (docs/access.md).

mod routes;

use std::io::{BufRead as _, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
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

const TEAMS: &str = "\
- {to: user:root, may: admin, pools: '*'}
- {to: user:a, may: [claim, manage], pools: [a-*, shared]}
- {to: user:b, may: [claim, manage], pools: [b-*, shared, latches/b-*]}
";

/// Everything that B has. Its names contain `secret`, so that they are found wherever they appear.
fn possessions_of_b(server: &Server) {
    let done = |method: &str, target: &str, body: Value| {
        let answer = ask(server, "b", method, target, &body);
        assert!(matches!(answer.status, 200 | 423), "{method} {target}: {} {}", answer.status, answer.text());
    };
    ask(server, "root", "PUT", "/api/v1/pools/shared", &json!({"capacity": 2}));
    let owner = json!({"cluster": "https://secret.example", "team": "secret-team", "pipeline": "secret-pipe",
        "job": "secret-job", "build_id": "77", "build_name": "1"});
    let claim = |pool: &str| json!({"pool": pool, "owner": owner, "reason": "secret-reason", "supersede": "/secret"});
    let metadata = json!({"metadata": "secret-metadata", "labels": {"secret": "label"}});
    done("PUT", "/api/v1/pools/b-secret/locks/secret-lock", metadata);
    done("PUT", "/api/v1/claims/secret-held", claim("b-secret"));
    done("PUT", "/api/v1/claims/secret-waiting", claim("b-secret"));
    done("PUT", "/api/v1/claims/secret-ended", claim("b-secret2"));
    done("DELETE", "/api/v1/claims/secret-ended", Value::Null);
    // One that has locks of both.
    let both = json!({"pool": "shared", "also": [{"pool": "b-secret3", "lock": "b-secret3"}]});
    done("PUT", "/api/v1/pools/b-secret3/locks/b-secret3", json!({}));
    done("PUT", "/api/v1/claims/both", both);
    done("POST", "/lock", json!({"workflow": "secret-flow", "namespace": "b-ns", "id": LATCH}));
    done("POST", "/lock/b-secret4?owner=secret-owner", Value::Null);
}

const LATCH: &str = "e9205d4a-2545-4c58-86ae-d0e7b3ecec23";

/// What A tries with a name of B's, or with one that nobody has.
fn attempts(names: &[(&str, &str)]) -> Vec<(&'static str, String, Value)> {
    let fill = |text: &str| names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    #[rustfmt::skip]
    let tried: &[(&str, &str, Value)] = &[
        ("GET", "/api/v1/pools/POOL", Value::Null),
        ("GET", "/api/v1/pools/POOL/locks/LOCK", Value::Null),
        ("GET", "/api/v1/pools/POOL/changes", Value::Null),
        ("GET", "/api/v1/pools/POOL/changes/5", Value::Null),
        ("GET", "/api/v1/pools/POOL/stats", Value::Null),
        ("GET", "/api/v1/claims?pool=POOL", Value::Null),
        ("GET", "/api/v1/claims?build=77&cluster=https://CLUSTER", Value::Null),
        ("GET", "/api/v1/claims?build=77&cluster=https://CLUSTER&state=ended", Value::Null),
        ("GET", "/api/v1/changes?pool=POOL", Value::Null),
        ("GET", "/api/v1/changes?lock=LOCK", Value::Null),
        ("GET", "/api/v1/changes?claim=HELD", Value::Null),
        ("GET", "/api/v1/changes?who=TEAM", Value::Null),
        ("GET", "/api/v1/changes?build=77", Value::Null),
        ("GET", "/api/v1/stats?pool=POOL", Value::Null),
        ("GET", "/api/v1/verify?pool=POOL&lock=LOCK&fence=1", Value::Null),
        ("HEAD", "/api/v1/events?pool=POOL", Value::Null),
        ("GET", "/api/v1/claims/HELD", Value::Null),
        ("GET", "/api/v1/claims/WAITING", Value::Null),
        ("GET", "/api/v1/claims/ENDED", Value::Null),
        ("DELETE", "/api/v1/claims/HELD?if_waiting=true", Value::Null),
        ("POST", "/api/v1/claims/HELD/confirm", json!({"fence": 1})),
        ("POST", "/api/v1/claims/HELD/renew", json!({})),
        ("POST", "/api/v1/claims/HELD/deliver", json!({"revision": 1})),
        ("POST", "/api/v1/claims/ENDED/deliver", json!({"revision": 1})),
        ("POST", "/api/v1/claims/HELD/break", json!({"by": {"owner": {"person": "x"}, "reason": "x"}})),
        ("POST", "/api/v1/claims/WAITING/break", json!({"by": {"owner": {"person": "x"}, "reason": "x"}})),
        ("PUT", "/api/v1/claims/mine", json!({"pool": "POOL"})),
        ("PUT", "/api/v1/claims/mine", json!({"pool": "a-1", "also": [{"pool": "POOL", "lock": "LOCK"}]})),
        ("PUT", "/api/v1/pools/POOL", json!({})),
        ("PATCH", "/api/v1/pools/POOL", json!({})),
        ("DELETE", "/api/v1/pools/POOL", Value::Null),
        ("PUT", "/api/v1/pools/POOL/locks/LOCK", json!({})),
        ("PATCH", "/api/v1/pools/POOL/locks/LOCK", json!({"metadata": "x"})),
        ("DELETE", "/api/v1/pools/POOL/locks/LOCK", Value::Null),
        ("POST", "/api/v1/pools/POOL/locks/LOCK/move", json!({"to": "a-1"})),
        ("POST", "/api/v1/pools/a-1/locks/a-1/move", json!({"to": "POOL"})),
        ("POST", "/api/v1/pools/POOL/locks/LOCK/quarantine", json!({"by": {"owner": {"person": "x"}, "reason": "x"}})),
        ("POST", "/api/v1/pools/POOL/locks/LOCK/return", json!({})),
        ("DELETE", "/api/v1/pools/a-1/locks/a-1", json!({"claim": "HELD"})),
        ("POST", "/api/v1/pools/POOL/changes", json!({})),
        ("GET", "/pools/POOL", Value::Null),
        ("GET", "/pools/POOL.svg", Value::Null),
        ("GET", "/pools/POOL.atom", Value::Null),
        ("GET", "/claims/HELD", Value::Null),
        ("GET", "/claims/ENDED", Value::Null),
        ("GET", "/history?pool=POOL", Value::Null),
        ("GET", "/history?who=TEAM", Value::Null),
        ("GET", "/figures?pool=POOL", Value::Null),
        ("GET", "/lock/POOL", Value::Null),
        ("POST", "/lock/POOL", Value::Null),
        ("DELETE", "/lock/POOL", Value::Null),
        ("PUT", "/lock/POOL", json!({"key": "k", "lock_by": "w"})),
        ("DELETE", "/lock/POOL", json!({"key": "k", "lock_by": "w"})),
        ("GET", "/lock?id=LATCH", Value::Null),
        ("PATCH", "/lock?id=LATCH", json!({})),
        ("DELETE", "/lock?id=LATCH", Value::Null),
    ];
    tried
        .iter()
        .map(|(method, target, body)| (*method, fill(target), body.clone()))
        .map(|(method, target, body)| {
            (
                method,
                target,
                if body.is_null() { body } else { serde_json::from_str(&fill(&body.to_string())).unwrap() },
            )
        })
        .collect()
}

const OF_B: [(&str, &str); 8] = [
    ("POOL", "b-secret"),
    ("LOCK", "secret-lock"),
    ("CLUSTER", "secret.example"),
    ("TEAM", "secret-team"),
    ("HELD", "secret-held"),
    ("WAITING", "secret-waiting"),
    ("ENDED", "secret-ended"),
    ("LATCH", LATCH),
];

const OF_NOBODY: [(&str, &str); 8] = [
    ("POOL", "b-absent"),
    ("LOCK", "absent-lock"),
    ("CLUSTER", "absent.example"),
    ("TEAM", "absent-team"),
    ("HELD", "absent-held"),
    ("WAITING", "absent-waiting"),
    ("ENDED", "absent-ended"),
    ("LATCH", "e9205d4a-2545-4c58-86ae-d0e7b3ecec24"),
];

/// The answer without what differs by the time and the names that were asked for.
fn comparable(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body).replace("secret", "absent").replace("ec23", "ec24");
    // Pages and figures say when they were made.
    let is_of_time = |word: &str| word.contains("20") && word.contains(':');
    let words: Vec<&str> = text.split(['"', '<', '>', ' ']).filter(|word| !is_of_time(word)).collect();
    format!("{} {}", answer.status, words.join(" "))
}

#[test]
fn a_team_learns_nothing_of_another_one() {
    let files = Files::new();
    let server = server(&files, TEAMS);
    possessions_of_b(&server);
    let own = ask(&server, "a", "PUT", "/api/v1/claims/own", &json!({"pool": "a-1"}));
    assert_eq!(own.status, 200, "{}", own.text());
    // What A gets without any name of B's.
    for target in [
        "/api/v1/pools",
        "/api/v1/claims",
        "/api/v1/claims?state=ended",
        "/api/v1/changes",
        "/api/v1/stats",
        "/api/v1/changes?order=newest_first",
        "/api/v1/changes?newest=true",
        "/api/v1/info",
        "/",
        "/history",
        "/figures",
        "/locks",
        "/lock?status=all",
        "/lock?status=locked",
        "/api/v1/claims/both",
        "/claims/both",
        "/api/v1/pools/shared",
        "/pools/shared",
        "/pools/shared.atom",
        "/api/v1/pools/shared/changes",
        "/api/v1/pools/shared/stats",
        "/api/v1/pools/b-secre",
        "/api/v1/pools/a-2",
    ] {
        let answer = ask(&server, "a", "GET", target, &Value::Null);
        let shown = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        assert!(!shown.replace("b-secre\\\"", "").contains("secret"), "{target}: {shown}");
    }
    assert_eq!(ask(&server, "a", "GET", "/metrics", &Value::Null).status, 403);
    // A name of B's is answered like one that nobody has.
    let tried = attempts(&OF_B).into_iter().zip(attempts(&OF_NOBODY));
    for ((method, target, body), (_, other, other_body)) in tried {
        let of_b = ask(&server, "a", method, &target, &body);
        let of_nobody = ask(&server, "a", method, &other, &other_body);
        assert_eq!(comparable(&of_b), comparable(&of_nobody), "{method} {target} {body}");
        let is_change = !matches!(method, "GET" | "HEAD");
        assert!(!is_change || matches!(of_b.status, 403 | 404), "{method} {target}: {}", of_b.status);
    }
    // Nothing of B's has changed.
    for (claim, state) in [("secret-held", "held"), ("secret-waiting", "waiting"), ("both", "held")] {
        assert_eq!(ask(&server, "b", "GET", &format!("/api/v1/claims/{claim}"), &Value::Null).json()["state"], state);
    }
    let latch = ask(&server, "b", "GET", &format!("/lock?id={LATCH}"), &Value::Null);
    assert_eq!(latch.status, 200, "{}", latch.text());
}

#[test]
fn a_team_reaches_only_its_own_claims_in_a_shared_pool() {
    let files = Files::new();
    let server = server(&files, TEAMS);
    possessions_of_b(&server);
    // It may see the claim of B there, as far as it is there.
    let both = ask(&server, "a", "GET", "/api/v1/claims/both", &Value::Null).json();
    assert_eq!(both["locks"].as_array().unwrap().len(), 1, "{both}");
    let refused = |method: &str, target: &str, body: Value, status: u16| {
        let answer = ask(&server, "a", method, target, &body);
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
    };
    refused("DELETE", "/api/v1/claims/both", Value::Null, 403);
    refused("POST", "/api/v1/claims/both/release", json!({}), 403);
    refused("POST", "/api/v1/claims/both/renew", json!({}), 403);
    refused("POST", "/api/v1/claims/both/confirm", json!({"fence": both["fence"]}), 403);
    refused("POST", "/api/v1/claims/both/break", json!({"by": {"owner": {"person": "x"}, "reason": "x"}}), 403);
    refused("PUT", "/api/v1/claims/both", json!({"pool": "shared"}), 409);
    refused("DELETE", "/lock/shared", Value::Null, 409);
    let lock = both["locks"][0]["lock"].as_str().unwrap();
    refused("DELETE", &format!("/api/v1/pools/shared/locks/{lock}"), json!({"claim": "both"}), 403);
    // Another claim of the name that B supersedes by, in any pool, reaches nothing of B's.
    let newer = json!({"pool": "a-1", "supersede": "/secret", "owner": {"cluster": "https://secret.example",
        "team": "secret-team", "pipeline": "secret-pipe", "job": "secret-job", "build_id": "99"}});
    assert_eq!(ask(&server, "a", "PUT", "/api/v1/claims/newer", &newer).status, 200);
    assert_eq!(ask(&server, "b", "GET", "/api/v1/claims/secret-waiting", &Value::Null).json()["state"], "waiting");
    // And A's own is not outdated by B's.
    let older = json!({"pool": "a-1", "supersede": "/secret", "queue": true});
    assert_eq!(ask(&server, "a", "PUT", "/api/v1/claims/older", &older).status, 423);
    // An id that A has cancelled before B used it keeps B out of nothing.
    assert_eq!(ask(&server, "a", "DELETE", "/api/v1/claims/early", &Value::Null).status, 404);
    assert_eq!(ask(&server, "b", "PUT", "/api/v1/claims/early", &json!({"pool": "b-early"})).status, 200);
    // B itself and root may.
    assert_eq!(ask(&server, "b", "DELETE", "/api/v1/claims/secret-waiting", &Value::Null).status, 200);
    assert_eq!(
        ask(
            &server,
            "root",
            "POST",
            "/api/v1/claims/both/break",
            &json!({"by": {"owner": {"person": "x"}, "reason": "x"}})
        )
        .status,
        200
    );
    let entries = ask(&server, "root", "GET", "/api/v1/changes?kind=broken", &Value::Null).json();
    assert_eq!(
        (&entries["items"][0]["proved"], &entries["items"][0]["rule"]),
        (&json!("user:root"), &json!("line 14"))
    );
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
