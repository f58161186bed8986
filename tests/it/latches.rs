//! The Argo contract over real sockets, and `lockcli` as a separate process.
//!
//! `THE_SEEDS_TRANSCRIPT` comes from the document of the replaced system, with its JSON made valid. It must work
//! unchanged.

// Test code: a panic is a failed test.
#![allow(clippy::unwrap_used, clippy::print_stderr, dead_code)]

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::{Answer, Client};
use crate::support::{PATIENCE, Server, binary};

fn call(server: &Server, method: &str, target: &str, body: &str) -> Answer {
    server.call(&format!("{method} {target}"), body)
}

/// Sends these bytes and returns the answer.
fn raw(server: &Server, request: &str) -> Answer {
    let mut client = server.connect();
    client.send(request);
    client.read()
}

fn create(server: &Server, workflow: &str) -> String {
    let made = call(server, "POST", "/lock", &json!({ "workflow": workflow, "namespace": "default" }).to_string());
    assert_eq!(made.status, 200, "{}", made.text());
    made.json()["id"].as_str().unwrap().to_owned()
}

const UNKNOWN: &str = "e9205d4a-2545-4c58-86ae-d0e7b3ecec23";

// ---- The contract, row by row ----

const THE_SEEDS_TRANSCRIPT: [(&str, &str, &str); 4] = [
    (
        "POST /lock HTTP/1.1\nContent-Type: application/json\n",
        "{\n  \"workflow\": \"workflow-name\",\n  \"namespace\": \"namespace\"\n}\n",
        "locked",
    ),
    ("GET /lock/?id=<lock-id> HTTP/1.1\n", "", "locked"),
    ("PATCH /lock/?id=<lock-id> HTTP/1.1\n", "", "released"),
    ("DELETE /lock/?id=<lock-id> HTTP/1.1\n", "", ""),
];

#[test]
fn the_seeds_transcript_works_as_printed() {
    let server = Server::start();
    let mut id = String::new();
    for (head, body, status) in THE_SEEDS_TRANSCRIPT {
        let head = head.replace("<lock-id>", &id).replace('\n', "\r\n");
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!("{head}Host: localhost\r\nConnection: close\r\n{length}\r\n{body}");
        let answer = raw(&server, &request);
        assert!(answer.status_line.starts_with("HTTP/1.1 200 "), "{}", answer.status_line);
        let object = answer.json();
        if status.is_empty() {
            assert_eq!(object, json!({}));
        } else {
            assert_eq!(object["status"], status);
            id = object["id"].as_str().unwrap().to_owned();
        }
    }
}

