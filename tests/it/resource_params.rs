//! The params of `out` beyond asking and releasing: new locks, removed locks, changed locks, and the texts that go with
//! a claim. Real binary, real server, as Concourse runs it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use crate::support::proxy::{Act, Proxy};
use crate::support::{Build, Impostor, Server, eventually, file};
use serde_json::{Value, json};

/// A directory that describes a lock.
fn describe(build: &Build, dir: &str, lock: &str, metadata: &str) {
    build.input_with(dir, &[("name", format!("{lock}\n").as_bytes()), ("metadata", metadata.as_bytes())]);
}

fn lock_state(server: &Server, lock: &str) -> String {
    let pool = server.pool("p");
    let found = pool["items"].as_array().unwrap().iter().find(|item| item["lock"] == lock);
    found.map_or_else(|| "none".to_owned(), |found| found["state"].as_str().unwrap().to_owned())
}

// ---- add_claimed

#[test]
fn add_claimed_adds_a_lock_that_is_never_free() {
    let server = Server::start();
    server.cli(&["lock", "add", "p", "other"]).ok();
    let (build, waiting) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    waiting.out(&json!({"acquire": true})).ok();
    let waiter = Build::new(&server, 3, "p").put(&json!({"acquire": true}));
    server.until_waiting("p", 1);
    describe(&build, "new", "env", "secret: x");
    let params = json!({"add_claimed": "new", "ttl": "1h", "labels": {"size": "big"}});
    let added = build.out(&params).ok().said("added and holding \"env\"");
    assert_eq!(added.metadata("lock_name").as_deref(), Some("env"));
    assert_eq!(server.pool("p")["waiting"], 1, "a waiter of the pool did not get it");
    assert_eq!(build.out(&params).ok().version(), added.version(), "the same step again changes nothing");
    build.get(&added.version(), "got").ok();
    let dir = build.input("got");
    assert_eq!((file(&dir, "name"), file(&dir, "metadata")), ("env\n".into(), "secret: x".into()));
    assert_eq!(file(&dir, "claim").trim(), added.metadata("claim").unwrap());
    assert_eq!(file(&dir, "fence").trim(), added.metadata("fence").unwrap());
    build.out(&json!({"release": "got"})).ok();
    waiter.finish().ok();

    let other = Build::new(&server, 4, "p");
    describe(&other, "new", "env", "y");
    other.out(&json!({"add_claimed": "new"})).failed(1, "already has a lock \"env\"");
    // The pool is made if it does not exist.
    let first = Build::new(&server, 5, "fresh");
    describe(&first, "new", "env", "z");
    first.out(&json!({"add_claimed": "new", "as": "env"})).ok();
    first.out(&json!({"release": "build", "as": "env"})).ok().said("released \"env\"");
    assert_eq!(server.pool("fresh")["free"], 1);
}

#[test]
fn add_claimed_survives_a_lost_answer() {
    for fault in [Act::LoseRequest, Act::LoseAnswer, Act::Twice, Act::BadGateway] {
        let server = Server::start();
        let proxy = Proxy::before(&server.url);
        let build = Build::new(&server, 1, "p").at(&proxy.url);
        describe(&build, "new", "env", "x");
        proxy.rule("PUT ", fault);
        let added = build.out(&json!({"add_claimed": "new"})).ok();
        build.get(&added.version(), "got").ok();
        assert_eq!(lock_state(&server, "env"), "held", "{fault:?}");
    }
}

// ---- remove

