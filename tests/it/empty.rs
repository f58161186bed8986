//! Claims for locks that a pool does not have, over the real binary: who waits, who fails, and what they are told.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};

use crate::support::{Build, Running, Server, file};

const EMPTY: &str = "the pool is empty, waiting for a lock to be added";

/// `locker ARGS`, running.
fn start(server: &Server, args: &[&str]) -> Running {
    Running::start(server.cli_command().args(args), b"")
}

#[test]
fn an_acquire_waits_while_an_existing_pool_has_no_lock() {
    let server = Server::start();
    server.cli(&["pool", "set", "envs", "--capacity", "0"]).ok();
    let build = Build::new(&server, 1, "envs");
    let put = build.put(&json!({"acquire": true}));
    put.until_stderr(EMPTY);
    let shown = server.cli(&["status", "envs"]).ok().stdout;
    assert!(shown.contains("0 locks") && shown.contains("waits for a lock to be added"), "{shown}");
    server.cli(&["lock", "add", "envs", "env-1"]).ok();
    put.finish().ok().said("holding \"env-1\"");

    // Everything else fails as before, because what is missing may be a mistake.
    for (params, said) in [
        (json!({"claim": "env-9"}), "pool \"envs\" has no lock \"env-9\""),
        (json!({"acquire": true, "count": 2}), "2 locks"),
        (json!({"acquire": true, "labels": {"size": "big"}}), "size"),
    ] {
        build.out(&params).failed(1, said);
    }
    server.cli(&["pool", "set", "bare", "--capacity", "0"]).ok();
    assert_eq!(server.api("PUT", "/claims/c", &json!({"pool": "bare"})).0, 422);
    server.cli(&["claim", "bare"]).failed(2, "add locks");
    let tried = Build::new(&server, 1, "bare").out(&json!({"acquire": true, "queue": false}));
    tried.failed(1, "the pool is empty: try again later");
    let timeout = Build::new(&server, 1, "bare").out(&json!({"acquire": true, "timeout": "1s"}));
    timeout.failed(1, "no lock within the timeout of 1s").said(EMPTY);
}

#[test]
fn a_pool_says_whether_claims_wait_for_its_locks() {
    let server = Server::start();
    server.cli(&["pool", "set", "envs", "--capacity", "0", "--when-empty", "wait"]).ok();
    assert_eq!(server.pool("envs")["policy"], json!({"when_empty": "wait"}));
    let build = Build::new(&server, 1, "envs");
    let named = build.put(&json!({"claim": "env-7"}));
    named.until_stderr("the pool has no lock \"env-7\", waiting for it to be added");
    let two = Build::new(&server, 2, "envs").put(&json!({"acquire": true, "count": 2}));
    two.until_stderr(EMPTY);
    let big = Build::new(&server, 3, "envs").put(&json!({"acquire": true, "labels": {"size": "big"}}));
    big.until_stderr(EMPTY);
    let person = start(&server, &["claim", "envs"]);
    person.until_stderr(EMPTY);
    let (status, waiting) = server.api("PUT", "/claims/c", &json!({"pool": "envs", "lock": "env-8"}));
    assert_eq!(
        (status, &waiting["claim"]["queue"]["lacks"]),
        (423, &json!("the pool has no lock \"env-8\", waiting for it to be added"))
    );

    // Those that cannot be served hold back nobody.
    server.cli(&["lock", "add", "envs", "env-1"]).ok();
    person.finish().ok();
    server.cli(&["lock", "add", "envs", "env-7", "--label", "size=big"]).ok();
    named.finish().ok().said("holding \"env-7\"");
    server.cli(&["release", "--pool", "envs", "--lock", "env-7"]).ok();
    let queue = server.pool("envs")["queue"].clone();
    assert_eq!(queue[0]["lacks"], Value::Null, "the pool has two locks by now: {queue}");
    server.cli(&["release", "--pool", "envs", "--lock", "env-1"]).ok();
    two.finish().ok();
    server.cli(&["release", "--pool", "envs", "--lock", "env-7"]).ok();
    big.finish().ok();

    let fail = Server::start();
    fail.cli(&["pool", "set", "envs", "--capacity", "0", "--when-empty", "fail"]).ok();
    Build::new(&fail, 1, "envs").out(&json!({"acquire": true})).failed(1, "add locks (locker lock add)");
    assert_eq!(fail.cli(&["pool", "set", "envs", "--when-empty", "never"]).code, 2);
}

#[test]
fn a_waiter_keeps_its_place_when_its_last_lock_goes() {
    let mut server = Server::start_durable();
    server.cli(&["pool", "set", "envs", "--capacity", "0", "--when-empty", "wait"]).ok();
    server.cli(&["lock", "add", "envs", "env-1"]).ok();
    let first = Build::new(&server, 1, "envs");
    let claimed = first.out(&json!({"acquire": true})).ok();
    first.get(&claimed.version(), "env").ok();
    let second = Build::new(&server, 2, "envs").put(&json!({"claim": "env-1"}));
    second.until_stderr("held: \"env-1\"");
    first.out(&json!({"remove": "env"})).ok();
    server.until_waiting("envs", 1);
    server.stop();
    server.again();
    server.cli(&["lock", "add", "envs", "env-1"]).ok();
    second.finish().ok().said("holding \"env-1\"");
}

/// A pool of environments that are used once: claim, destroy, remove; another job builds new ones.
#[test]
fn environments_that_are_used_once() {
    let server = Server::start();
    let (user, builder) = (Build::new(&server, 1, "once/ready"), Build::new(&server, 2, "once/ready"));
    builder.input_with("fresh-1", &[("name", b"env-1\n"), ("metadata", b"url: one\n")]);
    builder.input_with("fresh-2", &[("name", b"env-2\n"), ("metadata", b"url: two\n")]);
    builder.out(&json!({"add": "fresh-1"})).ok();
    for (name, content) in [("env-1", "url: one\n"), ("env-2", "url: two\n")] {
        let put = user.put(&json!({"acquire": true, "as": name}));
        if name == "env-2" {
            put.until_stderr(EMPTY);
            builder.out(&json!({"add": "fresh-2"})).ok();
        }
        let claimed = put.finish().ok();
        user.get(&claimed.version(), name).ok();
        assert_eq!(file(&user.input(name), "metadata"), content);
        user.out(&json!({"remove": name})).ok();
        assert_eq!(server.pool("once/ready")["locks"], 0);
    }
    let changes = server.api("GET", "/pools/once%2Fready/changes", &Value::Null).1;
    let kinds: Vec<&str> = changes["items"].as_array().unwrap().iter().map(|c| c["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "removed").count(), 2, "{kinds:?}");
}