#[test]
fn the_object_has_exactly_the_members_of_the_contract() {
    let server = Server::start();
    let made = call(&server, "POST", "/lock", r#"{"workflow": "build-x7k", "namespace": "ci"}"#);
    assert_eq!(made.header("content-type"), Some("application/json"));
    let object = made.json();
    let members: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = ["id", "status", "workflow", "namespace", "created", "lastChange"];
    expected.sort_unstable();
    assert_eq!(members, expected);
    assert_eq!(object["workflow"], "build-x7k");
    assert_eq!(object["namespace"], "ci");
    assert_eq!(object["created"], object["lastChange"]);
    for member in ["created", "lastChange"] {
        // 2019-05-28T08:30:24.595Z
        let time = object[member].as_str().unwrap();
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(shape, "9999-99-99T99:99:99.999Z");
    }
    let id = object["id"].as_str().unwrap();
    let shape: String = id.chars().map(|c| if c.is_ascii_hexdigit() { 'x' } else { c }).collect();
    assert_eq!(shape, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
    assert_eq!(&id[14..15], "4", "a random UUID");
}

#[test]
fn with_and_without_the_slash() {
    let server = Server::start();
    for (post, path) in [("/lock", "/lock"), ("/lock/", "/lock/"), ("/lock", "/lock/"), ("/lock/", "/lock")] {
        let made = call(&server, "POST", post, r#"{"workflow": "w", "namespace": "n"}"#).json();
        let at = format!("{path}?id={}", made["id"].as_str().unwrap());
        assert_eq!(call(&server, "GET", &at, "").json(), made);
        let released = call(&server, "PATCH", &at, "").json();
        assert_eq!((released["status"].as_str(), &released["created"]), (Some("released"), &made["created"]));
        let listed = call(&server, "GET", &format!("{path}?status=released"), "").json();
        assert_eq!(listed, json!([released]));
        let again = call(&server, "PATCH", &at, "");
        assert_eq!((again.status, again.json()), (200, released), "repeating it is harmless");
        let deleted = call(&server, "DELETE", &at, "");
        assert_eq!((deleted.status, deleted.text()), (200, "{}"));
        for method in ["GET", "PATCH", "DELETE"] {
            let answer = call(&server, method, &at, "");
            assert_eq!((answer.status, answer.code().as_str()), (404, "no_such_latch"), "{method}");
        }
        assert_eq!(call(&server, "GET", &format!("{path}?status=released"), "").text(), "[]");
    }
}

#[test]
fn requests_of_the_original_client_are_accepted() {
    let server = Server::start();
    // The whole record, with an empty id and status, zero times, unknown members, no content type, and more parameters
    // in the URL.
    let body = r#"{"id": "", "status": "", "workflow": "w", "namespace": "n", "created": "0001-01-01T00:00:00Z",
        "lastChange": "0001-01-01T00:00:00Z", "colour": {"deep": [1]}, "outputs": null, "node": null}"#;
    let made = call(&server, "POST", "/lock?apikey=abc&x", body);
    assert_eq!(made.status, 200, "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(call(&server, "PATCH", &format!("/lock/?apikey=a%zz&id={id}&id2=7"), "{}").status, 200);
    assert_eq!(call(&server, "DELETE", &format!("/lock/?id={id}"), "whatever").status, 200);
    let head = format!(
        "POST /lock HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    assert_eq!(raw(&server, &(head + body)).status, 200);
    assert_eq!(call(&server, "POST", "/lock", r#"{"workflow": "w"}"#).json()["namespace"], "default");
}

/// Every refusal, with its status, its code and a part of its message.
const REFUSED: &[(&str, &str, &str, u16, &str, &str)] = &[
    ("POST", "/lock", "", 400, "bad_request", "not valid JSON"),
    ("POST", "/lock", "{", 400, "bad_request", "not valid JSON"),
    ("POST", "/lock", "[]", 400, "bad_request", "must be a JSON object"),
    ("POST", "/lock", "{}", 400, "bad_request", "workflow: is missing"),
    ("POST", "/lock", r#"{"workflow": ""}"#, 400, "bad_request", "workflow name is empty"),
    ("POST", "/lock", r#"{"workflow": 7}"#, 400, "bad_request", "workflow: must be a string"),
    ("POST", "/lock", r#"{"workflow": "w", "namespace": ""}"#, 400, "bad_request", "namespace is empty"),
    ("POST", "/lock", r#"{"workflow": "t1?dryRun=All&x="}"#, 400, "bad_request", "contains '?' at byte 2"),
    (
        "POST",
        "/lock",
        r#"{"workflow": "w", "namespace": "default/workflows/t1?x="}"#,
        400,
        "bad_request",
        "contains '/'",
    ),
    ("POST", "/lock", r#"{"workflow": "../../api"}"#, 400, "bad_request", "contains '/'"),
    ("POST", "/lock", r#"{"workflow": ".."}"#, 400, "bad_request", "must begin and end with a letter or digit"),
    ("POST", "/lock", r#"{"workflow": "W"}"#, 400, "bad_request", "contains 'W'"),
    ("POST", "/lock", r#"{"workflow": "a\u001b[2J"}"#, 400, "bad_request", "character U+001B"),
    ("POST", "/lock", r#"{"workflow": "a\u0000"}"#, 400, "bad_request", "character U+0000"),
    ("POST", "/lock", r#"{"workflow": "w", "id": "x"}"#, 400, "bad_request", "must be a UUID"),
    ("POST", "/lock", r#"{"workflow": "w", "node": "n"}"#, 400, "bad_request", "node: must be"),
    ("POST", "/lock", r#"{"workflow": "w", "node": {"id": "a", "name": "b"}}"#, 400, "bad_request", "node: must be"),
    ("POST", "/lock", r#"{"workflow": "w", "node": {"parameter": "a"}}"#, 400, "bad_request", "node.value: is missing"),
    ("POST", "/lock", r#"{"workflow": "w", "node": {"id": "a\n"}}"#, 400, "bad_request", "character U+000A"),
    ("POST", "/lock", r#"{"workflow": "w", "workflow_uid": "a/b"}"#, 400, "bad_request", "workflow uid contains '/'"),
    ("POST", "/lock", r#"{"workflow": "w", "on_release": "fail"}"#, 400, "bad_request", "on_release: must be"),
    ("POST", "/lock", r#"{"workflow": "w", "outputs": {"a": 1}}"#, 400, "bad_request", "must be a string"),
    ("POST", "/lock", r#"{"workflow": "w", "outputs": {"a b": "1"}}"#, 400, "bad_request", "parameter name contains"),
    ("POST", "/lock", r#"{"workflow": "w", "outputs": {}, "failure": "x"}"#, 400, "bad_request", "give one ending"),
    ("POST", "/lock/", "", 404, "no_such_route", "without a name"),
    ("GET", "/lock/", "", 404, "no_such_route", "without a name"),
    ("DELETE", "/lock/", "", 404, "no_such_route", "without a name"),
    ("GET", "/lock", "", 400, "bad_request", "id: is missing"),
    ("PATCH", "/lock", "", 400, "bad_request", "id: is missing"),
    ("DELETE", "/lock", "", 400, "bad_request", "id: is missing"),
    ("GET", "/lock?id=", "", 400, "bad_request", "id: is missing"),
    ("GET", "/lock?id=x", "", 404, "no_such_latch", "must be a UUID"),
    ("GET", "/lock?id=%ff", "", 400, "bad_request", "not UTF-8"),
    ("GET", "/lock?id=a&id=b", "", 400, "bad_request", "given twice"),
    ("GET", "/lock?id=%1b%5b2J", "", 404, "no_such_latch", "\\u{1b}[2J"),
    ("GET", "/lock?status=gone", "", 400, "bad_request", "unknown status"),
    ("GET", "/lock?status=locked&wait=1s", "", 400, "bad_request", "wait: needs"),
    ("GET", "/lock?status=released&wait=soon", "", 400, "bad_request", "not a duration"),
    ("GET", "/lock?status=locked&after=1", "", 400, "bad_request", "after: can only be used with"),
    ("PUT", "/lock?id=x", "", 405, "method_not_allowed", "POST, GET, PATCH, DELETE"),
    ("POST", "/lock/?x", "", 404, "no_such_route", "without a name"),
];

#[test]
fn every_error_is_reported() {
    let server = Server::start();
    for (method, target, body, status, code, text) in REFUSED {
        let answer = call(&server, method, target, body);
        let seen = (answer.status, answer.code());
        assert_eq!(seen, (*status, (*code).to_owned()), "{method} {target} {body}: {}", answer.text());
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        let problems = answer.json()["problems"].to_string();
        assert!(error.contains(text) || problems.contains(text), "{method} {target} {body}: {error} {problems}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = call(&server, method, &format!("/lock?id={UNKNOWN}"), "");
        assert_eq!((answer.status, answer.code().as_str()), (404, "no_such_latch"));
        assert!(answer.json()["error"].as_str().unwrap().contains(UNKNOWN), "{}", answer.text());
    }
    assert_eq!(call(&server, "GET", "/lock?status=all", "").text(), "[]", "none of these was created");
}

/// A contract that is turned off says so. Other contracts on the same path still work.
#[test]
fn latches_can_be_turned_off() {
    let server = Server::start_with("memory:", &["--contracts", "locker,lockd"], &[]);
    let at = format!("/lock/?id={UNKNOWN}");
    for (method, target, body) in [
        ("POST", "/lock", r#"{"workflow": "w"}"#),
        ("POST", "/lock/", r#"{"workflow": "w"}"#),
        ("GET", at.as_str(), ""),
        ("PATCH", at.as_str(), ""),
        ("DELETE", at.as_str(), ""),
    ] {
        let answer = call(&server, method, target, body);
        assert_eq!((answer.status, answer.code().as_str()), (404, "no_such_route"), "{method} {target}");
        assert!(answer.text().contains("the API of latches is turned off"), "{}", answer.text());
    }
    assert_eq!(call(&server, "POST", "/lock/x", "").status, 200);

    let server = Server::start_with("memory:", &["--contracts", "latches"], &[]);
    create(&server, "w");
    assert_eq!(call(&server, "POST", "/lock/x", "").code(), "no_such_route");
}

#[test]
fn all_errors_are_reported_at_once() {
    let server = Server::start();
    let body = r#"{"workflow": "W", "namespace": "a.b", "outputs": {"a": 1}, "node": 7}"#;
    let problems = call(&server, "POST", "/lock", body).json()["problems"].as_array().unwrap().len();
    assert_eq!(problems, 4);
}

// ---- What we add ----

#[test]
fn a_latch_says_which_node_waits_and_how_it_ends() {
    let server = Server::start();
    let body = json!({
        "id": UNKNOWN, "workflow": "w", "namespace": "n", "workflow_uid": "6f1c-A",
        "node": {"parameter": "lock-id", "value": "🔒"}, "outputs": {"version": "preset"},
    });
    let made = call(&server, "POST", "/lock", &body.to_string()).json();
    for member in ["id", "workflow_uid", "node", "outputs"] {
        assert_eq!(made[member], body[member], "{member}");
    }
    assert_eq!(
        call(&server, "POST", "/lock", &body.to_string()).json(),
        made,
        "the same request again returns the same latch"
    );
    let other = json!({ "id": UNKNOWN, "workflow": "other" }).to_string();
    assert_eq!(call(&server, "POST", "/lock", &other).code(), "latch_exists");

    let at = format!("/lock?id={UNKNOWN}");
    let released = call(&server, "PATCH", &at, r#"{"outputs": {"version": "1.2\n", "sha": "ä"}}"#).json();
    assert_eq!(released["outputs"], json!({"version": "1.2\n", "sha": "ä"}));
    assert_eq!(call(&server, "PATCH", &at, "").json(), released);
    assert_eq!(call(&server, "PATCH", &at, r#"{"outputs": {"version": "2"}}"#).code(), "latch_released");
    assert_eq!(call(&server, "PATCH", &at, r#"{"failure": "no"}"#).status, 409);

    for body in [r#"{"failure": "tests failed"}"#, r#"{"on_release": {"fail": "tests failed"}}"#] {
        let id = create(&server, "w");
        let failed = call(&server, "PATCH", &format!("/lock?id={id}"), body).json();
        assert_eq!(failed["on_release"], json!({"fail": "tests failed"}));
        assert!(failed.get("outputs").is_none());
    }
    let id = create(&server, "w");
    assert!(call(&server, "PATCH", &format!("/lock?id={id}"), r#"{"on_release": "succeed"}"#).status == 200);
}

#[test]
fn listings() {
    let server = Server::start();
    let ids: Vec<String> = ["a", "b", "c", "d"].map(|workflow| create(&server, workflow)).to_vec();
    let ids_of = |target: &str| -> Vec<String> {
        let listed = call(&server, "GET", target, "").json();
        listed.as_array().unwrap().iter().map(|latch| latch["id"].as_str().unwrap().to_owned()).collect()
    };
    for id in [&ids[2], &ids[0]] {
        assert_eq!(call(&server, "PATCH", &format!("/lock?id={id}"), "").status, 200);
    }
    assert_eq!(ids_of("/lock?status=released"), [ids[2].clone(), ids[0].clone()], "in the order of their release");
    let mut locked = [ids[1].clone(), ids[3].clone()];
    locked.sort();
    assert_eq!(ids_of("/lock/?status=locked"), locked);
    assert_eq!(ids_of("/lock?status=all").len(), 4);

    let answer = call(&server, "GET", "/lock?status=released", "");
    let revision = answer.header("locker-revision").unwrap().to_owned();
    assert_eq!(ids_of(&format!("/lock?status=released&after={revision}")), [""; 0]);
    assert_eq!(call(&server, "PATCH", &format!("/lock?id={}", ids[1]), "").status, 200);
    assert_eq!(ids_of(&format!("/lock?status=released&after={revision}")), [ids[1].clone()]);
}

/// A parked request: it was sent, and it stays unanswered while another request is answered.
fn parked(server: &Server, target: &str) -> Client {
    let mut client = server.connect();
    client.start(&format!("GET {target}"), "");
    client
}

#[test]
fn a_long_poll_is_answered_by_the_release() {
    let server = Server::start();
    let (first, second) = (create(&server, "a"), create(&server, "b"));
    let started = Instant::now();
    let mut of_one = parked(&server, &format!("/lock?id={first}&wait=60s"));
    let mut of_other = parked(&server, &format!("/lock?id={second}&wait=1500ms"));
    let mut of_all = parked(&server, "/lock/?status=released&wait=60s");
    // Both orders are correct: parked before the release, or sent after it.
    assert_eq!(call(&server, "PATCH", &format!("/lock?id={first}"), "").status, 200);
    assert_eq!(of_one.read().json()["status"], "released");
    assert_eq!(of_all.read().json()[0]["id"], first.as_str());
    assert!(started.elapsed() < Duration::from_secs(30), "answered by the release, not by the deadline");
    assert_eq!(of_other.read().json()["status"], "locked", "after its wait it gets the present state");
    assert!(started.elapsed() >= Duration::from_millis(1500));

    let mut of_deleted = parked(&server, &format!("/lock?id={second}&wait=60s"));
    assert_eq!(call(&server, "DELETE", &format!("/lock?id={second}"), "").status, 200);
    assert_eq!(of_deleted.read().json()["code"], "no_such_latch");
}

#[test]
fn the_history_shows_latches() {
    let server = Server::start();
    let id = create(&server, "w");
    call(&server, "PATCH", &format!("/lock?id={id}"), r#"{"failure": "no"}"#);
    call(&server, "DELETE", &format!("/lock?id={id}"), "");
    let changes = call(&server, "GET", "/api/v1/changes", "").json();
    let seen: Vec<_> = changes["items"].as_array().unwrap().iter().map(|c| (&c["kind"], &c["latch"])).collect();
    let latch = json!({ "id": id, "workflow": "w", "namespace": "default" });
    let kinds = ["latch_created", "latch_released", "latch_deleted"].map(Value::from);
    assert_eq!(seen, kinds.iter().map(|kind| (kind, &latch)).collect::<Vec<_>>());
    assert_eq!(changes["items"][1]["reason"], "no");
}

#[test]
fn latches_are_not_locks_of_pools() {
    let server = Server::start();
    create(&server, "w");
    assert_eq!(call(&server, "GET", "/api/v1/pools", "").json()["items"], json!([]));
    assert_eq!(call(&server, "GET", "/api/v1/claims", "").json()["items"], json!([]));
}

#[test]
fn bodies_are_bounded() {
    let server = Server::start();
    let id = create(&server, "w");
    let at = format!("/lock?id={id}");
    let outputs = |bytes: usize| json!({ "outputs": { "o": "x".repeat(bytes) } }).to_string();
    let refused = call(&server, "PATCH", &at, &outputs(16 * 1024));
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("16385 bytes > max of 16384"), "{}", refused.text());
    assert_eq!(call(&server, "PATCH", &at, &outputs(130 * 1024)).code(), "too_large");
    assert_eq!(call(&server, "GET", &at, "").json()["status"], "locked");
    assert_eq!(call(&server, "PATCH", &at, &outputs(16 * 1024 - 1)).status, 200);
    let deep = format!("{}{}", r#"{"x":"#.repeat(5_000), "}".repeat(5_000));
    assert_eq!(call(&server, "POST", "/lock", &deep).status, 400);
}

#[test]
fn what_was_answered_survives_a_kill() {
    let mut server = Server::start_durable();
    let (locked, released, deleted) = (create(&server, "a"), create(&server, "b"), create(&server, "c"));
    call(&server, "PATCH", &format!("/lock?id={released}"), r#"{"outputs": {"v": "1"}}"#);
    call(&server, "DELETE", &format!("/lock?id={deleted}"), "");
    let before = call(&server, "GET", "/lock?status=all", "").body;
    let revision = call(&server, "GET", "/lock?status=released", "").header("locker-revision").unwrap().to_owned();
    server.kill();
    server.again();
    assert_eq!(call(&server, "GET", "/lock?status=all", "").body, before);
    assert_eq!(call(&server, "GET", &format!("/lock?id={deleted}"), "").status, 404);
    let released_now = call(&server, "GET", "/lock?status=released", "").json();
    assert_eq!(released_now[0]["id"], released.as_str());
    assert_eq!(call(&server, "PATCH", &format!("/lock?id={locked}"), "").status, 200);
    let later = call(&server, "GET", &format!("/lock?status=released&after={revision}"), "").json();
    assert_eq!((later.as_array().unwrap().len(), &later[0]["id"]), (1, &json!(locked)), "revisions go on");
}

#[test]
fn the_node_of_a_latch_is_stored_once_and_for_all() {
    let mut server = Server::start_durable();
    let at = format!("/lock?id={}", create(&server, "w"));
    call(&server, "PATCH", &at, "");
    let listed = call(&server, "GET", "/lock?status=released", "");
    let bound = call(&server, "PATCH", &at, r#"{"node": {"id": "w-1"}, "workflow_uid": "u-1"}"#);
    assert_eq!(
        (bound.status, &bound.json()["node"], &bound.json()["workflow_uid"]),
        (200, &json!({"id": "w-1"}), &json!("u-1"))
    );
    server.kill();
    server.again();
    assert_eq!(call(&server, "GET", &at, "").json(), bound.json());
    assert_eq!(
        call(&server, "PATCH", &at, r#"{"node": {"id": "w-1"}}"#).json(),
        bound.json(),
        "repeating it is harmless"
    );
    for other in [r#"{"node": {"id": "w-2"}}"#, r#"{"node": {"name": "w-1"}}"#, r#"{"workflow_uid": "u-2"}"#] {
        let refused = call(&server, "PATCH", &at, other);
        assert_eq!((refused.status, refused.code().as_str()), (409, "latch_released"), "{other}");
    }
    assert_eq!(call(&server, "PATCH", &at, r#"{"node": {}}"#).status, 400);
    let after = listed.header("locker-revision").unwrap();
    let news = call(&server, "GET", &format!("/lock?status=released&after={after}"), "");
    assert_eq!(news.text(), "[]", "it is not a new release");
    // A creator that gives fewer fields asks for the same latch. The node may also come with the release.
    let id = at.split_once('=').unwrap().1;
    let again =
        call(&server, "POST", "/lock", &json!({ "id": id, "workflow": "w", "namespace": "default" }).to_string());
    assert_eq!(again.json(), bound.json());
    let at = format!("/lock?id={}", create(&server, "v"));
    let at_once = call(&server, "PATCH", &at, r#"{"node": {"name": "n"}, "failure": "no"}"#).json();
    assert_eq!((&at_once["status"], &at_once["node"]), (&json!("released"), &json!({"name": "n"})));
}

/// With `curl`, as people use it.
#[test]
fn curl_can_do_it_all() {
    let server = Server::start();
    let curl = |args: &[&str]| -> Value {
        let output = Command::new("curl").args(["-fsS"]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let url = format!("{}/lock", server.url);
    let made = curl(&["-X", "POST", &url, "-d", r#"{"workflow": "workflow-name", "namespace": "namespace"}"#]);
    let at = format!("{url}/?id={}", made["id"].as_str().unwrap());
    assert_eq!(curl(&[&at]), made);
    assert_eq!(curl(&["-X", "PATCH", &at])["status"], "released");
    assert_eq!(curl(&[&format!("{url}?status=released")]).as_array().unwrap().len(), 1);
    assert_eq!(curl(&["-X", "DELETE", &at]), json!({}));
    let gone = Command::new("curl").args(["-fsS", &at]).output().unwrap();
    assert_eq!(gone.status.code(), Some(22), "curl -f fails on a 404");
}

// ---- lockcli ----

/// `lockcli` with these arguments. Its endpoint is in the environment, its result file in a directory of the test.
fn lockcli(endpoint: &str, args: &[&str]) -> Output {
    command(endpoint, args).output().unwrap()
}

fn command(endpoint: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg0("/usr/local/bin/lockcli").args(args).stdin(Stdio::null());
    command.env_clear().env("API_ENDPOINT", endpoint);
    command
}

/// What it printed on stdout, and its exit code. All other messages go to stderr.
fn done(output: &Output) -> (String, i32) {
    (String::from_utf8(output.stdout.clone()).unwrap(), output.status.code().unwrap())
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

struct Place {
    server: Server,
    dir: tempfile::TempDir,
    endpoint: String,
}

impl Place {
    fn new() -> Self {
        let server = Server::start();
        let endpoint = format!("{}/lock", server.url);
        Self { server, dir: tempfile::tempdir().unwrap(), endpoint }
    }

    fn run(&self, args: &[&str]) -> Output {
        let result = self.result();
        lockcli(&self.endpoint, &[args, &["--result", result.to_str().unwrap()]].concat())
    }

    fn result(&self) -> std::path::PathBuf {
        self.dir.path().join("result")
    }

    fn result_text(&self) -> String {
        std::fs::read_to_string(self.result()).unwrap()
    }

    fn create(&self) -> String {
        let (id, code) = done(&self.run(&["create", "w"]));
        assert_eq!(code, 0);
        id.trim_end().to_owned()
    }
}

#[test]
fn lockcli_does_what_the_contract_says() {
    let place = Place::new();
    let (printed, code) = done(&place.run(&["create", "build-x7k", "ci"]));
    assert_eq!(code, 0);
    let id = place.result_text();
    assert_eq!(printed, format!("{id}\n"), "the id alone");

    let (printed, code) = done(&place.run(&["get", &id]));
    assert_eq!((code, printed), (0, format!("{}\n", place.result_text())));
    let latch: Value = serde_json::from_str(&place.result_text()).unwrap();
    assert_eq!(latch, call(&place.server, "GET", &format!("/lock?id={id}"), "").json());
    assert_eq!((&latch["workflow"], &latch["namespace"]), (&json!("build-x7k"), &json!("ci")));

    for _ in 0..2 {
        assert_eq!(done(&place.run(&["release", &id])), (String::new(), 0));
    }
    let (listed, code) = done(&place.run(&["list", "--status", "released"]));
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()[0]["id"], id.as_str());
    assert_eq!(done(&place.run(&["delete", &id])), (String::new(), 0));
    assert_eq!(done(&place.run(&["list"])), ("[]\n".to_owned(), 0));
    let id = place.create();
    let latch: Value = serde_json::from_str(&done(&place.run(&["get", &id])).0).unwrap();
    assert_eq!(latch["namespace"], "default");
}

#[test]
fn lockcli_says_how_a_latch_ends_and_which_node_waits() {
    let place = Place::new();
    for (node, seen) in [
        ("id=w-123", json!({"id": "w-123"})),
        ("name=w[0].approve", json!({"name": "w[0].approve"})),
        ("input:lock-id=a=b", json!({"parameter": "lock-id", "value": "a=b"})),
    ] {
        let (id, code) = done(&place.run(&["create", "w", "--node", node, "--workflow-uid", "u-1"]));
        assert_eq!(code, 0);
        let latch: Value = serde_json::from_str(&done(&place.run(&["get", id.trim_end()])).0).unwrap();
        assert_eq!((&latch["node"], &latch["workflow_uid"]), (&seen, &json!("u-1")));
    }
    let id = place.create();
    assert_eq!(done(&place.run(&["release", &id, "--outputs", r#"{"version": "1.2"}"#])).1, 0);
    let latch: Value = serde_json::from_str(&done(&place.run(&["get", &id, "--wait"])).0).unwrap();
    assert_eq!(latch["outputs"], json!({"version": "1.2"}));
    let id = place.create();
    assert_eq!(done(&place.run(&["release", &id, "--failure", "no\u{1b}[2J"])).1, 0);
    assert_eq!(done(&place.run(&["get", &id])).1, 0);
    let waited = place.run(&["get", &id, "--wait"]);
    assert_eq!(done(&waited).1, 1, "a script must not go on after a failure");
    assert_eq!(stderr(&waited), "lockcli: released with a failure: no\\u{1b}[2J\n");
}

#[test]
fn exit_codes_of_lockcli_can_be_trusted() {
    let place = Place::new();
    let id = place.create();
    place.run(&["release", &id, "--outputs", r#"{"a": "1"}"#]);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["get", UNKNOWN], 4, "there is no latch"),
        (&["release", UNKNOWN], 4, "there is no latch"),
        (&["delete", UNKNOWN], 4, "there is no latch"),
        (&["get", "../../x?y&z"], 4, "there is no latch"),
        (&["release", &id, "--failure", "x"], 5, "released already with another ending"),
        (&["release", &id, "--outputs", "{"], 2, "--outputs must be a JSON object"),
        (&["release", &id, "--outputs", r#"{"a": 1}"#], 2, "must be a string"),
        (&["create", "W"], 2, "workflow name contains 'W'"),
        (&["create", "w", "a/b"], 2, "namespace contains '/'"),
        (&["create", "w", "--node", "x"], 2, "must be id=ID, name=NAME or input:PARAMETER=VALUE"),
        (&["create"], 2, "WORKFLOW"),
        (&["unlock"], 2, "unrecognized subcommand"),
        (&[], 2, "Usage"),
    ];
    for (args, code, text) in cases {
        let output = place.run(args);
        assert_eq!(done(&output), (String::new(), *code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(text), "{args:?}: {}", stderr(&output));
    }
    // Nothing listens on port 1 of this machine.
    let nobody = lockcli("http://127.0.0.1:1/lock", &["get", UNKNOWN]);
    assert_eq!(done(&nobody), (String::new(), 6), "{}", stderr(&nobody));
    let secret = lockcli("http://user:hunter2@127.0.0.1:1/lock?apikey=hunter3", &["delete", UNKNOWN]);
    assert!(!stderr(&secret).contains("hunter"), "{}", stderr(&secret));
    let nonsense = lockcli("ftp://x", &["get", UNKNOWN]);
    assert_eq!(done(&nonsense).1, 2, "{}", stderr(&nonsense));
}

#[test]
fn the_endpoint_is_used_as_given() {
    let place = Place::new();
    let url = &place.server.url;
    for endpoint in ["/lock", "/lock/", "/lock?apikey=a%20b", "/lock/?apikey=x", "/lock?"] {
        let endpoint = format!("{url}{endpoint}");
        let result = place.result();
        let result = result.to_str().unwrap();
        // The flag wins over the environment.
        let (id, code) =
            done(&lockcli("http://127.0.0.1:1", &["--api-endpoint", &endpoint, "create", "w", "--result", result]));
        assert_eq!(code, 0, "{endpoint}");
        // Go programs take flags with one dash, as the original did.
        let one_dash = format!("-api-endpoint={endpoint}");
        assert_eq!(done(&lockcli("http://127.0.0.1:1", &[&one_dash, "get", id.trim_end()])).1, 0, "{endpoint}");
        let one_dash = ["get", "-api-endpoint", &endpoint, id.trim_end()];
        assert_eq!(done(&lockcli("http://127.0.0.1:1", &one_dash)).1, 0, "{endpoint}");
        assert_eq!(done(&lockcli(&endpoint, &["delete", id.trim_end()])), (String::new(), 0), "{endpoint}");
    }
    // `locker latch` uses the same address as the other commands.
    let mut command = Command::new(binary());
    let (uri, result) = (url.as_str(), place.result());
    command.env_clear().args(["--uri", uri, "latch", "create", "w", "--result", result.to_str().unwrap()]);
    assert_eq!(done(&command.output().unwrap()).1, 0);
}

#[test]
fn an_endpoint_without_its_path_is_told_from_a_wrong_request() {
    let server = Server::start();
    let id = create(&server, "w");
    let calls: [&[&str]; 5] = [&["list"], &["create", "w"], &["get", &id], &["release", &id], &["delete", &id]];
    for place in ["", "/", "/api/v1"] {
        for call in calls {
            let output = lockcli(&format!("{}{place}", server.url), call);
            assert!(!output.status.success(), "{place} {call:?}");
            let said = stderr(&output);
            assert!(
                said.contains("have the path of the latches, as in http://HOST:8910/lock?"),
                "{place} {call:?}: {said}"
            );
        }
    }
    let said = stderr(&lockcli(&format!("{}/lock", server.url), &["get", "rubbish"]));
    assert!(!said.contains("have the path"), "{said}");
}

#[test]
fn a_result_file_that_was_asked_for_must_be_written() {
    let place = Place::new();
    let asked = lockcli(&place.endpoint, &["create", "w", "--result", "/nowhere/at/all"]);
    let (id, code) = done(&asked);
    assert_eq!((id.len(), code), (37, 1), "the latch was made, so its id is printed");
    assert!(stderr(&asked).contains("/nowhere/at/all"), "{}", stderr(&asked));
}

#[test]
fn waiting_ends_with_the_release_the_time_or_a_signal() {
    let place = Place::new();
    let id = place.create();
    let (printed, code) = done(&place.run(&["get", &id, "--wait", "--timeout", "200ms"]));
    assert_eq!((printed.as_str(), code), ("", 3));

    let wait = |id: &str| -> Child {
        let result = place.result();
        let mut command = command(&place.endpoint, &["get", id, "--wait", "--result", result.to_str().unwrap()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let waiting = wait(&id);
    assert_eq!(done(&place.run(&["release", &id])).1, 0);
    let (printed, code) = done(&waiting.wait_with_output().unwrap());
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap()["status"], "released");

    let mut ended = wait(&place.create());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(ended.id()).unwrap());
    let deadline = Instant::now() + PATIENCE;
    // A signal that comes before the program handles signals would also end it, but with another exit code.
    let code = loop {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(100));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        if let Some(status) = ended.try_wait().unwrap() {
            break status.code();
        }
    };
    assert!(code.is_none_or(|code| code == 143), "{code:?}");
}

/// A waiting client finds a release that happened while it could not reach the server.
#[test]
fn waiting_survives_a_restart_of_the_server() {
    let mut server = Server::start_durable();
    let id = create(&server, "w");
    let endpoint = format!("{}/lock", server.url);
    let dir = tempfile::tempdir().unwrap();
    let result = dir.path().join("result");
    let mut waiting = command(&endpoint, &["get", &id, "--wait", "--result", result.to_str().unwrap()]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.kill();
    server.again();
    assert_eq!(call(&server, "PATCH", &format!("/lock?id={id}"), "").status, 200);
    let (printed, code) = done(&waiting.wait_with_output().unwrap());
    assert_eq!((code, printed.contains("released")), (0, true), "{printed}");
}