#[test]
fn remove_takes_out_what_is_claimed() {
    let server = Server::start();
    server.cli(&["lock", "add", "p", "a"]).ok();
    server.cli(&["lock", "add", "p", "b"]).ok();
    let build = Build::new(&server, 1, "p");
    describe(&build, "by-name", "a", "");
    build.out(&json!({"remove": "by-name"})).failed(1, "is not claimed: claim it first");
    let claimed = build.out(&json!({"claim": "a"})).ok().version();
    build.get(&claimed, "env").ok();
    let removed = build.out(&json!({"remove": "env"})).ok().said("removed \"a\"");
    assert_eq!(lock_state(&server, "a"), "none");
    build.get(&removed.version(), "gone").ok().said("removed \"a\"");
    assert!(!build.input("gone").join("name").exists());
    assert_eq!(build.check(None), [removed.version()]);
    assert_eq!(build.out(&json!({"remove": "env"})).ok().version(), removed.version(), "the same step again");
    Build::new(&server, 2, "p").out(&json!({"claim": "a"})).failed(1, "has no lock \"a\"");

    // A removal by name applies to the present holder.
    build.out(&json!({"claim": "b"})).ok();
    describe(&build, "by-name", "b", "");
    build.out(&json!({"remove": "by-name"})).ok();
    assert_eq!(server.pool("p")["locks"], 0);
    // The claim has ended in the meantime: another hold is not affected.
    server.cli(&["lock", "add", "p", "c"]).ok();
    let mine = build.out(&json!({"claim": "c"})).ok().version();
    build.get(&mine, "mine").ok();
    build.out(&json!({"release": "build"})).ok();
    Build::new(&server, 2, "p").out(&json!({"claim": "c"})).ok();
    build.out(&json!({"remove": "mine"})).failed(1, "lock_held");
    assert_eq!(lock_state(&server, "c"), "held");
}

// ---- update

#[test]
fn update_replaces_adds_and_waits() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    describe(&build, "env", "a", "one");
    let added = build.out(&json!({"update": "env"})).ok();
    describe(&build, "env", "a", "two");
    let updated = build.out(&json!({"update": "env", "labels": {"size": "big"}})).ok();
    assert_ne!(updated.version(), added.version());
    build.get(&updated.version(), "got").ok();
    assert_eq!(file(&build.input("got"), "metadata"), "two");
    assert_eq!(build.check(Some(&added.version())), [added.version(), updated.version()]);

    let holder = Build::new(&server, 2, "p");
    let claimed = holder.out(&json!({"acquire": true, "labels": {"size": "big"}})).ok().version();
    describe(&build, "env", "a", "three");
    let update = build.put(&json!({"update": "env"}));
    update.until_stderr("waiting: held: \"a\" by main/app/deploy #2");
    holder.get(&claimed, "held").ok();
    assert_eq!(file(&holder.input("held"), "metadata"), "two", "not while it is claimed");
    build.out(&json!({"update": "env", "timeout": "300ms"})).failed(1, "still waiting after the timeout of 300ms");
    holder.out(&json!({"release": "build"})).ok();
    let version = update.finish().ok().said("updated \"a\"").version();
    build.get(&version, "after").ok();
    assert_eq!(file(&build.input("after"), "metadata"), "three");
}

// ---- check and check_unclaimed

#[test]
fn check_waits_until_the_lock_is_unclaimed() {
    let server = Server::start();
    let (holder, build) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    describe(&build, "env", "p", "");
    build.out(&json!({"check": "env"})).failed(1, "there is no pool \"p\"");
    holder.out(&json!({"acquire": true})).ok();
    describe(&build, "none", "x", "");
    let none = build.out(&json!({"check": "none"})).ok().said("pool \"p\" has no lock \"x\", so nobody holds it");
    build.get(&none.version(), "nothing").ok();
    assert!(!build.input("nothing").join("name").exists());
    let check = build.put(&json!({"check": "env"}));
    check.until_stderr("waiting: held: \"p\" by main/app/deploy #1");
    build.out(&json!({"check": "env", "timeout": "300ms"})).failed(1, "still waiting after the timeout of 300ms");
    holder.out(&json!({"release": "build"})).ok();
    let first = check.finish().ok().said("\"p\" is unclaimed");
    let second = build.out(&json!({"check": "env"})).ok();
    assert_ne!(first.version(), second.version());
    build.get(&second.version(), "got").ok();
    let dir = build.input("got");
    assert_eq!(file(&dir, "name"), "p\n");
    assert!(!dir.join("claim").exists());

    // A lock that is removed meanwhile is as good.
    holder.out(&json!({"acquire": true})).ok();
    let check = build.put(&json!({"check": "env"}));
    check.until_stderr("waiting: held: \"p\"");
    describe(&holder, "env", "p", "");
    holder.out(&json!({"remove": "env"})).ok();
    check.finish().ok().said("so nobody holds it");
}

#[test]
fn check_unclaimed_waits_until_the_lock_is_claimed() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "2"]).ok();
    let (holder, build) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    describe(&build, "one", "1", "");
    describe(&build, "none", "x", "");
    build.out(&json!({"check_unclaimed": "none"})).failed(1, "has no lock \"x\"");
    let other = Build::new(&server, 1, "imported");
    server.cli(&["pool", "set", "imported", "--when-empty", "wait"]).ok();
    describe(&other, "none", "x", "");
    let later = other.put(&json!({"check_unclaimed": "none"}));
    later.until_stderr("the pool has no lock \"x\", waiting for it to be added");
    server.cli(&["lock", "add", "imported", "x"]).ok();
    other.out(&json!({"claim": "x"})).ok();
    later.finish().ok().said("\"x\" is claimed");
    let check = build.put(&json!({"check_unclaimed": "one"}));
    check.until_stderr("waiting: \"1\" is unclaimed");
    // A claim of another lock does not end the wait. A short claim of this lock does, even if it is already over.
    holder.out(&json!({"claim": 2})).ok();
    build.out(&json!({"check_unclaimed": "one", "timeout": "300ms"})).failed(1, "still waiting after the timeout");
    holder.out(&json!({"claim": 1})).ok();
    check.finish().ok().said("\"1\" is claimed");
    build.out(&json!({"check_unclaimed": "one"})).ok();
}

/// Each wait is one request that the server holds, not repeated polling.
#[test]
fn waiting_for_a_lock_is_a_long_poll() {
    let server = Server::start();
    let proxy = Proxy::before(&server.url);
    server.cli(&["pool", "set", "p", "--capacity", "2"]).ok();
    let (holder, build) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p").at(&proxy.url));
    holder.out(&json!({"claim": 1})).ok();
    describe(&build, "held", "1", "new");
    describe(&build, "free", "2", "");
    let puts = [json!({"check": "held"}), json!({"update": "held"}), json!({"check_unclaimed": "free"})];
    let waiters = puts.map(|params| build.put(&params));
    eventually("all are parked", || (proxy.seen("wait=") == 3).then_some(()));
    let asked = proxy.seen("");
    // Long enough for a polling client to ask again: its pauses would be 100 ms.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(proxy.seen(""), asked);
    holder.out(&json!({"release": "build"})).ok();
    holder.out(&json!({"claim": 2})).ok();
    for waiter in waiters {
        waiter.finish().ok();
    }
}

#[test]
fn waiting_for_a_lock_survives_a_server_that_is_away() {
    let mut server = Server::start_durable();
    let (holder, build) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    describe(&build, "env", "p", "new");
    holder.out(&json!({"acquire": true})).ok();
    let waiters = [json!({"check": "env"}), json!({"update": "env"})];
    let waiters = waiters.map(|params| {
        let waiter = Build::new(&server, 3, "p").var("LOCKER_PROGRESS", "0s");
        describe(&waiter, "env", "p", "new");
        (waiter.put(&params), waiter)
    });
    waiters.iter().for_each(|(waiter, _)| drop(waiter.until_stderr("waiting: held:")));
    server.kill();
    waiters.iter().for_each(|(waiter, _)| drop(waiter.until_stderr("no answer from the locker server")));
    server.again();
    holder.out(&json!({"release": "build"})).ok();
    for (waiter, _build) in waiters {
        waiter.finish().ok();
    }
}

#[test]
fn a_step_does_not_wait_for_its_own_build_for_ever() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p").var("LOCKER_SELF_WAIT", "500ms");
    build.out(&json!({"acquire": true})).ok();
    describe(&build, "env", "p", "new");
    for params in [json!({"check": "env"}), json!({"update": "env"})] {
        let mut fails = params;
        fails["self_wait"] = json!("fail");
        build.out(&fails).failed(1, "this build itself has held the lock for 500ms");
    }
    let waits = build.put(&json!({"check": "env"}));
    waits.until_stderr("this build itself holds the lock, so another step of it must release it");
    build.out(&json!({"release": "build"})).ok();
    waits.finish().ok();
}

#[test]
fn a_claim_does_not_wait_for_its_own_build_for_ever() {
    let answer = r#"{"error":"waits","code":"self_wait","parked":false,"claim":null,"holders":[]}"#;
    let (real, server) = (Server::start(), Impostor::says("423 Locked", answer));
    let build = Build::new(&real, 1, "p").var("LOCKER_SELF_WAIT", "500ms").at(&server.url);
    let fails = json!({"acquire": true, "self_wait": "fail"});
    let done = build.out(&fails).failed(1, "this build already holds what it waits for");
    assert!(done.stderr.contains("as: NAME") && done.stderr.contains("remove self_wait: fail"), "{}", done.stderr);
    let waits = json!({"acquire": true, "timeout": "1s"});
    build.out(&waits).failed(1, "no lock within the timeout of 1s");
}

#[test]
fn a_deadlock_is_reported_and_the_wait_goes_on() {
    let answer = r#"{"error":"waits","code":"deadlock","parked":false,
        "builds":[{"pipeline":"a","build_name":"1"},{"pipeline":"b","build_name":"2"}]}"#;
    let (real, server) = (Server::start(), Impostor::says("423 Locked", answer));
    let build = Build::new(&real, 1, "p").at(&server.url);
    let done = build.out(&json!({"acquire": true, "timeout": "300ms"})).failed(1, "no lock within");
    assert!(done.stderr.contains("each of these builds waits for the next: a #1 -> b #2"), "{}", done.stderr);
}

#[test]
fn a_second_claim_of_the_same_build_hears_that_it_waits_for_itself() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p").var("LOCKER_SELF_WAIT", "500ms").var("LOCKER_PROGRESS", "0s");
    build.out(&json!({"acquire": true, "as": "one"})).ok();
    let fails = json!({"acquire": true, "as": "two", "self_wait": "fail"});
    let done = build.out(&fails).failed(1, "give both steps the same as: NAME");
    assert!(done.stderr.contains("this build already holds what it waits for"), "{}", done.stderr);
    assert_eq!(server.pool("p")["waiting"], 0);
    let waits = build.put(&json!({"acquire": true, "as": "two"}));
    server.until_waiting("p", 1);
    build.out(&json!({"release": "build", "as": "one"})).ok();
    waits.finish().ok();
}

// ---- texts that go with a claim

#[test]
fn a_newer_build_supersedes_older_waiting_ones() {
    let server = Server::start();
    let params = json!({"acquire": true, "supersede": "deploy"});
    let holder = Build::new(&server, 1, "p");
    holder.out(&params).ok();
    let old = Build::new(&server, 2, "p").put(&params);
    server.until_waiting("p", 1);
    let new = Build::new(&server, 3, "p").put(&params);
    old.finish().failed(1, "the claim has ended (superseded)");
    server.until_waiting("p", 1);
    Build::new(&server, 2, "p").out(&params).failed(1, "superseded");
    holder.out(&json!({"release": "build"})).ok();
    new.finish().ok();
}

#[test]
fn a_pool_ordered_by_priority_serves_the_higher_first() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "1", "--order", "priority"]).ok();
    let holder = Build::new(&server, 1, "p");
    holder.out(&json!({"acquire": true})).ok();
    let (low, high) = (Build::new(&server, 2, "p"), Build::new(&server, 3, "p"));
    let waits_low = low.put(&json!({"acquire": true, "priority": -1}));
    server.until_waiting("p", 1);
    let waits_high = high.put(&json!({"acquire": true, "priority": 5}));
    server.until_waiting("p", 2);
    holder.out(&json!({"release": "build"})).ok();
    waits_high.finish().ok();
    assert_eq!(server.pool("p")["waiting"], 1);
    high.out(&json!({"release": "build"})).ok();
    waits_low.finish().ok();
}

/// The body of the request that `out` sends for a claim with these params.
fn sent(params: &Value) -> (String, Value) {
    let server = Impostor::says("403 Forbidden", r#"{"error":"no","code":"forbidden"}"#);
    let nobody = Server::start();
    let build = Build::with_source(&nobody, 1, &json!({"pool": "p", "priority": 3, "ttl": "1h", "username": "ci"}));
    build.at(&server.url).out(params).failed(1, "no (forbidden)");
    let request = server.requests().into_iter().find(|request| request.starts_with("PUT ")).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), serde_json::from_str(body).unwrap())
}

#[test]
fn what_is_asked_arrives() {
    let (head, body) = sent(&json!({"acquire": true}));
    assert_eq!((&body["priority"], &body["ttl"], &body["supersede"]), (&json!(3), &json!("3600s"), &Value::Null));
    assert!(head.contains("authorization: basic "), "{head}");
    assert_eq!(body["confirm"], true);
    let params = json!({"acquire": true, "priority": -7, "supersede": "deploy", "token": "eyJ.x.y", "reason": "r"});
    let (head, body) = sent(&params);
    assert_eq!((&body["priority"], &body["supersede"], &body["reason"]), (&json!(-7), &json!("deploy"), &json!("r")));
    assert!(head.contains("authorization: bearer eyj.x.y"), "{head}");
}

#[test]
fn a_token_is_never_shown() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "secret")]);
    let build = Build::new(&server, 1, "p");
    let done = build.out(&json!({"acquire": true, "token": "hunter2"})).failed(1, "unauthorized");
    assert!(!done.stderr.contains("hunter2"));
}

#[test]
fn the_log_level_decides_what_the_log_shows() {
    let server = Server::start();
    let holder = Build::new(&server, 1, "p");
    holder.out(&json!({"acquire": true})).ok();
    let lines = |level: &str| {
        let source = json!({"pool": "p", "log_level": level, "branch": "main"});
        let build = Build::with_source(&server, 2, &source);
        build.out(&json!({"acquire": true, "timeout": "300ms"})).failed(1, "no lock within").stderr
    };
    let [error, warn, info, debug] = ["error", "warn", "info", "debug"].map(lines);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!((warn.lines().count(), warn.contains("warning: ignored")), (2, true), "{warn}");
    let first = info.lines().nth(1).unwrap();
    assert!(first.contains("asking http://127.0.0.1") && first.contains("for a lock of pool \"p\""), "{first}");
    assert!(info.contains("waiting: place 1 in the queue; held: \"p\" by main/app/deploy #1"), "{info}");
    assert!(!info.contains("debug:") && debug.contains("debug: claim "), "{debug}");
}

#[test]
fn a_waiter_hears_how_long_it_may_take_once_that_is_known() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let guess = |server: &Server| {
        let waiter = Build::new(server, 2, "p").put(&json!({"acquire": true}));
        let line = waiter.until_stderr("waiting: place 1");
        waiter.signal(nix::sys::signal::Signal::SIGTERM);
        waiter.finish();
        line
    };
    for round in 0..6 {
        build.out(&json!({"acquire": true})).ok();
        if round == 0 {
            assert!(!guess(&server).contains("by recent holds"), "one hold says nothing");
        }
        build.out(&json!({"release": "build"})).ok();
    }
    build.out(&json!({"acquire": true})).ok();
    let line = guess(&server);
    assert!(line.contains("; about ") && line.ends_with("s by recent holds"), "{line}");
    eventually("nobody waits", || (server.pool("p")["waiting"] == 0).then_some(()));
}
